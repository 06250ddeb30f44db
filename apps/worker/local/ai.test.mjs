import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { startTestWorker } from "./testing/start.mjs";
import { chunk, sleep, startUpstream, status, tokens, whole } from "./testing/upstream.mjs";

/** The longest that anything may take, on a machine that is busy with other tests. */
const PATIENCE = 15_000;

let upstream;
let worker;
const gateway = { gateway: { id: "tenant-gateway" } };

before(async () => {
  upstream = await startUpstream();
  worker = await startTestWorker({ upstream: upstream.url, upstreamKey: "k", requireGateway: true });
});
after(async () => {
  await worker.stop();
  upstream.close();
});

const ended = async (model) => Promise.race([(await upstream.call(model)).closed, sleep(PATIENCE)]);
const prompt = (more = {}) => ({ messages: [{ role: "user", content: "hi" }], ...more });
const run = (model, inputs = prompt(), options = gateway) => worker.call("AI", ["run", model, inputs, options]);
const stream = (model, { options = gateway, ...more } = {}, init = {}) =>
  worker.post({ binding: "AI", calls: [["run", model, prompt({ stream: true }), options]], ...more }, init);

test("the stream opens before the first token, and every token leaves alone", async () => {
  const wanted = ["a", "b", "c", "d"];
  // Each is sent when the client has what came before: whatever keeps one back waits for ever.
  const gates = wanted.map(() => {
    let open;
    const opened = new Promise((resolve) => (open = resolve));
    return { open, opened };
  });
  upstream.script("gated", async (response) => {
    response.writeHead(200, { "content-type": "text/event-stream" });
    response.flushHeaders();
    for (const [n, text] of wanted.entries()) {
      await gates[n].opened;
      response.write(chunk(text));
    }
    response.end();
  });
  const response = await stream("gated", {}, { signal: AbortSignal.timeout(PATIENCE) });
  assert.equal(response.headers.get("x-result"), "stream");
  gates[0].open();
  const pieces = [];
  for await (const piece of response.body) {
    pieces.push(Buffer.from(piece).toString());
    gates[pieces.length]?.open();
  }
  assert.deepEqual(
    pieces,
    wanted.map((text) => chunk(text)),
  );
});

test("tokens keep their distance", async () => {
  upstream.script("slow", tokens(["a", "b", "c", "d"], { every: 200 }));
  const times = [];
  for await (const _ of (await stream("slow")).body) times.push(performance.now());
  // One that is late brings the next one nearer; all of them together take their time.
  assert.ok(times[3] - times[0] > 450, `${times.map((time) => Math.round(time - times[0]))}`);
});

test("what is asked, the options and the caller's headers reach the upstream", async () => {
  upstream.script("asked", whole("x"));
  const inputs = prompt({ max_tokens: 7, temperature: 0.5, seed: 1, tools: [], unknown: true });
  const options = {
    gateway: { id: "g", metadata: { tenantId: "café", traceId: "t" } },
    extraHeaders: { traceparent: "00-1" },
  };
  await run("asked", inputs, options);
  const { path, headers, body } = upstream.calls("asked")[0];
  assert.equal(path, "/v1/chat/completions");
  assert.deepEqual(body, {
    model: "asked",
    messages: inputs.messages,
    max_tokens: 7,
    temperature: 0.5,
    seed: 1,
    tools: [],
  });
  assert.equal(headers["x-standin-gateway"], "g");
  assert.deepEqual(JSON.parse(headers["x-standin-options"]), { gateway: options.gateway });
  assert.equal(headers.traceparent, "00-1");
  assert.equal(headers.authorization, "Bearer k");
  assert.ok(!Object.keys(headers).some((name) => name.startsWith("cf-") || name.startsWith("mf-")));
});

test("a stream asks for its usage, and a gateway's answer says its log", async () => {
  upstream.script("logged", tokens(["a"]));
  const response = await stream("logged", { options: { ...gateway, returnRawResponse: true } });
  assert.match(response.headers.get("cf-aig-log-id"), /^[0-9a-f-]{36}$/);
  assert.equal(response.headers.get("content-type"), "text/event-stream");
  assert.match(await response.text(), /^data: .*\[DONE\]\n\n$/s);
  assert.deepEqual(upstream.calls("logged")[0].body.stream_options, { include_usage: true });
});

test("a call without a gateway fails", async () => {
  const { withoutGateway } = worker.standins.metrics().ai;
  const { name, message } = await run("none", prompt(), {});
  assert.equal(name, "InferenceUpstreamError");
  assert.match(message, /^5004: .*gateway/);
  assert.equal(worker.standins.metrics().ai.withoutGateway, withoutGateway + 1);
});

