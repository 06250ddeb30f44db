#!/usr/bin/env bash
# Lets wrangler put together, without an account and without sending anything, what it would deploy: as wrangler.toml stands
# (which builds the Worker), and for every environment under every name. Fails when one cannot be put together, or has not
# the bindings that the others have.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

scripts/worker-packages.sh
export WRANGLER_SEND_METRICS=false WRANGLER_HIDE_BANNER=true NO_COLOR=1
wrangler=apps/worker/node_modules/.bin/wrangler
work=$(mktemp -d)
# The same configuration less the build, which would run again for each name. Its paths count from where it lies.
unbuilt=.wrangler.dry-run.toml
trap 'rm -rf "$work" "$unbuilt"' EXIT
awk '/^\[/ { skip = ($0 == "[build]") } !skip' wrangler.toml >"$unbuilt"

fail() {
  printf 'worker-dry-run: %s\n' "$*" >&2
  exit 1
}

# Usage: check NAME COMMAND…. The bindings that the command prints have to be the same every time.
check() {
  local name=$1 log=$work/log bindings=$work/bindings.$1
  shift
  "$@" deploy --dry-run --outdir "$work/out" >"$log" 2>&1 || { cat "$log" >&2 && fail "$name cannot be put together"; }
  # Name and kind; ids and values differ.
  sed -nE 's/^env\.([A-Z0-9_]+)( \(.*\))? +([A-Z].*[^ ]) *$/\1: \3/p' "$log" | sort >"$bindings"
  [[ -s $bindings ]] || { cat "$log" >&2 && fail "$name has no bindings"; }
  [[ -f $work/expected ]] || cp "$bindings" "$work/expected"
  diff "$work/expected" "$bindings" >&2 || fail "$name has not the bindings of the others (<, the others; >, $name)"
  printf '%-12s %s\n' "$name" "$(grep -m1 '^Total Upload' "$log")"
}

check top "$wrangler" --env ''
for name in dev develop development staging stg preview production prd prod; do
  check "$name" scripts/wrangler.sh "$name" --config "$unbuilt"
done
printf '%d bindings in each\n' "$(wc -l <"$work/expected")"
if scripts/wrangler.sh nowhere deploy --dry-run >"$work/log" 2>&1; then fail "an environment that is none was accepted"; fi
