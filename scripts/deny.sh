#!/usr/bin/env bash
# Checks the dependency tree against deny.toml: bans, licences and sources always, and known vulnerabilities where the
# advisory database is there or can be fetched.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

scripts/cargo-tool.sh cargo-deny 0.20.2
databases=${CARGO_HOME:-$HOME/.cargo}/advisory-dbs

# The inclusion graphs of doubled crates would fill the screen; `cargo tree --invert CRATE` shows one.
cargo deny --locked check --hide-inclusion-graph bans licenses sources

# The check above has fetched the crates, so that only the database needs the network here, and never asks who we are.
GIT_TERMINAL_PROMPT=0 timeout 180 cargo deny fetch db || echo "deny: the advisory database could not be fetched"
if compgen -G "$databases/advisory-db-*/.git" >/dev/null; then
  cargo deny --locked --offline check advisories
else
  echo "deny: advisories SKIPPED, there is no advisory database and the network does not reach it"
fi
