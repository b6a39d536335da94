#!/usr/bin/env python3
"""A controller in one file, with Python's standard library only (3.8 or later): signs a job, submits it, follows its
output, and leaves with the job's exit code. What it does is docs/protocol.md, step by step: read it as an example, or
take it into a program of yours.

    export QUICKCMD_URL=https://agent.example.com:8443
    export QUICKCMD_CONTROLLER_ID=controller-1
    export QUICKCMD_SECRET_FILE=~/.config/quickcmd/secret    # or QUICKCMD_SECRET, the text itself
    export QUICKCMD_CA=~/.config/quickcmd/agent-cert.pem     # if the certificate is signed by no authority of this host
    export QUICKCMD_AGENT_ID=agent-1                         # if it is to be taken by that agent alone (`audience`)
    examples/controller.py 'echo hello; exit 3'
    examples/controller.py --poll 'echo hello'               # asks for the status instead of opening a WebSocket
    examples/controller.py --image alpine:latest --timeout 60 'apk --version'

Exit codes: the job's own; else 64 usage, 65 no answer of an agent, 69 agent not reached, 72 the end is not known,
77 refused, 78 settings.
"""

import argparse
import base64
import hashlib
import hmac
import http.client
import json
import os
import secrets
import socket
import ssl
import struct
import sys
import time
import urllib.parse

JOB_TTL = 300  # seconds within which the job must have started
PATIENCE = 60  # seconds without an answer before giving up


class Refused(Exception):
    """The agent said no: its status and what it said."""

    def __init__(self, status, problem):
        self.status = status
        text = f"{problem.get('error', 'refused')} ({problem.get('code', status)})"
        if problem.get("details"):
            text += f": {problem['details']}"
        super().__init__(text)


class Untrusted(Exception):
    """Who answers has not the certificate that was expected."""


