#!/usr/bin/env bash
# Installs the programs that tests call, where they are missing: promtool (metrics), shellcheck, openssl, curl
# and jq (the shell controller), python3, go (the v1 controller), systemd-analyze and strace (the unit). As root, from
# Debian's packages; otherwise it says what to install.
set -euo pipefail

missing=()
need() { command -v "$1" >/dev/null 2>&1 || missing+=("$2"); }
need promtool prometheus
need shellcheck shellcheck
need openssl openssl
need curl curl
need python3 python3
need jq jq
need go golang-go
need setpriv util-linux
need unshare util-linux
# The program alone: nothing of systemd runs, and process 1 stays what it is.
need systemd-analyze systemd
need strace strace

[ ${#missing[@]} -eq 0 ] && exit 0
if [ "$(id -u)" -ne 0 ]; then
  echo "These packages are needed by the tests: ${missing[*]}. Install them (apt-get install ${missing[*]}) and try again." >&2
  exit 1
fi
export DEBIAN_FRONTEND=noninteractive
# The package starts a server where there is an init system: not wanted here.
policy=/usr/sbin/policy-rc.d
made=
if [ ! -e "$policy" ]; then
  printf '#!/bin/sh\nexit 101\n' >"$policy"
  chmod 755 "$policy"
  made=1
fi
trap '[ -z "$made" ] || rm -f "$policy"' EXIT
echo "installing ${missing[*]}"
apt-get update -qq
apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
