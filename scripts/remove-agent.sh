#!/usr/bin/env bash
# Removes the service and its programs. As root. The configuration and the record stay unless PURGE=1.
set -euo pipefail

[ "$(id -u)" -eq 0 ] || { echo "remove-agent: must run as root" >&2; exit 1; }
if [ -d /run/systemd/system ]; then
  systemctl disable --now quickcmd-agent quickcmd-docker-filter 2>/dev/null || true
  systemctl disable --now var-lib-quickcmd-sandboxes.mount 2>/dev/null || true
fi
# An agent that was started by hand would go on, and write again what is removed here.
for user in quickcmd quickcmd-docker; do
  running="$(find /proc -maxdepth 1 -name '[0-9]*' -user "$user" -printf '%f ' 2>/dev/null || true)"
  if [ -n "$running" ]; then
    echo "remove-agent: processes of the user $user still run (${running% }): stop them first" >&2
    exit 1
  fi
done
units=/etc/systemd/system
rm -f "$units/quickcmd-agent.service" "$units/quickcmd-docker-filter.service" \
  "$units/var-lib-quickcmd-sandboxes.mount" "$units/quickcmd-agent.service.d/docker-filter.conf" \
  /usr/local/bin/quickcmd-agent /usr/local/bin/quickcmd
[ ! -d "$units/quickcmd-agent.service.d" ] || rmdir --ignore-fail-on-non-empty "$units/quickcmd-agent.service.d"
[ ! -d /run/systemd/system ] || systemctl daemon-reload
if [ "${PURGE:-0}" = 1 ]; then
  rm -rf /etc/quickcmd /var/lib/quickcmd
  for user in quickcmd quickcmd-docker; do
    ! getent passwd "$user" >/dev/null || userdel "$user"
  done
  for group in quickcmd quickcmd-docker; do
    ! getent group "$group" >/dev/null || groupdel "$group"
  done
  echo "Removed, with configuration, record and user."
else
  echo "Removed. Kept: /etc/quickcmd, /var/lib/quickcmd and the user quickcmd (PURGE=1 removes them too)."
fi
