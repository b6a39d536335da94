#!/usr/bin/env bash
# Prepares a throwaway agent in a folder: configuration with a fresh secret, self-signed certificate, controller's
# settings. Sourced by demo.sh, run.sh, scan.sh, schemathesis.sh and tests/install.sh.
#   dev_agent FOLDER PORT IMAGE [NAME]      (quickcmd must be on the PATH)

dev_agent() {
  local dir="$1" port="$2" image="$3" name="${4:-dev-agent}" secret
  mkdir -p "$dir"
  chmod 0711 "$dir"
  secret="$(quickcmd gen-key)"
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -sha256 -nodes -days 365 \
    -keyout "$dir/key.pem" -out "$dir/cert.pem" -subj "/CN=quickcmd-agent" \
    -addext "subjectAltName=DNS:localhost,IP:127.0.0.1" -addext "basicConstraints=critical,CA:FALSE" 2>/dev/null
  (
    umask 077
    cat >"$dir/agent.yaml" <<END
listen: "127.0.0.1"
port: $port
agent_id: "$name"
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

# The same in a folder of its own, which goes when the script ends, as does the agent whose process is put into $agent.
#   throwaway_agent IMAGE NAME      sets $dir, $port, $agent (empty)
throwaway_agent() {
  dir="$(mktemp -d)"
  agent=
  trap end_throwaway EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM HUP
  port="$(free_port)"
  dev_agent "$dir" "$port" "$1" "$2"
}

# shellcheck disable=SC2317  # The trap calls it.
end_throwaway() {
  [ -z "$agent" ] || end_agent "$agent" || true
  rm -rf "$dir"
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

# A free port, below those that the kernel gives to outgoing connections.
free_port() {
  local port
  for _ in $(seq 100); do
    port=$((20000 + RANDOM % 12000))
    if ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
      echo "$port"
      return 0
    fi
  done
  echo "no free port was found" >&2
  return 1
}

# Ends an agent that this shell started; gives its exit code. Told twice, it does not wait for jobs.
end_agent() {
  local pid="$1" code=0
  kill "$pid" 2>/dev/null || true
  for _ in $(seq 100); do
    kill -0 "$pid" 2>/dev/null || break
    sleep 0.1
  done
  kill "$pid" 2>/dev/null || true
  wait "$pid" || code=$?
  return "$code"
}

# need_tools PROGRAM...: each is there, or installed (as root, from a package of its name), or it is said what to do.
need_tools() {
  local tool missing=()
  for tool in "$@"; do command -v "$tool" >/dev/null || missing+=("$tool"); done
  [ ${#missing[@]} -gt 0 ] || return 0
  if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
    echo "missing: ${missing[*]}. Run: sudo apt-get install ${missing[*]}" >&2
    return 1
  fi
  echo "installing ${missing[*]}"
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null 2>&1 ||
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null; }
}
