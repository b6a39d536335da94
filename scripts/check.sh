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
  # Advisories need a database from outside; the rest does not.
  cargo deny --offline check licenses bans sources
else
  echo "cargo-deny is not installed (cargo install cargo-deny): licences and sources were not checked"
fi
