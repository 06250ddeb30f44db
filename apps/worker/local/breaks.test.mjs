import assert from "node:assert/strict";
import { test } from "node:test";

import { startTestWorker } from "./testing/start.mjs";
import { sleep } from "./testing/upstream.mjs";

const statement = [
  ["prepare", "SELECT ?1 AS n"],
  ["bind", 1],
];
const CALLS = {
  CONFIG: [[["get", "k"]], [["put", "k", "v"]], [["list"]], [["delete", "k"]], [["getWithMetadata", "k"]]],
  CACHE: [[["get", "k"]]],
  DB: [
    ...["all", "first", "run", "raw"].map((method) => [...statement, [method]]),
    [["batch", []]],
    [["exec", "SELECT 1"]],
  ],
  AI: [[["run", "m", { messages: [] }, {}]]],
  VECTORIZE: [[["query", Array(1024).fill(1), {}]], [["upsert", []]]],
  CHAT_SESSION: [
    [
      ["getByName", "x"],
      ["fetch", "http://object/"],
    ],
  ],
  RATE_LIMITER_DO: [
    [
      ["getByName", "x"],
      ["fetch", "http://object/"],
    ],
  ],
  TENANT_LEDGER: [
    [
      ["getByName", "x"],
      ["fetch", "http://object/"],
    ],
  ],
};
const NAMES = {
  CONFIG: "KvNamespace",
  DB: "D1Database",
  AI: "Ai",
  CHAT_SESSION: "DurableObjectNamespace",
  VECTORIZE: "VectorizeIndexImpl",
};
const all = (how) => Object.fromEntries(Object.keys(CALLS).map((binding) => [binding, how]));

for (const how of ["throws", "hangs"]) {
  test(`every call of a binding that ${how}, and the binding looks right`, async () => {
    const worker = await startTestWorker({ breaks: all(how) });
    try {
      const names = await (await worker.post({})).json();
      for (const [binding, name] of Object.entries(NAMES)) assert.equal(names[binding], name);
      for (const [binding, ways] of Object.entries(CALLS)) {
        for (const calls of ways) {
          const answer = worker.call(binding, ...calls).catch((error) => ({ lost: error.message }));
          const outcome = await Promise.race([answer, sleep(how === "hangs" ? 400 : 5000).then(() => "hangs")]);
          const what = `${binding} ${JSON.stringify(calls.at(-1)).slice(0, 40)}: ${JSON.stringify(outcome)}`;
          if (how === "hangs") assert.equal(outcome, "hangs", what);
          else assert.match(outcome.message, /as the test wants it/, what);
        }
      }
    } finally {
      await worker.stop();
    }
  });
}

test("the others work, and so does the binding of those who set the Worker up", async () => {
  const worker = await startTestWorker({
    breaks: { CONFIG: "throws", CHAT_SESSION: "throws" },
    kv: { CONFIG: { k: "v" } },
  });
  try {
    assert.equal(await (await worker.kv("CONFIG")).get("k"), "v");
    assert.deepEqual((await worker.call("DB", ...statement, ["all"])).results, [{ n: 1 }]);
    assert.deepEqual(await (await worker.post({ binding: "TENANT_LEDGER", calls: CALLS.TENANT_LEDGER[0] })).json(), {
      hits: 1,
    });
    // An object's own bindings break as well.
    const inside = await worker.post({
      binding: "TENANT_LEDGER",
      calls: [
        ["getByName", "x"],
        ["fetch", "http://object/config"],
      ],
    });
    assert.match((await inside.json()).message, /CONFIG is broken/);
  } finally {
    await worker.stop();
  }
});

test("a way to break that is none is refused", async () => {
  await assert.rejects(startTestWorker({ breaks: { CONFIG: "explodes" } }), /"throws" or "hangs"/);
});
