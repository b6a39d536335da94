#!/usr/bin/env bash
# Installs the agent on this machine as the README says, runs it as its unit would, upgrades it, starts it as root, and
# removes it again. Needs root, Docker and a machine without a QuickCMD agent; leaves the machine as it was.
#   tests/install.sh FOLDER      the folder with quickcmd-agent and quickcmd
# QUICKCMD_TEST_IMAGE: the image that jobs run in (scripts/sandbox-image.sh names one unless given).
# Jobs are written in single quotes: the sandbox's shell is to expand what is in them, not this one.
# shellcheck disable=SC2016
set -euo pipefail
cd "$(dirname "$0")/.."

bin="${1:?name the folder with quickcmd-agent and quickcmd}"
etc=/etc/quickcmd
state=/var/lib/quickcmd
unit=/etc/systemd/system/quickcmd-agent.service
config="$etc/agent-config.yaml"
run=/run/quickcmd-docker
count=0

fail() { printf 'install: FAILED: %s\n' "$*" >&2; exit 1; }
ok() { count=$((count + 1)); printf 'install: ok: %s\n' "$*"; }
not_run() { printf 'install: NOT RUN: %s\n' "$*" >&2; }
# is WHAT EXPECTED ACTUAL
is() { [ "$2" = "$3" ] || fail "$1: expected '$2', found '$3'"; }
# has WHAT TEXT IN
has() { case "$3" in *"$2"*) ;; *) fail "$1: no '$2' in: $3" ;; esac; }

# --- Refuse where there is something to lose --------------------------------------------------------------------

[ "$(id -u)" -eq 0 ] || fail "this test must run as root: it adds a user and writes to /etc"
# One at a time; and what a run left that was killed is no agent of somebody's.
begun=/run/quickcmd-install-test
exec 9>"$begun.lock"
flock -w 300 9 || fail "another run of this test holds $begun.lock"
if [ -e "$begun" ]; then
  if getent passwd quickcmd >/dev/null; then
    pkill -KILL -x -u quickcmd quickcmd-agent || true
  fi
  if getent passwd quickcmd-docker >/dev/null; then
    pkill -KILL -x -u quickcmd-docker quickcmd-agent || true
  fi
  PURGE=1 scripts/remove-agent.sh >/dev/null || fail "what an earlier run left could not be removed"
  rm -rf "$(cat "$begun")"
fi
for path in "$etc" "$state" "$unit" /usr/local/bin/quickcmd-agent /usr/local/bin/quickcmd; do
  [ ! -e "$path" ] || fail "$path exists: this machine has an agent, which this test would remove"
done
for kind in passwd group; do
  for name in quickcmd quickcmd-docker; do
    ! getent "$kind" "$name" >/dev/null ||
      fail "$kind $name exists: this machine has an agent, which this test would remove"
  done
done

work="$(mktemp -d)"
echo "$work" >"$begun"
# The agent's process, and the one to wait for: strace, where that stands between.
agent='' child='' filter=''

stop_agent() {
  local pid="$agent" code=0
  agent=''
  kill "$pid"
  wait "$child" || code=$?
  return "$code"
}

