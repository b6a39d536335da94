#!/usr/bin/env bash
# Leaves a development agent running in the foreground (Ctrl-C stops it) and prints what to type next. Its folder stays, so that
# a second start finds the same secret and record: target/dev, or the first argument.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/dev-agent.sh
. scripts/dev-agent.sh

scripts/docker-up.sh
cargo build --locked --bins
target="$(scripts/target-dir.sh)"
export QUICKCMD="$target/debug/quickcmd"
image="$(scripts/sandbox-image.sh)"
dir="${1:-$target/dev}"
[ -e "$dir/agent.yaml" ] || dev_agent "$dir" "${PORT:-8443}" "$image"

"$target/debug/quickcmd-agent" --config "$dir/agent.yaml" &
agent=$!
trap 'kill "$agent" 2>/dev/null; wait "$agent"' INT TERM
port="$(sed -n 's/^port: *//p' "$dir/agent.yaml")"
wait_ready "$dir" "$port" "$agent" || { kill "$agent" 2>/dev/null; exit 1; }
cat <<END

The agent runs on https://127.0.0.1:$port. In another terminal:

  export QUICKCMD_CONFIG=$dir/controller.yaml
  $QUICKCMD run -- 'echo hello; id'
  $QUICKCMD list
  $QUICKCMD health
  curl --cacert $dir/cert.pem https://127.0.0.1:$port/metrics

Ctrl-C stops it.
END
wait "$agent"
