// Starts the Worker of the tests.

import { fileURLToPath } from "node:url";

import { startWorker } from "../runtime.mjs";

export const BUILD = fileURLToPath(new URL("worker", import.meta.url));

/** Starts it, with a function that has it make calls of a binding. */
export async function startTestWorker(config = {}) {
  const worker = await startWorker({ build: BUILD, ...config });
  /** The raw response. */
  const post = (body, init = {}) => fetch(worker.url, { method: "POST", body: JSON.stringify(body), ...init });
  return {
    ...worker,
    post,
    /** The result, or `{name, message}` of the error. */
    async call(binding, ...calls) {
      const answer = await (await post({ binding, calls })).json();
      return "result" in answer ? answer.result : answer;
    },
  };
}