clean_up() {
  local code=$?
  set +e
  if [ "$code" -ne 0 ] && [ -e "$work/agent.log" ]; then
    echo "install: the end of the agent's log:" >&2
    tail -n 30 "$work/agent.log" >&2
  fi
  if [ -n "$agent" ]; then
    kill "$agent" 2>/dev/null
    # Long enough for a clean end, and then none is left in any case.
    timeout 20 tail --pid="$agent" -f /dev/null
    kill -KILL "$agent" 2>/dev/null
    wait "$child" 2>/dev/null
  fi
  if [ -n "$filter" ]; then
    kill -KILL "$filter" 2>/dev/null
    wait "$filter" 2>/dev/null
  fi
  rm -rf "$run"
  docker ps -aq --filter label=com.quickcmd.agent=install-test 2>/dev/null | xargs -r docker rm -f >/dev/null 2>&1
  said="$(PURGE=1 scripts/remove-agent.sh 2>&1)" || echo "install: not removed: $said" >&2
  rm -rf "$etc" "$state" "$work" "$begun"
  exit "$code"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

image="${QUICKCMD_TEST_IMAGE:-$(scripts/sandbox-image.sh)}"
# shellcheck source=scripts/dev-agent.sh
. scripts/dev-agent.sh
port="$(free_port)"

# --- The unit -----------------------------------------------------------------------------------------------------

exposure=
# --offline came with systemd 250.
version="$(systemd-analyze --version 2>/dev/null | sed -n '1s/^systemd \([0-9]*\).*/\1/p')"
if [ "${version:-0}" -ge 250 ]; then
  mkdir "$work/unit"
  # `verify` looks for the program, which is not yet where it will be.
  sed 's#^ExecStart=/usr/local/bin/quickcmd-agent#ExecStart=/bin/true#' deployments/systemd/quickcmd-agent.service \
    >"$work/unit/quickcmd-agent.service"
  said="$(systemd-analyze verify "$work/unit/quickcmd-agent.service" 2>&1 | grep -F quickcmd-agent.service || true)"
  is "systemd-analyze verify" "" "$said"
  sed 's#^ExecStart=/usr/local/bin/quickcmd-agent#ExecStart=/bin/true#' \
    deployments/systemd/quickcmd-docker-filter.service >"$work/unit/quickcmd-docker-filter.service"
  cp deployments/systemd/var-lib-quickcmd-sandboxes.mount "$work/unit"
  said="$(systemd-analyze verify "$work"/unit/quickcmd-docker-filter.service "$work"/unit/*.mount 2>&1 |
    grep -E 'quickcmd-docker-filter.service|sandboxes.mount' || true)"
  is "systemd-analyze verify of the filter" "" "$said"
  for of in quickcmd-docker-filter quickcmd-agent; do
    systemd-analyze security --no-pager --offline=true --threshold=20 "$work/unit/$of.service" \
      >"$work/exposure" 2>&1 || fail "the exposure of $of is above 2.0: $(tail -n 1 "$work/exposure")"
    exposure="${exposure:+$exposure, }$(tail -n 1 "$work/exposure" | sed 's/^[^A-Za-z]*//')"
  done
else
  not_run "systemd-analyze verify and security: version 250 or later is needed, there is ${version:-none}"
  exposure='not analyzed'
fi
grep -qxF StartLimitIntervalSec=0 deployments/systemd/quickcmd-docker-filter.service ||
  fail "the filter's unit gives up where Docker comes late"
for line in NoNewPrivileges=true PrivateTmp=true ProtectSystem=strict ProtectHome=true RestrictNamespaces=true \
  SystemCallFilter=@system-service; do
  grep -qxF "$line" deployments/systemd/quickcmd-agent.service ||
    fail "the unit lacks $line"
done
ok "the units have the seed's hardening; $exposure"

# --- The six steps ------------------------------------------------------------------------------------------------

if scripts/setup-agent.sh --bin "$work" >"$work/said" 2>&1; then fail "it installed from a folder without programs"; fi
has "without programs" "make build-agent" "$(cat "$work/said")"
[ ! -e "$etc" ] || fail "it changed the machine before it knew that it can"

umask 022
scripts/setup-agent.sh --bin "$bin" >"$work/said" 2>&1 || fail "setup-agent.sh: $(cat "$work/said")"
for step in 1 2 3 4 5 6; do has "the steps" "[$step/6]" "$(cat "$work/said")"; done

mode() { stat -c '%a %U:%G' "$1"; }
entry="$(getent passwd quickcmd)"
is "the user's home and shell" "/nonexistent:/bin/false" "$(cut -d: -f6,7 <<<"$entry")"
[ "$(id -u quickcmd)" -lt 1000 ] || fail "quickcmd is no system user"
is "the user's groups" "docker quickcmd" "$(id -nG quickcmd | tr ' ' '\n' | sort | paste -sd' ')"
is "$etc" "750 root:quickcmd" "$(mode "$etc")"
is "$state" "750 quickcmd:quickcmd" "$(mode "$state")"
is "the agent" "755 root:root" "$(mode /usr/local/bin/quickcmd-agent)"
is "the controller's program" "755 root:root" "$(mode /usr/local/bin/quickcmd)"
is "the certificate" "644 root:quickcmd" "$(mode "$etc/agent-cert.pem")"
is "its key" "640 root:quickcmd" "$(mode "$etc/agent-key.pem")"
is "the configuration" "640 root:quickcmd" "$(mode "$config")"
is "the unit" "644 root:root" "$(mode "$unit")"
is "what else is in $etc" "agent-cert.pem agent-config.yaml agent-key.pem" "$(find "$etc" -mindepth 1 -printf '%f\n' | sort | paste -sd' ')"
cmp -s deployments/systemd/quickcmd-agent.service "$unit" || fail "the unit is not the one of the sources"
ok "user, groups, folders, programs, certificate, configuration and unit are as they should be"

