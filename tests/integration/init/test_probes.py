"""Probes on real sockets and processes (contract 4 and 6)."""

from __future__ import annotations

import errno
import os
import resource
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from bottle_init.core.events import Event, ProbeFailed, ProbeSucceeded
from bottle_init.core.spec import Probe
from bottle_init.linux.probes import Probes
from bottle_init.linux.reaper import Tree
from tests.integration.support.init import ROOT, descendants, eventually, running
from tests.integration.support.turning import Bench, open_descriptors, session_of

pytestmark = pytest.mark.real

CHILD, GENERATION, PROBE = 2, 3, 4
KEY = (CHILD, GENERATION, PROBE)
YES = ProbeSucceeded(*KEY)
INIT = Tree({})


class Asked(Bench):
    """A bench with the probes on it."""

    def __init__(self) -> None:
        super().__init__()
        self.leftovers: list[int] = []
        self.probes = Probes(self.poller, self.emit, self.run, INIT.end_probe, self._kill_leftovers)
        self.reaped = self.probes.reaped

    def _kill_leftovers(self, leader: int) -> None:
        self.leftovers.append(leader)
        INIT.session(leader, 9)

    def ask(self, how: Probe) -> Event:
        """Start a probe, and wait for its answer."""
        self.probes.start(*KEY, how)
        return self.event()

    def reason(self, how: Probe) -> str:
        """The reason of a probe's no."""
        answer = self.ask(how)
        assert isinstance(answer, ProbeFailed), answer
        assert (answer.child, answer.generation, answer.probe) == KEY
        return answer.reason


@pytest.fixture
def bench() -> Iterator[Asked]:
    """Probes, and a check that they leave no descriptor behind."""
    before = open_descriptors()
    asked = Asked()
    yield asked
    asked.until(lambda: not any(one._socket for one in asked.probes._closing.values()), "the end of all connections")
    for process in asked.processes.values():
        process.kill()
        process.wait()
    asked.poller._epoll.close()
    assert open_descriptors() <= before


@contextmanager
def listening(host: str = "127.0.0.1") -> Iterator[socket.socket]:
    """A port that is listened on."""
    with socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET) as server:
        yield server


def port_of(server: socket.socket) -> int:
    """Its number."""
    return int(server.getsockname()[1])


def free_port() -> int:
    """A port that is not listened on."""
    with listening() as server:
        return port_of(server)


@contextmanager
def saying(*pieces: bytes, close: bool = True) -> Iterator[int]:
    """A port whose server reads a request, and answers each with these pieces."""

    def serve() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            connection.recv(4096)
            for piece in pieces:
                connection.sendall(piece)
            if close:
                connection.close()
            else:
                held.append(connection)

    held: list[socket.socket] = []
    with listening() as server:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield port_of(server)
        server.shutdown(socket.SHUT_RDWR)
        thread.join()
        for connection in held:
            connection.close()


def http(port: int, path: str = "/health", host: str = "127.0.0.1") -> Probe:
    """An http probe."""
    return Probe("http", host=host, port=port, path=path)


def command(script: str) -> Probe:
    """An exec probe that runs a shell script."""
    return Probe("exec", command=("/bin/sh", "-c", script))


# tcp


def test_tcp_passes_where_somebody_listens(bench: Asked) -> None:
    with listening() as server:
        assert bench.ask(Probe("tcp", host="127.0.0.1", port=port_of(server))) == YES


def test_tcp_names_who_refused(bench: Asked) -> None:
    port = free_port()
    assert bench.reason(Probe("tcp", host="127.0.0.1", port=port)) == f"connection refused by 127.0.0.1:{port}"


def test_localhost_is_both_loopback_addresses(bench: Asked) -> None:
    with listening("::1") as server:
        assert bench.ask(Probe("tcp", host="localhost", port=port_of(server))) == YES
    port = free_port()
    reason = bench.reason(Probe("tcp", host="localhost", port=port))
    assert reason == f"connection refused by 127.0.0.1:{port}; connection refused by [::1]:{port}"


