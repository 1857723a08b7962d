// Standard input and output → commands of the test, and questions to it: one JSON object a line, both ways.
//
//   test → {"id": 1, "do": "open", …}          {"id": 1, "gives": …} or {"id": 1, "fails": "…"}
//   here → {"ask": 1, "what": "token", …}      {"answer": 1, "gives": …} or {"answer": 1, "fails": "…"}
//
// Commands run beside each other; the end of the input is the end of the process.

import { createInterface } from 'node:readline';

const waiting = new Map();
let asked = 0;

const say = (line) => process.stdout.write(JSON.stringify(line) + '\n');

export function ask(what, fields) {
  asked += 1;
  say({ ask: asked, what, ...fields });
  return new Promise((resolve, reject) => waiting.set(asked, { resolve, reject }));
}

export const tell = (event, fields) => say({ event, ...fields });

export async function obey(commands) {
  for await (const line of createInterface({ input: process.stdin })) {
    const said = JSON.parse(line);
    if ('answer' in said) answered(said);
    else run(commands, said);
  }
  process.exit(0);
}

function answered({ answer, gives, fails }) {
  const { resolve, reject } = waiting.get(answer);
  waiting.delete(answer);
  if (fails === undefined) resolve(gives);
  else reject(new Error(fails));
}

async function run(commands, { id, do: name, ...fields }) {
  try {
    say({ id, gives: (await commands[name](fields)) ?? null });
  } catch (error) {
    say({ id, fails: String(error?.stack ?? error) });
  }
}