as_user() { setpriv --reuid quickcmd --regid quickcmd --init-groups "$@"; }
as_user test -r "$config" || fail "the service user can't read its configuration"
if as_user test -w "$config"; then fail "the service user may change its configuration"; fi
if setpriv --reuid nobody --regid nogroup --clear-groups test -r "$config"; then fail "nobody can read the secret"; fi
if setpriv --reuid nobody --regid nogroup --clear-groups test -r "$etc/agent-key.pem"; then fail "nobody can read the key"; fi
secret="$(sed -n 's/^hmac_secret: "\([0-9a-f]\{64\}\)"$/\1/p' "$config")"
is "the secret's length" 64 "${#secret}"
case "$(cat "$work/said")" in *"$secret"*) fail "the secret was printed" ;; esac
has "the certificate's names" "localhost" "$(openssl x509 -in "$etc/agent-cert.pem" -noout -ext subjectAltName)"
has "its check as the service user" "database:       $state/agent-audit.db" \
  "$(as_user /usr/local/bin/quickcmd-agent --config="$config" --check)"
ok "the service user reads its configuration, and nobody else does"

cp -a "$etc" "$work/before"
scripts/setup-agent.sh --bin "$bin" >"$work/said" 2>&1 || fail "the second setup-agent.sh: $(cat "$work/said")"
diff -r "$etc" "$work/before" || fail "the second run changed the configuration, the secret or the certificate"
is "users" 1 "$(grep -c '^quickcmd:' /etc/passwd)"
has "the second run" "kept: $config" "$(cat "$work/said")"
ok "a second run keeps secret, certificate and configuration"

# --- As its unit runs it --------------------------------------------------------------------------------------------

# The installed configuration, with a free port, an image that is here, and a name to find its containers by.
awk '/^(port|default_image|pull_policy|agent_id):/ {next}
  /^allowed_images:/ {list = 1; next}
  list && /^ *- / {next}
  {list = 0; print}' "$config" >"$work/config"
cat >>"$work/config" <<END
port: $port
agent_id: "install-test"
allowed_images: ["$image"]
default_image: "$image"
pull_policy: "never"
END
cat "$work/config" >"$config"
cat >"$work/controller.yaml" <<END
url: "https://127.0.0.1:$port"
controller_id: "controller-1"
secret: "$secret"
ca: "$etc/agent-cert.pem"
END
chmod 600 "$work/controller.yaml"
export QUICKCMD_CONFIG="$work/controller.yaml"

# The unit's walls as far as they can be had without systemd: user and groups, no capabilities, no new privileges, the
# whole tree read-only but for the state folder, private /tmp, no homes, umask, limits.
cat >"$work/walls" <<'END'
set -eu
state="$1"; shift
mount --make-rslave /
mount --bind "$state" "$state"
for point in $(cut -d' ' -f5 /proc/self/mountinfo | grep -vE '^/(proc|sys|dev)(/|$)' | sort -u); do
  [ "$point" = "$state" ] || mount -o remount,bind,ro "$point" 2>/dev/null || [ "$point" != / ]
done
for point in /tmp /var/tmp /home /root; do
  [ ! -d "$point" ] || mount -t tmpfs -o mode=000,size=16m tmpfs "$point"
done
chmod 1777 /tmp /var/tmp
cd /
umask 0077
ulimit -c 0
exec setpriv --reuid quickcmd --regid quickcmd --init-groups --no-new-privs --bounding-set=-all --inh-caps=-all "$@"
END
walled=(unshare --mount --propagation slave bash "$work/walls" "$state")

# Without this the rest would prove nothing.
for path in /usr/local/bin/x /etc/quickcmd/x /var/x /run/x; do
  if "${walled[@]}" touch "$path" 2>/dev/null; then fail "the walls let $path be written"; fi
done
"${walled[@]}" touch "$state/x" || fail "the walls don't let the state folder be written"
rm "$state/x"
if "${walled[@]}" ls /root >/dev/null 2>&1; then fail "the walls let /root be read"; fi

