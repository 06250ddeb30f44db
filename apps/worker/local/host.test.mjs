import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

import { BUILD } from "./testing/start.mjs";
import { sleep } from "./testing/upstream.mjs";

const HOST = fileURLToPath(new URL("host.mjs", import.meta.url));

function startHost(config) {
  const child = spawn(process.execPath, [HOST], { stdio: ["pipe", "pipe", "pipe"] });
  const answers = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  let log = "";
  child.stderr.on("data", (text) => (log += text));
  const ended = new Promise((resolve) => child.once("close", (code, signal) => resolve(code ?? signal)));
  const ask = async (value) => {
    child.stdin.write(`${JSON.stringify(value)}\n`);
    return JSON.parse((await answers.next()).value);
  };
  return { child, ended, ask, log: () => log, ready: ask(config) };
}

const post = async (url, body) => (await fetch(url, { method: "POST", body: JSON.stringify(body) })).json();
const hit = {
  binding: "CHAT_SESSION",
  calls: [
    ["getByName", "x"],
    ["fetch", "http://object/"],
  ],
};
const listens = (url) =>
  fetch(url, { method: "POST", body: "{}" }).then(
    () => true,
    () => false,
  );

async function withDirectory(use) {
  const directory = await mkdtemp(join(tmpdir(), "enigma-host-"));
  try {
    await use(directory);
  } finally {
    await rm(directory, { recursive: true });
  }
}

test("what was kept is there after a restart, and migrations are applied once", () =>
  withDirectory(async (directory) => {
    await writeFile(
      join(directory, "0001_t.sql"),
      "-- a comment; with a semicolon\nCREATE TABLE t (n TEXT);\n\nINSERT INTO t VALUES ('a;b');\n",
    );
    const config = { build: BUILD, persist: join(directory, "state"), migrations: directory };
    for (const round of [1, 2]) {
      const host = startHost({ ...config, kv: { CONFIG: { round: String(round) } } });
      const { url } = await host.ready;
      assert.deepEqual(await post(url, hit), { hits: round });
      assert.deepEqual(await host.ask({ op: "d1.query", sql: "SELECT n FROM t" }), { rows: [{ n: "a;b" }] });
      assert.deepEqual(await host.ask({ op: "kv.get", namespace: "CONFIG", key: "k" }), {
        value: round === 1 ? null : "v",
      });
      assert.deepEqual(await host.ask({ op: "kv.get", namespace: "CONFIG", key: "round" }), { value: String(round) });
      assert.deepEqual(await host.ask({ op: "kv.put", namespace: "CONFIG", key: "k", value: "v" }), { ok: true });
      host.child.stdin.end();
      assert.equal(await host.ended, 0, host.log());
      assert.ok(!(await listens(url)));
    }
  }));

test("operations that cannot be done say why, and the host goes on", async () => {
  const host = startHost({ build: BUILD });
  await host.ready;
  assert.match((await host.ask({ op: "d1.query", sql: "SELEKT" })).error, /syntax error/);
  assert.match((await host.ask({ op: "dance" })).error, /no operation dance/);
  assert.equal((await host.ask({ op: "metrics" })).ai.calls, 0);
  host.child.stdin.end();
  assert.equal(await host.ended, 0);
});

test("a migration that fails ends the start, and is not half applied", () =>
  withDirectory(async (directory) => {
    await writeFile(join(directory, "0001_bad.sql"), "CREATE TABLE t (n);\nINSERT INTO nowhere VALUES (1);\n");
    const host = startHost({ build: BUILD, migrations: directory });
    assert.match((await host.ready).error, /0001_bad\.sql: .*nowhere/);
    assert.equal(await host.ended, 1);
  }));

test("a build that is not there ends the start", async () => {
  const host = startHost({ build: "/nowhere" });
  assert.match((await host.ready).error, /nowhere/);
  assert.equal(await host.ended, 1);
});

for (const signal of ["SIGTERM", "SIGKILL"]) {
  test(`workerd ends with its host by ${signal}`, async () => {
    const host = startHost({ build: BUILD });
    const { url } = await host.ready;
    assert.ok(await listens(url));
    host.child.kill(signal);
    assert.notEqual(await host.ended, 1, host.log());
    for (let waited = 0; waited < 2000 && (await listens(url)); waited += 50) await sleep(50);
    assert.ok(!(await listens(url)));
  });
}

test("an input that ends during the start ends the host", async () => {
  const host = startHost({ build: BUILD });
  host.child.stdin.end();
  await host.ready;
  assert.equal(await host.ended, 0);
});
