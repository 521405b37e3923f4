"""The control socket's server, with clients that mean well and clients that do not (contract 6 and 8)."""

from __future__ import annotations

import json
import os
import resource
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bottle_init import client
from bottle_init.core import supervisor
from bottle_init.core.actions import StartProbe
from bottle_init.core.events import (
    ChildExecuted,
    ChildForked,
    ChildRestartOrdered,
    ChildSignalOrdered,
    ChildStartOrdered,
    ChildStopOrdered,
    Event,
    LeaseRenewed,
    ProbeFailed,
    ProbeSucceeded,
    StopOrdered,
)
from bottle_init.core.spec import Bundle, Check, Probe, Ready, Spec
from bottle_init.core.words import DAEMON, JOB
from bottle_init.linux.control import MAX_BEHIND, MAX_CLIENTS, MAX_FOLLOWERS, MAX_LINE, Control
from bottle_init.linux.sys import peer
from tests.integration.support.init import ROOT
from tests.integration.support.turning import Bench, open_descriptors

pytestmark = pytest.mark.real

PORT = Probe("tcp", host="127.0.0.1", port=9)
BUNDLE = Bundle(
    (
        Spec("egress", DAEMON, ("sleep", "1"), health=Check(PORT)),
        Spec("pipelock", DAEMON, ("sleep", "1"), after=("egress",), ready=Ready(PORT, timeout_ms=1_000_000)),
        Spec("tests", JOB, ("true",), after=("pipelock",)),
    )
)


def put(*events: Event) -> Any:
    """The state of the bundle at 10 s, after its first daemon's start at 0 and these events at 4 s."""
    state, _ = supervisor.step(supervisor.begin(BUNDLE, 0), 0, [])
    state, _ = supervisor.step(state, 0, [ChildForked(0, 1, 1234)])
    state, _ = supervisor.step(state, 0, [ChildExecuted(0, 1)])
    state, _ = supervisor.step(state, 0, [ChildForked(1, 1, 1235)])
    state, _ = supervisor.step(state, 4_000, events)
    return state


class Served(Bench):
    """A bench with a control socket on it, and its clients."""

    def __init__(self, address: str) -> None:
        super().__init__()
        self.address = address
        self.state = put()
        self.now_ms = 10_000
        self.waits: list[str] = []
        """Why clients had to wait."""
        self.control = Control(address, self.poller, self.emit, lambda: (self.state, self.now_ms), self.waits.append)
        self.clients: list[socket.socket] = []

    def connect(self, *said: bytes) -> socket.socket:
        """A client that has said this, and does not wait for anything."""
        connection = socket.socket(socket.AF_UNIX)
        self.clients.append(connection)
        connection.setblocking(False)
        where = self.address
        connection.connect("\0" + where[1:] if where.startswith("@") else where)
        for part in said:
            connection.sendall(part)
        return connection

    def hear(self, connection: socket.socket) -> bytes:
        """Everything that a client receives until the server closes the connection."""
        parts: list[bytes] = []

        def ended() -> bool:
            try:
                piece = connection.recv(65_536)
            except BlockingIOError:
                return False
            except ConnectionResetError:
                return True
            parts.append(piece)
            return not piece

        self.until(ended, "the end of the answer")
        return b"".join(parts)

    def lines(self, connection: socket.socket, count: int) -> list[dict[str, Any]]:
        """The next lines that a follower gets."""
        held = bytearray()

        def enough() -> bool:
            with suppress(BlockingIOError):
                held.extend(connection.recv(65_536))
            return held.count(b"\n") >= count

        self.until(enough, f"{count} lines")
        return [json.loads(line) for line in held.decode().splitlines()]

    def ask(self, line: bytes) -> str:
        """One request, and the whole answer to it."""
        return self.hear(self.connect(line + b"\n")).decode()

    def is_deaf(self) -> bool:
        """Whether it listens nowhere; the rest of a deaf server works, and reaches no client."""
        self.control.publish(b"{}")
        self.control.answer(1, True, "")
        return self.poller._callbacks == {}

    def followers(self) -> int:
        """How many follow."""
        return sum(client.following for client in self.control._clients)

    def follow(self) -> socket.socket:
        """A client that follows, and has read its first line."""
        follower = self.connect(b"events\n")
        assert self.lines(follower, 1)[0]["event"] == "following"
        return follower


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Served]:
    """A server, and a check that it leaves no descriptor behind."""
    before = open_descriptors()
    served = Served(f"@test-{os.getpid()}-{tmp_path.name}")
    assert served.control.open() == ""
    yield served
    served.control.close()
    for connection in served.clients:
        connection.close()
    served.poller._epoll.close()
    assert open_descriptors() <= before


