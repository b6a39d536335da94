"""Signs what schemathesis makes up, so that it is not all stopped by the signature.

Which request is signed, and which job it means, follows from its bytes alone: a seed repeats a run. scripts/schemathesis.sh
sets the environment: QUICKCMD_SECRET, QUICKCMD_CONTROLLER, and QUICKCMD_JOBS with ids of jobs that exist.
"""

import base64
import hashlib
import hmac
import json
import os
import time

import requests
import schemathesis

SECRET = os.environ["QUICKCMD_SECRET"].encode()
CONTROLLER = os.environ["QUICKCMD_CONTROLLER"]
JOBS = os.environ["QUICKCMD_JOBS"].split()
LARGEST = 3 << 20


def lot(text, many):
    """A number below `many` that follows from the text."""
    return int.from_bytes(hashlib.sha256(text.encode(errors="replace")).digest()[:4], "big") % many


def dumps(value):
    """JSON; what has no form of its own there goes as its text."""
    return json.dumps(value, default=str)


def mac(message):
    return hmac.new(SECRET, message, hashlib.sha256)


@schemathesis.serializer("application/json")
def envelope(context, value):
    """Three of four envelopes get a signature that holds, over the payload's bytes as they are sent."""
    if isinstance(value, bytes):
        return value
    text = dumps(value)
    if isinstance(value, dict) and isinstance(value.get("payload"), dict) and lot(text, 4):
        payload = dict(value["payload"])
        # Members that were made up wrong stay wrong: their refusal is what is tried.
        fresh = {"controller_id": CONTROLLER, "timestamp": int(time.time()), "ttl": int(time.time()) + 60}
        for name, right in fresh.items():
            if isinstance(payload.get(name), type(right)):
                payload[name] = right
        if isinstance(payload.get("agent_id"), str) and lot(text, 3):
            payload["agent_id"] = os.environ["QUICKCMD_AGENT_ID"]
        if payload.get("argv") and payload.get("command") and lot(text, 3):
            del payload["argv"]
        if isinstance(payload.get("required_scopes"), list) and lot(text, 5):
            payload["required_scopes"] = None
        if isinstance(payload.get("sandbox"), dict) and lot(text, 2):
            # What the configuration does not allow would be all that is ever answered.
            known = ("env", "secret_env", "stdin", "workdir")
            payload["sandbox"] = {name: payload["sandbox"][name] for name in known if name in payload["sandbox"]}
        if "action" in payload and isinstance(context.case.path_parameters.get("id"), str) and lot(text, 5):
            payload.update(action="cancel", job_id=context.case.path_parameters["id"])
        signed = dumps(payload)
        signature = dict(value["signature"]) if isinstance(value.get("signature"), dict) else {}
        signature.update(signature=mac(signed.encode()).hexdigest(), algorithm="HMAC-SHA256")
        signature.pop("key_id", None)
        text = '{"payload": %s, "signature": %s}' % (signed, dumps(signature))
    # Of a body that is far too large the agent does not read the end, and a client that still sends it may see no answer.
    return text.encode()[:LARGEST]


@schemathesis.hook
def map_path_parameters(_context, path_parameters):
    """Half of all ids are those of jobs."""
    if path_parameters and isinstance(path_parameters.get("id"), str) and lot(path_parameters["id"], 2):
        path_parameters["id"] = JOBS[lot(path_parameters["id"], len(JOBS))]
    return path_parameters


@schemathesis.hook
def before_call(_context, case, kwargs):
    """Most reads are signed as RFC 9421 says."""
    if case.method.upper() != "GET":
        return
    sent = case.as_transport_kwargs(base_url=kwargs.get("base_url"))
    url = requests.Request(method="GET", url=sent["url"], params=sent.get("params")).prepare().url
    if not lot(url, 5):
        return
    parameters = '("@method" "@target-uri");created=%d;keyid="%s"' % (time.time(), CONTROLLER)
    base = '"@method": GET\n"@target-uri": %s\n"@signature-params": %s' % (url.split("#")[0], parameters)
    signature = base64.b64encode(mac(base.encode()).digest()).decode()
    case.headers["Signature-Input"] = "sig=" + parameters
    case.headers["Signature"] = f"sig=:{signature}:"