# start COMMAND...: the agent, until it is ready. The command is a program, so that its process is the agent's.
start() {
  "$@" >>"$work/agent.log" 2>&1 9>&- &
  child=$! agent=$!
  cp "$etc/agent-cert.pem" "$work/cert.pem"
  wait_ready "$work" "$port" "$agent" || fail "the agent is not ready"
}
runs() { python3 -c '
import sqlite3, sys
db = sqlite3.connect("file:/var/lib/quickcmd/agent-audit.db?mode=ro", uri=True)
print(db.execute(sys.argv[1]).fetchone()[0])' "$1"; }

start "${walled[@]}" /usr/local/bin/quickcmd-agent --config="$config"
is "the agent's user" "$(id -u quickcmd)" "$(awk '/^Uid:/ {print $2}' "/proc/$agent/status")"
is "its capabilities" "0000000000000000" "$(awk '/^CapBnd:/ {print $2}' "/proc/$agent/status")"
is "no new privileges" "1" "$(awk '/^NoNewPrivs:/ {print $2}' "/proc/$agent/status")"
code=0
said="$(/usr/local/bin/quickcmd run -- 'echo "out: $(id -u)"; echo err >&2; exit 7' 2>"$work/err")" || code=$?
is "the job's exit code" 7 "$code"
is "the job's output" "out: 65532" "$said"
is "the job's other output" "err" "$(cat "$work/err")"
is "the record" "1" "$(runs "select count(*) from runs where exit_code = 7 and user = 'controller-1' and executed = 1")"
stop_agent || fail "the agent ended with $?"
is "files that others than the user may read or own" "" \
  "$(find "$state" -mindepth 1 \( ! -user quickcmd -o \( -perm /077 ! -path "$state/sandboxes*" \) \) | head -n 3)"
is "containers left" "" "$(docker ps -aq --filter label=com.quickcmd.agent=install-test)"
ok "behind its unit's walls the agent runs a signed job, and writes to $state alone"

# --- Upgrade ----------------------------------------------------------------------------------------------------------

mkdir "$work/new"
cp "$bin/quickcmd-agent" "$bin/quickcmd" "$work/new"
# Another file that does the same: what follows an ELF's last section is not read.
printf 'the next version' >>"$work/new/quickcmd-agent"
cp "$config" "$work/config.before"
start "${walled[@]}" /usr/local/bin/quickcmd-agent --config="$config"
scripts/setup-agent.sh --bin "$work/new" >"$work/said" 2>&1 || fail "the upgrade: $(cat "$work/said")"
cmp -s "$work/new/quickcmd-agent" /usr/local/bin/quickcmd-agent || fail "the program was not replaced"
cmp -s "$config" "$work/config.before" || fail "the upgrade changed the configuration"
/usr/local/bin/quickcmd run -- true || fail "the agent that ran during the upgrade does not go on"
stop_agent || fail "the agent ended with $?"

traced=
if ! strace -qq -o /dev/null true 2>/dev/null; then
  not_run "the agent's calls to the kernel against the unit's filter: no process may be traced here"
elif [ "${version:-0}" -lt 250 ]; then
  not_run "the agent's calls to the kernel against the unit's filter: systemd-analyze tells what that is"
else
  traced=1
fi
if [ -n "$traced" ]; then
  start "${walled[@]}" strace -qq -f -c -o "$state/calls" /usr/local/bin/quickcmd-agent --config="$config"
  agent="$(tr -d ' ' <"/proc/$child/task/$child/children")"
  is "the traced process" "quickcmd-agent" "$(cat "/proc/$agent/comm")"
else
  start "${walled[@]}" /usr/local/bin/quickcmd-agent --config="$config"
fi
is "the record after the upgrade" "1" "$(runs "select count(*) from runs where exit_code = 7")"
/usr/local/bin/quickcmd run -- 'echo again' >/dev/null || fail "no job after the upgrade"
kill -HUP "$agent"
stop_agent || fail "the agent ended with $?"
ok "an upgrade keeps record, configuration and the running agent"

# The names of all calls in the sets given.
set_of() {
  local set
  for set in "$@"; do
    systemd-analyze syscall-filter "$set" | sed -n 's/^    \([-@a-z_0-9]*\)$/\1/p' | while read -r name; do
      case "$name" in @*) set_of "$name" ;; *) echo "$name" ;; esac
    done
  done
}
if [ -n "$traced" ]; then
  awk 'NR > 2 && $NF != "total" && $1 ~ /^[0-9]/ {print $NF}' "$state/calls" | sort -u >"$work/used"
  [ "$(wc -l <"$work/used")" -gt 20 ] || fail "the list of the agent's calls is not there"
  set_of @system-service | sort -u >"$work/let"
  denied="$(sed -n 's/^SystemCallFilter=~//p' "$unit")"
  # shellcheck disable=SC2086
  set_of $denied | sort -u >"$work/denied"
  is "calls that the unit does not let through" "" \
    "$(comm -23 "$work/used" <(comm -23 "$work/let" "$work/denied") | paste -sd' ')"
  rm -f "$state/calls"
  ok "the unit's filter lets through each of the $(wc -l <"$work/used") calls that the agent makes"
