#!/usr/bin/env bash
# Usage: scripts/worker-build.sh [PACKAGE_DIRECTORY [PROFILE]]
# Builds the Worker (or another package that is one) into PACKAGE_DIRECTORY/build, and prints its size. Fails when it is larger
# than it may be.
#
# It is built so that panics unwind: a panic then ends its own request only, and neither the other streams of its isolate nor
# the callers of a Durable Object (docs/adrs/0019-panics-unwind.md).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
root=$PWD
package=${1:-apps/worker}
profile=${2:-worker}
# Of the compressed Wasm, in bytes: 2 MiB. The checks of JSON Schemas are nearly half of it (docs/adrs/0042-tools.md).
limit=2097152

scripts/worker-tools.sh
# Where worker-tools.sh has put them, when there was nothing on the PATH.
PATH=$PATH:${CARGO_INSTALL_ROOT:-${CARGO_HOME:-$HOME/.cargo}}/bin

# Builds that start at the same time must not write to one directory at the same time. What cargo leaves running in the
# background (a compiler cache's server) must not hold the lock.
mkdir -p "$root/target"
exec 8>"$root/target/worker-build.lock"
if command -v flock >/dev/null; then flock 8; fi

modules=$root/apps/worker/node_modules
binaries=$(dirname "$(command -v cargo)")
WASM_BINDGEN_BIN=$(command -v wasm-bindgen)
ESBUILD_BIN=$modules/.bin/esbuild
WASM_OPT_BIN=$modules/.bin/wasm-opt
export WASM_BINDGEN_BIN ESBUILD_BIN WASM_OPT_BIN

# Another build's RUSTFLAGS would build everything twice.
build=(env -u CARGO_ENCODED_RUSTFLAGS "PATH=$root/scripts/stable-toolchain:$binaries:$PATH")
cd "$package"
# The same that worker-build does first: what it would do with the result is done only when there is a new one.
"${build[@]}" RUSTFLAGS=-Cpanic=unwind WASM_BINDGEN_USE_JS_SYS=1 cargo +nightly build --quiet --lib --profile "$profile" \
  --target wasm32-unknown-unknown -Z build-std=std,panic_unwind 8>&-
name=$(awk -F '"' '/^name = / { print $2; exit }' Cargo.toml)
target=$("${build[@]}" cargo metadata --format-version 1 --no-deps --offline 8>&- |
  node -p 'JSON.parse(require("node:fs").readFileSync(0, "utf8")).target_directory')
compiled=$target/wasm32-unknown-unknown/$profile/${name//-/_}.wasm
wasm=build/index_bg.wasm
# By what it was made of, as dates lie: of another profile's result, or of one that cargo had kept.
made_of=build/made-of
sum=$(command -v sha256sum || echo 'shasum -a 256')
parts=$($sum "$compiled" "$root"/scripts/worker-{build,tools}.sh "$root/apps/worker/package-lock.json" | cut -d ' ' -f 1)
if [[ ! -f $wasm || ! -f $made_of || $(<"$made_of") != "$parts" ]]; then
  rm -f "$made_of"
  env -u RUSTFLAGS "${build[@]}" worker-build --panic-unwind --profile "$profile" 8>&-
  # The names of functions help nobody in production, and would be loaded with them. The features are those that workerd
  # reads; with all of them, newer encodings would be written.
  features=(--enable-{mutable-globals,sign-ext,nontrapping-float-to-int,bulk-memory,multivalue,reference-types,exception-handling})
  "$WASM_OPT_BIN" "${features[@]}" --strip-debug --strip-producers "$wasm" -o "$wasm.stripped"
  mv "$wasm.stripped" "$wasm"
  # Last, so that an interrupted build is not taken for the whole.
  printf '%s\n' "$parts" >"$made_of"
fi
size=$(wc -c <"$wasm")
compressed=$(gzip -9 -c "$wasm" | wc -c)
printf '%s: %d bytes of Wasm, %d gzipped (at most %d)\n' "$package" "$size" "$compressed" "$limit"
# Only what is deployed has to be small.
if [[ $package == apps/worker && $profile == worker ]] && ((compressed >= limit)); then
  echo "the Worker is too large" >&2
  exit 1
fi
