#!/usr/bin/env bash
# Format, lints, docs, shell scripts, licences and sources of dependencies. Warnings are errors.
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
if command -v cargo-deny >/dev/null 2>&1; then
  # Advisories need a database from outside; the rest needs the crates, those of other platforms too.
  if cargo fetch --locked --quiet; then
    cargo deny --offline --locked check licenses bans sources
  else
    echo "NOT RUN: some crates could not be fetched"
  fi
else
  echo "cargo-deny is not installed (cargo install --locked cargo-deny). NOT RUN: licences and sources were not checked"
fi