for (const [how, more] of [
  ["cancels the stream", { cancelAfterFirst: true }],
  ["gives up before the answer", { giveUpAfterMs: 200 }],
]) {
  test(`the upstream sees that the Worker ${how}`, async () => {
    const model = `silent: ${how}`;
    upstream.script(model, (response) => {
      if (more.giveUpAfterMs) return;
      response.writeHead(200, { "content-type": "text/event-stream" });
      response.write(chunk("a"));
    });
    await (await stream(model, more)).json();
    assert.equal(await ended(model), "cancelled");
  });
}

test("a client that goes away reaches the upstream", async () => {
  upstream.script("left", tokens(Array(5000).fill("a"), { every: 20 }));
  const leave = new AbortController();
  const response = await stream("left", {}, { signal: leave.signal });
  await response.body.getReader().read();
  leave.abort();
  assert.equal(await ended("left"), "cancelled");
});

test("an upstream is not read faster than the client reads", async () => {
  const piece = chunk("x".repeat(1024));
  upstream.script("flood", async (response, call) => {
    response.writeHead(200, { "content-type": "text/event-stream" });
    while (!response.destroyed) {
      call.sent += piece.length;
      if (response.write(piece)) continue;
      await Promise.race([new Promise((resume) => response.once("drain", resume)), call.closed]);
    }
  });
  const leave = new AbortController();
  await stream("flood", {}, { signal: leave.signal });
  const call = await upstream.call("flood");
  let sent;
  do {
    sent = call.sent;
    await sleep(500);
    // What fits into the buffers of the sockets in between is less.
  } while (call.sent !== sent && sent < 256 << 20);
  leave.abort();
  assert.ok(sent < 256 << 20, `${sent} bytes were sent`);
  assert.equal(await ended("flood"), "cancelled");
});

for (const [code, said, wanted] of [
  [400, 400, 5004],
  [401, 401, 10000],
  [403, 401, 10000],
  [404, 400, 5007],
  [408, 408, 3007],
  [413, 400, 5004],
  [422, 400, 5004],
  [429, 429, 3040],
  [500, 500, 3043],
  [503, 500, 3043],
  [504, 408, 3007],
]) {
  test(`HTTP ${code} becomes the error that Workers AI has for it, thrown or as a response`, async () => {
    const model = `status ${code}`;
    upstream.script(model, status(code, { "retry-after": "3" }));
    const { name, message } = await run(model);
    assert.equal(name, "InferenceUpstreamError");
    assert.ok(message.startsWith(`${wanted}: `), message);
    // What the class does not tell when it throws. The Worker counts on a response here, too.
    const response = await stream(model, { options: { ...gateway, returnRawResponse: true } });
    assert.equal(response.status, said);
    assert.equal(response.headers.get("retry-after"), "3");
    assert.match(response.headers.get("cf-aig-log-id"), /^[0-9a-f-]{36}$/);
    const body = await response.json();
    assert.equal(body.internalCode ?? body.errors[0].code, wanted);
  });
}

test("a web page is passed on as one", async () => {
  upstream.script("portal", (response) => response.writeHead(200, { "content-type": "text/html" }).end("<html>"));
  const response = await stream("portal", { options: { ...gateway, returnRawResponse: true } });
  assert.equal(response.headers.get("content-type"), "text/html");
  assert.equal(await response.text(), "<html>");
});

test("a connection that breaks breaks the answer, after what was said", async () => {
  upstream.script("cut", async (response) => {
    response.writeHead(200, { "content-type": "text/event-stream" });
    response.write(chunk("said"));
    await sleep(100);
    response.destroy();
  });
  // Seen in the Worker: workerd ends a response whose body fails as if it were whole.
  const { said, error } = (await (await stream("cut", { readAll: true })).json()).result;
  assert.equal(said, chunk("said"));
  assert.match(error, /connection lost/);
});

test("an answer in one piece that breaks off is an error", async () => {
  upstream.script("half", async (response) => {
    response.writeHead(200, { "content-type": "application/json" });
    response.write('{"choices": [');
    await sleep(100);
    response.destroy();
  });
  assert.match((await run("half")).message, /^3043: /);
});

test("both shapes, whole", async () => {
  const usage = { prompt_tokens: 1, completion_tokens: 2 };
  upstream.script("shape", whole("yes", { usage }));
  assert.equal((await run("shape")).choices[0].message.content, "yes");
  assert.deepEqual(await run("shape#response"), { response: "yes", usage });
});