def test_an_unanswered_connection_stalls_nothing(bench: Asked) -> None:
    """An unanswered connection stalls nothing and can be cancelled."""
    with socket.socket() as full, listening() as server:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        address = full.getsockname()
        waiting = [socket.socket() for _ in range(4)]
        for filler in waiting:
            filler.setblocking(False)
            filler.connect_ex(address)
        bench.probes.start(*KEY, Probe("tcp", host="127.0.0.1", port=address[1]))
        assert bench.quiet() == []
        bench.probes.start(7, 1, 1, Probe("tcp", host="127.0.0.1", port=port_of(server)))
        assert bench.event() == ProbeSucceeded(7, 1, 1)
        bench.probes.cancel(*KEY)
        for filler in waiting:
            filler.close()
    assert bench.quiet() == []


def test_no_resolver_is_ever_asked(bench: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(*arguments: Any) -> Any:
        raise AssertionError(f"a probe asked a resolver: {arguments}")

    monkeypatch.setattr("_socket.getaddrinfo", resolve)
    assert bench.reason(Probe("tcp", host="some.name", port=80)) == "invalid argument at some.name:80"


SELF_CONNECTED = """
import fcntl, socket, struct, sys
with socket.socket() as s:
    fcntl.ioctl(s, 0x8914, struct.pack("16sh14x", b"lo", 0x49))  # SIOCSIFFLAGS: IFF_UP
def hand_out(first):
    open("/proc/sys/net/ipv4/ip_local_port_range", "w").write(f"{first} {first + 1}")
from tests.integration.init.test_probes import Asked, Probe, YES
hand_out(40000)
met_itself = 0
for _ in range(40):
    with socket.socket() as s:
        met_itself += s.connect_ex(("127.0.0.1", 40000)) == 0
hand_out(41000)  # Where no connection has met itself yet: what has been closed is not handed out again so soon.
bench = Asked()
answers = [bench.ask(Probe("tcp", host="127.0.0.1", port=41000)) for _ in range(40)]
print(met_itself > 0, sum(answer == YES for answer in answers))
"""


def test_a_connection_to_itself_is_no_daemon() -> None:
    """Linux lets a client connect to its own port, which a naive probe takes for a daemon."""
    script = ["unshare", "--net", sys.executable, "-c", SELF_CONNECTED]
    done = subprocess.run(script, capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.split() == ["True", "0"]


# http


@pytest.mark.parametrize("status", [200, 204, 299, 301, 302, 399])
def test_http_2xx_and_3xx_pass(bench: Asked, status: int) -> None:
    with saying(b"HTTP/1.1 %d Whatever\r\n\r\n" % status) as port:
        assert bench.ask(http(port)) == YES


@pytest.mark.parametrize("status", [101, 400, 404, 500, 503])
def test_http_tells_any_other_status(bench: Asked, status: int) -> None:
    with saying(b"HTTP/1.0 %d Whatever\r\n\r\n" % status) as port:
        assert bench.reason(http(port)) == f"HTTP {status}"


@pytest.mark.parametrize("status", [200, 503])
@pytest.mark.parametrize("size", [1, 7, 1_000])
def test_http_goes_on_after_an_interim_answer(bench: Asked, status: int, size: int) -> None:
    said = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n"
    said += b"HTTP/1.1 %d Whatever\r\n\r\n" % status
    with saying(*(said[at : at + size] for at in range(0, len(said), size))) as port:
        assert bench.ask(http(port)) == (YES if status == 200 else ProbeFailed(*KEY, f"HTTP {status}"))


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (b"HTTP/1.1 100 Continue\r\n\r\n", "the connection was closed without an answer"),
        (b"HTTP/1.1 100 Continue\r\n", "HTTP 100"),
        (b"HTTP/1.1 100 Continue\r\n" + b"x" * 100_000, "HTTP 100"),
        (b"HTTP/1.1 1" + b"x" * 100_000, "not an HTTP answer: HTTP/1.1 1" + "x" * 47 + "..."),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "not an HTTP answer: SSH-2.0-OpenSSH_9.2"),
        (b"HTTP/1.1 OK\r\n", "not an HTTP answer: HTTP/1.1 OK"),
        (b"HTTP/1.1 20\r\n", "not an HTTP answer: HTTP/1.1 20"),
        (b"HTTP/1.1 \xb2\xb2\xb2 x\r\n", "not an HTTP answer: HTTP/1.1 \ufffd\ufffd\ufffd x"),
        (b"\x1b[2J\r\n", "not an HTTP answer:  [2J"),
        (b"\r\n\r\n", "not an HTTP answer: "),
        (b"", "the connection was closed without an answer"),
        (b"x" * 100_000, "not an HTTP answer: " + "x" * 57 + "..."),
    ],
)
def test_http_survives_what_is_no_http(bench: Asked, said: bytes, reason: str) -> None:
    with saying(said) as port:
        assert bench.reason(http(port)) == reason