# What is answered.


def test_health_for_people_begins_with_the_verdict(bench: Served) -> None:
    assert bench.ask(b"health") == (
        "starting\negress    healthy    running for 10s\npipelock  starting   starting for 10s\n"
    )


def test_health_for_programs(bench: Served) -> None:
    answer = json.loads(bench.ask(b"health json"))
    assert answer["health"] == "starting"
    assert answer["daemons"][0] == {
        "name": "egress",
        "health": "healthy",
        "state": "running",
        "state_ms": 10_000,
        "start": 1,
        "check": None,
        "detail": "",
    }


def test_health_tells_the_last_check_and_since_when(bench: Served) -> None:
    state, now_ms = put(), 4_000
    for answer in (ProbeSucceeded, ProbeFailed, ProbeFailed):
        now_ms += 30_000
        state, actions = supervisor.step(state, now_ms, [])
        number = next(action.probe for action in actions if isinstance(action, StartProbe) and action.child == 0)
        reason = () if answer is ProbeSucceeded else ("HTTP 503\x1b[2J",)
        state, _ = supervisor.step(state, now_ms, [answer(0, 1, number, *reason)])
    bench.state, bench.now_ms = state, now_ms + 2_500
    assert "egress    degraded   running for 1m36s, check failed 2.5s ago, failing for 32s: HTTP 503 [2J" in bench.ask(
        b"health"
    )
    daemon = json.loads(bench.ask(b"health json"))["daemons"][0]
    assert daemon["check"] == {"passed": False, "ago_ms": 2_500, "unchanged_ms": 32_500}
    assert daemon["detail"] == "HTTP 503\x1b[2J"


def test_status_is_of_all_children(bench: Served) -> None:
    told = json.loads(bench.ask(b"status"))
    assert (told["pid"], told["health"], told["phase"]) == (os.getpid(), "starting", "up")
    assert [child["name"] for child in told["children"]] == ["egress", "pipelock", "tests"]
    egress, _, tests = told["children"]
    assert (egress["pid"], egress["uptime_ms"], egress["restarts"]) == (1234, 10_000, 0)
    assert (tests["kind"], tests["pid"], tests["state"]) == ("job", None, "waiting")
    assert "health" not in tests


def test_a_stop_under_way_is_told(bench: Served) -> None:
    bench.state = put(StopOrdered(1, 77, 0))
    assert bench.ask(b"health").startswith("stopping\n")
    assert json.loads(bench.ask(b"status"))["stop"] == {
        "kind": "requested",
        "cause": "the control socket",
        "ago_ms": 6_000,
    }


@pytest.mark.parametrize(
    ("line", "order"),
    [
        (b"ctl restart egress", ChildRestartOrdered(0, 1)),
        (b"ctl stop pipelock", ChildStopOrdered(1, 1)),
        (b"ctl start tests", ChildStartOrdered(2, 1)),
        (b"ctl signal egress 10", ChildSignalOrdered(0, 10, 1)),
        (b"  ctl   signal   egress 64  ", ChildSignalOrdered(0, 64, 1)),
        (b"ctl renew", LeaseRenewed(1)),
        (b"ctl stop", StopOrdered(1, os.getpid(), os.geteuid())),
    ],
)
def test_an_order_goes_to_the_core_and_its_answer_back(bench: Served, line: bytes, order: Event) -> None:
    asking = bench.connect(line + b"\n")
    assert bench.event() == order
    bench.control.answer(1, True, "egress: as you say")
    assert bench.hear(asking) == b"ok egress: as you say\n"


