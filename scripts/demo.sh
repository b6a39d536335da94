#!/usr/bin/env bash
# The demonstration: Docker, build, image, a throwaway agent, signed jobs with live output, one refusal, the record, the
# metrics. Leaves nothing running. Takes a few minutes the first time (the build), then seconds.
# Jobs are written in single quotes: the sandbox's shell is to expand what is in them, not this one.
# shellcheck disable=SC2016
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/dev-agent.sh
. scripts/dev-agent.sh

bold='' faint='' plain=''
if [ -t 1 ]; then bold=$'\033[1m' faint=$'\033[2m' plain=$'\033[0m'; fi
say() { printf '\n%s== %s%s\n' "$bold" "$*" "$plain"; }
# Shows a command as one would type it, and runs it.
show() {
  local word line='$'
  for word in "$@"; do
    case "$word" in
      '' | *[!A-Za-z0-9_./:=-]*) line+=" '${word//\'/\'\\\'\'}'" ;;
      *) line+=" $word" ;;
    esac
  done
  printf '%s%s%s\n' "$faint" "$line" "$plain"
  "$@"
}

say "Docker"
scripts/docker-up.sh
say "Build"
make --no-print-directory build-agent
export QUICKCMD="$PWD/bin/quickcmd"
for tool in openssl curl; do
  command -v "$tool" >/dev/null || { echo "$tool is needed: apt-get install $tool" >&2; exit 1; }
done
say "A sandbox image"
image="$(scripts/sandbox-image.sh)"
echo "$image"

dir="$(mktemp -d /tmp/quickcmd-demo.XXXXXX)"
port="$(free_port)"
dev_agent "$dir" "$port" "$image"
agent=
stop() {
  [ -z "$agent" ] || { kill "$agent" 2>/dev/null && wait "$agent" 2>/dev/null; } || true
  rm -rf "$dir"
}
trap stop EXIT

say "An agent with a throwaway configuration (port $port)"
bin/quickcmd-agent --config "$dir/agent.yaml" 2>"$dir/agent.log" &
agent=$!
wait_ready "$dir" "$port" "$agent"
export QUICKCMD_CONFIG="$dir/controller.yaml"
show bin/quickcmd health

say "A signed job, its output as it comes"
show bin/quickcmd run -- 'echo "hello from $(hostname), as uid $(id -u)"; for i in 1 2 3; do echo "line $i"; sleep 0.3; done; echo "and a word on stderr" >&2'
echo "exit code: $?"

say "Its exit code passes through, as that of a local command"
code=0
show bin/quickcmd run -- 'exit 42' || code=$?
echo "exit code: $code"

say "No network, no root, read-only"
show bin/quickcmd run -- 'ip addr 2>/dev/null | grep -c "inet " ; touch /etc/x; id -u' || true

say "A secret never leaves"
show bin/quickcmd run --secret-env TOKEN=correct-horse-battery -- 'echo "the token is $TOKEN"'

say "A refusal"
show bin/quickcmd run -- 'rm -rf /' || echo "exit code: $?"

say "What there was"
show bin/quickcmd list

say "The record"
if command -v sqlite3 >/dev/null; then
  show sqlite3 -header -column "$dir/data/agent-audit.db" \
    "select id, user, substr(selected_command, 1, 32) command, exit_code, risk_level, executed, duration_ms from runs"
elif command -v python3 >/dev/null; then
  python3 - "$dir/data/agent-audit.db" <<'PY'
import sqlite3, sys
db = sqlite3.connect(f"file:{sys.argv[1]}?mode=ro", uri=True)
rows = db.execute("select id, user, substr(selected_command, 1, 32) as command, exit_code, risk_level, executed, duration_ms from runs")
print(*[c[0] for c in rows.description], sep=" | ")
for row in rows:
    print(*row, sep=" | ")
PY
fi

say "The metrics"
curl --noproxy "*" -fsS --cacert "$dir/cert.pem" "https://127.0.0.1:$port/metrics" |
  grep -E '^quickcmd_agent_(jobs_total|jobs_running|jobs_ended_total|refusals_total|queue_depth)' |
  grep -vE '_total\{.*\} 0$' || true

say "Stop"
kill "$agent"
wait "$agent" || true
agent=
echo "The agent has stopped; its containers are gone: $(docker ps -aq --filter label=com.quickcmd.agent=dev-agent | wc -l) left."
