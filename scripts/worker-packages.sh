#!/usr/bin/env bash
# Installs what building and running the Worker needs from npm, in the versions of apps/worker/package-lock.json. Does
# nothing where just that is there already.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../apps/worker"

stamp=node_modules/.lock-hash
sum=$(command -v sha256sum || echo 'shasum -a 256')
lock_hash=$($sum package-lock.json | cut -d ' ' -f 1)
# The hash says whether this lock file is what was installed; a date would lie after a checkout.
is_ready() { [[ -f $stamp && $(<"$stamp") == "$lock_hash" ]]; }
if is_ready; then
  exit
fi

die() {
  printf 'worker-packages: %s\n' "$*" >&2
  exit 1
}
command -v node >/dev/null || die "there is no \`node\`; the Worker's tools want Node 20 or newer (https://nodejs.org)"
command -v npm >/dev/null || die "there is \`node\`, but no \`npm\`; install npm"
node -e 'process.exit(parseInt(process.versions.node) < 20 ? 1 : 0)' ||
  die "Node $(node --version) is too old; 20 is the oldest that works"

# Tests that start at the same time must not install at the same time.
mkdir -p ../../target
exec 9>../../target/worker-packages.lock
if command -v flock >/dev/null; then
  flock 9
  if is_ready; then
    exit
  fi
fi

echo "worker-packages: installing the npm packages of apps/worker"
# No package needs its install script here, and none should run on a developer's machine.
npm ci --ignore-scripts --no-audit --no-fund --loglevel=error ||
  die "npm could not install the packages of apps/worker/package-lock.json"
# Last, so that an interrupted installation is not taken for the whole.
printf '%s\n' "$lock_hash" >"$stamp"
