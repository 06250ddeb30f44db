#!/usr/bin/env bash
# Gives the compiler in use the standard library of wasm32-unknown-unknown, so that
# `cargo check --target wasm32-unknown-unknown` works. Does nothing where it is already there.
#
# The short way is rustup. Where rustup cannot download, and the machine is a Debian one whose package archive can be
# reached, the library is built from Debian's source of the same compiler release.
set -euo pipefail

target=wasm32-unknown-unknown
# The Debian suite that carries the sources of recent compilers.
suite=trixie-backports
keyring=/usr/share/keyrings/debian-archive-keyring.gpg

sysroot=$(rustc --print sysroot)
libdir=$(rustc --print target-libdir --target "$target")
version=$(rustc --version | cut -d ' ' -f 2)

say() { printf 'wasm-target: %s\n' "$*"; }
die() {
  say "$*" >&2
  say "cannot provide $target for rustc $version; on a machine with internet access: rustup target add $target" >&2
  exit 1
}
need() { command -v "$1" >/dev/null || die "rustup could not add the target, and there is no \`$1\` to build it with"; }
has_std() { compgen -G "$libdir/libcore-*.rlib" >/dev/null && compgen -G "$libdir/libstd-*.rlib" >/dev/null; }

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

# Puts the library's sources where cargo looks for them; what builds std later (a panic-unwind Worker) finds them there.
install_source() {
  local work=$1 found
  local source_dir=$sysroot/lib/rustlib/src/rust
  [[ -f $source_dir/library/Cargo.lock ]] && return
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

build_std() {
  local work=$1 lib
  local deps=$work/target/$target/release/deps
  mkdir -p "$work/empty/src" "$libdir"
  printf '[package]\nname = "empty"\nedition = "2021"\n\n[workspace]\n' >"$work/empty/Cargo.toml"
  printf '#![no_std]\n' >"$work/empty/src/lib.rs"

  say "building the standard library, about half a minute"
  # Without the bitcode, `lto = true` would fail. RUSTC_BOOTSTRAP lets a stable compiler build its own library.
  (cd "$work/empty" && env -u CARGO_ENCODED_RUSTFLAGS RUSTC_BOOTSTRAP=1 RUSTFLAGS=-Cembed-bitcode=yes \
    cargo build --quiet --release --target "$target" --target-dir "$work/target" -Zbuild-std=std,panic_abort) ||
    die "the standard library does not build"

  # libcore goes last: its presence says that the rest is there.
  for lib in "$deps"/*.rlib; do
    case ${lib##*/} in
      libempty-* | libcore-*) ;;
      *) cp "$lib" "$libdir/" ;;
    esac
  done
  cp "$deps"/libcore-*.rlib "$libdir/"
}

if has_std; then
  say "$target is there"
  exit
fi

if command -v rustup >/dev/null && RUST_BACKTRACE=0 timeout 180 rustup target add "$target" && has_std; then
  say "$target was added by rustup"
  exit
fi

say "rustup could not add $target; building it from source"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
install_source "$work"
build_std "$work"
printf 'pub fn main() { println!("{}", 1); }\n' |
  rustc --crate-type lib --target "$target" --emit metadata -o "$work/probe.rmeta" - ||
  die "the new library does not work"
say "$target was built from source"
