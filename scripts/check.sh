#!/usr/bin/env bash
# Format, lints, docs, shell scripts, and of the dependencies licences, sources and known weaknesses. Warnings are errors.
#   scripts/check.sh
#   SKIP_DENY=1 scripts/check.sh    without cargo-deny
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '\n== %s\n' "$*"; }

say "cargo fmt"
cargo fmt --all --check
say "cargo clippy"
cargo clippy --locked --workspace --all-targets --all-features -- -D warnings
say "cargo doc"
RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps --document-private-items --quiet
say "shellcheck"
if command -v shellcheck >/dev/null 2>&1; then
  git ls-files -z '*.sh' '.ci/run' | xargs -0 shellcheck --external-sources
else
  echo "shellcheck is not installed (apt-get install shellcheck)" >&2
  exit 1
fi
say "cargo deny"
if [ "${SKIP_DENY:-}" = 1 ]; then
  echo "NOT RUN (SKIP_DENY=1): licences, sources and advisories were not checked"
  exit 0
fi
if ! command -v cargo-deny >/dev/null 2>&1; then
  echo "cargo-deny is not installed: cargo install --locked cargo-deny, or SKIP_DENY=1 to go without it" >&2
  exit 1
fi
# Needs the crates, those of other platforms too.
if cargo fetch --locked --quiet; then
  cargo deny --offline --locked check licenses bans sources
else
  echo "licences, bans, sources: NOT RUN, some crates could not be fetched"
fi
# The database is a repository of its own, which not every machine can reach: that is no fault of this source. What it then
# says is one. The time is for a network that swallows packets.
if said="$(timeout 120 cargo deny --locked fetch db 2>&1)"; then
  cargo deny --offline --locked check advisories
else
  printf '%s\n' "$said" | tail -n 3 >&2
  echo "advisories: NOT RUN, the database can't be reached"
fi
