"""`[bundle] http`: its pages on real bundles, and a server whose clients mean ill (contract 6 and 8)."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import stat
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from bottle_init.core import status
from bottle_init.core.words import STATUSES
from bottle_init.linux import figures, httpd
from bottle_init.linux.httpd import MAX_CLIENTS, MAX_HEAD, PATIENCE_MS, Httpd
from tests.integration.support.init import PATIENCE_S, PYTHON, Init, eventually, running
from tests.integration.support.turning import Bench, open_descriptors

pytestmark = pytest.mark.real

SLEEPER = '[daemons.{}]\ncommand = ["sleep", "1000"]\n'


def free_port(family: socket.AddressFamily = socket.AF_INET) -> int:
    """A port of the loopback interface that nothing listens at."""
    with socket.socket(family) as held:
        held.bind(("::1" if family == socket.AF_INET6 else "127.0.0.1", 0))
        return int(held.getsockname()[1])


@contextmanager
def served(tmp_path: Path, children: str, keys: str = "", **options: Any) -> Iterator[tuple[Init, str]]:
    """A running init with a page, and the URL that its pages begin with."""
    address = f"127.0.0.1:{free_port()}"
    with running(tmp_path, f'[bundle]\nhttp = "{address}"\n{keys}\n{children}', **options) as init:
        eventually(lambda: reaches(address), "a connection")
        yield init, f"http://{address}"


def reaches(address: str) -> bool:
    host, _, port = address.rpartition(":")
    with suppress(OSError), socket.create_connection((host.strip("[]"), int(port)), PATIENCE_S):
        return True
    return False


def get(url: str, method: str = "GET") -> tuple[int, str, dict[str, str]]:
    """`(status, body, headers)`."""
    try:
        request = urllib.request.Request(url, method=method)  # noqa: S310 - The URL is the test's own.
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:  # noqa: S310 - As above.
            return answer.status, answer.read().decode(), dict(answer.headers)
    except HTTPError as answer:
        return answer.code, answer.read().decode(), dict(answer.headers)


def kubernetes_probe(url: str) -> bool:
    """An httpGet probe's rules: its headers, and success is a status from 200 to 399."""
    host = url.removeprefix("http://").partition("/")[0]
    connection = http.client.HTTPConnection(host, timeout=PATIENCE_S)
    headers = {"User-Agent": "kube-probe/1.34", "Accept": "*/*", "Connection": "close"}
    connection.request("GET", url.partition(host)[2], headers=headers)
    answer = connection.getresponse()
    answer.read(10 << 10)
    connection.close()
    return 200 <= answer.status < 400


def families(text: str) -> dict[str, Any]:
    """What Prometheus' own parser makes of the metrics."""
    return {family.name: family for family in text_string_to_metric_families(text)}  # type: ignore[no-untyped-call]


def values(family: Any, **labels: str) -> list[float]:
    return [sample.value for sample in family.samples if labels.items() <= sample.labels.items()]


def set_states(family: Any, **labels: str) -> list[str]:
    """The states that a state set says it is in."""
    on = [sample for sample in family.samples if sample.value == 1 and labels.items() <= sample.labels.items()]
    return [sample.labels[family.name] for sample in on]


# The pages.


