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
cargo build --locked --workspace --bins --tests

# One test of a kind that stresses the machine must not disturb another's: a few threads only.
say "tests"
status=0
cargo test --locked --workspace --no-fail-fast -- --test-threads 4 "$@" || status=$?

if [ $# -eq 0 ]; then
  say "install, upgrade, removal"
  tests/install.sh || status=$?
fi

if [ "$status" -ne 0 ]; then
  echo "Some tests failed; their names are above." >&2
fi
exit "$status"