def test_a_refusal_is_told_from_a_done(bench: Served) -> None:
    asking = bench.connect(b"ctl renew\n")
    bench.event()
    bench.control.answer(1, False, "this bundle has no\nlease")
    assert bench.hear(asking) == b"error this bundle has no lease\n"


def test_each_answer_finds_its_own_client(bench: Served) -> None:
    first = bench.connect(b"ctl stop egress\n")
    bench.event()
    second = bench.connect(b"ctl stop pipelock\n")
    assert bench.event() == ChildStopOrdered(1, 2)
    bench.control.answer(2, True, "two")
    bench.control.answer(1, True, "one")
    assert bench.hear(first) == b"ok one\n"
    assert bench.hear(second) == b"ok two\n"


def test_an_unknown_name_is_met_with_the_known_ones(bench: Served) -> None:
    assert bench.ask(b"ctl stop egres") == (
        "usage nothing here is called 'egres'; there are: egress, pipelock, tests\n"
    )
    assert bench.events == []


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b" ",
        b"helth",
        b"health text",
        b"HEALTH",
        b"GET / HTTP/1.1",
        b"ctl",
        b"ctl explode",
        b"ctl stop a b",
        b"ctl restart",
        b"ctl signal egress",
        b"ctl signal egress KILL",
        b"ctl signal egress 0",
        b"ctl signal egress 65",
        b"ctl signal egress -9",
        b"ctl signal egress \xd9\xa3",
        b"ctl renew egress",
        b"\xff\xfe\x00\x01",
        b"\0" * 100,
    ],
)
def test_what_is_not_understood_gets_one_line(bench: Served, line: bytes) -> None:
    answer = bench.ask(line)
    assert answer.startswith("usage requests are: health")
    assert answer.count("\n") == 1
    assert bench.events == []


def test_a_carriage_return_is_white_space(bench: Served) -> None:
    assert bench.ask(b"health\r").startswith("starting\n")


def test_only_the_first_line_counts(bench: Served) -> None:
    asking = bench.connect(b"ctl renew\nctl stop\nctl stop\n")
    assert bench.event() == LeaseRenewed(1)
    bench.control.answer(1, True, "renewed")
    assert bench.hear(asking) == b"ok renewed\n"
    assert bench.quiet() == []


# Followers.


def test_followers_get_every_event(bench: Served) -> None:
    first, second = bench.follow(), bench.follow()
    assert bench.followers() == 2
    for number in range(3):
        bench.control.publish(b'{"event": "e%d"}' % number)
    for follower in (first, second):
        assert [line["event"] for line in bench.lines(follower, 3)] == ["e0", "e1", "e2"]


def test_a_followers_first_line_is_the_status(bench: Served) -> None:
    """A follower learns the present state before the first event."""
    follower = bench.connect(b"events\n")
    first = bench.lines(follower, 1)[0]
    assert first["status"]["children"][0]["name"] == "egress"


def test_a_follower_that_says_no_more_still_listens(bench: Served) -> None:
    follower = bench.follow()
    follower.shutdown(socket.SHUT_WR)
    bench.quiet()
    bench.control.publish(b'{"event": "still"}')
    assert bench.lines(follower, 1)[0]["event"] == "still"


def test_a_follower_that_left_is_forgotten(bench: Served) -> None:
    bench.follow().close()
    bench.until(lambda: not bench.followers(), "the end of the follower")


def test_followers_leave_room_for_others(bench: Served) -> None:
    for _ in range(MAX_FOLLOWERS):
        bench.follow()
    assert bench.ask(b"events") == "error too many followers\n"
    assert bench.ask(b"health").startswith("starting\n")


