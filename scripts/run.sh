#!/usr/bin/env bash
# Leaves a development agent running in the foreground (Ctrl-C stops it) and prints what to type next. Its folder stays, so that
# a second start finds the same secret and record: target/dev, or the first argument. PORT: another than 8443.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/dev-agent.sh
. scripts/dev-agent.sh

need_tools openssl curl
scripts/docker-up.sh
cargo build --locked --bins
target="$(scripts/target-dir.sh)"
quickcmd="$target/debug/quickcmd"
export PATH="$target/debug:$PATH"
image="$(scripts/sandbox-image.sh)"
dir="${1:-$target/dev}"
[ -e "$dir/agent.yaml" ] || dev_agent "$dir" "${PORT:-8443}" "$image"
if [ -n "${PORT:-}" ]; then
  sed -i "s/^port: .*/port: $PORT/" "$dir/agent.yaml"
  sed -i "s#^url: .*#url: \"https://127.0.0.1:$PORT\"#" "$dir/controller.yaml"
fi

# Its own session: Ctrl-C reaches this script alone, which tells the agent once. Once: running jobs may end; twice: now.
setsid "$target/debug/quickcmd-agent" --config "$dir/agent.yaml" &
agent=$!
tell() { kill "$agent" 2>/dev/null || true; }
stop() {
  trap tell INT TERM HUP
  tell
  local code=0
  while kill -0 "$agent" 2>/dev/null; do
    code=0
    wait "$agent" || code=$?
  done
  exit "$code"
}
trap stop INT TERM HUP
port="$(sed -n 's/^port: *//p' "$dir/agent.yaml")"
wait_ready "$dir" "$port" "$agent" || { tell; exit 1; }
cat <<END

The agent runs on https://127.0.0.1:$port. In another terminal:

  export QUICKCMD_CONFIG=$dir/controller.yaml
  $quickcmd run -- 'echo hello; id'
  $quickcmd list
  $quickcmd health
  curl --cacert $dir/cert.pem https://127.0.0.1:$port/metrics

Ctrl-C stops it.
END
wait "$agent"
