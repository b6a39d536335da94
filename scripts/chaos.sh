#!/usr/bin/env bash
# A storm: one fault after the other befalls an agent while controllers work; then everything is held against the
# promises (docs/testing.md, "Chaos").
#   SEED=7 DURATION=600 scripts/chaos.sh         ten minutes, with the faults of seed 7
#   PLANTED=rerun-lost scripts/chaos.sh          with a defect that it must find
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/docker-up.sh
QUICKCMD_TEST_IMAGE="$(scripts/sandbox-image.sh)"
export QUICKCMD_TEST_IMAGE
export QUICKCMD_CHAOS_SEED="${SEED:-$RANDOM}" QUICKCMD_CHAOS_DURATION="${DURATION:-300}"
export QUICKCMD_CHAOS_PLANTED="${PLANTED:-}"
exec cargo test --locked --features failpoints --test chaos -- --nocapture storm