class Controller:
    """Speaks to one agent as one controller."""

    def __init__(self, url, controller_id, secret, ca=None, fingerprint=None, agent_id=None):
        self.url = urllib.parse.urlsplit(url)
        if self.url.scheme not in ("https", "http") or not self.url.hostname:
            raise ValueError(f"{url!r} is no URL of an agent: https://host:port is")
        self.controller_id = controller_id
        self.agent_id = agent_id
        # The text is the key, as it stands: 64 hexadecimal digits are 64 bytes.
        self.secret = secret.encode()
        self.fingerprint = fingerprint and fingerprint.replace(":", "").lower()
        self.tls = None
        if self.url.scheme == "https":
            try:
                self.tls = ssl.create_default_context(cafile=ca)
            except OSError as error:
                raise ValueError(f"the certificate in {ca} can't be used: {error.strerror or error}") from error
            if self.fingerprint:
                # Exactly one certificate is trusted then; it is compared in dial().
                self.tls.check_hostname = False
                self.tls.verify_mode = ssl.CERT_NONE

    # What is signed

    def envelope(self, payload):
        """A request's body. The payload is serialised once: the bytes that are signed are the bytes that are sent."""
        raw = json.dumps(payload, separators=(",", ":"), ensure_ascii=False).encode()
        signature = {"signature": self.mac(raw).hex(), "algorithm": "HMAC-SHA256"}
        return b'{"payload":' + raw + b',"signature":' + json.dumps(signature).encode() + b"}"

    def mac(self, data):
        return hmac.new(self.secret, data, hashlib.sha256).digest()

    def proof(self, path):
        """The two header fields that let a controller read its jobs (RFC 9421)."""
        default = ":443" if self.url.scheme == "https" else ":80"
        authority = self.url.netloc.lower()
        if authority.endswith(default):
            authority = authority[: -len(default)]
        target = f"{self.url.scheme}://{authority}{path}"
        parameters = (
            f'("@method" "@target-uri");created={int(time.time())};alg="hmac-sha256";keyid="{self.controller_id}"'
        )
        base = f'"@method": GET\n"@target-uri": {target}\n"@signature-params": {parameters}'
        signature = base64.b64encode(self.mac(base.encode())).decode()
        return {"Signature-Input": f"sig1={parameters}", "Signature": f"sig1=:{signature}:"}

    # HTTP

    def dial(self):
        """A connection to the agent, with its certificate checked before a byte is sent over it."""
        port = self.url.port or (443 if self.tls else 80)
        sock = socket.create_connection((self.url.hostname, port), timeout=PATIENCE)
        if self.tls:
            try:
                sock = self.tls.wrap_socket(sock, server_hostname=self.url.hostname)
            except ssl.SSLCertVerificationError as error:
                raise Untrusted(
                    f"{error.verify_message or error}; --ca must name its authority or itself, and its subjectAltName this host"
                ) from error
            if self.fingerprint:
                found = hashlib.sha256(sock.getpeercert(binary_form=True)).hexdigest()
                if found != self.fingerprint:
                    raise Untrusted(f"it is another one, of fingerprint {found}")
        return sock

    def request(self, method, path, body=None, headers=None):
        connection = http.client.HTTPConnection(self.url.hostname)
        connection.sock = self.dial()
        try:
            headers = {"Host": self.url.netloc, **(headers or {})}
            connection.request(method, path, body=body, headers=headers)
            answer = connection.getresponse()
            data = answer.read()
        finally:
            connection.close()
        try:
            data = json.loads(data)
        except ValueError:
            data = {"error": f"HTTP {answer.status} without JSON: is that an agent?"}
        if answer.status >= 400:
            raise Refused(answer.status, data)
        return data

    # The four steps of a controller

    def submit(self, command, sandbox=None, prompt=""):
        """Hands a job over; gives its id. A retry sends the same bytes, which the agent runs once."""
        now = int(time.time())
        job_id = "py-" + secrets.token_hex(12)
        payload = {
            "job_id": job_id,
            "prompt": prompt,
            "command": command,
            "candidate_metadata": None,
            "plugin_metadata": None,
            "required_scopes": None,
            "snapshot_metadata": "",
            "ttl": now + JOB_TTL,
            "timestamp": now,
            "controller_id": self.controller_id,
        }
        if self.agent_id:
            payload["agent_id"] = self.agent_id
        if sandbox:
            payload["sandbox"] = sandbox
        body = self.envelope(payload)
        for attempt in range(3):
            try:
                self.request("POST", "/api/v1/jobs", body, {"Content-Type": "application/json"})
                return job_id
            except (OSError, http.client.HTTPException) as error:
                if attempt == 2 or isinstance(error, (ssl.SSLError, ConnectionRefusedError, socket.gaierror)):
                    raise
                time.sleep(1)

    def cancel(self, job_id):
        """Asks for the end of a job of ours."""
        now = int(time.time())
        payload = {
            "action": "cancel",
            "job_id": job_id,
            "timestamp": now,
            "ttl": now + JOB_TTL,
            "controller_id": self.controller_id,
        }
        if self.agent_id:
            payload["agent_id"] = self.agent_id
        path = f"/api/v1/jobs/{urllib.parse.quote(job_id, safe='')}/cancel"
        self.request("POST", path, self.envelope(payload), {"Content-Type": "application/json"})

    def status(self, job_id):
        path = f"/api/v1/jobs/{urllib.parse.quote(job_id, safe='')}"
        return self.request("GET", path, headers=self.proof(path))

    def poll(self, job_id):
        """Asks until the job has ended; gives its result."""
        while True:
            status = self.status(job_id)
            if status["status"] in ("completed", "failed", "rejected"):
                return status["result"]
            time.sleep(0.5)

    def follow(self, job_id, on_output):
        """Calls on_output(stream, bytes) for what the job prints, live; gives its result. A connection that breaks is
        taken up at the frame after the last one."""
        seq, broken = 0, 0
        while True:
            frames = self.frames(job_id, seq + 1)
            while True:
                # Only what comes from the network is tried again: on_output may fail, too, and that is its caller's.
                try:
                    frame = next(frames)
                except (OSError, EOFError, StopIteration):
                    break
                seq, broken = frame["seq"], 0
                if frame["final"]:
                    return frame["result"]
                data = frame["data"].encode()
                if frame.get("encoding") == "base64":
                    data = base64.b64decode(frame["data"])
                on_output(frame["stream"], data)
            broken += 1
            if broken > PATIENCE:
                raise EOFError("the stream breaks off again and again")
            time.sleep(1)

    # A small WebSocket client (RFC 6455): text frames in, pong and close out

    def frames(self, job_id, from_seq):
        path = f"/api/v1/stream/{urllib.parse.quote(job_id, safe='')}?from_seq={from_seq}"
        key = base64.b64encode(secrets.token_bytes(16)).decode()
        headers = {
            "Host": self.url.netloc,
            "Connection": "Upgrade",
            "Upgrade": "websocket",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": key,
            **self.proof(path),
        }
        head = f"GET {path} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in headers.items()) + "\r\n"
        with self.dial() as sock, sock.makefile("rb") as source:
            sock.sendall(head.encode())
            status = int(source.readline().split()[1])
            fields = http.client.parse_headers(source)
            if status != 101:
                body = source.read(int(fields.get("Content-Length") or 0))
                raise Refused(status, json.loads(body or b"{}"))
            expected = hashlib.sha1((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()
            if fields.get("Sec-WebSocket-Accept") != base64.b64encode(expected).decode():
                raise EOFError("that is no WebSocket")
            text = b""
            while True:
                last, kind, data = read_frame(source)
                if kind == 9:  # ping
                    send_frame(sock, 10, data)
                elif kind == 8:  # close
                    send_frame(sock, 8, data[:2])
                    return
                elif kind in (0, 1):  # text, and its continuations
                    text += data
                    if last:
                        yield json.loads(text)
                        text = b""


def read_frame(source):
    def exactly(count):
        data = source.read(count)
        if len(data) < count:
            raise EOFError("the connection has ended")
        return data

    first, second = exactly(2)
    length = second & 0x7F
    if length == 126:
        (length,) = struct.unpack("!H", exactly(2))
    elif length == 127:
        (length,) = struct.unpack("!Q", exactly(8))
    return bool(first & 0x80), first & 0x0F, exactly(length)


def send_frame(sock, kind, data):
    mask = secrets.token_bytes(4)
    masked = bytes(byte ^ mask[at % 4] for at, byte in enumerate(data))
    sock.sendall(bytes([0x80 | kind, 0x80 | len(data)]) + mask + masked)


class Parser(argparse.ArgumentParser):
    def error(self, message):
        self.exit(64, f"{self.format_usage()}controller.py: {message}\n")


def settings():
    env = os.environ.get
    parser = Parser(description="Signs a job, submits it, follows it.", epilog="See the top of this file.")
    parser.add_argument("command", help="run by /bin/sh -c in the sandbox")
    parser.add_argument("--url", default=env("QUICKCMD_URL", "https://127.0.0.1:8443"))
    parser.add_argument("--controller-id", default=env("QUICKCMD_CONTROLLER_ID", "controller-1"))
    parser.add_argument("--secret-file", default=env("QUICKCMD_SECRET_FILE"), help="else $QUICKCMD_SECRET is the secret")
    parser.add_argument("--ca", default=env("QUICKCMD_CA"), help="PEM of the authority, or of the agent's certificate")
    parser.add_argument("--fingerprint", default=env("QUICKCMD_FINGERPRINT"), help="SHA-256 of the one certificate to trust")
    parser.add_argument("--agent-id", default=env("QUICKCMD_AGENT_ID"), help="the only agent that may take what is signed")
    parser.add_argument("--poll", action="store_true", help="ask for the status; no WebSocket")
    parser.add_argument("--image")
    parser.add_argument("--timeout", type=int, metavar="SECONDS")
    parser.add_argument("--memory", type=int, metavar="BYTES")
    arguments = parser.parse_args()
    secret = env("QUICKCMD_SECRET", "")
    if arguments.secret_file:
        with open(os.path.expanduser(arguments.secret_file), encoding="utf-8") as file:
            secret = file.read().rstrip("\r\n")
    if not secret:
        raise ValueError("there is no secret: set QUICKCMD_SECRET_FILE or QUICKCMD_SECRET")
    sandbox = {"image": arguments.image, "timeout_seconds": arguments.timeout, "memory_limit": arguments.memory}
    return arguments, secret, {name: value for name, value in sandbox.items() if value is not None}


def main():
    def fail(code, error):
        print(f"controller.py: {error}", file=sys.stderr)
        return code

    def show(stream, data):
        # "system" frames are the agent's own words, for example "Starting execution...".
        out = {"stdout": sys.stdout, "stderr": sys.stderr}.get(stream)
        if out:
            out.buffer.write(data)
            out.buffer.flush()

    try:
        arguments, secret, sandbox = settings()
        ca = arguments.ca and os.path.expanduser(arguments.ca)
        agent = Controller(arguments.url, arguments.controller_id, secret, ca, arguments.fingerprint, arguments.agent_id)
    except (OSError, ValueError) as error:
        return fail(78, error)
    job_id = None
    try:
        job_id = agent.submit(arguments.command, sandbox)
        if arguments.poll:
            result = agent.poll(job_id)
            show("stdout", result["stdout"].encode())
            show("stderr", result["stderr"].encode())
        else:
            result = agent.follow(job_id, show)
    except Refused as error:
        return fail(77, error)
    except Untrusted as error:
        return fail(69, f"the certificate of the agent at {arguments.url} is not trusted: {error}")
    except (BrokenPipeError, KeyboardInterrupt) as error:
        # Nobody reads any more, or Ctrl-C: then nobody wants the job's end either.
        if job_id:
            cancel(agent, job_id)
        if isinstance(error, KeyboardInterrupt):
            return 130
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (OSError, EOFError, http.client.HTTPException) as error:
        return fail(69, f"the agent at {arguments.url} was not reached: {error}")
    except UnicodeEncodeError:
        return fail(64, "the command is no UTF-8: send such bytes through standard input, encoded")
    except (KeyError, ValueError, TypeError) as error:
        return fail(65, f"no answer of an agent: {error!r}")
    if result.get("error"):
        print(f"controller.py: job {job_id} {result['status']} ({result['reason']}): {result['error']}", file=sys.stderr)
    for stream in ("stdout", "stderr"):
        # By polling only the beginning of a long output comes; /output has it whole.
        missing = arguments.poll and len(result[stream].encode()) < result[f"{stream}_bytes"]
        if missing or result[f"{stream}_truncated"]:
            print(f"controller.py: {stream} is not whole: {result[f'{stream}_bytes']} bytes are kept", file=sys.stderr)
    if result["exit_code"] < 0:
        return 72
    # Cancelled or at a limit, a job may still leave with 0.
    return result["exit_code"] or (0 if result["status"] == "completed" else 143)


def cancel(agent, job_id):
    try:
        agent.cancel(job_id)
    except (Refused, Untrusted, OSError, http.client.HTTPException) as error:
        print(f"controller.py: job {job_id} could not be cancelled: {error}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
