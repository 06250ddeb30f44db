#!/usr/bin/env bash
# Readies this machine to build and run the Worker: the sources of the standard library, worker-build, the wasm-bindgen of
# Cargo.lock, and the npm packages of apps/worker. Takes no time where all of it is there.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# Where `cargo install` puts things, which a cargo that did not come by rustup has not put on the PATH.
PATH=$PATH:${CARGO_INSTALL_ROOT:-${CARGO_HOME:-$HOME/.cargo}}/bin

worker_build=0.8.7
wasm_bindgen=$(awk '/^name = "wasm-bindgen"$/ { getline; gsub(/version = |"/, ""); print }' Cargo.lock)

# Usage: install PACKAGE VERSION BINARY. Unoptimised builds of these would make every build of the Worker slow.
install() {
  local package=$1 version=$2 binary=$3 installed
  installed=$(command -v "$binary" >/dev/null && "$binary" --version || true)
  [[ ${installed##* } != "$version" ]] || return 0
  echo "installing $package $version, a few minutes"
  # The package's own lock file may name what a registry mirror does not have yet.
  CARGO_PROFILE_RELEASE_LTO=false cargo install --quiet --locked --force --version "=$version" "$package" 2>/dev/null ||
    CARGO_PROFILE_RELEASE_LTO=false cargo install --quiet --force --version "=$version" "$package"
}

scripts/rust-source.sh
install worker-build "$worker_build" worker-build
install wasm-bindgen-cli "$wasm_bindgen" wasm-bindgen
scripts/worker-packages.sh
