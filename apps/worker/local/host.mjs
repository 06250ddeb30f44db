// Runs the Worker for the tests. Reads its configuration (see `startWorker`) as one line of JSON, prints one line with its
// address, `{"url": "http://127.0.0.1:PORT"}`, and then answers each line with one line:
//
//   {"op": "kv.put", "namespace": "CONFIG", "key": "k", "value": "v"}   {"ok": true}
//   {"op": "kv.get" | "kv.delete", "namespace": "CONFIG", "key": "k"}   {"value": "v"}, {"ok": true}
//   {"op": "d1.query", "sql": "SELECT ?1 AS n", "params": [1]}          {"rows": [{"n": 1}]}
//   {"op": "fault", "binding": "AI", "fault": "error" | "hang" | null}  {"ok": true}
//   {"op": "metrics"}                                                   {"ai": {…}, "vectorize": {…}}
//
// What cannot be done is answered with {"error": "why"}. It ends, with workerd, when its input ends or on SIGTERM. What the
// Worker logs goes to standard error.

import { createInterface } from "node:readline";

import { startWorker } from "./runtime.mjs";

const lines = createInterface({ input: process.stdin, crlfDelay: Infinity });
let worker;
let starting = false;
let answers = Promise.resolve();

function say(value) {
  process.stdout.write(`${JSON.stringify(value)}\n`);
}

async function stop(code) {
  // Whatever hangs below must not keep the process.
  setTimeout(() => process.exit(code), 5000).unref();
  await worker?.stop().catch(() => {});
  process.exit(code);
}

async function start(line) {
  try {
    worker = await startWorker(JSON.parse(line));
    say({ url: worker.url });
  } catch (error) {
    console.error("host:", error);
    say({ error: error.message });
    await stop(1);
  }
}

async function operate({ op, namespace, key, value, sql, params = [], binding, fault }) {
  switch (op) {
    case "kv.put":
      await (await worker.kv(namespace)).put(key, value);
      return { ok: true };
    case "kv.get":
      return { value: await (await worker.kv(namespace)).get(key) };
    case "kv.delete":
      await (await worker.kv(namespace)).delete(key);
      return { ok: true };
    case "d1.query": {
      const { results } = await (
        await worker.database()
      )
        .prepare(sql)
        .bind(...params)
        .all();
      return { rows: results };
    }
    case "fault":
      worker.standins.setFault(binding, fault);
      return { ok: true };
    case "metrics":
      return worker.standins.metrics();
    default:
      throw new Error(`there is no operation ${op}`);
  }
}

lines.on("line", (line) => {
  if (!line.trim()) return;
  if (!starting) {
    starting = true;
    answers = start(line);
    return;
  }
  // One after the other, so that the answers come in the order of the questions.
  answers = answers
    .then(async () => operate(JSON.parse(line)))
    .catch((error) => ({ error: error.message }))
    .then(say);
});
lines.on("close", () => void answers.then(() => stop(0)));
for (const signal of ["SIGTERM", "SIGINT"]) process.on(signal, () => void stop(0));
