#!/usr/bin/env bash
# Gives the compiler in use the sources of its standard library, from which a Worker that survives panics builds its own, and
# scripts/wasm-target.sh the library of a target that cannot be downloaded. Does nothing where they are already there.
#
# The short way is rustup. Where rustup cannot download, and the machine is a Debian one whose package archive can be
# reached, they are Debian's, of the same compiler release.
set -euo pipefail

# The Debian suite that carries the sources of recent compilers.
suite=trixie-backports
keyring=/usr/share/keyrings/debian-archive-keyring.gpg

sysroot=$(rustc --print sysroot)
version=$(rustc --version | cut -d ' ' -f 2)
source_dir=$sysroot/lib/rustlib/src/rust

say() { printf 'rust-source: %s\n' "$*"; }
die() {
  say "$*" >&2
  say "cannot provide the sources of rustc $version; on a machine with internet access: rustup component add rust-src" >&2
  exit 1
}
need() { command -v "$1" >/dev/null || die "rustup could not add the sources, and there is no \`$1\` to fetch them with"; }

# Where this machine gets its own Debian packages from; apt knows it, whatever the format of its source lists.
debian_archive() {
  local codename
  # shellcheck disable=SC1091 # a file of the system
  codename=$(. /etc/os-release && printf '%s' "${VERSION_CODENAME:-}")
  # shellcheck disable=SC2016 # the dollars are apt's
  apt-get indextargets --no-release-info --format '$(RELEASE) $(COMPONENT) $(REPO_URI)' 'Created-By: Packages' |
    awk -v release="$codename" '$1 == release && $2 == "main" && !found++ { print $3 }'
}

# Unpacks (and does not install) the `rust-src` package of this compiler's version below $1.
fetch_source() {
  local work=$1 archive
  archive=$(debian_archive)
  [[ -n $archive ]] || die "found no Debian archive in apt's source lists"
  [[ -r $keyring ]] || die "there is no $keyring to check the archive's signature with"

  mkdir -p "$work/lists/partial" "$work/cache/archives/partial"
  printf 'deb [signed-by=%s] %s %s main\n' "$keyring" "$archive" "$suite" >"$work/sources.list"
  # A private set of lists: the machine's own package state stays as it is. The sandbox user could not write here.
  local apt=(apt-get -qq -o "Dir::Etc::sourcelist=$work/sources.list" -o Dir::Etc::sourceparts=-
    -o "Dir::State::lists=$work/lists" -o "Dir::Cache=$work/cache" -o APT::Sandbox::User=root -o Acquire::Retries=2
    -o APT::Update::Error-Mode=any)

  timeout 300 "${apt[@]}" update || die "could not read the suite $suite of the Debian archive"
  (cd "$work" && timeout 300 "${apt[@]}" download "rust-src=$version*") ||
    die "the suite $suite has no rust-src for rustc $version"
  dpkg -x "$work"/rust-src_*.deb "$work/unpacked"
}

# Puts the library's sources where cargo looks for them.
install_source() {
  local work=$1 found
  need apt-get
  need dpkg
  say "fetching the sources of the standard library"
  fetch_source "$work"
  found=$(find "$work/unpacked" -path '*/library/Cargo.lock' -print -quit)
  [[ -n $found ]] || die "the rust-src package does not hold the library's sources"
  mkdir -p "$source_dir"
  # By way of a second name, so that an interrupted copy is not taken for the whole.
  rm -rf "$source_dir/library" "$source_dir/library.new"
  cp -R "${found%/Cargo.lock}" "$source_dir/library.new"
  mv "$source_dir/library.new" "$source_dir/library"
}

if [[ -f $source_dir/library/Cargo.lock ]]; then
  exit
fi
if command -v rustup >/dev/null && RUST_BACKTRACE=0 timeout 180 rustup component add rust-src &&
  [[ -f $source_dir/library/Cargo.lock ]]; then
  say "added by rustup"
  exit
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
install_source "$work"
say "taken from Debian"
