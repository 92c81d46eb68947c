#!/usr/bin/env bash
# Runs the fuzz targets of fuzz/, each for a while, from seeds that are derived from real objects.
#
#   scripts/fuzz.sh                          every target, PGRECALL_FUZZ_SECONDS (2) seconds each
#   scripts/fuzz.sh 60                       a minute each
#   scripts/fuzz.sh 60 file_table file_map   only these
#
# It needs nightly Rust, for the sanitizer, and cargo-fuzz, which it installs. What it builds is in fuzz/target, so
# that builds with stable Rust are left alone. An input that was found to break something is kept in fuzz/artifacts.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! cargo +nightly --version >/dev/null 2>&1; then
  echo "fuzzing needs nightly Rust: rustup toolchain install nightly --profile minimal" >&2
  exit 1
fi
export PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin
command -v cargo-fuzz >/dev/null || cargo install cargo-fuzz --locked --version 0.13.2

seconds=${1:-${PGRECALL_FUZZ_SECONDS:-2}}
shift || true
[[ $seconds =~ ^[1-9][0-9]*$ ]] || { echo "not a number of seconds: $seconds" >&2; exit 2; }
mapfile -t known < <(cargo +nightly fuzz list)
targets=("$@")
[ ${#targets[@]} -gt 0 ] || targets=("${known[@]}")
for target in "${targets[@]}"; do
  [[ " ${known[*]} " == *" $target "* ]] || { echo "no such target: $target (known: ${known[*]})" >&2; exit 2; }
done

# The corpus grows from run to run; seeds that are there already are left as they are. --workspace: the build of the
# tests is used, where there is one.
cargo build --quiet --workspace --example fuzz_seeds
"${CARGO_TARGET_DIR:-target}"/debug/examples/fuzz_seeds fuzz/corpus
cargo +nightly fuzz build

host=$(rustc +nightly -vV | sed -n 's/^host: //p')
export ASAN_OPTIONS=detect_odr_violation=0
failed=()
for target in "${targets[@]}"; do
  mkdir -p fuzz/artifacts/"$target"
  log=fuzz/target/$target.log
  # Real inputs are small: longer ones only make a run slow. -timeout is for one input, in seconds.
  if ! fuzz/target/"$host"/release/"$target" -artifact_prefix=fuzz/artifacts/"$target"/ -fork=0 \
    -max_total_time="$seconds" -max_len=32768 -timeout=10 -rss_limit_mb=1024 -print_final_stats=1 \
    fuzz/corpus/"$target" >"$log" 2>&1; then
    failed+=("$target")
    tail -n 40 "$log" >&2
  fi
  printf 'fuzz: %-20s %s runs\n' "$target" "$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")"
done
[ ${#failed[@]} -eq 0 ] || { echo "fuzz: found something in: ${failed[*]}" >&2; exit 1; }
