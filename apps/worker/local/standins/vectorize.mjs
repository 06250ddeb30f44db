// Vectorize over HTTP, as the runtime's `VectorizeIndexImpl` speaks it: an index in memory for each binding.

import { randomUUID } from "node:crypto";

import { Refused, VectorIndex } from "./vector-index.mjs";
import { jsonAnswer, parsed, text } from "./wire.mjs";

export class Vectorize {
  #options;
  #indexes = new Map();
  #seen = { calls: 0, operations: {} };

  constructor(options = {}) {
    this.#options = options;
  }

  metrics() {
    return structuredClone(this.#seen);
  }

  count({ url }) {
    const operation = url.pathname.slice(1);
    this.#seen.calls += 1;
    this.#seen.operations[operation] = (this.#seen.operations[operation] ?? 0) + 1;
  }

  fail({ response }) {
    jsonAnswer(response, 500, { code: 10001, error: "internal error, as the test wants it" });
  }

  async answer({ binding, url, request, response }) {
    const body = await text(request);
    try {
      jsonAnswer(response, 200, this.#operate(this.#index(binding), url.pathname.slice(1), body));
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      jsonAnswer(response, 400, { code: error.code, error: error.message });
    }
  }

  #index(binding) {
    if (!this.#indexes.has(binding)) this.#indexes.set(binding, new VectorIndex(this.#options));
    return this.#indexes.get(binding);
  }

  #operate(index, operation, body) {
    switch (operation) {
      case "info":
        return index.info();
      case "upsert":
      case "insert": {
        const vectors = body.split("\n").filter(Boolean).map(parsed);
        return mutation((id) => index.write(vectors, { id, overwrite: operation === "upsert" }));
      }
      case "deleteByIds":
        return mutation((id) => index.delete(parsed(body)?.ids, id));
      case "getByIds":
        return index.get(parsed(body)?.ids);
      case "query":
        return index.query(parsed(body));
      default:
        throw new Refused(40004, `the stand-in for Vectorize does not have the operation ${operation}`);
    }
  }
}

/** Writes are only noted; the id says how far the index has come. */
function mutation(write) {
  const mutationId = randomUUID();
  write(mutationId);
  return { mutationId };
}
