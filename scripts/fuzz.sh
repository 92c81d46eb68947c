#!/usr/bin/env bash
# Runs the fuzz targets of fuzz/, each for a while, from seeds that are derived from real objects.
#
#   scripts/fuzz.sh                          every target, PGRECALL_FUZZ_SECONDS (2) seconds each
#   scripts/fuzz.sh 60                       a minute each
#   scripts/fuzz.sh 60 file_table file_map   only these
#
# It needs nightly Rust, for the sanitizer; cargo-fuzz it does without, since installing that takes longer than many a
# run, and what that adds to a build is a few flags. What it builds is in fuzz/target, so that builds with stable Rust
# are left alone. An input that was found to break something is kept in fuzz/artifacts. Each run of a target adds a line
# to fuzz/target/runs.tsv: when, target, inputs tried, seconds of processor time. So long work can be done in parts:
#
#   awk '{ n += $3; s += $4 } END { print n, s / 3600 }' fuzz/target/runs.tsv
set -euo pipefail
cd "$(dirname "$0")/.."

if ! cargo +nightly --version >/dev/null 2>&1; then
  echo "fuzzing needs nightly Rust: rustup toolchain install nightly --profile minimal" >&2
  exit 1
fi

seconds=${1:-${PGRECALL_FUZZ_SECONDS:-2}}
shift || true
[[ $seconds =~ ^[1-9][0-9]*$ ]] || { echo "not a number of seconds: $seconds" >&2; exit 2; }
mapfile -t known < <(sed -n 's|^path = "fuzz_targets/\(.*\)\.rs"|\1|p' fuzz/Cargo.toml)
targets=("$@")
[ ${#targets[@]} -gt 0 ] || targets=("${known[@]}")
for target in "${targets[@]}"; do
  [[ " ${known[*]} " == *" $target "* ]] || { echo "no such target: $target (known: ${known[*]})" >&2; exit 2; }
done

# The corpus grows from run to run; seeds that are there already are left as they are. --workspace: the build of the
# tests is used, where there is one.
cargo build --quiet --workspace --example fuzz_seeds
"${CARGO_TARGET_DIR:-target}"/debug/examples/fuzz_seeds fuzz/corpus
host=$(rustc +nightly -vV | sed -n 's/^host: //p')
# As `cargo fuzz build` (0.13) has it, but for the units of code: with one, a run is thrice as fast, and a build half as
# fast, which pays for long runs only.
flags=(--cfg fuzzing -Zsanitizer=address -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4
  -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table
  -Cllvm-args=-sanitizer-coverage-trace-compares -Cllvm-args=-sanitizer-coverage-stack-depth
  -Cllvm-args=-simplifycfg-branch-fold-threshold=0)
[ "$seconds" -lt 30 ] || flags+=(-Ccodegen-units=1)
RUSTFLAGS="${flags[*]} ${RUSTFLAGS:-}" cargo +nightly build --quiet --locked --release --bins \
  --manifest-path fuzz/Cargo.toml --target "$host" --target-dir fuzz/target
export ASAN_OPTIONS=detect_odr_violation=0
failed=()
for target in "${targets[@]}"; do
  mkdir -p fuzz/artifacts/"$target"
  log=fuzz/target/$target.log
  # Real inputs are small: longer ones only make a run slow. -timeout is for one input, in seconds
  # by the clock: a machine that has other work to do must not make a find of a slow one.
  TIMEFORMAT='%U %S'
  spent=$({ time fuzz/target/"$host"/release/"$target" -artifact_prefix=fuzz/artifacts/"$target"/ -fork=0 \
    -max_total_time="$seconds" -max_len=32768 -timeout=60 -rss_limit_mb=1024 -print_final_stats=1 \
    fuzz/corpus/"$target" >"$log" 2>&1; } 2>&1) || {
    failed+=("$target")
    tail -n 40 "$log" >&2
  }
  tried=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
  spent=$(awk '{ print $1 + $2 }' <<<"$spent")
  printf '%s\t%s\t%s\t%s\n' "$(date -u +%FT%TZ)" "$target" "${tried:-0}" "$spent" >>fuzz/target/runs.tsv
  printf 'fuzz: %-20s %s runs, %s s of processor time\n' "$target" "${tried:-0}" "$spent"
done
[ ${#failed[@]} -eq 0 ] || { echo "fuzz: found something in: ${failed[*]}" >&2; exit 1; }
