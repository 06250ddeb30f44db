#!/usr/bin/env bash
# Usage: scripts/cargo-tool.sh NAME VERSION
# Installs a cargo tool in that version, unless it is there already; it stays in cargo's own bin directory.
set -euo pipefail

if (($# != 2)); then
  echo "usage: ${0##*/} NAME VERSION" >&2
  exit 2
fi
name=$1
version=$2

# Asks the tool itself, so that one that was not installed by cargo counts too. It prints "VERSION" or "NAME VERSION".
installed=$(cargo "${name#cargo-}" --version 2>/dev/null || true)
if [[ ${installed##* } == "$version" ]]; then
  exit
fi

echo "installing $name $version"
# Unoptimised: these tools run for a second, and with their own release profile they would build for many minutes.
CARGO_PROFILE_DEV_DEBUG=false cargo install --quiet --debug --locked --force --version "$version" "$name"
