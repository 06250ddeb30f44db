// A scripted OpenAI-compatible endpoint.

import { createServer } from "node:http";

/** Starts one. `scripts` says, by model, what a request is answered with. */
export async function startUpstream() {
  const scripts = new Map();
  const calls = [];
  const server = createServer(async (request, response) => {
    const chunks = [];
    for await (const chunk of request) chunks.push(chunk);
    const body = JSON.parse(Buffer.concat(chunks).toString());
    const call = { path: request.url, headers: request.headers, body, sent: 0, closedAt: undefined };
    call.closed = new Promise((resolve) => {
      response.once("close", () => {
        call.closedAt = Date.now();
        resolve(response.writableFinished ? "finished" : "cancelled");
      });
    });
    calls.push(call);
    await scripts.get(body.model)(response, call);
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    url: `http://127.0.0.1:${server.address().port}/v1`,
    calls: (model) => calls.filter((call) => call.body.model === model),
    /** The first call of a model, as soon as it is there. */
    async call(model) {
      for (let waited = 0; waited < 5000; waited += 10) {
        const call = calls.find(({ body }) => body.model === model);
        if (call) return call;
        await sleep(10);
      }
      throw new Error(`nobody called ${model}`);
    },
    script: (model, answer) => scripts.set(model, answer),
    close() {
      server.closeAllConnections();
      server.close();
    },
  };
}

export const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

export function chunk(content, more = {}) {
  const choices = content === undefined ? [] : [{ index: 0, delta: { content }, finish_reason: null }];
  return `data: ${JSON.stringify({ object: "chat.completion.chunk", choices, ...more })}\n\n`;
}

/** Answers with one event for each text, `every` so many milliseconds. */
export function tokens(texts, { every = 0, ...more } = {}) {
  return async (response) => {
    response.writeHead(200, { "content-type": "text/event-stream; charset=utf-8" });
    response.flushHeaders();
    for (const text of texts) {
      if (response.destroyed) return;
      await sleep(every);
      response.write(chunk(text));
    }
    if (more.usage) response.write(chunk(undefined, more));
    response.end("data: [DONE]\n\n");
  };
}

/** Answers in one piece. */
export function whole(text, more = {}) {
  return (response) => {
    response.writeHead(200, { "content-type": "application/json; charset=utf-8" });
    const message = { role: "assistant", content: text };
    response.end(
      JSON.stringify({ object: "chat.completion", choices: [{ index: 0, message, finish_reason: "stop" }], ...more }),
    );
  };
}

/** Answers with an error. */
export function status(code, headers = {}) {
  return (response) => {
    response.writeHead(code, { "content-type": "application/json", ...headers });
    response.end(JSON.stringify({ error: { message: "as the script says" } }));
  };
}