def test_http_with_an_endless_line(bench: Asked) -> None:
    """The answer does not wait for the end of an endless line."""
    with saying(b"x" * 3_000, close=False) as port:
        assert bench.reason(http(port)).startswith("not an HTTP answer: xxx")
    with saying(b"HTTP/1.1 503 " + b"x" * 3_000, close=False) as port:
        assert bench.reason(http(port)) == "HTTP 503"


def test_http_asks_as_the_rfc_says(bench: Asked) -> None:
    heard: list[bytes] = []
    with listening("::1") as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                heard.append(connection.recv(4096))
                connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")

        thread = threading.Thread(target=serve)
        thread.start()
        assert bench.ask(http(port_of(server), "/a?b=c", "::1")) == YES
        thread.join()
        request, *headers = heard[0].decode().removesuffix("\r\n\r\n").split("\r\n")
        assert request == "GET /a?b=c HTTP/1.1"
        assert f"Host: [::1]:{port_of(server)}" in headers
        assert "Connection: close" in headers


def test_http_from_a_server_that_trickles(bench: Asked) -> None:
    """Byte by byte: other probes are answered meanwhile, and so is this one in the end."""
    answer = b"HTTP/1.1 200 OK\r\n"
    with listening() as slow, listening() as quick:
        bench.probes.start(*KEY, http(port_of(slow)))
        connection = bench.until(lambda: _accepted(slow), "the probe's connection")
        with connection:
            for count, byte in enumerate(answer):
                assert bench.quiet(2) == []
                bench.probes.start(7, 1, count, Probe("tcp", host="127.0.0.1", port=port_of(quick)))
                assert bench.event() == ProbeSucceeded(7, 1, count)
                connection.sendall(bytes([byte]))
            assert bench.event() == YES
    bench.quiet()


def _accepted(server: socket.socket) -> socket.socket | None:
    server.setblocking(False)
    try:
        return server.accept()[0]
    except BlockingIOError:
        return None


class Chatty(BaseHTTPRequestHandler):
    """Writes its answer in pieces, as http.server does, and keeps what went wrong."""

    faults: list[BaseException] = []  # noqa: RUF012 - one server, one list.

    def do_GET(self) -> None:
        """Answer."""
        try:
            self.send_response(200)
            self.end_headers()
            for _ in range(20):
                self.wfile.write(b"healthy as can be\n")
        except OSError as problem:
            self.faults.append(problem)

    def log_message(self, *_: Any) -> None:
        """Nothing."""


def test_http_lets_the_server_finish_its_answer(bench: Asked) -> None:
    """A connection that is reset in the middle fills the daemon's log at every check."""
    Chatty.faults.clear()
    with HTTPServer(("127.0.0.1", 0), Chatty) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        for _ in range(10):
            assert bench.ask(http(server.server_port)) == YES
            bench.until(lambda: not bench.probes._closing[CHILD]._socket, "the end of the answer")
        server.shutdown()
        thread.join()
    assert Chatty.faults == []


def test_http_does_not_listen_to_an_endless_answer(bench: Asked) -> None:
    def pour() -> None:
        connection, _ = server.accept()
        with connection:
            connection.recv(4096)
            try:
                connection.sendall(b"HTTP/1.1 200 OK\r\n")
                while True:
                    connection.sendall(b"x" * 65_536)
            except OSError as problem:
                ends.append(problem.errno)

    ends: list[int | None] = []
    with listening() as server:
        thread = threading.Thread(target=pour)
        thread.start()
        assert bench.ask(http(port_of(server))) == YES
        bench.until(lambda: ends, "the end of the flood")
        thread.join()
    assert ends[0] in (errno.EPIPE, errno.ECONNRESET)


# exec


def test_exec_passes_with_exit_code_0(bench: Asked) -> None:
    assert bench.ask(command("echo fine")) == YES


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("exit 3", "exit code 3"),
        ("echo one; echo two >&2; exit 4", "exit code 4: two"),
        ("printf 'no newline'; exit 5", "exit code 5: no newline"),
        ("printf '\\033[31mred\\n\\n'; exit 6", "exit code 6:  [31mred"),
        ("kill -9 $$", "killed by signal 9"),
        ("head -c 3000000 /dev/zero | tr '\\0' x; echo; echo the end; exit 7", "exit code 7: the end"),
        ("head -c 3000000 /dev/zero | tr '\\0' x; exit 8", "exit code 8: " + "x" * 197 + "..."),
    ],
)
def test_exec_tells_the_code_and_the_last_line(bench: Asked, script: str, reason: str) -> None:
    assert bench.reason(command(script)) == reason


