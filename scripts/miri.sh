#!/usr/bin/env bash
# Runs the decoders' own tests under Miri, which sees undefined behaviour and what overflows: those of pgrecall-pgformat, and
# with `all` those of the repository's format, which take ten minutes more. Where the component cannot be had, it says so: the
# crates' lints (`unsafe_code`, indexing, casts) hold everywhere.
set -euo pipefail
cd "$(dirname "$0")/.."

rustup toolchain list | grep -q ^nightly || rustup toolchain install nightly --profile minimal
if ! rustup component add miri rust-src --toolchain nightly >/dev/null 2>&1; then
  echo "WARNING: Miri cannot be had here, and NOTHING WAS RUN under it" >&2
  exit 0
fi
export MIRIFLAGS=-Zmiri-disable-isolation
miri() { cargo +nightly miri test --locked --target-dir target/miri "$@"; }

miri -p pgrecall-pgformat --lib
if [ "${1:-}" = all ]; then
  # A table of as many entries as there may be is too much for an interpreter.
  miri -p pgrecall-repo --lib format:: -- --skip a_table_with_too_many_entries_is_refused
fi
