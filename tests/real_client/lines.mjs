// Text, both ways → commands of the test, and questions to it: one JSON object a line.
//
//   test → {"id": 1, "do": "open", …}          {"id": 1, "gives": …} or {"id": 1, "fails": "…"}
//   here → {"ask": 1, "what": "token", …}      {"answer": 1, "gives": …} or {"answer": 1, "fails": "…"}
//
// Commands run beside each other.

export class Lines {
  constructor(write) {
    this.write = write;
    this.commands = {};
    this.waiting = new Map();
    this.asked = 0;
    this.ask = this.ask.bind(this);
    this.tell = this.tell.bind(this);
  }

  say(line) {
    this.write(JSON.stringify(line) + '\n');
  }

  ask(what, fields) {
    this.asked += 1;
    this.say({ ask: this.asked, what, ...fields });
    return new Promise((resolve, reject) => this.waiting.set(this.asked, { resolve, reject }));
  }

  tell(event, fields) {
    this.say({ event, ...fields });
  }

  hear(text) {
    const line = JSON.parse(text);
    if ('answer' in line) this.answered(line);
    else this.run(line);
  }

  answered({ answer, gives, fails }) {
    const { resolve, reject } = this.waiting.get(answer);
    this.waiting.delete(answer);
    if (fails === undefined) resolve(gives);
    else reject(new Error(fails));
  }

  async run({ id, do: name, ...fields }) {
    try {
      this.say({ id, gives: (await this.commands[name](fields)) ?? null });
    } catch (error) {
      this.say({ id, fails: String(error?.stack ?? error) });
    }
  }
}

// Hear every line of a stream, to its end.
export async function readFrom(stream, lines) {
  let text = '';
  for await (const some of stream.setEncoding('utf8')) {
    const parts = (text + some).split('\n');
    text = parts.pop();
    for (const line of parts) lines.hear(line);
  }
}
