// Runs the Worker on this machine, offline, with its chats answered by any OpenAI-compatible server. `scripts/worker-dev.sh`
// builds it first.

import { randomUUID } from "node:crypto";
import { existsSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

import { unstable_readConfig as readConfig } from "wrangler";

import { startWorker } from "./runtime.mjs";

const HELP = `Usage: scripts/worker-dev.sh [OPTIONS]

  --port PORT               where it listens on 127.0.0.1; 8787
  --upstream URL            OpenAI-compatible base URL that answers chats; http://127.0.0.1:8080/v1, the native server's
  --upstream-key-env NAME   variable with its key; ENIGMA_UPSTREAM_KEY
  --model NAME              what the upstream calls its model; the name that the Worker asks for
  --var NAME=VALUE          a variable of the Worker, over those of wrangler.toml; may be repeated
  --state DIRECTORY         where KV, D1 and Durable Objects are kept; .enigma/worker
`;

const root = fileURLToPath(new URL("../../..", import.meta.url));

function options() {
  const { values } = parseArgs({
    options: {
      port: { type: "string", default: "8787" },
      upstream: { type: "string", default: "http://127.0.0.1:8080/v1" },
      "upstream-key-env": { type: "string", default: "ENIGMA_UPSTREAM_KEY" },
      model: { type: "string" },
      var: { type: "string", multiple: true, default: [] },
      state: { type: "string", default: `${root}.enigma/worker` },
      help: { type: "boolean", short: "h", default: false },
    },
  });
  if (values.help) {
    process.stdout.write(HELP);
    process.exit(0);
  }
  const port = Number(values.port);
  if (!Number.isInteger(port) || port < 0 || port > 65535) throw new Error(`--port ${values.port} is no port`);
  if (!URL.canParse(values.upstream)) throw new Error(`--upstream ${values.upstream} is no URL`);
  const vars = values.var.map((text) => {
    const at = text.indexOf("=");
    if (at < 1) throw new Error(`--var ${text} must be NAME=VALUE`);
    return [text.slice(0, at), text.slice(at + 1)];
  });
  return { ...values, port, vars: Object.fromEntries(vars) };
}

async function run() {
  const wanted = options();
  const build = `${root}apps/worker/build`;
  if (!existsSync(`${build}/index.js`)) throw new Error("there is no build; scripts/worker-dev.sh makes it");
  const { vars } = readConfig({ config: `${root}wrangler.toml` }, { hideWarnings: true });
  await mkdir(wanted.state, { recursive: true });

  const worker = await startWorker({
    build,
    vars: { ...vars, ...wanted.vars },
    persist: wanted.state,
    migrations: `${root}crates/cloudflare/migrations`,
    port: wanted.port,
    upstream: wanted.upstream,
    upstreamKey: process.env[wanted["upstream-key-env"]],
    upstreamModel: wanted.model,
    requireGateway: true,
  });
  const stop = async () => {
    setTimeout(() => process.exit(0), 5000).unref();
    await worker.stop().catch(() => {});
    process.exit(0);
  };
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.on(signal, () => void stop());

  console.log(`
The Worker listens on ${worker.url}. Its state is in ${wanted.state}, chats are answered by ${wanted.upstream}.

  curl ${worker.url}/health
  curl -N ${worker.url}/chat -H 'x-tenant-id: local' -H 'content-type: application/json' \\
    -d '{"sessionId":"${randomUUID()}","message":"Why is the sky blue?"}'
`);
  if (!(await answers(wanted.upstream))) {
    console.log(
      `Nothing answers at ${wanted.upstream} yet: chats end with ai_error until something does (just demo, for one).\n`,
    );
  }
}

/** Whether anything listens there, whatever it says. */
async function answers(url) {
  try {
    await fetch(`${url.replace(/\/+$/, "")}/models`, { signal: AbortSignal.timeout(2000) });
    return true;
  } catch {
    return false;
  }
}

run().catch((error) => {
  console.error(`worker-dev: ${error.message}`);
  process.exit(1);
});
