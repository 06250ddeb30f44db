#!/usr/bin/env bash
# Usage: scripts/wrangler.sh ENV ARGS…
# Runs this repository's wrangler for an environment, under any of its names: dev (develop, development), staging (stg,
# preview), production (prd, prod).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if (($# < 2)); then
  echo "usage: ${0##*/} ENV ARGS…, such as: ${0##*/} staging deploy" >&2
  exit 2
fi
case $1 in
  dev | develop | development) environment=dev ;;
  staging | stg | preview) environment=staging ;;
  production | prd | prod) environment=production ;;
  *)
    echo "there is no environment \`$1\`: dev (develop, development), staging (stg, preview), production (prd, prod)" >&2
    exit 2
    ;;
esac
shift

scripts/worker-packages.sh
export WRANGLER_SEND_METRICS=false
exec apps/worker/node_modules/.bin/wrangler "$@" --env "$environment"
