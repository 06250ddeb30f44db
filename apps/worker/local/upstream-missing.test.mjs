import assert from "node:assert/strict";
import { test } from "node:test";

import { startTestWorker } from "./testing/start.mjs";

const run = ["run", "m", { messages: [{ role: "user", content: "hi" }] }, {}];

for (const [what, upstream] of [
  ["does not listen", "http://127.0.0.1:1/v1"],
  ["was not given", null],
]) {
  test(`an upstream that ${what} is an internal error of Workers AI`, async () => {
    const worker = await startTestWorker({ upstream });
    try {
      const { name, message } = await worker.call("AI", run);
      assert.equal(name, "InferenceUpstreamError");
      assert.match(message, /^3043: /);
    } finally {
      await worker.stop();
    }
  });
}
