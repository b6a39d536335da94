#!/usr/bin/env bash
# Runs every test. Prepares what they need: Docker (installed and started if missing, as root), a sandbox image,
# promtool, shellcheck and the tools that the example controllers use. Asked for Docker without Docker it fails.
#   scripts/test.sh            everything
#   scripts/test.sh NAME...    only tests whose name has one of these words
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '\n== %s\n' "$*"; }

say "Docker and a sandbox image"
scripts/docker-up.sh
QUICKCMD_TEST_IMAGE="$(scripts/sandbox-image.sh)"
export QUICKCMD_TEST_IMAGE
echo "image: $QUICKCMD_TEST_IMAGE"

say "tools"
scripts/test-tools.sh
QUICKCMD_PROMTOOL="$(command -v promtool)"
export QUICKCMD_PROMTOOL

say "build"
# With the failpoints, which no build for use has: one set of features for all tests is built once.
cargo build --locked --workspace --bins --tests --features quickcmd/failpoints

# Before cargo's own tests, so that what this prints last is their summary.
status=0
if [ $# -eq 0 ]; then
  say "install, upgrade, removal"
  if [ "$(id -u)" -eq 0 ]; then
    tests/install.sh "$(scripts/target-dir.sh)/debug" || status=$?
  else
    echo "NOT RUN: tests/install.sh changes users and /etc, which takes root" >&2
  fi
  [ "$status" -eq 0 ] || echo "tests/install.sh FAILED; the other tests follow" >&2
fi

# One test of a kind that stresses the machine must not disturb another's: a few threads only.
say "tests"
cargo test --locked --workspace --features quickcmd/failpoints --no-fail-fast -- --test-threads 4 "$@" || status=$?

[ "$status" -eq 0 ] || echo "Some tests failed; their names are above." >&2
exit "$status"
