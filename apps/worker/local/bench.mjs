// Measures the built Worker in workerd on this machine, with a model that answers at once: what the Worker itself costs.
// Ratios within one run say more than the figures, which depend on the machine: node apps/worker/local/bench.mjs

import { randomUUID } from "node:crypto";
import { createServer } from "node:http";
import { fileURLToPath } from "node:url";

import { startWorker } from "./runtime.mjs";

const CALLS = 300;
const root = fileURLToPath(new URL("../../..", import.meta.url));

const events = [
  '{"choices":[{"index":0,"delta":{"content":"hello"}}]}',
  '{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}',
  "[DONE]",
];
const model = createServer((request, response) => {
  request.resume().on("end", () => {
    response.writeHead(200, { "content-type": "text/event-stream" });
    response.end(events.map((data) => `data: ${data}\n\n`).join(""));
  });
});
await new Promise((listening) => model.listen(0, "127.0.0.1", listening));

const tenant = { tenantId: "bench", aiModels: { chat: "m" }, auth: { mode: "open" }, rateLimit: { perMinute: 1e6 } };
const worker = await startWorker({
  build: `${root}apps/worker/build`,
  vars: { ENVIRONMENT: "bench", ENIGMA_GATEWAY_ID: "bench", ENIGMA_LOG_LEVEL: "error" },
  kv: { CONFIG: { tenants: JSON.stringify({ tenants: { bench: tenant } }) } },
  migrations: `${root}crates/cloudflare/migrations`,
  upstream: `http://127.0.0.1:${model.address().port}/v1`,
});

async function get(path) {
  const response = await fetch(worker.url + path);
  await response.text();
}

async function chat(sessionId) {
  const response = await fetch(`${worker.url}/chat`, {
    method: "POST",
    headers: { "x-tenant-id": "bench", "content-type": "application/json" },
    body: JSON.stringify({ sessionId, message: "hi", stream: false }),
  });
  const text = await response.text();
  if (response.status !== 200) throw new Error(text);
}

async function measure(name, call) {
  const times = [];
  for (let n = 0; n < CALLS; n++) {
    const start = performance.now();
    await call();
    times.push(performance.now() - start);
  }
  times.sort((a, b) => a - b);
  const at = (share) => times[Math.floor(share * (CALLS - 1))].toFixed(1);
  console.log(`${name.padEnd(28)} p50 ${at(0.5)} ms, p95 ${at(0.95)} ms`);
}

const start = performance.now();
await get("/healthz");
console.log(`${"first request of an isolate".padEnd(28)} ${(performance.now() - start).toFixed(1)} ms`);
await measure("GET /healthz", () => get("/healthz"));
await measure("chat, a new session each", () => chat(randomUUID()));
const session = randomUUID();
await measure("chat, one session", () => chat(session));

await worker.stop();
model.close();
