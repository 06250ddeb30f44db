import assert from "node:assert/strict";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

import { unstable_readConfig as readConfig } from "wrangler";

import { COMPATIBILITY_DATE, COMPATIBILITY_FLAGS, DURABLE_OBJECTS, KV_NAMESPACES } from "./runtime.mjs";

const file = fileURLToPath(new URL("../../../wrangler.toml", import.meta.url));

for (const env of [undefined, "dev", "staging", "production"]) {
  test(`what runs here has the bindings of wrangler.toml, ${env ?? "top"}`, () => {
    const config = readConfig({ config: file, env }, { hideWarnings: true });
    assert.equal(config.compatibility_date, COMPATIBILITY_DATE);
    assert.deepEqual(config.compatibility_flags, COMPATIBILITY_FLAGS);
    assert.deepEqual(
      config.kv_namespaces.map(({ binding }) => binding),
      KV_NAMESPACES,
    );
    assert.deepEqual(
      Object.fromEntries(config.durable_objects.bindings.map(({ name, class_name }) => [name, class_name])),
      DURABLE_OBJECTS,
    );
    assert.deepEqual(
      config.migrations.flatMap(({ new_sqlite_classes }) => new_sqlite_classes),
      Object.values(DURABLE_OBJECTS),
    );
    assert.equal(config.ai.binding, "AI");
    assert.deepEqual(
      config.vectorize.map(({ binding }) => binding),
      ["VECTORIZE"],
    );
    assert.deepEqual(
      config.d1_databases.map(({ binding }) => binding),
      ["DB"],
    );
    assert.deepEqual(
      config.analytics_engine_datasets.map(({ binding }) => binding),
      ["USAGE"],
    );
  });
}
