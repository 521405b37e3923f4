"""A bundle and its agent as containers of the test's own, and an internet that is a container too."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from testcontainers.core.container import DockerContainer
from testcontainers.core.network import Network

from tests.integration.support.init import PATIENCE_S

DAEMONS = ("egress", "pipelock", "git-gate", "supervise")
CAPABILITIES = ("KILL", "NET_ADMIN", "SETUID", "SETGID", "SETPCAP")
SECRET = "Bearer what-the-agent-must-not-see"
GITHUB_TOKEN = "ghp_" + "0123456789abcdefghijABCDEFGHIJ012345"

WITHOUT_PIPELOCK = "the image was built without the pipelock binary: its project's image could not be had"


def label(image: str) -> str:
    """The engine that the image was built with; "" where there is no such image."""
    template = '{{ index .Config.Labels "bottle.pipelock.engine" }}'
    command = ["docker", "image", "inspect", "--format", template, image]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    except FileNotFoundError:
        return ""


BUNDLE = f"claude-bottle-sidecars:{os.environ.get('BOTTLE_TEST_TAG', 'latest')}"
# Files that lie over the image's own: `tools.defences` takes defences away by them.
REPLACED = [tuple(pair.split(":")) for pair in os.environ.get("BOTTLE_TEST_MOUNTS", "").split(",") if pair]
# What tests of the data path run with. An image that has not been built yet may turn out to have either.
ENGINES = {"portable": ["portable"]}.get(label(BUNDLE), ["portable", "pipelock"])


def skip_without(engine: str, image: str) -> None:
    """Skips the test where the image does not have the engine."""
    if engine == "pipelock" and label(image) != "pipelock":
        pytest.skip(WITHOUT_PIPELOCK)


POLICY = """
[egress]
allow = ["*.wild.test"]
upstream_ca = "/etc/bottle/origins.pem"

[[egress.hosts]]
host = "origin.test"
private = true

[[egress.hosts]]
host = "git.test"
private = true

[[egress.credentials]]
host = "origin.test"
header = "Authorization"
value_file = "/run/secrets/token"

[[pipelock.patterns]]
name = "staff-id"
regex = 'ACME-[0-9]{6}'

[git.repos.demo]

[supervise]
answer_timeout = "2s"
"""

# Answers every request, on ports 80 and 443, with what it was asked; what comes by websocket it echoes and logs.
# /endless is answered for as long as its client listens, and the log says how that ended. /events is a stream of two
# events of 100 kB; the second comes once /go was asked for. /large is 60 MB of which the log has the SHA-256.
ORIGIN = """
import base64, hashlib, http.server, json, random, ssl, subprocess, threading, time
go = threading.Event()
names = ",".join("DNS:" + name for name in ("origin.test", "denied.test", "a.wild.test", "git.test"))
subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "/tmp/key.pem", "-out",
    "/tmp/new.pem", "-days", "2", "-subj", "/CN=origin.test", "-addext", "subjectAltName=" + names], check=True)