def test_a_slow_follower_is_told_and_closed(bench: Served) -> None:
    """A follower that falls behind gets a last event and is closed; it delays neither the init nor other followers."""
    slow, quick = bench.follow(), bench.follow()
    event = b'{"event": "' + b"x" * 1_000 + b'"}'
    got = 0
    for _ in range(1_000):
        bench.control.publish(event)
        got += len(bench.lines(quick, 1))
    assert got == 1_000
    behind = [client for client in bench.control._clients if len(client.to_send) > 1_000]
    assert len(behind) == 1
    assert len(behind[0].to_send) <= MAX_BEHIND + 200
    *events, last = bench.hear(slow).decode().splitlines()
    assert json.loads(last)["event"] == "follower_too_slow"
    assert 0 < len(events) < 1_000
    assert all(line == event.decode() for line in events)


# Clients that do not mean well.


def test_half_a_line_keeps_nobody_waiting(bench: Served) -> None:
    half = bench.connect(b"hea")
    assert bench.ask(b"health").startswith("starting\n")
    half.sendall(b"lth\n")
    assert bench.hear(half).startswith(b"starting\n")


def test_half_a_line_and_the_end(bench: Served) -> None:
    half = bench.connect(b"ctl stop")
    half.shutdown(socket.SHUT_WR)
    assert bench.hear(half) == b""
    assert bench.events == []


@pytest.mark.parametrize("size", [MAX_LINE + 1, 100_000])
def test_too_long_a_line(bench: Served, size: int) -> None:
    babbler = bench.connect(b"x" * size)
    assert bench.hear(babbler) == b"usage a request is at most 4096 bytes long\n"


def test_the_longest_line_is_still_read(bench: Served) -> None:
    assert bench.ask(b"health".ljust(MAX_LINE)).startswith("starting\n")


@given(st.lists(st.binary(min_size=1, max_size=60) | st.sampled_from([b"\n", b"ctl ", b"health", b"events"])))
def test_any_bytes_are_one_request_at_most(pieces: list[bytes]) -> None:
    """Whatever bytes arrive, in whatever pieces, make at most one request."""
    served = Served(f"@pieces-{os.getpid()}")
    try:
        assert served.control.open() == ""
        rude = served.connect()
        with suppress(BrokenPipeError, ConnectionResetError):
            for piece in pieces:
                rude.send(piece)
                served.turn(0)
        assert len(served.events) <= 1
        line, ended, _ = b"".join(pieces).partition(b"\n")
        if not ended:
            assert served.events == []
        if ended and line.split() not in ([b"events"], *([b"ctl", word] for word in (b"stop", b"renew"))):
            assert served.hear(rude)
    finally:
        closed(served)


def test_a_thousand_connections_stay_within_limits(bench: Served) -> None:
    """A thousand connections cost the init no more descriptors than its limit allows."""
    before = open_descriptors()
    for _ in range(1_000):
        bench.connect(b"hea")
        bench.turn(0)
        assert len(bench.control._clients) <= MAX_CLIENTS
    assert open_descriptors() - before - 1_000 <= MAX_CLIENTS
    assert bench.ask(b"health").startswith("starting\n")


def test_a_client_that_takes_no_answer_makes_room(bench: Served) -> None:
    """An answer that is not read is held by the kernel, or makes room for the next client."""
    for _ in range(200):
        bench.connect(b"status\n")
        bench.turn(0)
    assert bench.ask(b"health").startswith("starting\n")


def test_whoever_leaves_before_the_answer_is_no_loss(bench: Served) -> None:
    asking = bench.connect(b"ctl stop egress\n")
    bench.event()
    asking.close()
    bench.quiet()
    bench.control.answer(1, True, "egress: stopping")
    bench.control.answer(99, True, "nobody asked")


def test_idle_clients_wake_nobody(bench: Served) -> None:
    """A follower's chatter is never read, and so never wakes the init either."""
    talker = bench.follow()
    talker.sendall(b"ctl stop\n" * 100)
    bench.connect(b"half a li")
    bench.quiet()
    assert bench.poller._epoll.poll(0.3) == []
    assert bench.events == []


