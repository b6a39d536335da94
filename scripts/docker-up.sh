#!/usr/bin/env bash
# Makes sure that a Docker engine answers: installs Debian's docker.io where there is none (root only),
# starts dockerd where none answers (root only), and waits until it does. Does nothing where one answers.
# Says what to do where it can't. QUICKCMD_DOCKER_LOG: dockerd's log, /var/log/quickcmd-dockerd.log unless given.
set -euo pipefail

say() { printf 'docker-up: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }

# Whether an engine answers, within 5 seconds.
answers() {
    timeout 5 docker version --format '{{.Server.Version}}' >/dev/null 2>&1
}

log=${QUICKCMD_DOCKER_LOG:-/var/log/quickcmd-dockerd.log}
socket=/var/run/docker.sock

if command -v docker >/dev/null && answers; then
    exit 0
fi

[ -z "${DOCKER_HOST:-}" ] || fail "no engine answers at DOCKER_HOST ($DOCKER_HOST): correct it, or unset it"

if [ "$(id -u)" -ne 0 ]; then
    if [ -S "$socket" ] && ! [ -w "$socket" ]; then
        fail "you may not use $socket. Run: sudo usermod -aG docker $(id -un), then log in again"
    elif command -v dockerd >/dev/null; then
        fail "no Docker engine answers. Run: sudo systemctl start docker (or: sudo $0)"
    fi
    fail "Docker is not installed. Run: sudo apt-get install docker.io (or: sudo $0)"
fi

# dockerd is the engine, docker the client: each may be there without the other.
if ! command -v dockerd >/dev/null || ! command -v docker >/dev/null; then
    command -v apt-get >/dev/null || fail "Docker is not installed, and neither is apt-get: install Docker by hand"
    say "installing docker.io"
    export DEBIAN_FRONTEND=noninteractive
    # Without systemd no init script of the package may start an engine in the middle of this: it is started below.
    policy=/usr/sbin/policy-rc.d
    if [ ! -d /run/systemd/system ] && [ ! -e "$policy" ]; then
        trap 'rm -f "$policy"' EXIT
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 755 "$policy"
    fi
    if ! apt-get install -y --no-install-recommends docker.io iptables >"$log" 2>&1; then
        apt-get update >>"$log" 2>&1 || fail "apt-get update failed, see $log"
        apt-get install -y --no-install-recommends docker.io iptables >>"$log" 2>&1 \
            || fail "apt-get install docker.io failed, see $log"
    fi
fi

answers && exit 0

if [ -d /run/systemd/system ] && systemctl cat docker.service >/dev/null 2>&1; then
    say "starting docker.service"
    systemctl start docker.service || fail "docker.service did not start: journalctl -u docker.service"
    detached=
else
    # One start at a time: two callers at once would otherwise both start one.
    exec 9>/run/quickcmd-docker-up.lock
    flock -w 120 9 || fail "another $0 holds /run/quickcmd-docker-up.lock"
    answers && exit 0
    # A file left by an engine that was killed names a process that may be somebody else's by now.
    pid=$(cat /var/run/docker.pid 2>/dev/null || true)
    if [ -n "$pid" ] && [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = dockerd ]; then
        say "dockerd runs (process $pid) and does not answer yet"
        detached=
    else
        rm -f /var/run/docker.pid
        say "starting dockerd, its log is $log"
        # Its own session, no descriptor of ours: it outlives this script and whatever called it.
        setsid dockerd >"$log" 2>&1 </dev/null 9>&- &
        detached=$!
    fi
fi

for _ in $(seq 120); do
    answers && exit 0
    if [ -n "$detached" ] && ! kill -0 "$detached" 2>/dev/null; then
        tail -n 15 "$log" >&2 || true
        fail "dockerd ended at once; the end of its log is above"
    fi
    sleep 0.5
done
fail "no answer from the Docker engine within 60 s, see $log"
