#!/usr/bin/env bash
# Installs what the tests of the speech engine speak with, unless it is there already: espeak-ng, and its encoders lame and opusenc.
set -euo pipefail

missing=()
for tool in espeak-ng:espeak-ng lame:lame opusenc:opus-tools; do
  command -v "${tool%%:*}" >/dev/null || missing+=("${tool##*:}")
done
((${#missing[@]})) || exit 0

if ! command -v apt-get >/dev/null || (($(id -u) != 0)); then
  echo "${0##*/}: ${missing[*]} must be installed; on Debian: apt-get install ${missing[*]}" >&2
  exit 2
fi
echo "installing ${missing[*]}"
install() { DEBIAN_FRONTEND=noninteractive apt-get -qq install --yes --no-install-recommends "${missing[@]}" >/dev/null; }
# With the lists that are there, if they are; a machine that was just made has none.
install 2>/dev/null || { apt-get -qq update && install; }
