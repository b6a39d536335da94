#!/usr/bin/env bash
# Whether the time that a wrong MAC takes tells where it is wrong: Welch's t-test over a million samples, release build.
#   scripts/dudect.sh [SAMPLES] [SEED]
set -euo pipefail
cd "$(dirname "$0")/.."
cargo build --release --locked --package quickcmd-bench --bin quickcmd-dudect
exec "$(scripts/target-dir.sh)/release/quickcmd-dudect" "$@"
