#!/usr/bin/env bash
# Holds dependencies to deny.toml: their licences, where they come from, and which are not wanted. Installs cargo-deny
# into target/tools, not optimised, which takes two minutes less.
#
#   scripts/deny.sh                  licences, sources and bans
#   scripts/deny.sh advisories       known faults of dependencies, where RustSec's database can be fetched
set -euo pipefail
cd "$(dirname "$0")/.."

version=0.20.2
tools=${CARGO_TARGET_DIR:-target}/tools
if [ "$("$tools/bin/cargo-deny" --version 2>/dev/null)" != "cargo-deny $version" ]; then
  cargo install --quiet --locked --debug --root "$tools" --target-dir "$tools/build" --version "$version" cargo-deny
  rm -rf "$tools/build"
fi
[ $# -gt 0 ] || set -- bans licenses sources
for manifest in Cargo.toml fuzz/Cargo.toml; do
  "$tools/bin/cargo-deny" --manifest-path "$manifest" --config deny.toml --locked check "$@"
done
