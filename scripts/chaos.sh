#!/usr/bin/env bash
# A storm: one fault after the other befalls an agent while controllers work; then everything is held against the
# promises. Before it the power goes, at a thousand moments (docs/testing.md, "Chaos" and "Power cuts").
#   SEED=7 DURATION=600 scripts/chaos.sh         ten minutes, with the faults of seed 7
#   PLANTED=rerun-lost scripts/chaos.sh          with a defect that it must find
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/docker-up.sh
QUICKCMD_TEST_IMAGE="$(scripts/sandbox-image.sh)"
export QUICKCMD_TEST_IMAGE
export QUICKCMD_CHAOS_SEED="${SEED:-$RANDOM}" QUICKCMD_CHAOS_DURATION="${DURATION:-300}"
export QUICKCMD_CHAOS_PLANTED="${PLANTED:-}" QUICKCMD_CHAOS_MOMENTS="${MOMENTS:-1000}"
# One after the other: each has the machine to itself, and what one finds does not keep the other from looking.
exec cargo test --locked --features failpoints --test chaos --no-fail-fast -- --nocapture --test-threads 1 \
  storm power::no_accepted_job_vanishes power::an_agent_goes_on
