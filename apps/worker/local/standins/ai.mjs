// Workers AI: chats, texts that are to be spoken, and texts for embedding models that the stand-in does not know, are forwarded to an
// OpenAI-compatible endpoint.
// The embeddings of `@cf/baai/bge-m3` are made here.

import { randomUUID } from "node:crypto";
import http from "node:http";
import https from "node:https";
import { pipeline } from "node:stream/promises";

import { embeddings } from "./embeddings.mjs";
import { failure, failureOf } from "./errors.mjs";
import { olderAnswer, OlderEvents } from "./older-shape.mjs";
import { jsonAnswer, parsed, text } from "./wire.mjs";

const EMBEDDING_MODEL = "@cf/baai/bge-m3";
/** Models that take a prompt and do not answer with words. */
const NO_CHAT = /whisper|flux|stable-diffusion|bge-|embedding/;
/** Models that speak: one tells its audio in JSON, the others stream it. */
const MELO = /\/melotts/;
const AURA = /\/aura-/;
/** Ends the name of a model that answers in the older shape. */
const OLDER_SHAPE = "#response";
const INPUTS = [
  "messages",
  "max_tokens",
  "temperature",
  "top_p",
  "seed",
  "tools",
  "tool_choice",
  "response_format",
  "stop",
  "frequency_penalty",
  "presence_penalty",
  "stream",
];
/** Headers of the call that describe its own body and connection, not the caller's wishes. */
const OWN_HEADERS = /^(accept-encoding|authorization|cf-.*|connection|content-.*|host|transfer-encoding|upgrade)$/;

export class WorkersAi {
  #options;
  #seen = { calls: 0, withoutGateway: 0, models: {}, open: 0, abandoned: 0 };

  constructor(options) {
    this.#options = options;
  }