fi

# --- Started as root --------------------------------------------------------------------------------------------------

chown -R root:root "$state"
: >"$work/agent.log"
start /usr/local/bin/quickcmd-agent --config="$config"
status="$(cat "/proc/$agent/status")"
uid="$(id -u quickcmd)" gid="$(id -g quickcmd)"
is "the user of all of its parts" "Uid: $uid $uid $uid $uid" "$(grep '^Uid:' <<<"$status" | tr '\t' ' ' | tr -s ' ')"
is "its group" "Gid: $gid $gid $gid $gid" "$(grep '^Gid:' <<<"$status" | tr '\t' ' ' | tr -s ' ')"
has "its groups" " $(getent group docker | cut -d: -f3) " "$(grep '^Groups:' <<<"$status" | tr '\t' ' ') "
is "its capabilities" "0000000000000000" "$(awk '/^CapEff:/ {print $2}' <<<"$status")"
is "what is root's in $state" "" "$(find "$state" ! -user quickcmd | head -n 3)"
/usr/local/bin/quickcmd run -- true || fail "no job from an agent that was started as root"
is "the record" "1" "$(runs "select count(*) from runs where exit_code = 7")"
stop_agent || fail "the agent ended with $?"
ok "started as root it becomes quickcmd, keeps Docker's group and hands over $state"

# As in /var/log: other files are there, and everybody may look.
chown -R root:root "$state"
chmod 0755 "$state"
: >"$state/theirs.log"
: >"$work/agent.log"
start /usr/local/bin/quickcmd-agent --config="$config"
is "what stays root's in $state" "$state $state/theirs.log " "$(find "$state" ! -user quickcmd | sort | tr '\n' ' ')"
has "of the folder" "was not handed to quickcmd" "$(cat "$work/agent.log")"
/usr/local/bin/quickcmd run -- true || fail "no job from an agent in a folder with other files"
stop_agent || fail "the agent ended with $?"
chmod 0750 "$state"
if /usr/local/bin/quickcmd-agent --config="$config" >"$work/agent.log" 2>&1; then
  fail "the agent runs on a folder that is closed to its user"
fi
has "of a closed folder" "quickcmd can't use $state" "$(cat "$work/agent.log")"
rm "$state/theirs.log"
ok "of a folder with other files it takes its own only, and says so"

sed -i 's/^run_as_user: .*/run_as_user: "no-such-user"/' "$config"
: >"$work/agent.log"
start /usr/local/bin/quickcmd-agent --config="$config"
has "without the user" "no-such-user" "$(cat "$work/agent.log")"
has "without the user" "scripts/setup-agent.sh" "$(cat "$work/agent.log")"
is "its user" "0" "$(awk '/^Uid:/ {print $2}' "/proc/$agent/status")"
/usr/local/bin/quickcmd run -- true || fail "no job from an agent without its user"
stop_agent || fail "the agent ended with $?"
ok "without that user it says so, names the script, and goes on"

# --- Behind the Docker filter -----------------------------------------------------------------------------------------

scripts/setup-agent.sh --bin "$bin" --with-filter >"$work/said" 2>&1 ||
  fail "setup-agent.sh --with-filter: $(cat "$work/said")"
