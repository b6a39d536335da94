#!/usr/bin/env bash
# Runs libFuzzer over every target of src/fuzz, one after the other, each for so long; new inputs go to the target folder,
# findings to fuzz/artifacts. Needs cargo-fuzz (cargo install --locked cargo-fuzz) and a C++ compiler.
#   scripts/fuzz.sh                          every target for a minute
#   DURATION=3600 scripts/fuzz.sh spool      one for an hour
# Instruments need switches that a stable compiler keeps for itself: RUSTC_BOOTSTRAP gives them, so that no other toolchain
# is needed. SANITIZER=address looks for what unsafe code could do, too; the agent has none.
set -euo pipefail
cd "$(dirname "$0")/.."

command -v cargo-fuzz >/dev/null || { echo "cargo-fuzz is missing. Run: cargo install --locked cargo-fuzz" >&2; exit 1; }
export RUSTC_BOOTSTRAP=1
duration="${DURATION:-60}"
found="$(scripts/target-dir.sh)/fuzz-corpus"
if [ $# -gt 0 ]; then
  targets=("$@")
else
  mapfile -t targets < <(cargo fuzz list)
fi
failed=()
for target in "${targets[@]}"; do
  mkdir -p "$found/$target"
  echo "== $target, $duration s"
  cargo fuzz run --sanitizer "${SANITIZER:-none}" "$target" "$found/$target" "fuzz/corpus/$target" -- \
    -max_total_time="$duration" -max_len=16384 -timeout=20 -rss_limit_mb=2048 -print_final_stats=1 -verbosity=0 ||
    failed+=("$target")
done
[ ${#failed[@]} -eq 0 ] || { echo "fuzz: FAILED: ${failed[*]} (inputs in fuzz/artifacts)" >&2; exit 1; }
echo "fuzz: nothing found"
