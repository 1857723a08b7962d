// Requests to where this page came from → phones in this page.

import { PowerSyncDatabase } from '@powersync/web';
import { commands } from './commands.mjs';
import { Lines } from './lines.mjs';

const WORKER = '/worker/worker.js';

// One request after the other, so that lines arrive in the order in which they were said.
let said = Promise.resolve();
const lines = new Lines((text) => {
  said = said.then(() => fetch('/said', { method: 'POST', body: text }));
});

const open = (options, file) =>
  new PowerSyncDatabase({ ...options, database: { dbFilename: file, worker: WORKER }, sync: { worker: WORKER } });

lines.commands = commands(open, lines);
for (const kind of ['error', 'unhandledrejection'])
  addEventListener(kind, (event) => lines.say({ page: String(event.reason?.stack ?? event.error?.stack ?? event.message) }));

for (;;) {
  const answer = await fetch('/orders');
  for (const line of (await answer.text()).split('\n')) if (line) lines.hear(line);
}
