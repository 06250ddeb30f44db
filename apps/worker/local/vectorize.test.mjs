import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { startTestWorker } from "./testing/start.mjs";

let worker;
const call = (...args) => worker.call("VECTORIZE", args);

before(async () => {
  worker = await startTestWorker({ vectorize: { dimensions: 2 } });
  await call("upsert", [
    { id: "a:1", namespace: "a", values: [1, 0], metadata: { kind: "note", page: 1, by: { name: "x" } } },
    { id: "a:2", namespace: "a", values: [0.8, 0.6], metadata: { kind: "note", page: 2 } },
    { id: "a:3", namespace: "a", values: [0, 1], metadata: { kind: "file", page: 3 } },
    { id: "b:1", namespace: "b", values: [1, 0] },
  ]);
});
after(() => worker.stop());

const ids = ({ matches }) => matches.map(({ id }) => id);

test("a write is told by its mutation, and a deletion too", async () => {
  const { mutationId } = await call("upsert", [{ id: "new", namespace: "new", values: [1, 0] }]);
  assert.match(mutationId, /^[0-9a-f-]{36}$/);
  assert.deepEqual(await call("getByIds", ["new", "none"]), [{ id: "new", namespace: "new", values: [1, 0] }]);
  assert.equal((await call("describe")).processedUpToMutation, mutationId);
  await call("deleteByIds", ["new"]);
  assert.deepEqual(await call("getByIds", ["new"]), []);
});

test("a namespace holds its own, nearest first", async () => {
  const found = await call("query", [1, 0], { namespace: "a" });
  assert.equal(found.count, 3);
  assert.deepEqual(ids(found), ["a:1", "a:2", "a:3"]);
  assert.deepEqual(
    found.matches.map(({ score }) => Math.round(score * 10)),
    [10, 8, 0],
  );
  assert.deepEqual(found.matches[0], { id: "a:1", score: 1, namespace: "a" });
  assert.deepEqual(ids(await call("query", [1, 0], { namespace: "b" })), ["b:1"]);
  assert.deepEqual(ids(await call("query", [1, 0], { namespace: "c" })), []);
  assert.equal((await call("query", [1, 0], {})).count, 4);
});

for (const [filter, wanted] of [
  [{ kind: "note" }, [1, 2]],
  [{ kind: { $eq: "file" } }, [3]],
  [{ kind: { $ne: "note" } }, [3]],
  [{ page: { $in: [1, 3] } }, [1, 3]],
  [{ page: { $nin: [1, 3] } }, [2]],
  [{ page: { $lt: 2 } }, [1]],
  [{ page: { $lte: 2 } }, [1, 2]],
  [{ page: { $gt: 2 } }, [3]],
  [{ page: { $gte: 2, $lt: 3 }, kind: "note" }, [2]],
  [{ "by.name": "x" }, [1]],
  [{ page: { $gt: "1" } }, []],
  [{ page: { $like: 1 } }, []],
]) {
  test(`the filter ${JSON.stringify(filter)}`, async () => {
    assert.deepEqual(
      ids(await call("query", [1, 0], { namespace: "a", filter })),
      wanted.map((n) => `a:${n}`),
    );
  });
}

test("values and metadata come when they are asked for", async () => {
  const [hit] = (await call("query", [1, 0], { namespace: "a", topK: 1, returnValues: true, returnMetadata: "all" }))
    .matches;
  assert.deepEqual(hit, {
    id: "a:1",
    score: 1,
    namespace: "a",
    values: [1, 0],
    metadata: { kind: "note", page: 1, by: { name: "x" } },
  });
  const near = await call("queryById", "a:2", { namespace: "a", topK: 1 });
  assert.deepEqual(ids(near), ["a:2"]);
});

test("topK has the limits of Vectorize", async () => {
  const error = async (options) => (await call("query", [1, 0], options)).message;
  assert.equal(await error({ topK: 100 }), undefined);
  assert.equal(await error({ topK: 101 }), "VECTOR_QUERY_ERROR (code = 40025): max top K is 100, but got 101");
  assert.equal(await error({ topK: 20, returnMetadata: "all" }), undefined);
  for (const more of [{ returnMetadata: "all" }, { returnValues: true }]) {
    assert.equal(await error({ topK: 21, ...more }), "VECTOR_QUERY_ERROR (code = 40025): max top K is 20, but got 21");
  }
  assert.match(await error({ topK: 0 }), /40025/);
});

test("what does not fit is refused, and nothing of its batch is written", async () => {
  const values = [1, 0];
  for (const wrong of [
    { id: "x".repeat(65), values },
    { id: "é".repeat(33), values },
    { id: "", values },
    { id: "x", namespace: "n".repeat(65), values },
    { id: "x", values: [1, 0, 0] },
    { id: "x", values, metadata: { text: "t".repeat(11_000) } },
    { id: "x", values, metadata: { "a.b": 1 } },
    { id: "x", values, metadata: { $a: 1 } },
  ]) {
    const { message } = await call("upsert", [{ id: "first", values }, wrong]);
    assert.match(message, /^VECTOR_UPSERT_ERROR \(code = 400\d\d\): /, JSON.stringify(wrong).slice(0, 80));
  }
  assert.match((await call("query", [1, 0, 0], {})).message, /expected 2 dimensions, and got 3/);
  assert.deepEqual(await call("getByIds", ["first", "x"]), []);
});

test("ids are global: a vector moves to another namespace, and an insert leaves what is there", async () => {
  await call("upsert", [{ id: "moved", namespace: "m", values: [1, 0] }]);
  await call("insert", [{ id: "moved", namespace: "ignored", values: [0, 1] }]);
  assert.equal((await call("getByIds", ["moved"]))[0].namespace, "m");
  await call("upsert", [{ id: "moved", namespace: "n", values: [0, 1] }]);
  assert.deepEqual(await call("getByIds", ["moved"]), [{ id: "moved", namespace: "n", values: [0, 1] }]);
  await call("deleteByIds", ["moved"]);
  const { vectorCount, dimensions } = await call("describe");
  assert.deepEqual([vectorCount, dimensions], [4, 2]);
});

test("faults come and go", async () => {
  worker.standins.setFault("VECTORIZE", "error");
  assert.match((await call("query", [1, 0], {})).message, /^VECTOR_QUERY_ERROR/);
  worker.standins.setFault("VECTORIZE", null);
  assert.equal((await call("query", [1, 0], {})).message, undefined);
});
