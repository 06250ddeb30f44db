#!/usr/bin/env bash
# Gives the compiler in use the standard library of wasm32-unknown-unknown, so that
# `cargo check --target wasm32-unknown-unknown` works. Does nothing where it is already there.
#
# The short way is rustup. Where rustup cannot download, the library is built from source.
set -euo pipefail

target=wasm32-unknown-unknown
sysroot=$(rustc --print sysroot)
libdir=$(rustc --print target-libdir --target "$target")
version=$(rustc --version | cut -d ' ' -f 2)

say() { printf 'wasm-target: %s\n' "$*"; }
die() {
  say "$*" >&2
  say "cannot provide $target for rustc $version; on a machine with internet access: rustup target add $target" >&2
  exit 1
}
has_std() { compgen -G "$libdir/libcore-*.rlib" >/dev/null && compgen -G "$libdir/libstd-*.rlib" >/dev/null; }

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
"$(dirname "${BASH_SOURCE[0]}")/rust-source.sh" || die "there are no sources to build it from"
build_std "$work"
printf 'pub fn main() { println!("{}", 1); }\n' |
  rustc --crate-type lib --target "$target" --emit metadata -o "$work/probe.rmeta" - ||
  die "the new library does not work"
say "$target was built from source"
