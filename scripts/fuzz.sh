#!/usr/bin/env bash
# Fuzzes every target below fuzz/ for a while, or only those that are named. Needs a nightly toolchain and a C++ compiler.
# usage: scripts/fuzz.sh [--seconds N] [TARGET]…
#
# A run begins with fuzz/corpus, which is small and committed, and with what earlier runs on this machine have found, which is in
# fuzz/found. An input that fails is left in fuzz/artifacts: copy it to the corpus under a name that says what it is, and every
# test run covers it. `-merge=1 -set_cover_merge=1` after `cargo +nightly fuzz run TARGET fuzz/corpus/TARGET fuzz/found/TARGET --`
# takes over what reaches new code.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

seconds=120
if [[ ${1:-} == --seconds ]]; then
  seconds=${2:?"usage: ${0##*/} [--seconds N] [TARGET]…"}
  shift 2
fi
targets=("$@")
if ((${#targets[@]} == 0)); then
  mapfile -t targets < <(find fuzz/fuzz_targets -name '*.rs' -exec basename {} .rs \; | sort)
fi

if ! cargo +nightly --version >/dev/null 2>&1; then
  echo "fuzz: there is no nightly toolchain: rustup toolchain install nightly --profile minimal" >&2
  exit 1
fi
scripts/cargo-tool.sh cargo-fuzz 0.13.1
cargo +nightly fuzz build

for target in "${targets[@]}"; do
  printf '\n==> %s: %d s\n' "$target" "$seconds"
  mkdir -p "fuzz/found/$target"
  cargo +nightly fuzz run "$target" "fuzz/found/$target" "fuzz/corpus/$target" -- \
    -max_total_time="$seconds" -max_len=4096 -timeout=5 -rss_limit_mb=2048 -print_final_stats=1 -print_funcs=0 -verbosity=0 \
    -dict="fuzz/dictionaries/$target"
done