class Echo(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def websocket(self):
        key = self.headers["sec-websocket-key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        self.send_response(101)
        self.send_header("upgrade", "websocket")
        self.send_header("connection", "upgrade")
        self.send_header("sec-websocket-accept", base64.b64encode(hashlib.sha1(key.encode()).digest()).decode())
        self.end_headers()
        while head := self.rfile.read(2):
            mask, masked = self.rfile.read(4), self.rfile.read(head[1] & 127)
            text = bytes(byte ^ mask[i % 4] for i, byte in enumerate(masked))
            print("WEBSOCKET", text, flush=True)
            self.wfile.write(bytes([head[0], len(text)]) + text)
        self.close_connection = True
    def body(self):
        if self.headers["transfer-encoding"] != "chunked":
            return self.rfile.read(int(self.headers.get("content-length", "0")))
        pieces = []
        while size := int(self.rfile.readline(), 16):
            pieces.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(pieces)
    def endless(self):
        self.send_response(200)
        self.send_header("content-length", str(1 << 40))
        self.end_headers()
        print("ENDLESS begins", flush=True)
        try:
            while self.wfile.write(b"x" * 1000):
                self.wfile.flush()
                time.sleep(0.01)
        except OSError as error:
            print("ENDLESS ended:", type(error).__name__, flush=True)
        self.close_connection = True
    def events(self):
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for letter in "ab":
            event = b"data: " + letter.encode() * 100_000 + b"\\n\\n"
            self.wfile.write(b"%x\\r\\n" % len(event) + event + b"\\r\\n")
            self.wfile.flush()
            if letter == "a":
                go.wait()
                go.clear()
        self.wfile.write(b"0\\r\\n\\r\\n")
    def large(self):
        body = random.randbytes(60_000_000)
        print("LARGE", hashlib.sha256(body).hexdigest(), flush=True)
        self.send_response(200)
        self.send_header("content-type", "application/octet-stream")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def do_GET(self):
        if self.headers["upgrade"]:
            self.websocket()
            return
        if own := {"/endless": self.endless, "/events": self.events, "/large": self.large}.get(self.path):
            own()
            return
        if self.path == "/go":
            go.set()
        body = self.body()
        seen = {"host": self.headers["host"], "path": self.path, "headers": dict(self.headers), "body": body.decode()}
        answer = json.dumps(seen).encode()
        print("SEEN", answer.decode(), flush=True)
        self.send_response(200)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)
    do_POST = do_PUT = do_GET
    def log_message(self, *arguments):
        print("REQUEST", self.raw_requestline, flush=True)

plain = http.server.ThreadingHTTPServer(("", 80), Echo)
tls = http.server.ThreadingHTTPServer(("", 443), Echo)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("/tmp/new.pem", "/tmp/key.pem")
tls.socket = context.wrap_socket(tls.socket, server_side=True)
threading.Thread(target=plain.serve_forever, daemon=True).start()
import os
os.rename("/tmp/new.pem", "/tmp/cert.pem")
tls.serve_forever()
"""


def eventually(condition: Callable[[], Any], what: str) -> Any:
    """Waits until `condition()` is true, and returns what it gave."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.1)
    raise AssertionError(f"{what} did not come about within {PATIENCE_S} s")


def run(
    container: DockerContainer, *command: str, user: str = "", environment: Mapping[str, str] | None = None
) -> tuple[int, str]:
    """The exit code of a command in the container, and all that it wrote.

    By Docker's own client: the SDK for Python loses what arrives together with the head of the engine's answer.
    """
    options = ["--user", user] if user else []
    for name, value in (environment or {}).items():
        options += ["--env", f"{name}={value}"]
    execute = ["docker", "exec", *options, container.get_wrapped_container().id, *command]
    done = subprocess.run(
        execute, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    return done.returncode, done.stdout.decode("utf-8", "replace")


def check(
    container: DockerContainer, *command: str, user: str = "", environment: Mapping[str, str] | None = None
) -> str:
    """What a command in the container wrote; it must succeed."""
    code, output = run(container, *command, user=user, environment=environment)
    assert code == 0, f"{command} ended with {code}: {output}"
    return output


@dataclass(frozen=True)
class Process:
    """A process inside a container, from its /proc/PID/status."""

    pid: int
    parent: int
    command: str
    status: Mapping[str, str] = field(repr=False)

    @property
    def uid(self) -> int:
        """The effective user."""
        return int(self.status["Uid"].split()[1])


_LIST = """
import json, os
found = []
for pid in filter(str.isdigit, os.listdir("/proc")):
    try:
        status = dict(line.rstrip("\\n").split(":\\t", 1) for line in open(f"/proc/{pid}/status") if ":\\t" in line)
        command = open(f"/proc/{pid}/cmdline").read().replace("\\0", " ").strip()
    except OSError:
        continue
    if int(pid) != os.getpid():
        found.append([int(pid), int(status["PPid"]), command, status])
print(json.dumps(found))
"""


class Bundle:
    """A running bundle."""

    def __init__(self, container: DockerContainer, stage: Path) -> None:
        self.container, self.stage = container, stage

    @property
    def docker(self) -> Any:
        """The engine's view of it, fresh."""
        wrapped = self.container.get_wrapped_container()
        wrapped.reload()
        return wrapped

    @property
    def logs(self) -> str:
        """What it has written so far."""
        return str(self.docker.logs().decode("utf-8", "replace"))

    def health(self) -> str:
        """The engine's word for it."""
        return str(self.docker.attrs["State"]["Health"]["Status"])

    def wait_healthy(self) -> None:
        """By its own HEALTHCHECK. One that has ended will not become healthy."""

        def healthy() -> bool:
            assert self.docker.status == "running", f"the bundle has ended:\n{self.logs}"
            return run(self.container, "python3", "-I", "-m", "bottle_init", "health", "--strict")[0] == 0

        eventually(healthy, "a healthy bundle")

    def processes(self) -> list[Process]:
        """All processes inside."""
        listed = json.loads(check(self.container, "python3", "-I", "-c", _LIST))
        return [Process(*entry) for entry in listed]

    def daemons(self) -> dict[str, Process]:
        """The four daemons, or those of them that run: the init's children, by their users."""
        users = dict(line.split(":")[2::-2] for line in check(self.container, "getent", "passwd", *DAEMONS).split())
        return {users[str(p.uid)]: p for p in self.processes() if p.parent == 1 and str(p.uid) in users}

    def wait_ended(self) -> int:
        """Its exit code, once it has ended."""
        return int(self.docker.wait(timeout=PATIENCE_S)["StatusCode"])

    def stop(self) -> int:
        """`docker stop` with its default deadline. Returns the exit code."""
        self.docker.stop(timeout=10)
        return self.wait_ended()


def subnet(network: Network) -> str:
    """The CIDR that the engine gave a network."""
    made = network._network
    assert made is not None
    made.reload()
    return str(made.attrs["IPAM"]["Config"][0]["Subnet"])


@contextmanager
def bundle(
    image: str,
    stage: Path,
    policy: str = POLICY,
    *,
    network: Network | None = None,
    origins: str = "-----BEGIN CERTIFICATE-----\n",
    capabilities: Sequence[str] = CAPABILITIES,
    environment: Mapping[str, str] | None = None,
    secrets: Mapping[str, str] | None = None,
    state: str = "",
    run_mode: str = "0755",
    **options: Any,
) -> Iterator[Bundle]:
    """A bundle with the fewest privileges that are documented, on a read-only root. It is gone afterwards.

    `secrets` are files in /run/secrets by their names; `state` is a volume for what outlives it; `options` are the
    engine's own, as the docker SDK calls them.
    """
    files = {"policy.toml": (policy, 0o644), "origins.pem": (origins, 0o644), "token": (SECRET + "\n", 0o600)}
    for name, (content, mode) in files.items():
        (stage / name).write_text(content)
        (stage / name).chmod(mode)
    container = (
        DockerContainer(image)
        .with_volume_mapping(str(stage / "policy.toml"), "/etc/bottle/policy.toml", "ro")
        .with_volume_mapping(str(stage / "origins.pem"), "/etc/bottle/origins.pem", "ro")
        .with_volume_mapping(str(stage / "token"), "/run/secrets/token", "ro")
        .with_tmpfs_mount("/run", f"mode={run_mode}")
        .with_tmpfs_mount("/tmp")
        .with_envs(**dict(environment or {}))
        .with_kwargs(read_only=True, cap_drop=["ALL"], cap_add=list(capabilities), **options)
    )
    for path, place in REPLACED:
        container = container.with_volume_mapping(path, place, "ro")
    for name, content in (secrets or {}).items():
        (stage / name).write_text(content)
        (stage / name).chmod(0o600)
        container = container.with_volume_mapping(str(stage / name), f"/run/secrets/{name}", "ro")
    if state:
        container = container.with_volume_mapping(state, "/var/lib/bottle", "rw")
    if network is not None:
        container = container.with_network(network).with_network_aliases("sidecars")
        container = container.with_env("BOTTLE_INTERNAL", subnet(network))
    try:
        container.start()
        yield Bundle(container, stage)
    finally:
        container.stop()


@dataclass(frozen=True)
class Bottle:
    """A bundle, an agent that reaches nothing else, and the internet behind it."""

    bundle: Bundle
    agent: DockerContainer
    origin: DockerContainer
    inside: Network

    def curl(self, *arguments: str) -> tuple[int, str]:
        """The status that the agent's request got (0 for none; the CONNECT's, where that was refused), and the body."""
        proxy = ("--proxy", "http://sidecars:8888", "--cacert", "/tmp/ca.pem")
        written = ("--write-out", "\n%{http_code} %{http_connect}")
        _, output = run(self.agent, "curl", "-s", "--max-time", "60", *proxy, *written, *arguments)
        body, _, codes = output.rpartition("\n")
        status, connect = (int(code) for code in codes.split())
        return (connect if connect >= 400 else status), body

    def seen_by_origin(self, *arguments: str) -> dict[str, Any]:
        """What the origin saw of an allowed request, in its own words: in the answer no credential would be left."""
        status, body = self.curl(*arguments)
        assert status == 200, f"{status}: {body}\n{self.bundle.logs[-3000:]}"
        said = self.origin.get_wrapped_container().logs().decode()
        last = [line for line in said.splitlines() if line.startswith("SEEN ")][-1]
        seen: dict[str, Any] = json.loads(last.removeprefix("SEEN "))
        return seen


def _origin(stack: ExitStack, image: str, network: Network) -> DockerContainer:
    names = ("origin.test", "denied.test", "a.wild.test", "git.test")
    origin = DockerContainer(image).with_network(network).with_network_aliases(*names)
    origin = origin.with_kwargs(entrypoint=["python3", "-c", ORIGIN])
    stack.callback(origin.stop)
    return origin.start()


def _agent(stack: ExitStack, image: str, network: Network) -> DockerContainer:
    agent = DockerContainer(image).with_network(network).with_kwargs(cap_drop=["ALL"], init=True)
    stack.callback(agent.stop)
    return agent.start()


@contextmanager
def bottle(
    bundle_image: str,
    agent_image: str,
    stage: Path,
    policy: str = POLICY,
    *,
    capabilities: Sequence[str] = CAPABILITIES,
    engine: str = "",
    internet: Network | None = None,
    nameserver: str = "",
    **options: Any,
) -> Iterator[Bottle]:
    """A whole bottle, healthy. The agent's network is internal; only the bundle is in both.

    Skips the test where the image does not have pipelock's `engine`; without one it is the image's own choice. The
    container engine's resolver asks `nameserver` for what no container is called. `options` are the bundle's.
    """
    skip_without(engine, bundle_image)
    if nameserver:
        options["dns"] = [nameserver]
    with ExitStack() as stack:
        inside = stack.enter_context(Network(docker_network_kw={"internal": True}))
        internet = internet or stack.enter_context(Network())
        origin = _origin(stack, bundle_image, internet)
        eventually(lambda: run(origin, "cat", "/tmp/cert.pem")[0] == 0, "the origin's certificate")
        running = stack.enter_context(
            bundle(
                bundle_image,
                stage,
                policy,
                network=inside,
                origins=check(origin, "cat", "/tmp/cert.pem"),
                capabilities=capabilities,
                environment={"PIPELOCK_ENGINE": engine} if engine else None,
                **options,
            )
        )
        internet.connect(running.docker.id)
        agent = _agent(stack, agent_image, inside)
        running.wait_healthy()
        authority = check(running.container, "cat", "/run/bottle/ca/pipelock-ca.pem")
        check(agent, "sh", "-c", 'printf %s "$CA" > /tmp/ca.pem', environment={"CA": authority})
        yield Bottle(running, agent, origin, inside)
