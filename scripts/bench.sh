#!/usr/bin/env bash
# The benchmark (docs/benchmark.md): prepares Docker and an image, builds the real programs and the benchmark, and
# measures. Arguments go to the benchmark: --quick, --only GROUP.
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/docker-up.sh
image="$(scripts/sandbox-image.sh)"
cargo build --release --locked --package quickcmd --package quickcmd-bench --bins
target="$(scripts/target-dir.sh)"
mkdir -p "$target/bench"
"$target/release/quickcmd-bench" --agent "$target/release/quickcmd-agent" --image "$image" \
  --out "$target/bench/summary.json" "$@"
