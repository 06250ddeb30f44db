// A vector index in memory, with the limits of Vectorize.

import { matches } from "./filter.mjs";

// With values or metadata newer documentation allows 50; whoever keeps to 20 suits both.
const LIMITS = { name: 64, metadata: 10 * 1024, batch: 1000, topK: 100, fullTopK: 20, ids: 100, indexedText: 64 };

/** What Vectorize refuses. The code of the largest topK is its own; the others only look like its, and say nothing. */
export class Refused extends Error {
  constructor(code, message) {
    super(message);
    this.code = code;
  }
}

export class VectorIndex {
  #dimensions;
  #metadataIndexes;
  #visibleAfterMs;
  #now;
  #vectors = new Map();
  #pending = [];
  #processed = { at: 0, id: "" };

  /** Without `metadataIndexes`, every property can be filtered by. */
  constructor({ dimensions = 1024, metadataIndexes = null, visibleAfterMs = 0, now = Date.now } = {}) {
    this.#dimensions = dimensions;
    this.#metadataIndexes = metadataIndexes;
    this.#visibleAfterMs = visibleAfterMs;
    this.#now = now;
  }

  info() {
    this.#settle();
    return {
      vectorCount: this.#vectors.size,
      dimensions: this.#dimensions,
      processedUpToDatetime: this.#processed.at,
      processedUpToMutation: this.#processed.id,
    };
  }

  /** Ids are global to the index: a vector takes the place of one of another namespace. */
  write(vectors, { id, overwrite }) {
    if (vectors.length > LIMITS.batch)
      throw new Refused(40009, `at most ${LIMITS.batch} vectors at once, but got ${vectors.length}`);
    for (const vector of vectors) this.#check(vector);
    this.#later(id, () => {
      for (const vector of vectors) {
        if (overwrite || !this.#vectors.has(vector.id)) this.#vectors.set(vector.id, vector);
      }
    });
  }

  delete(ids, id) {
    checkIds(ids);
    this.#later(id, () => ids.forEach((gone) => this.#vectors.delete(gone)));
  }

  get(ids) {
    checkIds(ids);
    this.#settle();
    return ids.filter((id) => this.#vectors.has(id)).map((id) => this.#vectors.get(id));
  }

  query(query) {
    const { topK = 5, namespace, filter, returnValues = false, returnMetadata = "none" } = query ?? {};
    this.#settle();
    const most = returnValues || returnMetadata === "all" ? LIMITS.fullTopK : LIMITS.topK;
    if (!Number.isInteger(topK) || topK < 1)
      throw new Refused(40025, `top K must be a positive number, but got ${topK}`);
    if (topK > most) throw new Refused(40025, `max top K is ${most}, but got ${topK}`);
    const asked = query.vector ?? this.#vectors.get(query.vectorId)?.values;
    if (!asked) throw new Refused(40007, "there is no vector to look for");
    this.#checkValues(asked, 40006, "query vector");
    const found = [...this.#vectors.values()]
      .filter((vector) => namespace === undefined || vector.namespace === namespace)
      .filter((vector) => matches(this.#searchable(vector), filter))
      .map((vector) => ({ score: cosine(asked, vector.values), vector }))
      .sort((a, b) => b.score - a.score)
      .slice(0, topK)
      .map(({ score, vector }) => this.#hit(score, vector, { returnValues, returnMetadata }));
    return { count: found.length, matches: found };
  }

  #hit(score, vector, { returnValues, returnMetadata }) {
    const hit = { id: vector.id, score };
    if (vector.namespace !== undefined) hit.namespace = vector.namespace;
    if (returnValues) hit.values = vector.values;
    if (returnMetadata === "all" && vector.metadata) hit.metadata = vector.metadata;
    if (returnMetadata === "indexed" && vector.metadata) hit.metadata = this.#searchable(vector);
    return hit;
  }

  /** What filters see: only properties with an index (a dot leads into an object), and of texts only the beginning. */
  #searchable({ metadata = {} }) {
    if (!this.#metadataIndexes) return metadata;
    const seen = {};
    for (const path of this.#metadataIndexes) {
      const keys = path.split(".");
      const value = keys.reduce((inside, key) => inside?.[key], metadata);
      if (value === undefined) continue;
      const last = keys.pop();
      const place = keys.reduce((inside, key) => (inside[key] ??= {}), seen);
      place[last] = typeof value === "string" ? beginning(value) : value;
    }
    return seen;
  }

  #check(vector) {
    checkName(vector?.id, 40010, "id");
    if (vector.namespace !== undefined) checkName(vector.namespace, 40011, "namespace");
    this.#checkValues(vector.values, 40012, `vector for id="${vector.id}"`);
    const metadata = vector.metadata ?? {};
    if (Buffer.byteLength(JSON.stringify(metadata)) > LIMITS.metadata) {
      throw new Refused(40013, `metadata of id="${vector.id}" is larger than ${LIMITS.metadata} bytes`);
    }
    for (const key of Object.keys(metadata)) {
      if (!key || key.startsWith("$") || /[."]/.test(key)) throw new Refused(40014, `invalid metadata key "${key}"`);
    }
  }

  #checkValues(values, code, what) {
    if (!Array.isArray(values) || !values.every(Number.isFinite)) throw new Refused(code, `invalid ${what}`);
    if (values.length !== this.#dimensions) {
      throw new Refused(
        code,
        `invalid ${what}, expected ${this.#dimensions} dimensions, and got ${values.length} dimensions`,
      );
    }
  }

  #later(id, apply) {
    this.#pending.push({ at: this.#now() + this.#visibleAfterMs, id, apply });
  }

  #settle() {
    while (this.#pending[0]?.at <= this.#now()) {
      const { at, id, apply } = this.#pending.shift();
      apply();
      this.#processed = { at, id };
    }
  }
}

function checkName(name, code, what) {
  if (typeof name !== "string" || name === "") throw new Refused(code, `invalid ${what}`);
  if (Buffer.byteLength(name) > LIMITS.name) throw new Refused(code, `${what} is longer than ${LIMITS.name} bytes`);
}

function checkIds(ids) {
  if (!Array.isArray(ids) || !ids.every((id) => typeof id === "string")) throw new Refused(40005, "ids must be texts");
  if (ids.length > LIMITS.ids) throw new Refused(40005, `at most ${LIMITS.ids} ids at once, but got ${ids.length}`);
}

function beginning(value) {
  // Cut in bytes; what is left of a cut character is no character.
  return Buffer.from(value)
    .subarray(0, LIMITS.indexedText)
    .toString("utf8")
    .replace(/\ufffd+$/, "");
}

function cosine(a, b) {
  let [product, lengthA, lengthB] = [0, 0, 0];
  for (let i = 0; i < a.length; i += 1) {
    product += a[i] * b[i];
    lengthA += a[i] * a[i];
    lengthB += b[i] * b[i];
  }
  return lengthA && lengthB ? product / Math.sqrt(lengthA * lengthB) : 0;
}
