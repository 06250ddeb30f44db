// A local server that stands in for Workers AI and Vectorize.
//
// The runtime's own `Ai` and `VectorizeIndexImpl` classes stay in between: Miniflare's `remoteProxyConnectionString` sends
// the HTTP requests which they make here instead of to Cloudflare. So the Worker meets the argument checks, the content
// type rules and the errors of the real bindings, and only what Cloudflare computes is ours.

import { createServer } from "node:http";

import { WorkersAi } from "./standins/ai.mjs";
import { Vectorize } from "./standins/vectorize.mjs";
import { jsonAnswer } from "./standins/wire.mjs";

/**
 * Starts the server on a free port of this machine.
 *
 * @param {object} [options]
 * @param {string | null} [options.upstream] base URL of the OpenAI-compatible endpoint that answers chats
 * @param {string} [options.upstreamKey] its key
 * @param {string} [options.upstreamModel] what the model is called there, whatever name the Worker asks for
 * @param {boolean} [options.requireGateway] answers calls of Workers AI that name no gateway with an error
 * @param {boolean} [options.includeUsage] asks for the tokens that were used; on, unless `false`
 * @param {{ dimensions?: number, metadataIndexes?: string[], visibleAfterMs?: number }} [options.vectorize]
 * @param {Record<string, "error" | "hang">} [options.faults] bindings that fail, by name
 */
export async function startStandins(options = {}) {
  const ai = new WorkersAi(options);
  const vectorize = new Vectorize(options.vectorize);
  const faults = new Map(Object.entries(options.faults ?? {}));

  const server = createServer((request, response) => {
    answer(request, response).catch((error) => {
      // The Worker went away, or the stand-in is wrong; either way there is nobody to tell but the log.
      if (!response.destroyed) {
        console.error("stand-in:", error);
        if (response.headersSent) response.destroy();
        else jsonAnswer(response, 500, { errors: [{ code: 7000, message: `the stand-in failed: ${error.message}` }] });
      }
    });
  });

  async function answer(request, response) {
    const binding = request.headers["mf-binding"];
    const target = request.headers["mf-url"];
    if (!binding || !target) {
      // Miniflare tries a WebSocket for calls of methods. Neither class makes any.
      return jsonAnswer(response, 404, { error: "only HTTP requests of bindings are answered here" });
    }
    const call = {
      binding,
      url: new URL(target),
      method: request.method,
      headers: callHeaders(request),
      request,
      response,
    };
    const service = binding === "AI" ? ai : vectorize;
    const fault = faults.get(binding);
    service.count(call);
    if (fault === "hang") return;
    if (fault === "error") return service.fail(call);
    await service.answer(call);
  }

  // A stream may be silent for as long as its model likes.
  server.requestTimeout = 0;
  server.keepAliveTimeout = 0;
  await new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen(0, "127.0.0.1", resolve);
  });

  return {
    url: `http://127.0.0.1:${server.address().port}/`,
    /** What was called so far. */
    metrics: () => ({ ai: ai.metrics(), vectorize: vectorize.metrics() }),
    /** Makes a binding fail from now on, or (`null`) work again. */
    setFault(binding, fault) {
      if (fault) faults.set(binding, fault);
      else faults.delete(binding);
    },
    async close() {
      const closed = new Promise((resolve) => server.close(resolve));
      server.closeAllConnections();
      await closed;
    },
  };
}

/** The headers that the binding sent; Miniflare puts a prefix before each. */
function callHeaders(request) {
  const prefix = "mf-header-";
  const headers = {};
  for (const [name, value] of Object.entries(request.headers)) {
    if (name.startsWith(prefix)) headers[name.slice(prefix.length)] = value;
  }
  return headers;
}