scripts/setup-agent.sh --bin "$bin" >"$work/said" 2>&1 || fail "setup-agent.sh after it: $(cat "$work/said")"
is "docker_host" 'docker_host: "unix:///run/quickcmd-docker/docker.sock"' "$(grep '^docker_host:' "$config")"
is "the user's groups" "quickcmd quickcmd-docker" "$(id -nG quickcmd | tr ' ' '\n' | sort | paste -sd' ')"
is "the filter's groups" "docker quickcmd-docker" "$(id -nG quickcmd-docker | tr ' ' '\n' | sort | paste -sd' ')"
if as_user test -w /var/run/docker.sock; then fail "the agent's user may still use Docker's socket"; fi
as_warden() { setpriv --reuid quickcmd-docker --regid quickcmd-docker --init-groups "$@"; }
if as_warden test -r "$config"; then fail "the filter's user can read the secret"; fi
if as_warden ls "$state" >/dev/null 2>&1; then fail "the filter's user can look into $state"; fi

# As its unit starts it: the line of the unit itself, with one image.
install -d -m 0750 -o quickcmd-docker -g quickcmd-docker "$run"
export OPTIONS="--image=$image"
eval "set -- $(sed -n 's/^ExecStart=//p' /etc/systemd/system/quickcmd-docker-filter.service)"
setpriv --reuid quickcmd-docker --regid quickcmd-docker --init-groups --no-new-privs --bounding-set=-all --inh-caps=-all \
  "$@" >"$work/filter.log" 2>&1 9>&- &
filter=$!
for _ in $(seq 300); do
  if [ -S "$run/docker.sock" ]; then break; fi
  sleep 0.1
done
is "the filter's socket" "660 quickcmd-docker:quickcmd-docker" "$(mode "$run/docker.sock")"
: >"$work/agent.log"
start "${walled[@]}" /usr/local/bin/quickcmd-agent --config="$config"
case " $(grep '^Groups:' "/proc/$agent/status" | tr '\t' ' ') " in
  *" $(getent group docker | cut -d: -f3) "*) fail "the agent is in Docker's group" ;;
esac
code=0
said="$(/usr/local/bin/quickcmd run -- 'echo filtered; exit 9')" || code=$?
is "the job's exit code" 9 "$code"
is "the job's output" "filtered" "$said"
# What the agent's user could do now, had somebody taken the agent over.
said="$(as_user curl -sS --max-time 30 --unix-socket "$run/docker.sock" -o /dev/null -w '%{http_code}' \
  -H 'Content-Type: application/json' -d "{\"Image\": \"$image\", \"HostConfig\": {\"Privileged\": true, \"Binds\": [\"/:/host\"]}}" \
  http://docker/containers/create?name=quickcmd-0123abcd-install)"
is "a privileged container" 403 "$said"
stop_agent || fail "the agent ended with $?"
is "containers left" "" "$(docker ps -aq --filter label=com.quickcmd.agent=install-test)"
is "what the filter refused of the agent's" 1 "$(grep -c refused "$work/filter.log")"
kill "$filter"
wait "$filter" || fail "the filter ended with $?"
filter=''
rm -rf "$run"
ok "behind the filter the agent runs jobs without Docker's group, and its user makes no other container"

# --- Removal ----------------------------------------------------------------------------------------------------------

scripts/remove-agent.sh >"$work/said" || fail "remove-agent.sh: $(cat "$work/said")"
for path in "$unit" "$unit.d" /etc/systemd/system/quickcmd-docker-filter.service /usr/local/bin/quickcmd-agent \
  /etc/systemd/system/var-lib-quickcmd-sandboxes.mount /usr/local/bin/quickcmd; do
  [ ! -e "$path" ] || fail "removal left $path"
done
for path in "$config" "$state/agent-audit.db"; do [ -e "$path" ] || fail "removal took $path"; done
PURGE=1 scripts/remove-agent.sh >"$work/said" || fail "PURGE=1 remove-agent.sh: $(cat "$work/said")"
for path in "$etc" "$state"; do [ ! -e "$path" ] || fail "PURGE=1 left $path"; done
for kind in passwd group; do
  for name in quickcmd quickcmd-docker; do
    ! getent "$kind" "$name" >/dev/null || fail "PURGE=1 left $kind $name"
  done
done
if getent group docker | cut -d: -f4 | tr ',' '\n' | grep -q '^quickcmd'; then fail "PURGE=1 left a user in group docker"; fi
ok "removal keeps configuration and record, PURGE=1 leaves nothing"

printf 'install: all %s checks passed\n' "$count"
