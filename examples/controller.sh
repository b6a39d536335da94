#!/usr/bin/env bash
# A controller of openssl, curl and jq: signs a job, submits it, asks until it has ended, prints its output and leaves with
# its exit code. What it does is docs/protocol.md, step by step.
#
#   export QUICKCMD_URL=https://agent.example.com:8443
#   export QUICKCMD_CONTROLLER_ID=controller-1
#   export QUICKCMD_SECRET_FILE=~/.config/quickcmd/secret    # or QUICKCMD_SECRET, the text itself
#   export QUICKCMD_CA=~/.config/quickcmd/agent-cert.pem     # if the certificate is signed by no authority of this host
#   export QUICKCMD_AGENT_ID=agent-1                         # if it is to be taken by that agent alone (`audience`)
#   examples/controller.sh 'echo hello; exit 3'
#
# Exit codes: the job's own; else 64 usage, 69 agent not reached, 72 the end is not known, 77 refused, 78 settings.
set -euo pipefail
export LC_ALL=C

fail() { local code="$1"; shift; echo "controller.sh: $*" >&2; exit "$code"; }

case "${1:-}" in
    -h | --help) sed -n '2,12s/^# \{0,1\}//p' "$0"; exit 0 ;;
esac
[ $# -eq 1 ] || fail 64 "usage: controller.sh COMMAND (see --help)"
for tool in openssl curl jq od; do
    command -v "$tool" >/dev/null || fail 78 "$tool is needed"
done
url="${QUICKCMD_URL:-https://127.0.0.1:8443}"
url="${url%/}"
controller="${QUICKCMD_CONTROLLER_ID:-controller-1}"
if [ -n "${QUICKCMD_SECRET_FILE:-}" ]; then
    secret="$(cat "$QUICKCMD_SECRET_FILE")" || fail 78 "$QUICKCMD_SECRET_FILE can't be read"
else
    secret="${QUICKCMD_SECRET:-}"
fi
[ -n "$secret" ] || fail 78 "there is no secret: set QUICKCMD_SECRET_FILE or QUICKCMD_SECRET"
trust=()
[ -z "${QUICKCMD_CA:-}" ] || trust=(--cacert "$QUICKCMD_CA")

work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT

# HMAC-SHA256 (RFC 2104) of standard input, as bytes. `openssl dgst -hmac KEY` does the same, but shows the key to
# everybody in the list of processes; here it only passes through the shell's own printf. The key is the secret's text.
key_bytes="$(printf %s "$secret" | if [ ${#secret} -gt 64 ]; then openssl dgst -sha256 -binary; else cat; fi | od -An -v -tu1)"
pad() {
    local value="$1" byte hex count=0
    for byte in $key_bytes; do
        printf -v hex '\\x%02x' $((byte ^ value))
        printf %b "$hex"
        count=$((count + 1))
    done
    printf -v hex '\\x%02x' "$value"
    for ((; count < 64; count++)); do
        printf %b "$hex"
    done
}
hmac() {
    { pad 92; { pad 54; cat; } | openssl dgst -sha256 -binary; } | openssl dgst -sha256 -binary
}

# Sends a request; the body comes to $work/answer, the status to $status. More arguments go to curl.
call() {
    local code=0
    status="$(curl --silent --show-error --max-time 60 ${trust[@]+"${trust[@]}"} \
        --output "$work/answer" --write-out '%{http_code}' "$@")" || code=$?
    [ "$code" -eq 0 ] || fail 69 "the agent at $url was not reached (curl: $code)"
    if [ "$status" -ge 400 ]; then
        fail 77 "$(jq -r '"\(.error) (\(.code))" + (if .details then ": \(.details)" else "" end)' "$work/answer" \
            2>/dev/null || echo "HTTP $status")"
    fi
}

# A read that shows whose it is (RFC 9421). The target is the URL in lower case up to the path, without :443.
read_signed() {
    local path="$1" origin parameters base
    origin="$(printf %s "$url" | tr '[:upper:]' '[:lower:]')"
    case "$origin" in
        https://*) origin="${origin%:443}" ;;
        http://*) origin="${origin%:80}" ;;
    esac
    parameters="(\"@method\" \"@target-uri\");created=$(date +%s);alg=\"hmac-sha256\";keyid=\"$controller\""
    base="$(printf '"@method": GET\n"@target-uri": %s%s\n"@signature-params": %s' "$origin" "$path" "$parameters")"
    call "$url$path" \
        --header "Signature-Input: sig1=$parameters" \
        --header "Signature: sig1=:$(printf %s "$base" | hmac | openssl base64 -A):"
}

# 1. The payload, serialised once: the bytes that are signed are the bytes that are sent.
now="$(date +%s)"
job_id="sh-$(openssl rand -hex 12)"
payload="$(jq -cn --arg job_id "$job_id" --arg command "$1" --arg controller_id "$controller" --argjson now "$now" \
    --arg agent_id "${QUICKCMD_AGENT_ID:-}" '{
    job_id: $job_id, prompt: "", command: $command, candidate_metadata: null, plugin_metadata: null,
    required_scopes: null, snapshot_metadata: "", ttl: ($now + 300), timestamp: $now, controller_id: $controller_id
} + if $agent_id == "" then {} else {agent_id: $agent_id} end')"

# 2. Signed and submitted. Sent again after a lost answer, the same bytes would still run once.
mac="$(printf %s "$payload" | hmac | od -An -v -tx1 | tr -d ' \n')"
printf '{"payload":%s,"signature":{"signature":"%s","algorithm":"HMAC-SHA256"}}' "$payload" "$mac" >"$work/body"
call "$url/api/v1/jobs" --header 'Content-Type: application/json' --data-binary "@$work/body"

# 3. Asked for until it has ended.
while :; do
    read_signed "/api/v1/jobs/$job_id"
    case "$(jq -r .status "$work/answer")" in
        completed | failed) break ;;
    esac
    sleep 0.5
done
mv "$work/answer" "$work/status"

# 4. Its output, byte for byte, and its exit code.
for stream in stdout stderr; do
    read_signed "/api/v1/jobs/$job_id/output?stream=$stream"
    if [ "$stream" = stdout ]; then cat "$work/answer"; else cat "$work/answer" >&2; fi
done
jq -r '.result | select(.error) | "controller.sh: job \(.job_id) \(.status) (\(.reason)): \(.error)"' "$work/status" >&2
code="$(jq -r .result.exit_code "$work/status")"
[ "$code" -ge 0 ] || code=72
# Cancelled or at a limit, a job may still leave with 0.
[ "$code" -ne 0 ] || [ "$(jq -r .result.status "$work/status")" = completed ] || code=143
exit "$code"
