#!/usr/bin/env bash
# Removes the service and its programs. As root. The configuration and the record stay unless PURGE=1.
set -euo pipefail

[ "$(id -u)" -eq 0 ] || { echo "remove-agent: must run as root" >&2; exit 1; }
if [ -d /run/systemd/system ]; then
  systemctl disable --now quickcmd-agent 2>/dev/null || true
fi
# An agent that was started by hand would go on, and write again what is removed here.
running="$(find /proc -maxdepth 1 -name '[0-9]*' -user quickcmd -printf '%f ' 2>/dev/null || true)"
if [ -n "$running" ]; then
  echo "remove-agent: processes of the user quickcmd still run (${running% }): stop them first" >&2
  exit 1
fi
rm -f /etc/systemd/system/quickcmd-agent.service /usr/local/bin/quickcmd-agent /usr/local/bin/quickcmd
[ ! -d /run/systemd/system ] || systemctl daemon-reload
if [ "${PURGE:-0}" = 1 ]; then
  rm -rf /etc/quickcmd /var/lib/quickcmd
  ! getent passwd quickcmd >/dev/null || userdel quickcmd
  ! getent group quickcmd >/dev/null || groupdel quickcmd
  echo "Removed, with configuration, record and user."
else
  echo "Removed. Kept: /etc/quickcmd, /var/lib/quickcmd and the user quickcmd (PURGE=1 removes them too)."
fi
