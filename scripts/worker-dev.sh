#!/usr/bin/env bash
# Usage: scripts/worker-dev.sh [OPTIONS], see --help
# Builds the Worker and runs it in workerd on this machine, offline, with stand-ins for Workers AI and Vectorize.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

scripts/worker-packages.sh
case " $* " in *' --help '* | *' -h '*) ;; *) scripts/worker-build.sh ;; esac
exec node apps/worker/local/dev.mjs "$@"
