#!/usr/bin/env bash
# Every attempt of a hostile job (docs/testing.md, "Escape"), those that take long included; prints a table.
#   scripts/escape.sh                 all rows
#   JOBS=10000 scripts/escape.sh      so many jobs in the last row (200)
#   ROW=artifacts scripts/escape.sh   only rows whose name has this in it
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/docker-up.sh
QUICKCMD_TEST_IMAGE="$(scripts/sandbox-image.sh)"
export QUICKCMD_TEST_IMAGE
export QUICKCMD_ESCAPE=full QUICKCMD_ESCAPE_JOBS="${JOBS:-200}" QUICKCMD_ESCAPE_ROW="${ROW:-}"
# The failpoints as for all tests: nothing is built twice, and nothing here sets one.
exec cargo test --locked --features failpoints --test escape -- --nocapture
