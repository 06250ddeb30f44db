// Makes bindings of a Worker fail, for tests of what happens then.
//
// Miniflare's own ways (wrapped bindings, services) put objects of other classes into `env`, and the Worker's SDK refuses
// what is not called `KvNamespace`, `D1Database` or `DurableObjectNamespace`. So a module goes in front of the Worker and
// gives it an `env` in which the real binding stays, and only its calls fail.

import { readFile } from "node:fs/promises";

/**
 * The source of a module that is started in place of `./index.js`.
 *
 * @param {Record<string, "throws" | "hangs">} breaks how the bindings fail, by name
 * @param {string[]} objectClasses the Durable Objects that `index.js` exports; they get the same `env`
 */
export async function breakingEntry(breaks, objectClasses) {
  for (const [binding, how] of Object.entries(breaks)) {
    if (how !== "throws" && how !== "hangs") throw new Error(`breaks.${binding} must be "throws" or "hangs"`);
  }
  const source = await readFile(new URL("breaking.mjs", import.meta.url), "utf8");
  return [
    source,
    'import * as built from "./index.js";',
    `const withBroken = broken(${JSON.stringify(breaks)});`,
    "export default withBroken(built.default);",
    ...objectClasses.map((name) => `export const ${name} = withBroken(built.${name});`),
    "",
  ].join("\n");
}