def test_exec_of_nothing_is_a_no(bench: Asked) -> None:
    reason = bench.reason(Probe("exec", command=("/no/such/thing",)))
    assert reason == "/no/such/thing could not be started: No such file or directory"


FLED = "setsid sh -c 'setsid sleep 600 & sleep 600; true' & "
TREE = FLED + "sleep 600 & (sleep 600; true) & sh -c 'trap \"\" TERM; sleep 600; true' & sleep 600; true"
TREE_SIZE = 10


def test_cancelled_exec_goes_with_its_whole_tree(bench: Asked) -> None:
    """Also a process that has left its session, and would be an orphan once its parent is gone."""
    bench.probes.start(*KEY, command(TREE))
    (leader,) = bench.processes

    def sessions_of_the_tree() -> set[int]:
        below = descendants(leader)
        return {os.getsid(pid) for pid in (leader, *below)} if len(below) >= TREE_SIZE - 1 else set()

    bench.until(lambda: len(sessions_of_the_tree()) == 3, "the probe's tree, in three sessions")
    sessions = sessions_of_the_tree()
    assert bench.probes.knows(leader)
    bench.probes.cancel(*KEY)
    bench.until(lambda: not any(map(session_of, sessions)) and not bench.processes, "the end of the tree")
    assert not bench.probes.knows(leader)
    assert bench.quiet() == []


def test_what_an_exec_probe_leaves_behind_goes_with_it(bench: Asked) -> None:
    bench.probes.start(*KEY, command("sleep 600 >/dev/null 2>&1 & exit 0"))
    (leader,) = bench.processes
    assert bench.event() == YES
    bench.until(lambda: not session_of(leader), "the end of what was left")
    assert bench.leftovers == [leader]


def test_a_process_that_is_no_probes_is_not_taken(bench: Asked) -> None:
    assert not bench.probes.reaped(1, 0)


def test_an_answer_after_the_cancel_is_dropped(bench: Asked) -> None:
    """An answer that comes after the probe was cancelled is dropped."""
    with listening() as server:
        bench.probes.start(*KEY, Probe("tcp", host="127.0.0.1", port=port_of(server)))
        bench.probes.cancel(*KEY)
        assert bench.quiet() == []


def test_without_descriptors_a_probe_fails_and_says_so(bench: Asked) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.open("/dev/null", os.O_RDONLY)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        assert bench.reason(Probe("tcp", host="127.0.0.1", port=9)) == "too many open files at 127.0.0.1:9"
        assert bench.reason(command("true")) == "/bin/sh could not be started: Too many open files"
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# By a Unix socket, and with headers.


@pytest.mark.parametrize("name", ["@bottle-probe-{}", "{}/app.sock"])
def test_tcp_and_http_by_a_unix_socket(bench: Asked, tmp_path: Path, name: str) -> None:
    address = name.format(os.getpid() if name[0] == "@" else tmp_path)
    bound = "\0" + address[1:] if address[0] == "@" else address
    heard: list[bytes] = []

    def serve() -> None:
        for _ in range(2):
            connection, _ = server.accept()
            heard.append(connection.recv(4096))
            if heard[-1]:
                connection.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")
            connection.close()

    with socket.socket(socket.AF_UNIX) as server:
        server.bind(bound)
        server.listen()
        thread = threading.Thread(target=serve)
        thread.start()
        assert isinstance(bench.ask(Probe("tcp", socket=address)), ProbeSucceeded)
        headers = (("host", "app"), ("X-Probe", "1"))
        assert isinstance(bench.ask(Probe("http", socket=address, path="/h?a=b", headers=headers)), ProbeSucceeded)
        thread.join()
    request = heard[-1].decode()
    assert request.startswith("GET /h?a=b HTTP/1.1\r\nhost: app\r\n")
    assert request.endswith("X-Probe: 1\r\nConnection: close\r\n\r\n")
    assert request.lower().count("host:") == 1