def test_without_descriptors_clients_wait(bench: Served) -> None:
    """Without a free descriptor clients wait, and the init sleeps instead of spinning. It is told once."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    waiting = bench.connect(b"health\n")
    lowest = os.open("/dev/null", os.O_RDONLY)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        bench.turn()
        assert bench.poller._epoll.poll(0.3) == []
        assert bench.control.deadline_ms() == bench.now_ms + 1_000
        bench.control.tick(bench.now_ms + 999)
        assert bench.poller._epoll.poll(0.1) == []
        bench.control.tick(bench.now_ms + 1_000)
        bench.turn()
        assert bench.waits == ["Too many open files"]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    bench.control.tick(bench.now_ms + 1_000)
    assert bench.hear(waiting).startswith(b"starting\n")
    assert bench.control.deadline_ms() is None


# Who may ask.

ASK_AS_NOBODY = """
import os, sys
from bottle_init import client
os.setuid(65534)
client.peer.objection = lambda *_, **__: ""  # A client that does not check whom it asks.
print(client.ask(sys.argv[1], "ctl stop"), end="")
"""

ASK = """
import sys
from bottle_init import client
client.peer.objection = lambda *_, **__: ""
print(client.ask(sys.argv[1], "ctl stop"), end="")
"""

ASK_WITH_CARE = """
import sys
from bottle_init import client
try:
    print(client.ask(sys.argv[1], "ctl stop"), end="")
except client.NoAnswer as problem:
    print(problem)
"""

IN_A_NAMESPACE_BELOW = ["unshare", "--pid", "--fork", "--mount-proc"]
NAMESPACES = [IN_A_NAMESPACE_BELOW, IN_A_NAMESPACE_BELOW[:3]]


def asked(bench: Served, script: str, *prefix: str) -> str:
    """What another process gets by this script."""
    command = [*prefix, sys.executable, "-c", script, bench.address]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT) as process:
        bench.until(lambda: process.poll() is not None, "the other process")
        out, err = process.communicate()
    assert err == ""
    return out


def test_another_user_is_refused(bench: Served) -> None:
    assert asked(bench, ASK_AS_NOBODY) == "error refused: its user id is 65534, not root's\n"
    assert bench.events == []


def test_another_user_cannot_crowd_out_root(bench: Served) -> None:
    """Who is refused holds no place."""
    crowd = (
        "import os, sys, socket, time\nos.setuid(65534)\nheld = []\n"
        "for _ in range(300):\n s = socket.socket(socket.AF_UNIX); s.connect('\\0' + sys.argv[1][1:]); held.append(s)"
    )
    asked(bench, crowd)
    assert len(bench.control._clients) == 0
    assert bench.ask(b"health").startswith("starting\n")


@pytest.mark.parametrize("prefix", NAMESPACES, ids=["own proc", "proc from above"])
def test_a_pid_namespace_below_is_refused(bench: Served, prefix: list[str]) -> None:
    """Network namespaces can be shared where PID namespaces are not; a container below is a stranger."""
    assert asked(bench, ASK, *prefix) == "error refused: it is in another PID namespace\n"
    assert bench.events == []


@pytest.mark.parametrize("prefix", NAMESPACES, ids=["own proc", "proc from above"])
def test_a_client_does_not_ask_an_init_above(bench: Served, prefix: list[str]) -> None:
    told = asked(bench, ASK_WITH_CARE, *prefix)
    assert told == f"what listens at {bench.address} is not this container's init: it is in another PID namespace\n"
    assert bench.events == []


SERVE = """
import sys
from tests.integration.control.test_server import *
bench = Served(sys.argv[1])
assert bench.control.open() == ""
print("listening", flush=True)
while True:
    bench.turn()
    if bench.events:
        print(bench.events, flush=True)
"""


@pytest.fixture(params=NAMESPACES, ids=["own proc", "proc from above"])
def below(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The address of an init in a PID namespace below."""
    address = f"@below-{os.getpid()}-{tmp_path.name}"
    command = [*request.param, "--kill-child", sys.executable, "-c", SERVE, address]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"listening\n"
        yield address
        process.kill()
        assert process.stdout.read() == b""