def test_health_follows_the_verdict(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    children = SLEEPER.format("a") + SLEEPER.format("b") + f"ready = {{ exec = ['test', '-e', '{gate}'] }}\n"
    with served(tmp_path, children) as (init, url):
        code, body, headers = get(f"{url}/health")
        assert (code, json.loads(body)["health"]) == (503, "starting")
        assert headers["Content-Type"] == "application/json"
        assert not kubernetes_probe(f"{url}/health")
        gate.touch()
        init.event("child_ready", "b")
        assert get(f"{url}/health")[0] == 200
        assert kubernetes_probe(f"{url}/health")
        assert kubernetes_probe(f"{url}/live")
        assert get(f"{url}/health?strict=1")[0] == 200
        assert [daemon["name"] for daemon in json.loads(get(f"{url}/health")[1])["daemons"]] == ["a", "b"]
        assert init.stop() == 0


def test_strict_refuses_a_degraded_bundle(tmp_path: Path) -> None:
    flaky = (
        '[daemons.flaky]\ncommand = ["sleep", "1000"]\npolicy = "restart"\nbackoff = { initial = "1h", limit = "1h" }\n'
    )
    with served(tmp_path, flaky) as (init, url):
        os.kill(init.event("child_started", "flaky")["pid"], signal.SIGKILL)
        init.event("child_restarting", "flaky")
        assert get(f"{url}/health")[0] == 200
        assert get(f"{url}/health?strict=1")[0] == 503
        assert get(f"{url}/health?strict=0&x=strict=1")[0] == 200
        assert init.stop() == 0


def test_a_stopping_bundle_lives_and_is_not_healthy(tmp_path: Path) -> None:
    stubborn = """[daemons.stubborn]
        command = ["sh", "-c", "trap '' TERM; touch READY; while :; do sleep 1; done"]
        stop_timeout = "1h"
        """.replace("READY", str(tmp_path / "ready"))
    with served(tmp_path, stubborn, 'stop_timeout = "1h"') as (init, url):
        eventually((tmp_path / "ready").exists)
        init.send(signal.SIGTERM)
        init.event("stopping")
        assert (get(f"{url}/live")[0], get(f"{url}/health")[0]) == (200, 503)
        found = families(get(f"{url}/metrics")[1])
        assert set_states(found["bottle_init_health"]) == ["stopping"]
        assert values(found["bottle_init_stops"], kind="requested") == [1]
        assert values(found["bottle_init_stops"], kind="policy") == [0]
        init.send(signal.SIGTERM)
        assert init.wait() == 137


def test_metrics_are_read_by_prometheus(tmp_path: Path) -> None:
    busy = """[daemons.busy]
        command = ["sh", "-c", "while :; do :; done & sleep 1000"]
        [daemons.flaky]
        command = ["sleep", "1000"]
        policy = "restart"
        backoff = { initial = "0s" }
        [oneshots.setup]
        command = ["true"]
        """
    with served(tmp_path, busy) as (init, url):
        os.kill(init.event("child_started", "flaky")["pid"], signal.SIGKILL)
        init.event("child_ready", "flaky", 2)
        code, body, headers = get(f"{url}/metrics")
        assert code == 200
        assert headers["Content-Type"] == "application/openmetrics-text; version=1.0.0; charset=utf-8"
        found = families(body)
        assert set_states(found["bottle_init_child_state"], child="flaky", kind="daemon") == ["running"]
        assert set_states(found["bottle_init_child_state"], child="setup", kind="oneshot") == ["ended"]
        assert len(values(found["bottle_init_child_state"], child="busy")) == len(STATUSES)
        assert values(found["bottle_init_child_restarts"], child="flaky") == [1]
        assert values(found["bottle_init_child_restarts"], child="busy") == [0]
        assert values(found["bottle_init_child_last_exit_code"], child="flaky") == [137]
        assert values(found["bottle_init_child_last_exit_code"], child="busy") == []
        assert values(found["bottle_init_child_uptime_seconds"], child="busy")[0] >= 0
        assert values(found["bottle_init_child_uptime_seconds"], child="setup") == []
        assert values(found["bottle_init_child_resident_memory_bytes"], child="busy")[0] > 100_000
        assert values(found["bottle_init_child_log_lines_dropped"], child="busy") == [0]
        assert values(found["bottle_init_signals_refused"]) == [0]
        assert values(found["bottle_init_log_lines_dropped"]) == [0]
        assert values(found["bottle_init_resident_memory_bytes"])[0] > 1_000_000
        assert values(found["bottle_init_cpu_seconds"])[0] > 0
        assert found["bottle_init_child_cpu_seconds"].unit == "seconds"
        assert set_states(found["bottle_init_health"])[0] in status.WORST_FIRST

        def cpu() -> float:
            """The loop is not the daemon's own process: it is one below it."""
            text = get(f"{url}/metrics")[1]
            return values(families(text)["bottle_init_child_cpu_seconds"], child="busy")[0]

        eventually(lambda: cpu() > 0.05, "CPU time of a process below the daemon")
        assert init.stop() == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give up CAP_KILL and still change users")
def test_refused_signals_are_counted(tmp_path: Path) -> None:
    without_kill = ("setpriv", "--bounding-set=-kill", "--inh-caps=-kill")
    other = SLEEPER.format("other") + 'user = "nobody"\n'
    with served(tmp_path, other, prefix=without_kill) as (init, url):
        init.event("child_started", "other")

        def refused() -> float:
            return values(families(get(f"{url}/metrics")[1])["bottle_init_signals_refused"])[0]

        assert refused() == 0
        asked = [*PYTHON, "ctl", "signal", "other", "USR1", f"--control={init.control}"]
        subprocess.run(asked, check=False, capture_output=True)
        assert refused() == 1
        os.kill(init.event("child_started", "other")["pid"], signal.SIGKILL)
        init.wait()


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [
        *(("GET", path, 404) for path in ("/", "/healthz", "/health/")),
        *((method, "/live", 405) for method in ("POST", "PUT", "DELETE", "HEAD", "OPTIONS")),
    ],
)
def test_nothing_else_is_there(method: str, path: str, code: int, tmp_path: Path) -> None:
    with served(tmp_path, SLEEPER.format("a")) as (_, url):
        found, body, headers = get(url + path, method)
        assert found == code
        assert headers.get("Allow") == ("GET" if code == 405 else None)
        assert bool(body) == (method != "HEAD")


