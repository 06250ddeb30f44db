// The shape of Workers AI's older models: `{response, usage}`, and streams of `data: {"response":"tok"}`.

import { Transform } from "node:stream";
import { StringDecoder } from "node:string_decoder";

import { parsed } from "./wire.mjs";

/** Translates a whole answer of OpenAI's shape. */
export function olderAnswer(answer) {
  if (!answer) return undefined;
  const message = answer.choices?.[0]?.message ?? {};
  const older = { response: message.content ?? "" };
  const calls = message.tool_calls?.map((call) => ({
    name: call.function?.name,
    arguments: parsed(call.function?.arguments ?? "") ?? {},
  }));
  if (calls?.length) older.tool_calls = calls;
  if (answer.usage) older.usage = answer.usage;
  return older;
}

/**
 * Translates a stream of events, each as soon as it is whole. Events that are no JSON go on as they are: an upstream that
 * sends them is what a test wants to see. The end of a turn has no event in this shape, only `[DONE]`.
 */
export class OlderEvents extends Transform {
  #decoder = new StringDecoder("utf8");
  #rest = "";

  _transform(chunk, _encoding, done) {
    this.#rest += this.#decoder.write(chunk);
    for (;;) {
      const end = this.#rest.match(/\r?\n\r?\n/);
      if (!end) break;
      const event = this.#rest.slice(0, end.index);
      this.#rest = this.#rest.slice(end.index + end[0].length);
      const older = olderEvent(event);
      if (older !== undefined) this.push(`${older}\n\n`);
    }
    done();
  }

  _flush(done) {
    if (this.#rest) this.push(this.#rest);
    done();
  }
}

function olderEvent(event) {
  const chunk = event.startsWith("data:") ? parsed(event.slice("data:".length)) : undefined;
  if (!chunk || chunk.error) return event;
  const delta = chunk.choices?.[0]?.delta;
  const older = {};
  if (typeof delta?.content === "string") older.response = delta.content;
  // Workers AI sends calls of tools whole. The pieces of OpenAI's are passed on as they are.
  if (delta?.tool_calls) older.tool_calls = delta.tool_calls;
  if (chunk.usage) Object.assign(older, { response: older.response ?? "", usage: chunk.usage });
  return Object.keys(older).length ? `data: ${JSON.stringify(older)}` : undefined;
}