def test_a_client_does_not_ask_an_init_below(below: str) -> None:
    with pytest.raises(client.NoAnswer, match="is in another PID namespace"):
        client.ask(below, "ctl stop")


def test_an_init_below_refuses_a_client_above(below: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An init in a PID namespace below refuses a client from above."""
    monkeypatch.setattr(peer, "objection", lambda *_, **__: "")
    assert client.ask(below, "ctl stop") == "error refused: it is in another PID namespace\n"


def test_a_client_asks_no_impostor(tmp_path: Path) -> None:
    """Anybody may take an abstract name, so the client looks at who has."""
    address = f"@impostor-{os.getpid()}-{tmp_path.name}"
    serve = (
        "import os, socket, sys\nos.setuid(65534)\ns = socket.socket(socket.AF_UNIX)\n"
        "s.bind('\\0' + sys.argv[1][1:])\ns.listen()\nprint('listening', flush=True)\n"
        "c, _ = s.accept()\nprint(c.recv(100), flush=True)"
    )
    with subprocess.Popen([sys.executable, "-c", serve, address], stdout=subprocess.PIPE) as impostor:
        assert impostor.stdout is not None
        impostor.stdout.readline()
        with pytest.raises(client.NoAnswer, match="its user id is 65534, not root's"):
            client.ask(address, "health")
        assert impostor.stdout.read() == b"b''\n"


# The address.


def opened(address: str) -> tuple[Served, str]:
    """A server at this address, and why it has none."""
    served = Served(address)
    return served, served.control.open()


def closed(served: Served) -> None:
    """The end of one."""
    served.control.close()
    for connection in served.clients:
        connection.close()
    served.poller._epoll.close()


def test_a_path_is_private_and_goes_with_the_init(tmp_path: Path) -> None:
    """A socket at a path belongs to its owner alone, and is removed when the init ends."""
    path = tmp_path / "control"
    umask = os.umask(0)
    try:
        served, problem = opened(str(path))
        assert problem == ""
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert os.umask(0) == 0
    finally:
        os.umask(umask)
    assert served.ask(b"health").startswith("starting\n")
    closed(served)
    assert not path.exists()


def test_what_a_dead_init_left_makes_room(tmp_path: Path) -> None:
    path = tmp_path / "control"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    served, problem = opened(str(path))
    assert problem == ""
    assert served.ask(b"health").startswith("starting\n")
    closed(served)


@pytest.mark.parametrize("kind", ["abstract", "path"])
def test_a_living_init_is_left_alone(tmp_path: Path, kind: str) -> None:
    address = f"@{tmp_path.name}-{os.getpid()}" if kind == "abstract" else str(tmp_path / "control")
    first, problem = opened(address)
    assert problem == ""
    second, problem = opened(address)
    more = ", or it is not a socket" if kind == "path" else ""
    assert problem == f"{address}: another process listens there{more}"
    closed(second)
    assert first.ask(b"health").startswith("starting\n")
    closed(first)


def test_a_file_is_never_removed(tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("data")
    served, problem = opened(str(path))
    assert problem == f"{path}: another process listens there, or it is not a socket"
    closed(served)
    assert path.read_text() == "data"


def test_a_path_that_is_somebody_elses_by_now_stays(tmp_path: Path) -> None:
    path = tmp_path / "control"
    served, _ = opened(str(path))
    path.unlink()
    path.write_text("somebody else's")
    closed(served)
    assert path.read_text() == "somebody else's"


@pytest.mark.parametrize(
    ("address", "problem"),
    [
        ("/no/such/directory/control", "No such file or directory"),
        ("/proc/control", "No such file or directory"),
        ("/" + "x" * 200, "AF_UNIX path too long"),
        ("@" + "x" * 200, "AF_UNIX path too long"),
    ],
)
def test_an_address_that_cannot_be_had_is_said(address: str, problem: str) -> None:
    served, said = opened(address)
    assert said == f"{address}: {problem}"
    assert served.is_deaf()
    closed(served)


def test_no_address_is_no_socket() -> None:
    served, problem = opened("")
    assert problem == ""
    assert served.is_deaf()
    closed(served)
