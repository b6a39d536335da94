#!/usr/bin/env bash
# The demonstration: Docker, build, image, a throwaway agent, signed jobs with live output, refusals, the record, the
# metrics. Leaves no agent and no container. Takes some minutes the first time (the build), then seconds.
# Jobs are written in single quotes: the sandbox's shell is to expand what is in them, not this one.
# shellcheck disable=SC2016
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/dev-agent.sh
. scripts/dev-agent.sh

bold='' faint='' plain=''
if [ -t 1 ]; then bold=$'\033[1m' faint=$'\033[2m' plain=$'\033[0m'; fi
# say TITLE [SENTENCE]: what comes next, and why one should look at it.
say() {
  printf '\n%s== %s%s\n' "$bold" "$1" "$plain"
  [ $# -lt 2 ] || printf '%s\n' "$2"
}
# Shows a command as one would type it, runs it, and says how it ended where that is not 0.
show() {
  local word line='$' code=0
  for word in "$@"; do
    case "$word" in
      '' | *[!A-Za-z0-9_./:=-]*) line+=" '${word//\'/\'\\\'\'}'" ;;
      *) line+=" $word" ;;
    esac
  done
  printf '%s%s%s\n' "$faint" "$line" "$plain"
  "$@" || code=$?
  [ "$code" -eq 0 ] || printf '%s(exit code %s)%s\n' "$faint" "$code" "$plain"
  return "$code"
}
fail() { echo "demo: $*" >&2; exit 1; }

say "Docker" "Every job runs in a container of its own, so there must be an engine."
need_tools openssl curl
scripts/docker-up.sh
docker version --format 'Docker {{.Server.Version}} answers.'

say "Build" "The agent (quickcmd-agent) and the controller's program (quickcmd)."
cargo build --locked --bins
target="$(scripts/target-dir.sh)/debug"
export PATH="$target:$PATH"

say "A sandbox image" "A local one if there is one, else a pull, else one made here of busybox."
image="$(scripts/sandbox-image.sh)"
echo "$image"

name="demo-$$"
throwaway_agent "$image" "$name"

say "An agent" "It has a throwaway configuration with a fresh secret, and serves https://127.0.0.1:$port."
quickcmd-agent --config "$dir/agent.yaml" 2>"$dir/agent.log" &
agent=$!
wait_ready "$dir" "$port" "$agent" || exit 1
export QUICKCMD_CONFIG="$dir/controller.yaml"
show quickcmd health

say "A signed job" "Each line arrives as it is printed; stdout and stderr stay apart."
show quickcmd run -- 'echo "hello from $(hostname), as uid $(id -u)"
for i in 1 2 3; do date "+%T line $i"; sleep 1; done
echo "a word on stderr" >&2'

say "Its exit code is the command's" "As that of a local command."
code=0
show quickcmd run -- 'exit 42' || code=$?
[ "$code" -eq 42 ] || fail "42 was expected"

say "Locked down" "No network but the loopback, no root, nothing to write to but /tmp and the work folder."
show quickcmd run -- 'echo "network: $(tail -n +3 /proc/net/dev | cut -d: -f1)"
touch /etc/x
grep -E "CapEff|NoNewPrivs" /proc/self/status' || fail "the job did not run"

say "A limit" "The job ends after its time, with every process it has started."
code=0
show quickcmd run --timeout 2s -- 'sleep 600 & sleep 600' || code=$?
[ "$code" -ne 0 ] || fail "it should have been stopped"

say "A secret" "Known to the job, masked in whatever it prints, and never stored."
show quickcmd run --secret-env TOKEN=correct-horse-battery -- 'echo "the token has ${#TOKEN} characters: $TOKEN"'

say "A refusal by policy" "Nothing ran; the refusal names its rule and is in the record."
if show quickcmd run -- 'rm -rf /'; then fail "it should have been refused"; fi

say "A refusal by signature" "The same controller with another key."
if QUICKCMD_SECRET="$(quickcmd gen-key)" show quickcmd run -- true; then fail "it should have been refused"; fi

say "The jobs" "What the controller sees of them."
show quickcmd list

say "The record" "What the agent keeps: SQLite, with the view \`runs\`."
record="$dir/data/agent-audit.db"
columns="id, user, replace(substr(selected_command, 1, 28), char(10), ' ') as command, exit_code, risk_level, executed, duration_ms"
if command -v sqlite3 >/dev/null; then
  sqlite3 -readonly -header -column "$record" "select $columns from runs"
elif command -v python3 >/dev/null; then
  python3 - "$record" "$columns" <<'PY'
import sqlite3, sys

db = sqlite3.connect(f"file:{sys.argv[1]}?mode=ro", uri=True)
rows = db.execute(f"select {sys.argv[2]} from runs")
lines = [[column[0] for column in rows.description]]
lines += [["" if value is None else str(value) for value in row] for row in rows]
widths = [max(map(len, column)) for column in zip(*lines)]
for line in lines:
    print("  ".join(value.ljust(width) for value, width in zip(line, widths)).rstrip())
PY
else
  echo "(apt-get install sqlite3 to look at it)"
fi

say "The metrics" "For Prometheus; a few of them."
curl --noproxy "*" -fsS --cacert "$dir/cert.pem" "https://127.0.0.1:$port/metrics" |
  grep -E '^quickcmd_agent_(jobs_total|jobs_running|jobs_ended_total|refusals_total|queue_depth)' |
  grep -vE '_total\{.*\} 0$' || true

say "Stop" "The agent ends when its jobs have ended, and takes its containers along."
end_agent "$agent" || fail "the agent ended with exit code $?"
agent=
left="$(docker ps -aq --filter "label=com.quickcmd.agent=$name" | wc -l)"
echo "The agent has stopped. Containers left: $left."
[ "$left" -eq 0 ] || fail "docker ps -a --filter label=com.quickcmd.agent=$name shows them"

say "Next" "make run leaves an agent running to play with; make test runs every test; README.md has the rest."
