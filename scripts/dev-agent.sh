#!/usr/bin/env bash
# Prepares a throwaway agent in a folder: configuration with a fresh secret, self-signed certificate, controller's
# settings. Sourced by demo.sh and run.sh.
#   dev_agent FOLDER PORT IMAGE

dev_agent() {
  local dir="$1" port="$2" image="$3" secret
  mkdir -p "$dir"
  chmod 0711 "$dir"
  secret="$("$QUICKCMD" gen-key)"
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -sha256 -nodes -days 365 \
    -keyout "$dir/key.pem" -out "$dir/cert.pem" -subj "/CN=quickcmd-agent" \
    -addext "subjectAltName=DNS:localhost,IP:127.0.0.1" -addext "basicConstraints=critical,CA:FALSE" 2>/dev/null
  (
    umask 077
    cat >"$dir/agent.yaml" <<END
listen: "127.0.0.1"
port: $port
agent_id: "dev-agent"
tls_cert_file: "$dir/cert.pem"
tls_key_file: "$dir/key.pem"
hmac_secret: "$secret"
allowed_controllers:
  - "controller-1"
max_concurrent_jobs: 5
allowed_images:
  - "$image"
default_image: "$image"
pull_policy: "never"
run_as_user: "$(id -un)"
run_as_group: "$(id -gn)"
audit_db_path: "$dir/data/agent-audit.db"
END
    cat >"$dir/controller.yaml" <<END
url: "https://127.0.0.1:$port"
controller_id: "controller-1"
secret: "$secret"
ca: "$dir/cert.pem"
END
  )
}

# Waits until the agent says it is ready, at most 30 s; says what it says where it does not.
wait_ready() {
  local dir="$1" port="$2" pid="$3"
  for _ in $(seq 150); do
    if curl --noproxy "*" -fsS --cacert "$dir/cert.pem" "https://127.0.0.1:$port/ready" >/dev/null 2>&1; then
      return 0
    fi
    if ! kill -0 "$pid" 2>/dev/null; then
      echo "the agent has ended:" >&2
      # Where there is no log, it has said so on the terminal.
      tail -n 20 "$dir/agent.log" 2>/dev/null >&2 || true
      return 1
    fi
    sleep 0.2
  done
  echo "the agent is not ready after 30 s:" >&2
  curl --noproxy "*" -sS --cacert "$dir/cert.pem" "https://127.0.0.1:$port/ready" >&2 || true
  return 1
}

# A free port: the kernel's choice.
free_port() {
  python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])' 2>/dev/null || echo 18443
}
