#!/usr/bin/env bash
# Installs the agent as a service. As root; may be run again at any time: what is there is kept, programs and unit
# are replaced (an upgrade). Six steps: user and group, folders, programs, TLS certificate, systemd service, Docker's
# group. The configuration is made with a fresh secret if there is none.
#   scripts/setup-agent.sh [--bin FOLDER]     FOLDER with quickcmd-agent and quickcmd (default: bin/)
set -euo pipefail
cd "$(dirname "$0")/.."

user=quickcmd
group=quickcmd
etc=/etc/quickcmd
state=/var/lib/quickcmd
bin=bin
die() { echo "setup-agent: $*" >&2; exit 1; }

while [ $# -gt 0 ]; do
  case "$1" in
    --bin) bin="${2:?--bin needs a folder}"; shift 2 ;;
    -h | --help) sed -n '2,6s/^# \{0,1\}//p' "$0"; exit 0 ;;
    *) die "unknown option $1 (see --help)" ;;
  esac
done
[ "$(id -u)" -eq 0 ] || die "must run as root: sudo scripts/setup-agent.sh"
for program in quickcmd-agent quickcmd; do
  [ -x "$bin/$program" ] || die "$bin/$program is missing: run 'make build-agent' first"
done
command -v openssl >/dev/null || die "openssl is needed for the certificate: apt-get install openssl"
step() { printf '[%s/6] %s\n' "$1" "$2"; }

step 1 "user and group $user"
getent group "$group" >/dev/null || groupadd --system "$group"
getent passwd "$user" >/dev/null ||
  useradd --system --gid "$group" --no-create-home --home-dir /nonexistent --shell /bin/false "$user"

step 2 "folders $etc and $state"
install -d -m 0750 -o root -g "$group" "$etc"
install -d -m 0750 -o "$user" -g "$group" "$state"

step 3 "programs in /usr/local/bin"
for program in quickcmd-agent quickcmd; do
  # Beside the old file and then renamed: a running agent keeps the file it has.
  install -m 0755 "$bin/$program" "/usr/local/bin/.$program.new"
  mv -f "/usr/local/bin/.$program.new" "/usr/local/bin/$program"
done

step 4 "TLS certificate"
if [ -e "$etc/agent-cert.pem" ] && [ -e "$etc/agent-key.pem" ]; then
  echo "      kept: $etc/agent-cert.pem"
elif [ -e "$etc/agent-cert.pem" ] || [ -e "$etc/agent-key.pem" ]; then
  die "of $etc/agent-cert.pem and $etc/agent-key.pem one is missing: put it back, or remove the other for a new pair"
else
  name="$(hostname -f 2>/dev/null || hostname)"
  # Made under other names: what was broken off is not taken for a pair by the next run.
  said="$(umask 077 && openssl req -x509 -newkey rsa:4096 -sha256 -nodes -days 365 \
    -keyout "$etc/.agent-key.new" -out "$etc/.agent-cert.new" -subj "/CN=quickcmd-agent" \
    -addext "subjectAltName=DNS:$name,DNS:localhost,IP:127.0.0.1" \
    -addext "basicConstraints=critical,CA:FALSE" 2>&1)" || die "openssl made no certificate: $said"
  mv "$etc/.agent-key.new" "$etc/agent-key.pem"
  mv "$etc/.agent-cert.new" "$etc/agent-cert.pem"
  echo "      made, self-signed for $name, valid for a year: replace it with your CA's in production"
fi
chown "root:$group" "$etc/agent-cert.pem" "$etc/agent-key.pem"
chmod 0644 "$etc/agent-cert.pem"
chmod 0640 "$etc/agent-key.pem"

if [ -e "$etc/agent-config.yaml" ]; then
  echo "      kept: $etc/agent-config.yaml"
else
  secret="$(openssl rand -hex 32)"
  # By the shell alone: the arguments of a program may be read by everybody while it runs.
  (
    umask 077
    while IFS= read -r line; do
      case "$line" in hmac_secret:*) line="hmac_secret: \"$secret\"" ;; esac
      printf '%s\n' "$line"
    done <examples/agent-config.yaml >"$etc/.agent-config.new"
  )
  mv "$etc/.agent-config.new" "$etc/agent-config.yaml"
  echo "      made: $etc/agent-config.yaml with a fresh secret"
fi
chown "root:$group" "$etc/agent-config.yaml"
chmod 0640 "$etc/agent-config.yaml"

step 5 "systemd service"
install -d -m 0755 /etc/systemd/system
install -m 0644 deployments/systemd/quickcmd-agent.service /etc/systemd/system/quickcmd-agent.service
if [ -d /run/systemd/system ]; then
  systemctl daemon-reload
  ! systemctl is-active --quiet quickcmd-agent || systemctl restart quickcmd-agent
else
  echo "      systemd is not running here: the unit is in place for when it is"
fi

step 6 "group docker"
if getent group docker >/dev/null; then
  usermod -aG docker "$user"
else
  echo "      there is no group docker: install Docker (apt-get install docker.io), then run this again"
fi

# The service user must be able to read what it is given: found out now, not at the first start.
if ! setpriv --reuid "$user" --regid "$group" --init-groups \
  /usr/local/bin/quickcmd-agent --config "$etc/agent-config.yaml" --check; then
  die "the configuration is not ready: mend what is said above in $etc/agent-config.yaml"
fi
cat <<END

Installed. Next:
  edit $etc/agent-config.yaml          (controllers, images, limits)
  systemctl enable --now quickcmd-agent
  journalctl -u quickcmd-agent -f
END
