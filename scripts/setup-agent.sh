#!/usr/bin/env bash
# Installs the agent as a service. As root; may be run again at any time: what is there is kept, programs and unit
# are replaced (an upgrade). Six steps: user and group, folders, programs, TLS certificate, systemd service, Docker's
# group. The configuration is made with a fresh secret if there is none.
#   scripts/setup-agent.sh [--bin FOLDER] [--with-filter]
#     --bin FOLDER     with quickcmd-agent and quickcmd (default: bin/)
#     --with-filter    puts the Docker filter between agent and Docker: a user of its own is in Docker's group, and the
#                      agent's no more (docs/hardening.md). Kept by later runs without the option.
set -euo pipefail
cd "$(dirname "$0")/.."

user=quickcmd
group=quickcmd
etc=/etc/quickcmd
state=/var/lib/quickcmd
bin=bin
units=/etc/systemd/system
# The filter's user and group; the group of its socket.
warden=quickcmd-docker
socket=/run/quickcmd-docker/docker.sock
filter=
[ ! -e "$units/quickcmd-docker-filter.service" ] || filter=1
die() { echo "setup-agent: $*" >&2; exit 1; }

while [ $# -gt 0 ]; do
  case "$1" in
    --with-filter) filter=1; shift ;;
    --bin) bin="${2:?--bin needs a folder}"; shift 2 ;;
    -h | --help) sed -n '2,9s/^# \{0,1\}//p' "$0"; exit 0 ;;
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
if [ -n "$filter" ]; then
  getent group "$warden" >/dev/null || groupadd --system "$warden"
  getent passwd "$warden" >/dev/null ||
    useradd --system --gid "$warden" --no-create-home --home-dir /nonexistent --shell /bin/false "$warden"
fi

step 2 "folders $etc and $state"
install -d -m 0750 -o root -g "$group" "$etc"
install -d -m 0750 -o "$user" -g "$group" "$state"
[ -z "$filter" ] || install -d -m 0700 -o "$user" -g "$group" "$state/sandboxes"

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
if [ -n "$filter" ]; then
  if ! grep -qxF "docker_host: \"unix://$socket\"" "$etc/agent-config.yaml"; then
    sed -i '/^docker_host:/d' "$etc/agent-config.yaml"
    printf 'docker_host: "unix://%s"\n' "$socket" >>"$etc/agent-config.yaml"
    echo "      set: docker_host is the filter's socket"
  fi
  if [ ! -e "$etc/docker-filter.env" ]; then
    printf '%s\n' \
      '# What the Docker filter lets pass beyond its defaults (quickcmd-agent docker-filter --help); then' \
      '# systemctl restart quickcmd-docker-filter. --image is worth it: one for each of allowed_images.' \
      '#OPTIONS=--user=65532:65532 --image=alpine:latest --image=ubuntu:latest --bridge --runtime=runsc' \
      'OPTIONS=' >"$etc/docker-filter.env"
  fi
  chmod 0644 "$etc/docker-filter.env"
fi
chown "root:$group" "$etc/agent-config.yaml"
chmod 0640 "$etc/agent-config.yaml"

step 5 "systemd service"
install -d -m 0755 "$units"
install -m 0644 deployments/systemd/quickcmd-agent.service "$units/quickcmd-agent.service"
if [ -n "$filter" ]; then
  install -d -m 0755 "$units/quickcmd-agent.service.d"
  install -m 0644 deployments/systemd/quickcmd-agent.service.d/docker-filter.conf "$units/quickcmd-agent.service.d/"
  install -m 0644 deployments/systemd/quickcmd-docker-filter.service "$units/"
  install -m 0644 deployments/systemd/var-lib-quickcmd-sandboxes.mount "$units/"
fi
[ -d /run/systemd/system ] || echo "      systemd is not running here: the unit is in place for when it is"

step 6 "group docker"
if getent group docker >/dev/null && [ -n "$filter" ]; then
  usermod -aG docker "$warden"
  usermod -aG "$warden" "$user"
  ! id -nG "$user" | tr ' ' '\n' | grep -qx docker || gpasswd -d "$user" docker >/dev/null
  echo "      $warden is in it, $user is not: it reaches Docker through the filter"
elif getent group docker >/dev/null; then
  usermod -aG docker "$user"
else
  echo "      there is no group docker: install Docker (apt-get install docker.io), then run this again"
fi

# After the groups, which a service takes over when it starts.
if [ -d /run/systemd/system ]; then
  systemctl daemon-reload
  if [ -n "$filter" ]; then
    systemctl enable --now var-lib-quickcmd-sandboxes.mount ||
      die "the mount of $state/sandboxes failed: it needs Linux 5.10 and util-linux 2.38"
    systemctl enable quickcmd-docker-filter
    systemctl restart quickcmd-docker-filter ||
      echo "      the filter tries again until it can use Docker's socket: journalctl -u quickcmd-docker-filter"
  fi
  ! systemctl is-active --quiet quickcmd-agent || systemctl restart quickcmd-agent
fi

# The service user must be able to read what it is given: found out now, not at the first start.
if ! setpriv --reuid "$user" --regid "$group" --init-groups \
  /usr/local/bin/quickcmd-agent --config "$etc/agent-config.yaml" --check; then
  die "the configuration is not ready: mend what is said above in $etc/agent-config.yaml"
fi
cat <<END

Installed. Next:
  edit $etc/agent-config.yaml          (controllers, images, limits)
  quickcmd-agent preflight                         (what of this host to change)
  systemctl enable --now quickcmd-agent
  journalctl -u quickcmd-agent -f
END