test("both shapes, as streams", async () => {
  const usage = { prompt_tokens: 1, completion_tokens: 2 };
  upstream.script("shapes", tokens(["é", "b"], { usage }));
  assert.match(await (await stream("shapes")).text(), /"delta":\{"content":"é"\}/);
  assert.equal(
    await (await stream("shapes#response")).text(),
    'data: {"response":"é"}\n\ndata: {"response":"b"}\n\n' +
      'data: {"response":"","usage":{"prompt_tokens":1,"completion_tokens":2}}\n\ndata: [DONE]\n\n',
  );
});

test("events of the older shape are whole wherever the pieces are cut", async () => {
  upstream.script("pieces", async (response) => {
    response.writeHead(200, { "content-type": "text/event-stream" });
    for (const byte of Buffer.from(`${chunk("é")}data: {oops\n\ndata: [DONE]\n\n`)) {
      response.write(Buffer.of(byte));
      await sleep(1);
    }
    response.end();
  });
  assert.equal(
    await (await stream("pieces#response")).text(),
    'data: {"response":"é"}\n\ndata: {oops\n\ndata: [DONE]\n\n',
  );
});

test("embeddings are the same for the same text, and nearer for like ones", async () => {
  const { shape, data, pooling } = await run("@cf/baai/bge-m3", {
    text: ["a red fox", "a red fox runs", "tax return"],
  });
  assert.deepEqual([shape, pooling], [[3, 1024], "cls"]);
  const dot = (a, b) => a.reduce((sum, x, i) => sum + x * b[i], 0);
  assert.ok(Math.abs(dot(data[0], data[0]) - 1) < 1e-9);
  assert.ok(dot(data[0], data[1]) > 0.7 && Math.abs(dot(data[0], data[2])) < 0.3);
  assert.deepEqual((await run("@cf/baai/bge-m3", { text: "a red fox" })).data, [data[0]]);
  const scored = await run("@cf/baai/bge-m3", {
    query: "red fox",
    contexts: [{ text: "tax return" }, { text: "a red fox" }],
  });
  assert.deepEqual(
    scored.response.map(({ id }) => id),
    [1, 0],
  );
});

test("texts for other embedding models are forwarded", async () => {
  upstream.script("other-embedder", async (response) => {
    response.writeHead(200, { "content-type": "application/json" });
    const data = [{ index: 0, embedding: [0.6, 0.8] }];
    response.end(JSON.stringify({ object: "list", data, usage: { prompt_tokens: 2 } }));
  });
  const made = { shape: [1, 2], data: [[0.6, 0.8]], pooling: "mean", usage: { prompt_tokens: 2 } };
  assert.deepEqual(await run("other-embedder", { text: ["two words"] }), made);
});

test("other models are not there", async () => {
  assert.match((await run("@cf/openai/whisper", { prompt: "Hello" })).message, /^5007: /);
});

test("a gateway's address", async () => {
  const url = await worker.call("AI", ["gateway", "g"], ["getUrl", "openai"]);
  assert.match(url, /\/v1\/local\/g\/openai$/);
});

test("faults come and go", async () => {
  upstream.script("fine", whole("x"));
  worker.standins.setFault("AI", "error");
  assert.match((await run("fine")).message, /^3043: /);
  worker.standins.setFault("AI", null);
  assert.equal((await run("fine")).choices[0].message.content, "x");
});

test("texts to be spoken are forwarded, and each model tells its audio in its own way", async () => {
  const audio = Buffer.from("ID3 some audio");
  for (const model of ["@cf/myshell-ai/melotts", "@cf/deepgram/aura-1"]) {
    upstream.script(model, async (response) => {
      response.writeHead(200, { "content-type": "audio/mpeg" });
      response.end(audio);
    });
  }
  const told = await run("@cf/myshell-ai/melotts", { prompt: "one two", lang: "fr" });
  assert.deepEqual(told, { audio: audio.toString("base64") });
  const [melo] = upstream.calls("@cf/myshell-ai/melotts");
  assert.deepEqual(
    [melo.path, melo.body.input, melo.body.voice, melo.body.response_format],
    ["/v1/audio/speech", "one two", "fr", "mp3"],
  );
  const calls = [["run", "@cf/deepgram/aura-1", { text: "one two", encoding: "linear16", container: "wav" }, gateway]];
  const response = await worker.post({ binding: "AI", calls });
  assert.deepEqual(Buffer.from(await response.arrayBuffer()), audio);
  assert.equal(upstream.calls("@cf/deepgram/aura-1")[0].body.response_format, "wav");
});
