#!/usr/bin/env bash
# The edge as an attacker's tools see it: testssl.sh over a throwaway agent must find nothing above LOW, and while
# slowhttptest holds its connections a second client must be served as before (docs/testing.md).
#   scripts/scan.sh [tls|slow]          both unless one is named
#   DURATION=60 CONNECTIONS=2000 ...    of each kind of slow connections; 30 s and 1,000 unless given
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/dev-agent.sh
. scripts/dev-agent.sh

what="${1:-all}"
need_tools openssl curl python3 jq slowhttptest
command -v testssl >/dev/null || command -v testssl.sh >/dev/null || need_tools testssl.sh
testssl="$(command -v testssl || command -v testssl.sh)"
scripts/docker-up.sh
image="$(scripts/sandbox-image.sh)"
cargo build --locked --bins
target="$(scripts/target-dir.sh)"
export PATH="$target/debug:$PATH"

throwaway_agent "$image" "scan-$$"

# A certificate as an installation has it: by an authority, for 90 days, with a place to ask for what was revoked.
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -sha256 -nodes -days 90 -subj "/CN=scan authority" \
  -addext "basicConstraints=critical,CA:TRUE" -addext "keyUsage=critical,keyCertSign,cRLSign" \
  -keyout "$dir/ca-key.pem" -out "$dir/ca.pem" 2>/dev/null
openssl req -new -key "$dir/key.pem" -subj "/CN=localhost" -out "$dir/request.pem" 2>/dev/null
cat >"$dir/extensions" <<END
subjectAltName=DNS:localhost,IP:127.0.0.1
basicConstraints=critical,CA:FALSE
keyUsage=critical,digitalSignature
extendedKeyUsage=serverAuth
crlDistributionPoints=URI:http://localhost/revoked.crl
END
openssl x509 -req -in "$dir/request.pem" -CA "$dir/ca.pem" -CAkey "$dir/ca-key.pem" -set_serial "0x$(openssl rand -hex 16)" \
  -sha256 -days 90 -extfile "$dir/extensions" -out "$dir/leaf.pem" 2>/dev/null
cat "$dir/leaf.pem" "$dir/ca.pem" >"$dir/cert.pem"
# Loopback is held to one address's share, as any other address would be.
echo "rate_exempt: []" >>"$dir/agent.yaml"
quickcmd-agent --config "$dir/agent.yaml" 2>"$dir/agent.log" &
agent=$!
wait_ready "$dir" "$port" "$agent" || exit 1
failed=0

if [ "$what" != slow ]; then
  echo "== $("$testssl" --version 2>/dev/null | sed -n 's/^ *testssl\(\.sh\)\? *\([0-9][0-9.]*\) .*/testssl.sh \2/p' | head -n 1)"
  # One address asks very often here, and is to be answered.
  "$testssl" --quiet --color 0 --warnings off --nodns none --ip 127.0.0.1 --add-ca "$dir/ca.pem" \
    --jsonfile "$dir/testssl.json" "https://localhost:$port/live" >"$dir/testssl.log" 2>&1 || true
  # Without an end it says nothing of what it did not come to.
  jq -e 'any(.[]; .id == "scanTime" and (.severity == "INFO" or .severity == "OK"))' "$dir/testssl.json" >/dev/null ||
    { tail -n 20 "$dir/testssl.log" >&2; echo "scan: testssl.sh did not come to its end" >&2; failed=1; }
  jq -r '[.[].severity] | group_by(.) | map("\(.[0]): \(length)") | "findings: " + join(", ")' "$dir/testssl.json"
  jq -r '.[] | select(.severity | IN("LOW", "MEDIUM", "HIGH", "CRITICAL", "FATAL", "WARN")) | "\(.severity)  \(.id): \(.finding)"' \
    "$dir/testssl.json"
  if jq -e 'any(.[]; .severity | IN("MEDIUM", "HIGH", "CRITICAL", "FATAL"))' "$dir/testssl.json" >/dev/null; then
    echo "scan: FAILED: testssl.sh found something above LOW" >&2
    failed=1
  fi
fi

if [ "$what" != tls ]; then
  duration="${DURATION:-30}" connections="${CONNECTIONS:-1000}"
  echo "== slowhttptest, $connections connections, $duration s each"
  ulimit -n 8192 2>/dev/null || true
  calm="$(tests/edge/second_client.py "$port" "$dir/ca.pem" 10)"
  echo "second client, calm: $calm"
  for mode in "-H -i 5 -t GET -u https://127.0.0.1:$port/api/v1/jobs" \
    "-B -i 5 -s 8192 -f application/json -u https://127.0.0.1:$port/api/v1/jobs" \
    "-X -w 1 -y 16 -n 5 -z 8 -k 3 -u https://127.0.0.1:$port/metrics"; do
    # shellcheck disable=SC2086  # Words, not one.
    slowhttptest -c "$connections" -r 200 -p 10 -l "$duration" $mode >"$dir/slow.log" 2>&1 &
    slow=$!
    sleep 5
    busy="$(tests/edge/second_client.py "$port" "$dir/ca.pem" "$((duration > 20 ? duration - 10 : 10))")"
    wait "$slow" || true
    echo "second client, ${mode%% *}: $busy"
    grep -a -E 'connected:|closed:|Exit status' "$dir/slow.log" | tail -n 3 | sed 's/\x1b\[[0-9;]*m//g; s/^/  /'
    # Not a failed request, and no more than noise slower: three times the calm, or a quarter of a second.
    jq -en --argjson calm "$calm" --argjson busy "$busy" \
      '$busy.failed == 0 and $busy.requests > 50 and $busy.p99_ms <= ([3 * $calm.p99_ms, 250] | max)' >/dev/null ||
      { echo "scan: FAILED: the second client felt it" >&2; failed=1; }
  done
fi
kill -0 "$agent" 2>/dev/null || { echo "scan: FAILED: the agent has ended" >&2; failed=1; }
if grep panicked "$dir/agent.log" | head -n 20; then
  echo "scan: FAILED: the agent panicked" >&2
  failed=1
fi
exit "$failed"
