// Standard input and output → phones in this process.

import { PowerSyncDatabase } from '@powersync/node';
import { commands } from './commands.mjs';
import { Lines, readFrom } from './lines.mjs';

const lines = new Lines((text) => process.stdout.write(text));

function open(options, file, fetch) {
  const database = { dbFilename: file, implementation: { type: 'node:sqlite' }, readWorkerCount: 1 };
  return new PowerSyncDatabase({ ...options, database, remoteOptions: { customFetch: fetch } });
}

lines.commands = commands(open, lines);
await readFrom(process.stdin, lines);
process.exit(0);