def test_an_address_that_is_taken_is_logged(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with running(tmp_path, f'[bundle]\nhttp = "{address}"\n{SLEEPER.format("a")}') as init:
            assert init.event("http_unavailable")["reason"] == f"{address}: another process listens there"
            assert init.stop() == 0


def test_a_socket_in_the_filesystem_is_open_to_all(tmp_path: Path) -> None:
    """A path is from where the init was started, and goes with the init."""
    bundle = f'[bundle]\nhttp = "unix:pages.sock"\n{SLEEPER.format("a")}'
    path = tmp_path / "pages.sock"
    with running(tmp_path, bundle, cwd=tmp_path) as init:
        eventually(path.exists)
        assert stat.S_IMODE(path.stat().st_mode) == 0o666
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            client.sendall(b"GET /live HTTP/1.0\r\n\r\n")
            assert b"".join(iter(lambda: client.recv(4096), b"")).startswith(b"HTTP/1.1 200 OK\r\n")
        assert init.stop() == 0
    assert not path.exists()


@pytest.mark.skipif(not Path("/proc/net/if_inet6").exists(), reason="no IPv6 here")
def test_an_address_of_ipv6(tmp_path: Path) -> None:
    address = f"[::1]:{free_port(socket.AF_INET6)}"
    with running(tmp_path, f'[bundle]\nhttp = "{address}"\n{SLEEPER.format("a")}') as init:
        eventually(lambda: reaches(address))
        assert get(f"http://{address}/live")[0] == 200
        assert init.stop() == 0


def test_term_is_answered_while_clients_flood(tmp_path: Path) -> None:
    """More clients than there is room for, some that never finish their request, some that never read, some cut."""
    with served(tmp_path, SLEEPER.format("a")) as (init, url):
        host, _, port = url.removeprefix("http://").rpartition(":")
        clients = []
        for number in range(4 * MAX_CLIENTS):
            client = socket.create_connection((host, int(port)), PATIENCE_S)
            with suppress(OSError):  # It may have been sent away already, to make room.
                client.sendall(
                    (b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", b"GET /he", b"", b"\0" * 2 * MAX_HEAD)[number % 4]
                )
            if number % 5 == 0:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                client.close()  # With a reset.
            else:
                clients.append(client)
        assert kubernetes_probe(f"{url}/live")
        assert len(os.listdir(f"/proc/{init.pid}/fd")) < MAX_CLIENTS + 40
        assert init.stop() == 0
        assert [event for event in init.events if event["event"] == "internal_error"] == []
        for client in clients:
            client.close()


# The server, turned by hand, with a clock of its own.


class Server(Bench):
    """A bench with a server on it that has one page, and its clients."""

    def __init__(self) -> None:
        super().__init__()
        self.now_ms = 0
        self.held: list[Any] = []
        self.waits: list[str] = []
        pages = {"/page": self.page, "/late": lambda _query, reply: self.held.append(reply)}
        self.port = free_port()
        self.httpd = Httpd(f"127.0.0.1:{self.port}", self.poller, lambda: self.now_ms, pages, self.waits.append)
        self.clients: list[socket.socket] = []

    def page(self, query: str, reply: Any) -> None:
        reply(200, "text/plain", f"{query}\n")

    def connect(self, *said: bytes) -> socket.socket:
        client = socket.create_connection(("127.0.0.1", self.port), PATIENCE_S)
        client.setblocking(False)
        self.clients.append(client)
        for part in said:
            client.sendall(part)
        return client

    def hear(self, client: socket.socket) -> bytes:
        """All that a client is told until the server ends its side."""
        parts: list[bytes] = []

        def ended() -> bool:
            try:
                piece = client.recv(65_536)
            except BlockingIOError:
                return False
            except ConnectionResetError:
                return True
            parts.append(piece)
            return not piece

        self.until(ended, "the end of the answer")
        return b"".join(parts)

    def ask(self, *said: bytes) -> str:
        return self.hear(self.connect(*said)).decode()


@pytest.fixture
def server() -> Iterator[Server]:
    """A server, and a check that it leaves no descriptor behind."""
    before = open_descriptors()
    found = Server()
    assert found.httpd.open() == ""
    yield found
    found.httpd.close()
    for client in found.clients:
        client.close()
    found.poller._epoll.close()
    assert open_descriptors() <= before


@pytest.mark.parametrize(
    ("said", "code"),
    [
        (b"GET /page HTTP/1.0\r\n\r\n", 200),
        (b"\r\nGET /page HTTP/1.1\nHost: x\n\n", 200),
        (b"GET http://x/page?a HTTP/1.1\r\nhOsT: x\r\n\r\n", 200),
        (b"GET /page HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello", 200),
        (b"GET /page HTTP/1.1\r\n\r\n", 400),
        (b"GET /page\r\n\r\n", 400),
        (b"hello\r\n\r\n", 400),
        (b"GET  /page HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET /page HTTP/2.0\r\nHost: x\r\n\r\n", 505),
        (b"GET /other HTTP/1.0\r\n\r\n", 404),
        (b"get /page HTTP/1.0\r\n\r\n", 405),
        (b"GET /page HTTP/1.0\r\nX: " + b"x" * MAX_HEAD + b"\r\n\r\n", 431),
        (b"x" * 2 * MAX_HEAD, 431),
    ],
)
def test_requests_are_read_as_rfc_9112_says(said: bytes, code: int, server: Server) -> None:
    answer = server.ask(said)
    assert answer.startswith(f"HTTP/1.1 {code} ")
    assert "\r\nConnection: close\r\n" in answer


def test_a_request_may_come_byte_by_byte(server: Server) -> None:
    client = server.connect()
    for byte in b"GET /page?slow HTTP/1.1\r\nHost: x\r\n\r\n":
        client.sendall(bytes([byte]))
        server.turn()
    assert server.hear(client).endswith(b"\r\n\r\nslow\n")


@given(st.binary(max_size=200))
def test_no_request_at_all_breaks_it(head: bytes) -> None:
    with suppress(httpd.Refused):
        httpd.read_head(head)


def test_a_request_that_does_not_end_has_its_time(server: Server) -> None:
    """The defence is `tick`: without it the place is lost for good."""
    client = server.connect(b"GET /pa")
    server.until(lambda: server.httpd._clients)
    assert server.httpd.deadline_ms() == PATIENCE_MS
    server.now_ms = PATIENCE_MS - 1
    server.httpd.tick(server.now_ms)
    assert server.httpd._clients
    server.now_ms = PATIENCE_MS
    server.httpd.tick(server.now_ms)
    assert not server.httpd._clients
    assert server.hear(client) == b""
    assert server.httpd.deadline_ms() is None


def test_an_answer_that_is_not_taken_has_its_time(server: Server) -> None:
    client = server.connect(b"GET /late HTTP/1.0\r\n\r\n")
    server.until(lambda: server.held)
    server.held[0](200, "text/plain", "x" * 50_000_000)
    server.quiet()
    assert server.httpd._clients
    server.now_ms = PATIENCE_MS
    server.httpd.tick(server.now_ms)
    assert not server.httpd._clients
    assert len(server.hear(client)) < 50_000_000


def test_a_client_that_has_left_gets_no_late_answer(server: Server) -> None:
    client = server.connect(b"GET /late HTTP/1.0\r\n\r\n")
    server.until(lambda: server.held)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    client.close()
    server.until(lambda: not server.httpd._clients)
    server.held[0](200, "text/plain", "nobody")


def test_those_who_do_not_ask_make_room(server: Server) -> None:
    idle = [server.connect() for _ in range(MAX_CLIENTS)]
    server.until(lambda: len(server.httpd._clients) == MAX_CLIENTS)
    assert server.ask(b"GET /page HTTP/1.0\r\n\r\n").startswith("HTTP/1.1 200")
    assert len(server.httpd._clients) <= MAX_CLIENTS
    assert server.hear(idle[0]) == b""


def test_what_follows_a_request_is_bounded(server: Server) -> None:
    client = server.connect(b"POST /page HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n")
    assert server.hear(client).startswith(b"HTTP/1.1 405")

    def sent_away() -> bool:
        with suppress(BlockingIOError, BrokenPipeError, ConnectionResetError):
            client.send(b"x" * 65_536)
        return not server.httpd._clients

    server.until(sent_away)


# The look at processes.


def test_a_look_at_processes_is_sliced_and_kept() -> None:
    now_ms = 0
    found: list[figures.Figures] = []
    sampler = figures.Sampler(lambda: now_ms)
    sampler.ask(found.append)
    sampler.ask(found.append)
    sampler._left = [str(os.getpid())] * (figures.SLICE + 1)
    sampler.look_on()
    assert (found, sampler.is_looking) == ([], True)
    sampler.look_on()
    assert (len(found), sampler.is_looking) == (2, False)
    memory, cpu = found[0][os.getsid(0)]
    assert memory > 1_000_000 * figures.SLICE
    assert cpu > 0
    sampler.ask(found.append)
    assert found[2] is found[0]
    now_ms = figures.FRESH_MS
    sampler.ask(found.append)
    assert (len(found), sampler.is_looking) == (3, True)


def test_a_line_of_proc_is_read_whatever_its_name() -> None:
    fields = "S 1 2 77 0 -1 0 0 0 0 0 100 50 20 30 20 0 1 0 12345 1000000 10 18446744073709551615"
    found = figures.figures_of(f"5 (a) b ( c) {fields}\n".encode())
    page, ticks = os.sysconf("SC_PAGE_SIZE"), os.sysconf("SC_CLK_TCK")
    assert found == (77, 10 * page, 200 / ticks)
    assert figures.figures_of(b"") is None


def test_names_of_metrics_follow_the_rules() -> None:
    """OpenMetrics: a unit stands at the end of the name; the documentation lists every family."""
    page = (Path(__file__).parents[3] / "docs/metrics.md").read_text()
    source = (Path(__file__).parents[3] / "bottle_init/linux/metrics.py").read_text()
    names = re.findall(r'yield \(?\s*"([a-z_]+)"', source)
    assert len(names) == 13
    for name in names:
        assert f"`bottle_init_{name}" in page