  metrics() {
    return structuredClone(this.#seen);
  }

  count({ url, headers, response }) {
    if (!url.pathname.endsWith("/run")) return;
    const seen = this.#seen;
    const model = headers["cf-consn-model-id"] ?? "";
    seen.calls += 1;
    seen.models[model] = (seen.models[model] ?? 0) + 1;
    if (!url.pathname.startsWith("/ai-gateway/")) seen.withoutGateway += 1;
    seen.open += 1;
    response.once("close", () => {
      seen.open -= 1;
      if (!response.writableFinished) seen.abandoned += 1;
    });
  }

  fail({ response }) {
    refuse(response, failure("internal", "as the test wants it"));
  }

  async answer(call) {
    const { url, method, headers, request, response } = call;
    const gatewayUrl = url.pathname.match(/^\/ai-gateway\/gateways\/([^/]+)\/url\/(.+)$/);
    if (method === "GET" && gatewayUrl) {
      const [, gateway, provider] = gatewayUrl;
      // No account is known here. The shape of the address is that of the real ones.
      const address = new URL(`/v1/local/${gateway}/${provider}`, `http://${request.headers.host}`);
      return jsonAnswer(response, 200, { success: true, result: { url: address.href } });
    }
    if (method !== "POST" || !url.pathname.endsWith("/run")) {
      const errors = [{ code: 7003, message: "the stand-in for Workers AI does not have this operation" }];
      return jsonAnswer(response, 404, { success: false, errors, messages: [], result: null });
    }

    const model = headers["cf-consn-model-id"] ?? "";
    const body = parsed(await text(request));
    const inputs = body?.inputs;
    const options = body?.options ?? {};
    if (typeof inputs !== "object" || inputs === null) {
      return refuse(response, failure("invalidData", "no inputs"));
    }
    const gateway = options.gateway?.id;
    if (this.#options.requireGateway && !gateway) {
      return refuse(response, failure("invalidData", "this call names no gateway, and here every call has to"));
    }
    const logged = gateway ? { "cf-aig-log-id": randomUUID() } : {};
    if (model === EMBEDDING_MODEL) {
      const made = embeddings(inputs);
      if (!made) return refuse(response, failure("invalidData", "neither text nor contexts"));
      return jsonAnswer(response, 200, made, logged);
    }
    if (Array.isArray(inputs.text) && this.#options.upstream) {
      return this.#embed({ response, headers, model, inputs, logged });
    }
    if (MELO.test(model) || AURA.test(model)) {
      const said = spoken(model, inputs);
      if (!said) return refuse(response, failure("invalidData", "no text, or what the model does not know"));
      return this.#speak({ response, headers, model, said, logged });
    }
    if (NO_CHAT.test(model)) return refuse(response, failure("noSuchModel", `there is no stand-in for ${model}`));
    if (!Array.isArray(inputs.messages) && typeof inputs.prompt !== "string") {
      return refuse(response, failure("invalidData", "neither messages nor a prompt"));
    }
    await this.#chat({ response, headers, model, inputs, options, gateway, logged });
  }

  async #embed({ response, headers, model, inputs, logged }) {
    const sent = { ...passedOn(headers), "content-type": "application/json" };
    if (this.#options.upstreamKey) sent.authorization = `Bearer ${this.#options.upstreamKey}`;
    const wanted = JSON.stringify({ model: this.#options.upstreamModel ?? model, input: inputs.text });
    const forwarded = await forward(this.#options.upstream, "embeddings", sent, wanted, response);
    if (!forwarded) return;
    if (forwarded.error) return refuse(response, failure("internal", forwarded.error), logged);
    const { answer } = forwarded;
    const whole = parsed(await text(answer).catch(() => ""));
    if (answer.statusCode >= 400) return refuse(response, failureOf(answer.statusCode, whole?.error?.message), logged);
    if (!Array.isArray(whole?.data)) return refuse(response, failure("internal", "the answer has no vectors"), logged);
    const data = whole.data.map(({ embedding }) => embedding);
    const made = { shape: [data.length, data[0]?.length ?? 0], data, pooling: "mean", usage: whole.usage };
    jsonAnswer(response, 200, made, logged);
  }

  async #speak({ response, headers, model, said, logged }) {
    const sent = { ...passedOn(headers), "content-type": "application/json" };
    if (this.#options.upstreamKey) sent.authorization = `Bearer ${this.#options.upstreamKey}`;
    const wanted = JSON.stringify({ model: this.#options.upstreamModel ?? model, ...said });
    const forwarded = await forward(this.#options.upstream, "audio/speech", sent, wanted, response);
    if (!forwarded) return;
    if (forwarded.error) return refuse(response, failure("internal", forwarded.error), logged);
    const { answer } = forwarded;
    const status = answer.statusCode;
    if (status >= 400) {
      const { error } = parsed(await text(answer).catch(() => "")) ?? {};
      const retry = answer.headers["retry-after"];
      return refuse(response, failureOf(status, error?.message), retry ? { ...logged, "retry-after": retry } : logged);
    }
    if (MELO.test(model)) {
      const pieces = [];
      try {
        for await (const piece of answer) pieces.push(piece);
      } catch {
        return refuse(response, failure("internal", "the audio broke off"), logged);
      }
      return jsonAnswer(response, 200, { audio: Buffer.concat(pieces).toString("base64") }, logged);
    }
    response.writeHead(200, { ...logged, "content-type": answer.headers["content-type"] ?? "audio/mpeg" });
    response.flushHeaders();
    await pipeline([answer, response]).catch(() => {});
  }

  async #chat({ response, headers, model, inputs, options, gateway, logged }) {
    const older = model.endsWith(OLDER_SHAPE);
    const name = older ? model.slice(0, -OLDER_SHAPE.length) : model;
    const wanted = { model: this.#options.upstreamModel ?? name };
    for (const key of INPUTS) {
      if (inputs[key] !== undefined && inputs[key] !== null) wanted[key] = inputs[key];
    }
    wanted.messages ??= [{ role: "user", content: inputs.prompt }];
    if (wanted.stream && this.#options.includeUsage !== false) wanted.stream_options = { include_usage: true };

    const sent = { ...passedOn(headers), "content-type": "application/json", "x-standin-options": ascii(options) };
    if (gateway) sent["x-standin-gateway"] = gateway;
    if (this.#options.upstreamKey) sent.authorization = `Bearer ${this.#options.upstreamKey}`;

    const forwarded = await forward(this.#options.upstream, "chat/completions", sent, JSON.stringify(wanted), response);
    if (!forwarded) return;
    if (forwarded.error) return refuse(response, failure("internal", forwarded.error), logged);

    const answer = forwarded.answer;
    const status = answer.statusCode;
    const type = answer.headers["content-type"] ?? "";
    const kind = type.split(";")[0].trim().toLowerCase();
    const page = { ...logged, "content-type": type };
    if (status >= 400) {
      const { error } = parsed(await text(answer).catch(() => "")) ?? {};
      const retry = answer.headers["retry-after"];
      const more = retry ? { ...logged, "retry-after": retry } : logged;
      return refuse(response, failureOf(status, error?.message), more);
    }
    if (kind === "application/json") {
      // Of an answer that breaks off nothing is parsed.
      const whole = parsed(await text(answer).catch(() => ""));
      if (whole === undefined) return refuse(response, failure("internal", "the answer is no JSON"), logged);
      return jsonAnswer(response, 200, older ? olderAnswer(whole) : whole, logged);
    }
    const isStream = kind === "text/event-stream";
    response.writeHead(status, isStream ? { ...page, "content-type": "text/event-stream" } : page);
    // Now, not with the first token: until then the Worker would not know that the model has begun.
    response.flushHeaders();
    // Reads as fast as the Worker does, no faster; a break on either side breaks the other.
    const stages = older && isStream ? [answer, new OlderEvents(), response] : [answer, response];
    await pipeline(stages).catch(() => {});
  }
}

/** What an OpenAI-compatible endpoint is told; nothing where the inputs are none of the model's. */
function spoken(model, inputs) {
  const { prompt, lang, text: aloud, speaker, encoding = "mp3", container, ...others } = inputs;
  if (Object.keys(others).length > 0) return undefined;
  if (MELO.test(model)) {
    if (typeof prompt !== "string" || !prompt || aloud !== undefined) return undefined;
    return { input: prompt, voice: lang ?? "en", response_format: "mp3" };
  }
  const format = { "mp3/": "mp3", "linear16/wav": "wav", "opus/ogg": "opus" }[`${encoding}/${container ?? ""}`];
  if (typeof aloud !== "string" || !aloud || prompt !== undefined || !format) return undefined;
  return { input: aloud, voice: speaker ?? "angus", response_format: format };
}

/** The caller's extra headers, such as `traceparent`. */
function passedOn(headers) {
  return Object.fromEntries(Object.entries(headers).filter(([name]) => !OWN_HEADERS.test(name)));
}

/** JSON that fits into a header. */
function ascii(value) {
  return JSON.stringify(value).replace(
    /[\u007f-\uffff]/g,
    (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}

function refuse(response, { status, body }, headers) {
  jsonAnswer(response, status, body, headers);
}

/** Asks the upstream. Resolves to nothing when the Worker has gone meanwhile. */
function forward(upstream, path, headers, body, response) {
  if (!upstream) return { error: "the stand-in was started without an upstream" };
  const url = new URL(`${upstream.replace(/\/+$/, "")}/${path}`);
  const { request } = url.protocol === "https:" ? https : http;
  return new Promise((resolve) => {
    // A connection of its own: one that is kept alive may break just when it is used again, and to close it is how the
    // upstream learns that nobody wants the answer any more.
    const length = { "content-length": Buffer.byteLength(body) };
    const asked = request(url, { method: "POST", agent: false, headers: { ...headers, ...length } });
    response.once("close", () => asked.destroy());
    asked.once("response", (answer) => resolve({ answer }));
    asked.on("error", ({ code, message }) => {
      resolve(response.destroyed ? undefined : { error: `the upstream cannot be reached: ${code ?? message}` });
    });
    asked.end(body);
  });
}
