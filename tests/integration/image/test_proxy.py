"""Both proxies fail closed: where mitmproxy by itself would let a request pass, it ends."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from testcontainers.core.container import DockerContainer

from tests.integration.support.image import run

pytestmark = pytest.mark.docker

# An origin and a proxy in one container without a network; the addon's hook named by the argument raises an exception.
_SCRIPT = """
import http.server, json, os, pathlib, signal, sys, threading, time, urllib.error, urllib.request
from sidecars import proxy

seen = []

class Origin(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        seen.append(self.path)
        self.send_response(200)
        self.end_headers()
    def log_message(self, *arguments):
        pass

class Addon:
    def running(self):
        threading.Thread(target=ask, daemon=True).start()

def broken(self, data):
    raise RuntimeError("a fault in the addon")

async def broken_async(self, data):
    raise RuntimeError("a fault in the addon")

guard = proxy.fail_closed if sys.argv[2] == "guarded" else (lambda hook: hook)
if sys.argv[1] != "none":
    setattr(Addon, sys.argv[1], guard(broken_async if sys.argv[1] == "server_connect" else broken))

def ask():
    time.sleep(1)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({"http": "http://127.0.0.1:9000"}))
    try:
        status = opener.open("http://127.0.0.1:8000/x", timeout=60).status
    except urllib.error.HTTPError as error:
        status = error.code
    except OSError:
        status = 0
    print("ANSWER", json.dumps({"status": status, "seen": seen}), flush=True)
    os.kill(os.getpid(), signal.SIGTERM)

origin = http.server.ThreadingHTTPServer(("127.0.0.1", 8000), Origin)
threading.Thread(target=origin.serve_forever, daemon=True).start()
proxy.run(["regular@127.0.0.1:9000"], pathlib.Path("/tmp/conf"), pathlib.Path("/etc/hostname"), Addon())
"""


@pytest.fixture(scope="module")
def container(bundle_image: str) -> Iterator[DockerContainer]:
    """The image without its daemons, and without a network."""
    started = DockerContainer(bundle_image).with_kwargs(
        entrypoint=["sleep", "infinity"], init=True, network_mode="none"
    )
    try:
        yield started.start()
    finally:
        started.stop()


def answer(container: DockerContainer, hook: str, guard: str) -> dict[str, object]:
    """What a request got and what the origin saw of it, with a fault in that hook."""
    script = f"timeout 120 python3 -c '{_SCRIPT}' {hook} {guard} 2>&1"
    _, said = run(container, "sh", "-c", script)
    (line,) = (line for line in said.splitlines() if line.startswith("ANSWER ")) if "ANSWER" in said else ("",)
    assert line, said
    found: dict[str, object] = json.loads(line.removeprefix("ANSWER "))
    return found


def test_a_request_passes_where_nothing_is_wrong(container: DockerContainer) -> None:
    assert answer(container, "none", "guarded") == {"status": 200, "seen": ["/x"]}


@pytest.mark.parametrize("hook", ["requestheaders", "server_connect"])
def test_an_exception_in_the_addon_ends_the_request(container: DockerContainer, hook: str) -> None:
    got = answer(container, hook, "guarded")
    assert got["seen"] == []
    assert got["status"] != 200


def test_without_the_guard_it_would_pass(container: DockerContainer) -> None:
    """Why it is there. If this ever fails, mitmproxy has changed its mind, and the guard can go."""
    assert answer(container, "requestheaders", "unguarded") == {"status": 200, "seen": ["/x"]}
