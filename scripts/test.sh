#!/usr/bin/env bash
# Runs every test. Prepares what they need: Docker (installed and started if missing, as root), a sandbox image,
# promtool, shellcheck and the tools that the example controllers use. Asked for Docker without Docker it fails.
#   scripts/test.sh            everything
#   scripts/test.sh NAME...    only tests whose name has one of these words
# With QUICKCMD_TEST_AGAIN=1 (CI) a test that failed is run once more, alone; passes it then, it is named as unsteady and
# the run goes on. An unsteady test is a defect: without the variable it fails the run.
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
log="$(mktemp)"
trap 'rm -f "$log"' EXIT
tests=(cargo test --locked --workspace --features quickcmd/failpoints --no-fail-fast)
ran=0
"${tests[@]}" -- --test-threads 4 "$@" 2>&1 | tee "$log" || ran=$?

# Only where every failure is a test that can be named: a program that died or a failed build is not run again.
mapfile -t failed < <(sed -n 's/^test \([^ ]*\) \.\.\. FAILED$/\1/p' "$log" | sort -u)
reports="$(grep -c '^error: .*to rerun pass' "$log" || true)"
verdicts="$(grep -c '^test result: FAILED' "$log" || true)"
if [ "$ran" -ne 0 ] && [ "${QUICKCMD_TEST_AGAIN:-}" = 1 ] && [ "${#failed[@]}" -gt 0 ] && [ "${#failed[@]}" -le 3 ] \
  && [ "$reports" -eq "$verdicts" ]; then
  say "once more, alone: ${failed[*]}"
  ran=0
  "${tests[@]}" -- --test-threads 1 --exact "${failed[@]}" 2>&1 | tee "$log" || ran=$?
  passed="$(sed -n 's/^test result: ok\. \([0-9]*\) passed.*/\1/p' "$log" | awk '{ n += $1 } END { print n + 0 }')"
  [ "$passed" -ge "${#failed[@]}" ] || ran=1
  [ "$ran" -ne 0 ] || say "UNSTEADY, failed once and passed alone (mend them): ${failed[*]}"
fi
[ "$ran" -eq 0 ] || status=$ran

[ "$status" -eq 0 ] || echo "Some tests failed; their names are above." >&2
exit "$status"
