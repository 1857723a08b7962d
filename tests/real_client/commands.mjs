// Commands → databases of the published SDK, each as an app would hold it on a phone.
//
// What opens a database, and how to ask and tell the test, differ between Node and browsers.

import { column, LogLevels, Schema, SyncStreamConnectionMethod, Table } from '@powersync/common';

const phones = new Map();
const LEVELS = new Map(Object.entries(LogLevels).map(([name, level]) => [level, name]));
const OFTEN_MS = 25;

function schema(tables) {
  const made = {};
  for (const [name, columns] of Object.entries(tables)) {
    const typed = Object.entries(columns).map(([name, type]) => [name, column[type]]);
    made[name] = new Table(Object.fromEntries(typed));
  }
  return new Schema(made);
}

class Phone {
  constructor(name, { ask, tell }) {
    this.name = name;
    this.ask = ask;
    this.tell = tell;
    this.isNdjson = false;
    this.subscriptions = new Map();
  }

  log({ level, message, error }) {
    if (level < LogLevels.info) return;
    this.tell('log', { phone: this.name, level: LEVELS.get(level) ?? String(level), line: message, error: error ? String(error) : null });
  }

  // What a browser does, with the answer's type told to the test; and as SDKs do that do not know BSON.
  async fetch(url, init) {
    const headers = new Headers(init.headers);
    if (this.isNdjson && headers.has('accept')) headers.set('accept', 'application/x-ndjson');
    const answer = await fetch(url, { ...init, headers });
    this.tell('answer', { phone: this.name, path: new URL(url).pathname, status: answer.status, type: answer.headers.get('content-type') });
    return answer;
  }

  async fetchCredentials() {
    return await this.ask('credentials', { phone: this.name });
  }

  async uploadData(db) {
    for (let work = await db.getNextCrudTransaction(); work !== null; work = await db.getNextCrudTransaction()) {
      const crud = work.crud.map(({ op, table, id, opData }) => ({ op, table, id, data: opData ?? {} }));
      await this.ask('upload', { phone: this.name, crud });
      await work.complete();
    }
  }

  status() {
    const now = this.db.currentStatus;
    return {
      connected: now.connected,
      connecting: now.connecting,
      uploading: now.uploading,
      hasSynced: now.hasSynced ?? false,
      lastSyncedAt: now.lastSyncedAt?.getTime() ?? null,
      downloadError: now.downloadError ? String(now.downloadError) : null,
      uploadError: now.uploadError ? String(now.uploadError) : null,
      priorities: (now.priorityStatusEntries ?? []).filter((one) => one.hasSynced).map((one) => one.priority),
      streams: (now.syncStreams ?? []).map(({ subscription: one }) => ({
        name: one.name, parameters: one.parameters, active: one.active, hasSynced: one.hasSynced
      }))
    };
  }
}

async function until(seconds, look, what) {
  const deadline = performance.now() + seconds * 1000;
  for (;;) {
    const seen = await look();
    if (seen.is) return seen.gives;
    if (performance.now() > deadline) throw new Error(`not within ${seconds} s: ${what}; last: ${JSON.stringify(seen.gives).slice(0, 2000)}`);
    await new Promise((resolve) => setTimeout(resolve, OFTEN_MS));
  }
}

const the = ({ phone }) => phones.get(phone);
const rows = async (phone, sql, params) => (await the({ phone }).db.getAll(sql, params)).map(Object.values);

export const commands = (open, channel) => ({
  async open({ phone, file, tables }) {
    const one = new Phone(phone, channel);
    phones.set(phone, one);
    one.db = open({ schema: schema(tables), logger: { log: (record) => one.log(record) } }, file, (url, init) => one.fetch(url, init));
    await one.db.init();
  },

  // Whether and when it connects shows in the status.
  connect({ phone, transport, params, checkpointMode }) {
    const one = the({ phone });
    one.isNdjson = transport === 'ndjson';
    const isSocket = transport === 'websocket';
    one.db.connect(one, {
      connectionMethod: isSocket ? SyncStreamConnectionMethod.WEB_SOCKET : SyncStreamConnectionMethod.HTTP,
      retryDelayMs: 200,
      crudUploadThrottleMs: 20,
      params: params ?? {},
      checkpointMode: checkpointMode ?? 'legacy'
    }).catch((error) => one.tell('log', { phone, level: 'error', line: 'connect failed', error: String(error) }));
  },

  disconnect: (said) => the(said).db.disconnect(),
  clear: (said) => the(said).db.disconnectAndClear(),
  close: async (said) => { await the(said).db.close(); phones.delete(said.phone); },

  ask: ({ phone, sql, params }) => rows(phone, sql, params),
  execute: async ({ phone, sql, params }) => { await the({ phone }).db.execute(sql, params); },

  until: ({ phone, sql, params, wanted, seconds }) => until(seconds, async () => {
    const gives = await rows(phone, sql, params);
    return { is: JSON.stringify(gives) === JSON.stringify(wanted), gives };
  }, `${sql} → ${JSON.stringify(wanted).slice(0, 500)}`),

  status: (said) => the(said).status(),
  untilStatus: ({ phone, wanted, seconds }) => until(seconds, () => {
    const gives = the({ phone }).status();
    return { is: Object.entries(wanted).every(([key, value]) => JSON.stringify(gives[key]) === JSON.stringify(value)), gives };
  }, JSON.stringify(wanted)),
  untilSyncedAfter: ({ phone, moment, seconds }) => until(seconds, () => {
    const gives = the({ phone }).status();
    return { is: gives.lastSyncedAt !== null && gives.lastSyncedAt > (moment ?? 0), gives };
  }, `synced after ${moment}`),

  async subscribe({ phone, stream, params, priority }) {
    const options = priority === null ? {} : { priority };
    const subscription = await the({ phone }).db.syncStream(stream, params ?? undefined).subscribe(options);
    the({ phone }).subscriptions.set(JSON.stringify([stream, params]), subscription);
  },
  unsubscribe({ phone, stream, params }) {
    the({ phone }).subscriptions.get(JSON.stringify([stream, params])).unsubscribe();
  },
  untilSubscriptionSynced: async ({ phone, stream, params, seconds }) =>
    await the({ phone }).subscriptions.get(JSON.stringify([stream, params])).waitForFirstSync(AbortSignal.timeout(seconds * 1000)),

  dump: async ({ phone, columns }) => {
    const found = {};
    for (const [table, names] of Object.entries(columns))
      found[table] = await rows(phone, `SELECT ${names.map((name) => `"${name}"`).join(', ')} FROM "${table}"`, []);
    return found;
  }
});
