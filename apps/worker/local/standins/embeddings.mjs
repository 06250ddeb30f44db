// Embeddings without a model: texts that share words are near each other, and the same text is always at the same place.

import { createHash } from "node:crypto";

const DIMENSIONS = 1024;

/** Answers as `@cf/baai/bge-m3` does; `undefined` where the inputs are not its. */
export function embeddings({ text, query, contexts }) {
  if (text !== undefined) {
    const texts = Array.isArray(text) ? text : [text];
    if (texts.length > 100 || !texts.every((t) => typeof t === "string")) return undefined;
    return { shape: [texts.length, DIMENSIONS], data: texts.map(embedding), pooling: "cls" };
  }
  if (!Array.isArray(contexts) || !contexts.every((context) => typeof context?.text === "string")) return undefined;
  const vectors = contexts.map((context) => embedding(context.text));
  if (query === undefined) return { response: vectors, shape: [vectors.length, DIMENSIONS], pooling: "cls" };
  const asked = embedding(String(query));
  const scores = vectors.map((vector, id) => ({ id, score: vector.reduce((sum, x, i) => sum + x * asked[i], 0) }));
  return { response: scores.sort((a, b) => b.score - a.score) };
}

/** Each word adds to a few places, by its hash. */
function embedding(text) {
  const vector = new Array(DIMENSIONS).fill(0);
  for (const word of text.toLowerCase().match(/[\p{L}\p{N}]+/gu) ?? [""]) {
    const hash = createHash("sha256").update(word).digest();
    for (let at = 0; at < hash.length; at += 4) {
      vector[hash.readUInt16BE(at) % DIMENSIONS] += hash[at + 2] & 1 ? 1 : -1;
    }
  }
  const length = Math.hypot(...vector);
  // Two words may cancel each other out; no vector may be nothing.
  if (length === 0) return vector.map((_, at) => (at === 0 ? 1 : 0));
  return vector.map((x) => x / length);
}
