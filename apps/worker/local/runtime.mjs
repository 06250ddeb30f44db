// Starts the Worker in workerd, by way of Miniflare, with every binding of wrangler.toml.

import childProcess from "node:child_process";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";

import { Miniflare } from "miniflare";

import { breakingEntry } from "./breaks.mjs";
import { startStandins } from "./standins.mjs";

/** As in wrangler.toml; a newer date than the pinned workerd's would be refused. */
export const COMPATIBILITY_DATE = "2026-02-05";
export const COMPATIBILITY_FLAGS = ["enable_request_signal"];

export const KV_NAMESPACES = ["CONFIG", "CACHE", "RATE_LIMITER"];
export const DURABLE_OBJECTS = {
  CHAT_SESSION: "ChatSession",
  RATE_LIMITER_DO: "RateLimiter",
  TENANT_LEDGER: "TenantLedger",
};
/** These two fail in the stand-ins, behind the runtime's own classes, so that their errors are the real ones. */
const STOOD_IN = ["AI", "VECTORIZE"];
const STANDIN_FAULTS = { throws: "error", hangs: "hang" };

/**
 * @param {object} config
 * @param {string} config.build directory with index.js and index_bg.wasm
 * @param {Record<string, string>} [config.vars]
 * @param {Record<string, Record<string, string>>} [config.kv] what the namespaces hold at the start
 * @param {string | null} [config.persist] directory that keeps KV, D1 and Durable Objects; without it they end with workerd
 * @param {string | null} [config.migrations] directory of `*.sql` for D1
 * @param {Record<string, "throws" | "hangs">} [config.breaks] bindings that fail
 * @param {Record<string, string>} [config.durableObjects] classes by binding, for a Worker with others
 * @param {number} [config.port]
 * @param {string[]} [config.compatibilityFlags] besides those of the Worker
 * @param {object} [config.vectorize] see the stand-ins, as for `upstream`, `upstreamKey`, `upstreamModel`, `requireGateway`
 */
export async function startWorker(config) {
  const { build, vars = {}, kv = {}, persist = null, migrations = null, breaks = {}, port = 0 } = config;
  const durableObjects = config.durableObjects ?? DURABLE_OBJECTS;
  const stoodIn = Object.entries(breaks).filter(([binding]) => STOOD_IN.includes(binding));
  const wrapped = Object.entries(breaks).filter(([binding]) => !STOOD_IN.includes(binding));
  const standins = await startStandins({
    ...config,
    faults: Object.fromEntries(stoodIn.map(([binding, how]) => [binding, STANDIN_FAULTS[how]])),
  });
  const standinsUrl = new URL(standins.url);

  let started;
  try {
    started = await withWatchdog(async () => {
      const miniflare = new Miniflare({
        host: "127.0.0.1",
        port,
        // No question to the internet about where this machine is.
        cf: false,
        // Standard output belongs to the host's answers.
        handleRuntimeStdio: (stdout, stderr) => {
          stdout.pipe(process.stderr, { end: false });
          stderr.pipe(process.stderr, { end: false });
        },
        ...(persist && {
          kvPersist: join(persist, "kv"),
          d1Persist: join(persist, "d1"),
          durableObjectsPersist: join(persist, "do"),
        }),
        workers: [
          {
            name: "enigma",
            compatibilityDate: COMPATIBILITY_DATE,
            compatibilityFlags: [...COMPATIBILITY_FLAGS, ...(config.compatibilityFlags ?? [])],
            rootPath: build,
            modulesRoot: build,
            modules: await modules(build, Object.fromEntries(wrapped), Object.values(durableObjects)),
            bindings: vars,
            kvNamespaces: KV_NAMESPACES,
            d1Databases: ["DB"],
            durableObjects: Object.fromEntries(
              Object.entries(durableObjects).map(([binding, className]) => [binding, { className, useSQLite: true }]),
            ),
            analyticsEngineDatasets: { USAGE: { dataset: "enigma_usage" } },
            ai: { binding: "AI", remoteProxyConnectionString: standinsUrl },
            vectorize: { VECTORIZE: { index_name: "enigma", remoteProxyConnectionString: standinsUrl } },
          },
        ],
      });
      try {
        return { miniflare, url: await miniflare.ready };
      } catch (error) {
        await miniflare.dispose().catch(() => {});
        throw error;
      }
    });
    if (migrations) await applyMigrations(started.miniflare, migrations);
    for (const [namespace, entries] of Object.entries(kv)) {
      const store = await started.miniflare.getKVNamespace(namespace);
      for (const [key, value] of Object.entries(entries)) await store.put(key, value);
    }
  } catch (error) {
    await started?.miniflare.dispose();
    await standins.close();
    throw error;
  }

  const { miniflare, url } = started;
  return {
    url: url.origin,
    standins,
    kv: (namespace) => miniflare.getKVNamespace(namespace),
    database: () => miniflare.getD1Database("DB"),
    async stop() {
      await miniflare.dispose();
      await standins.close();
    },
  };
}

async function modules(build, breaks, objectClasses) {
  const files = (await readdir(build)).filter((name) => name !== "index.js" && name.endsWith(".wasm"));
  const all = [
    { type: "ESModule", path: join(build, "index.js") },
    ...files.map((name) => ({ type: "CompiledWasm", path: join(build, name) })),
  ];
  if (Object.keys(breaks).length === 0) return all;
  // The first module is the one that is started.
  return [
    { type: "ESModule", path: join(build, "breaking-entry.js"), contents: await breakingEntry(breaks, objectClasses) },
    ...all,
  ];
}

/** Applies what is not applied yet, and notes it in the table that wrangler uses for it. */
async function applyMigrations(miniflare, directory) {
  const database = await miniflare.getD1Database("DB");
  await database
    .prepare(
      `CREATE TABLE IF NOT EXISTS d1_migrations(
        id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT UNIQUE, applied_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP NOT NULL)`,
    )
    .run();
  const { results } = await database.prepare("SELECT name FROM d1_migrations").all();
  const applied = new Set(results.map(({ name }) => name));
  const files = (await readdir(directory)).filter((name) => name.endsWith(".sql") && !applied.has(name)).sort();
  for (const name of files) {
    const sql = await readFile(join(directory, name), "utf8");
    const note = database.prepare("INSERT INTO d1_migrations (name) VALUES (?)").bind(name);
    // A batch is a transaction: a migration is applied and noted, or neither.
    await database.batch([database.prepare(sql), note]).catch((error) => {
      throw new Error(`migration ${name}: ${error.message}`);
    });
  }
}

/**
 * Runs `start`, and sees to it that the processes it starts end with this one, however this one ends: workerd would go on
 * after a SIGKILL of its Node, holding its port and its files.
 */
async function withWatchdog(start) {
  const { spawn } = childProcess;
  // Miniflare does not tell workerd's process id.
  childProcess.spawn = (...args) => {
    const child = spawn(...args);
    if (child.pid) {
      const script = `read -r _; kill -9 ${child.pid} 2>/dev/null`;
      const watchdog = spawn("sh", ["-c", script], { stdio: ["pipe", "ignore", "ignore"] });
      watchdog.on("error", () => {});
      watchdog.unref();
      watchdog.stdin.unref();
      child.once("exit", () => watchdog.kill("SIGKILL"));
    }
    return child;
  };
  try {
    return await start();
  } finally {
    childProcess.spawn = spawn;
  }
}