def test_a_unix_socket_that_is_not_there(bench: Asked, tmp_path: Path) -> None:
    path = f"{tmp_path}/app.sock"
    assert bench.reason(Probe("tcp", socket=path)) == f"no such file or directory at unix:{path}"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
    assert bench.reason(Probe("http", socket=path, path="/")) == f"connection refused by unix:{path}"


def test_a_unix_socket_whose_queue_is_full(bench: Asked, tmp_path: Path) -> None:
    """A probe of a server that accepts nothing fails at once, and waits for nothing."""
    path = f"{tmp_path}/app.sock"
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as one, ExitStack() as rest:
        server.bind(path)
        server.listen(0)
        one.connect(path)
        for _ in range(4):
            client = rest.enter_context(socket.socket(socket.AF_UNIX))
            client.setblocking(False)
            client.connect_ex(path)
        assert "unavailable" in bench.reason(Probe("tcp", socket=path))


# The same under the init.


@pytest.fixture
def everybodys() -> Iterator[Path]:
    """A directory that every user may write to, which none of pytest's own is."""
    with TemporaryDirectory() as directory:
        Path(directory).chmod(0o777)
        yield Path(directory)


def test_an_exec_probe_runs_as_its_daemon_does(tmp_path: Path, everybodys: Path) -> None:
    seen = everybodys / "seen"
    probe = f"(id -u; pwd; echo $COLOUR; ps -o sid= -p $$; echo $$; readlink /proc/self/fd/0) > {seen}"
    bundle = f"""
    [daemons.d]
    command = ["sleep", "600"]
    user = 65534
    cwd = "/usr"
    env = {{ COLOUR = "green" }}
    ready = {{ exec = ["/bin/sh", "-c", "{probe}"] }}
    """
    with running(tmp_path, bundle) as init:
        init.event("child_ready", "d")
        uid, cwd, colour, session, pid, stdin = seen.read_text().split()
        assert (uid, cwd, colour, stdin) == ("65534", "/usr", "green", "/dev/null")
        assert session == pid
        assert init.stop() == 0


@pytest.mark.parametrize("logs", ["tag", "inherit"])
def test_an_exec_probe_opens_its_dev_stdout(tmp_path: Path, logs: str) -> None:
    """What a daemon of another user may open, its probe may open too."""
    script = "echo x > /dev/stdout && echo y > /dev/stderr"
    bundle = f"""
    [bundle]
    logs = "{logs}"
    [daemons.d]
    command = ["/bin/sh", "-c", "{script} && exec sleep 600"]
    user = 65534
    ready = {{ exec = ["/bin/sh", "-c", "{script}"] }}
    """
    with running(tmp_path, bundle) as init:
        init.event("child_ready", "d")
        init.line("x" if logs == "inherit" else "[d] x")
        assert init.stop() == 0


@pytest.mark.parametrize("pid_1", [False, True], ids=["subreaper", "pid1"])
def test_timed_out_exec_checks_leave_nothing(tmp_path: Path, pid_1: bool) -> None:
    """Exec checks that time out leave neither a process nor a zombie."""
    bundle = f"""
    [daemons.d]
    command = ["sleep", "600"]
    health = {{ exec = ["/bin/sh", "-c", '''echo again; {TREE}'''], interval = "20ms", timeout = "200ms", retries = 3 }}
    on_unhealthy = "ignore"
    """
    with running(tmp_path, bundle, pid_1=pid_1) as init:
        assert init.event("child_unhealthy", "d")["reason"] == "no answer in time"

        def only_the_daemon() -> bool:
            """At some moment between two checks nothing but the daemon is there, not even a zombie."""
            return len(descendants(init.pid)) == 1

        eventually(only_the_daemon, "a moment without any process of a check")
        assert init.stop() == 0


@pytest.mark.parametrize("pid_1", [False, True], ids=["subreaper", "pid1"])
def test_a_stop_takes_a_hung_probe_along(tmp_path: Path, pid_1: bool) -> None:
    bundle = f"""
    [daemons.d]
    command = ["sleep", "600"]
    ready = {{ exec = ["/bin/sh", "-c", '''{TREE}'''] }}
    """
    with running(tmp_path, bundle, pid_1=pid_1) as init:
        eventually(lambda: len(descendants(init.pid)) >= TREE_SIZE + 1, "the probe's tree")
        below = descendants(init.pid)
        assert init.stop() == 0
        assert not [pid for pid in below if Path(f"/proc/{pid}").exists()]
        assert init.report()["survivors"] == []
