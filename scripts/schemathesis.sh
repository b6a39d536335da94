#!/usr/bin/env bash
# Asks a throwaway agent everything that its OpenAPI document allows, and much that it does not: no answer may be a 5xx,
# none may lack in the document (docs/testing.md). schemathesis is installed into a folder of its own below the target folder.
#   scripts/schemathesis.sh                           200 examples of each operation
#   SEED=7 EXAMPLES=1000 scripts/schemathesis.sh      more, with that seed
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/dev-agent.sh
. scripts/dev-agent.sh

need_tools openssl curl python3
scripts/docker-up.sh
image="$(scripts/sandbox-image.sh)"
cargo build --locked --bins
target="$(scripts/target-dir.sh)"
export PATH="$target/debug:$PATH"

venv="$target/schemathesis"
if [ ! -x "$venv/bin/schemathesis" ]; then
  python3 -m venv "$venv"
  "$venv/bin/pip" install --quiet --disable-pip-version-check "schemathesis>=4,<5"
fi

throwaway_agent "$image" "schemathesis-$$"
# Jobs are not what is tried here: few run, and none for long. No rate of an address, or that is all that answers.
sed -i 's/^max_concurrent_jobs: .*/max_concurrent_jobs: 2/' "$dir/agent.yaml"
cat >>"$dir/agent.yaml" <<END
max_queue_depth: 40
default_timeout_seconds: 2
pool: {size: 0, max: 0}
rate_by_address: {per_second: 0, burst: 1}
drain_timeout: 1
read_access: job-id
END
quickcmd-agent --config "$dir/agent.yaml" 2>"$dir/agent.log" &
agent=$!
wait_ready "$dir" "$port" "$agent" || exit 1

export QUICKCMD_CONFIG="$dir/controller.yaml"
QUICKCMD_SECRET="$(sed -n 's/^secret: "\(.*\)"/\1/p' "$dir/controller.yaml")"
export QUICKCMD_SECRET QUICKCMD_CONTROLLER=controller-1 QUICKCMD_AGENT_ID="schemathesis-$$"
jobs=()
for command in 'echo one' 'echo two >&2; exit 3' 'sleep 60' 'head -c 20000 /dev/zero'; do
  id="edge-${#jobs[@]}"
  quickcmd submit --job-id "$id" -- "$command" >/dev/null
  jobs+=("$id")
done
export QUICKCMD_JOBS="${jobs[*]}"

# Left out are checks that would find what is meant to be: what a valid job must look like beyond its schema (bytes, not
# characters; scopes; the agent's images) only the agent knows, reads by job id need no proof, and the headers of a
# signature that schemathesis leaves out are put back by the hooks.
code=0
SCHEMATHESIS_HOOKS=schemathesis_hooks PYTHONPATH=tests/edge PYTHONDONTWRITEBYTECODE=1 NO_PROXY=127.0.0.1 \
  "$venv/bin/schemathesis" --config-file tests/edge/schemathesis.toml run "https://127.0.0.1:$port/api/v1/openapi.json" \
  --tls-verify "$dir/cert.pem" --seed "${SEED:-1}" --max-examples "${EXAMPLES:-200}" --continue-on-failure \
  --exclude-checks positive_data_acceptance,ignored_auth,missing_required_header,ensure_resource_availability,use_after_free \
  --request-timeout 60 --request-retries 2 --generation-database none --no-color || code=$?
if ! kill -0 "$agent" 2>/dev/null; then
  echo "the agent has ended" >&2
  code=1
fi
if grep -E 'panicked|a defect' "$dir/agent.log" | head -n 20; then
  echo "the agent logged a defect" >&2
  code=1
fi
exit "$code"
