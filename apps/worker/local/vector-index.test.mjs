import assert from "node:assert/strict";
import { test } from "node:test";

import { VectorIndex } from "./standins/vector-index.mjs";

test("only properties with an index are searched, by their first 64 bytes, and come back as indexed", () => {
  const index = new VectorIndex({ dimensions: 1, metadataIndexes: ["title"] });
  const title = "é".repeat(40);
  index.write([{ id: "a", values: [1], metadata: { title, page: 1 } }], { id: "w", overwrite: true });
  const query = (more) => index.query({ vector: [1], ...more });
  assert.equal(query({ filter: { page: 1 } }).count, 0);
  assert.equal(query({ filter: { title: "é".repeat(32) } }).count, 1);
  assert.deepEqual(query({ returnMetadata: "indexed" }).matches[0].metadata, { title: "é".repeat(32) });
  assert.equal(query({ returnMetadata: "all" }).matches[0].metadata.title, title);
});

test("an index on what lies deeper is one of its path", () => {
  const index = new VectorIndex({ dimensions: 1, metadataIndexes: ["owner.team"] });
  const metadata = { owner: { team: "red", size: 2 }, page: 1 };
  index.write([{ id: "a", values: [1], metadata }, { id: "b", values: [1] }], { id: "w", overwrite: true });
  const query = (more) => index.query({ vector: [1], ...more });
  assert.equal(query({ filter: { "owner.team": { $in: ["red"] } } }).count, 1);
  assert.equal(query({ filter: { "owner.size": 2 } }).count, 0);
  assert.deepEqual(query({ returnMetadata: "indexed" }).matches[0].metadata, { owner: { team: "red" } });
});

test("a write is seen when its time has come, after those before it", () => {
  let time = 0;
  const index = new VectorIndex({ dimensions: 1, visibleAfterMs: 100, now: () => time });
  const write = (id) => index.write([{ id: "a", values: [1], namespace: id }], { id, overwrite: true });
  write("first");
  time = 60;
  write("second");
  assert.deepEqual([index.get(["a"]), index.info().vectorCount], [[], 0]);
  time = 100;
  assert.equal(index.get(["a"])[0].namespace, "first");
  time = 160;
  assert.equal(index.get(["a"])[0].namespace, "second");
  index.delete(["a"], "third");
  assert.equal(index.get(["a"]).length, 1);
  time = 260;
  assert.deepEqual([index.get(["a"]), index.info().processedUpToMutation], [[], "third"]);
});
