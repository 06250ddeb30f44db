// A Worker that makes the calls which a test posts, so that the bindings are used from where they live.
//
//   {"binding": "DB", "calls": [["prepare", "SELECT 1 AS n"], ["all"]]}
//
// An answer that is a stream is passed on. `cancelAfterFirst` reads one piece of it and cancels; `readAll` reads it here and says
// how it ended; `giveUpAfterMs` does not wait for the answer longer.
import { DurableObject, WorkerEntrypoint } from "cloudflare:workers";

class Counter extends DurableObject {
  constructor(state, env) {
    super(state, env);
    state.storage.sql.exec("CREATE TABLE IF NOT EXISTS hits (at INTEGER)");
  }

  async fetch(request) {
    // An object has bindings too.
    if (new URL(request.url).pathname === "/config") return Response.json({ value: await this.env.CONFIG.get("k") });
    this.ctx.storage.sql.exec("INSERT INTO hits VALUES (1)");
    return Response.json(this.ctx.storage.sql.exec("SELECT COUNT(*) AS hits FROM hits").one());
  }
}

export class ChatSession extends Counter {}
export class RateLimiter extends Counter {}
export class TenantLedger extends Counter {}

export default class extends WorkerEntrypoint {
  async fetch(request) {
    const { binding, calls, cancelAfterFirst, readAll, giveUpAfterMs } = await request.json();
    if (!binding)
      return Response.json(
        Object.fromEntries(Object.entries(this.env).map(([name, value]) => [name, value.constructor.name])),
      );
    try {
      const answer = this.call(this.env[binding], calls);
      if (giveUpAfterMs) {
        answer.catch(() => {});
        return await Promise.race([
          answer.then(() => "answered"),
          new Promise((resolve) => setTimeout(resolve, giveUpAfterMs, "gave up")),
        ]).then((result) => Response.json({ result }));
      }
      const result = await answer;
      if (result instanceof Response) return new Response(result.body, result);
      if (!(result instanceof ReadableStream)) return Response.json({ result: result ?? null });
      if (readAll) return Response.json({ result: await this.read(result) });
      // Of any other type it would be compressed for a client that allows it, and so be kept until there is enough of it.
      if (!cancelAfterFirst)
        return new Response(result, { headers: { "content-type": "text/event-stream", "x-result": "stream" } });
      const reader = result.getReader();
      await reader.read();
      await reader.cancel();
      return Response.json({ result: "cancelled" });
    } catch (error) {
      return Response.json({ name: error.name, message: error.message }, { status: 502 });
    }
  }

  async read(stream) {
    let said = "";
    try {
      for await (const piece of stream.pipeThrough(new TextDecoderStream())) said += piece;
      return { said };
    } catch (error) {
      return { said, error: error.message };
    }
  }

  async call(value, calls) {
    for (const [method, ...args] of calls) value = await value[method](...args);
    return value;
  }
}
