"""sd_notify(3) on real sockets (contract 4)."""

from __future__ import annotations

import array
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bottle_init import client
from bottle_init.core.events import Notified
from bottle_init.linux.notify import Notify, parse
from bottle_init.linux.sys.shm import SHM
from tests.integration.support.init import ROOT, Init, eventually, running
from tests.integration.support.turning import Bench, open_descriptors

pytestmark = pytest.mark.real

CHILD, GENERATION = 5, 2


class Told(Bench):
    """A bench with the notify sockets on it; `family` are the pids that belong to the daemon."""

    def __init__(self, parent: str = SHM) -> None:
        super().__init__()
        self.family = [os.getpid()]
        self.asked: list[tuple[int, int]] = []
        self.notify = Notify(self.poller, self.emit, self._belongs, parent)

    def _belongs(self, child: int, pid: int) -> bool:
        self.asked.append((child, pid))
        return pid in self.family


@pytest.fixture(params=["path", "abstract"])
def bench(request: pytest.FixtureRequest, short_path: Path) -> Iterator[Told]:
    """Notify with each kind of address, and a check that it leaves no descriptor and no file behind."""
    before = open_descriptors()
    told = Told(str(short_path) if request.param == "path" else "/nonexistent")
    yield told
    told.notify.close_all()
    told.poller._epoll.close()
    assert open_descriptors() <= before
    assert list(short_path.iterdir()) == []


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A directory in place of /dev/shm that other users can enter, with room for a name below it (unix(7))."""
    with tempfile.TemporaryDirectory() as path:
        os.chmod(path, 0o1777)  # noqa: S103 - As /dev/shm is.
        yield Path(path)


def say(address: str, message: bytes, descriptors: tuple[int, ...] = ()) -> None:
    """What a daemon's sd_notify() does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.connect(address.replace("@", "\0", 1))
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
        sender.sendmsg([message], rights)


@pytest.mark.parametrize(
    ("message", "meaning"),
    [
        (b"READY=1", {"ready": True}),
        (b"READY=1\nSTATUS=up and running\nMAINPID=7\n", {"ready": True, "status": "up and running"}),
        (b"RELOADING=1\nMONOTONIC_USEC=1\n", {"reloading": True}),
        (b"STOPPING=1", {"stopping": True}),
        (b"WATCHDOG=1", {"watchdog": True}),
        (b"WATCHDOG=trigger", {"watchdog_trigger": True}),
        (b"WATCHDOG_USEC=2500000", {"watchdog_ms": 2_500}),
        (b"WATCHDOG_USEC=1", {"watchdog_ms": 1}),
        (b"WATCHDOG_USEC=0", {"watchdog_ms": 0}),
        (b"WATCHDOG_USEC=18446744073709551615", {"watchdog_ms": 0}),
        (b"STATUS=", {"status": ""}),
        (b"STATUS=\x1b[2J\xff", {"status": " [2J\ufffd"}),
        (b"STATUS=" + b"x" * 2000, {"status": "x" * 497 + "..."}),
        (b"STATUS=one\nSTATUS=two", {"status": "two"}),
    ],
)
def test_what_is_understood(message: bytes, meaning: dict[str, Any]) -> None:
    assert parse(CHILD, GENERATION, message) == Notified(CHILD, GENERATION, **meaning)


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\n\n",
        b"READY",
        b"READY=0",
        b"READY=11",
        b"ready=1",
        b" READY=1",
        b"FDSTORE=1\nFDNAME=x",
        b"BARRIER=1",
        b"EXTEND_TIMEOUT_USEC=1",
        b"WATCHDOG_USEC=",
        b"WATCHDOG_USEC=-1",
        b"WATCHDOG_USEC=1e3",
        b"WATCHDOG_USEC=999999999999999999999",
        b"WATCHDOG_USEC=\xd9\xa1",
        b"=1",
        b"\0" * 50,
    ],
)
def test_what_means_nothing(message: bytes) -> None:
    assert parse(CHILD, GENERATION, message) is None


@given(st.binary(max_size=4_096) | st.lists(st.binary(max_size=30)).map(b"\nWATCHDOG_USEC=".join))
def test_no_datagram_is_too_strange(message: bytes) -> None:
    event = parse(CHILD, GENERATION, message)
    if event is not None and event.status is not None:
        assert event.status.isprintable()
        assert len(event.status) <= 500


def test_a_datagram_becomes_an_event_of_its_start(bench: Told) -> None:
    say(bench.notify.open(CHILD, GENERATION), b"READY=1")
    assert bench.event() == Notified(CHILD, GENERATION, ready=True)
    assert bench.asked == [(CHILD, os.getpid())]


def test_strangers_are_not_heard(bench: Told) -> None:
    address = bench.notify.open(CHILD, GENERATION)
    bench.family.clear()
    say(address, b"READY=1")
    assert bench.quiet() == []
    assert bench.asked == [(CHILD, os.getpid())]


def test_a_pid_cannot_be_borrowed(bench: Told) -> None:
    """The kernel lets only root claim another's pid; the sender's own is what counts."""
    address = bench.notify.open(CHILD, GENERATION)
    script = """
import os, socket, struct, sys
os.setuid(65534)
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
    s.connect(sys.argv[1].replace("@", "\\0", 1))
    claim = struct.pack("iii", int(sys.argv[2]), 0, 0)
    try:
        s.sendmsg([b"READY=1"], [(socket.SOL_SOCKET, socket.SCM_CREDENTIALS, claim)])
    except PermissionError:
        s.send(b"READY=1")
        print("refused")
"""
    done = subprocess.run([sys.executable, "-c", script, address, str(os.getpid())], capture_output=True, check=True)
    assert done.stdout == b"refused\n"
    assert bench.quiet() == []
    assert len(bench.asked) == 1
    assert bench.asked[0][1] != os.getpid()


IN_ANOTHER_PID_NAMESPACE = """
from tests.integration.init.test_notify import *
bench = Told()
bench.notify._belongs = lambda child, pid: bench.asked.append((child, pid)) or True
print(bench.notify.open(CHILD, GENERATION), flush=True)
input()
for _ in range(20):
    bench.turn()
print(bench.asked, bench.events)
"""


def test_a_sender_without_a_pid_here_is_not_heard() -> None:
    """A process of a namespace above has pid 0 to the init, which would match every such process."""
    script = ["unshare", "--pid", "--fork", sys.executable, "-c", IN_ANOTHER_PID_NAMESPACE]
    with subprocess.Popen(script, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as listener:
        assert listener.stdin is not None
        assert listener.stdout is not None
        say(listener.stdout.readline().strip(), b"READY=1")
        assert listener.communicate("\n")[0] == "[] []\n"


def test_each_start_has_an_address_of_its_own(bench: Told) -> None:
    old = bench.notify.open(CHILD, GENERATION)
    say(old, b"STATUS=queued and never read")
    new = bench.notify.open(CHILD, GENERATION + 1)
    assert new != old
    with pytest.raises((ConnectionRefusedError, FileNotFoundError)):
        say(old, b"READY=1")
    say(new, b"READY=1")
    assert bench.event() == Notified(CHILD, GENERATION + 1, ready=True)
    assert bench.quiet() == []


# Where the sockets are.


def opened(parent: Path) -> str:
    """The address that a daemon would be given with this directory in place of /dev/shm."""
    told = Told(str(parent))
    address = told.notify.open(CHILD, GENERATION)
    say(address, b"READY=1")
    assert told.event() == Notified(CHILD, GENERATION, ready=True), "whatever the address is, it is heard"
    told.notify.close_all()
    told.poller._epoll.close()
    return address


def test_the_directory_is_private(short_path: Path) -> None:
    """A daemon of another user has to reach its socket, and must not put another one in its place."""
    told = Told(str(short_path))
    path = Path(told.notify.open(CHILD, GENERATION))
    assert path.parent.parent == short_path
    assert (path.parent.stat().st_mode & 0o7777, path.stat().st_mode & 0o7777) == (0o711, 0o666)
    told.notify.close_all()
    told.poller._epoll.close()
    assert list(short_path.iterdir()) == []


@pytest.mark.parametrize("place", ["nothing", "a file", "a long path", "others may replace", "taken", "a link"])
def test_without_a_private_place(short_path: Path, place: str) -> None:
    """Each of these would be a fault, or a way in for others; `Sockets` looks."""
    own = short_path / f"bottle_init.{os.geteuid()}"
    parent = short_path
    if place == "nothing":
        parent = short_path / "none"
    elif place == "a file":
        parent = short_path / "file"
        parent.touch()
    elif place == "a long path":
        parent = short_path / ("x" * 100)  # sun_path has 108 bytes (unix(7)).
        parent.mkdir()
    elif place == "others may replace":
        short_path.chmod(0o777)
    elif place == "taken":
        own.touch()
    else:
        (short_path / "elsewhere").mkdir()
        own.symlink_to(short_path / "elsewhere")
    assert opened(parent).startswith("@")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_a_directory_of_another_user_is_not_used(short_path: Path) -> None:
    own = short_path / "bottle_init.0"
    own.mkdir()
    os.chown(own, 65534, 65534)
    assert opened(short_path).startswith("@")


def test_what_a_killed_init_has_left_is_swept(short_path: Path) -> None:
    """Only once it is old: a young one may be what another init is binding. What is alive stays."""
    own = short_path / f"bottle_init.{os.geteuid()}"
    own.mkdir()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as alive:
        for name in ("dead", "young"):
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as gone:
                gone.bind(str(own / name))
        alive.bind(str(own / "alive"))
        for name in ("dead", "alive"):
            os.utime(own / name, (1, 1))
        assert not opened(short_path).startswith("@")
        assert sorted(path.name for path in own.iterdir()) == ["alive", "young"]


def test_a_barrier_is_lifted_after_what_came_before_it(bench: Told) -> None:
    """sd_notify_barrier(3): the sender waits until its descriptor has been closed here."""
    address = bench.notify.open(CHILD, GENERATION)
    reading, writing = os.pipe()
    say(address, b"STATUS=first")
    say(address, b"BARRIER=1", (writing,))
    os.close(writing)
    bench.until(lambda: bench.events, "the first datagram")
    assert os.read(reading, 1) == b""
    os.close(reading)
    assert bench.event() == Notified(CHILD, GENERATION, status="first")
    assert bench.quiet() == []


@pytest.mark.parametrize("known", [True, False])
def test_no_descriptor_is_kept(bench: Told, known: bool) -> None:
    """FDSTORE=1 is not served, and a stranger must not be able to fill the init's table."""
    address = bench.notify.open(CHILD, GENERATION)
    if not known:
        bench.family.clear()
    before = open_descriptors()
    for _ in range(5):
        with open("/dev/null") as null:
            say(address, b"FDSTORE=1", (null.fileno(),) * 253)
    assert bench.quiet() == []
    assert open_descriptors() == before


def test_too_long_a_datagram_is_ignored_whole(bench: Told) -> None:
    address = bench.notify.open(CHILD, GENERATION)
    say(address, b"READY=1\nSTATUS=" + b"x" * 5_000)
    say(address, b"STATUS=short")
    assert bench.event() == Notified(CHILD, GENERATION, status="short")


FLOOD = """
from tests.integration.init.test_notify import *
Path("/proc/sys/net/unix/max_dgram_qlen").write_text("200")
bench = Told()
address = bench.notify.open(CHILD, GENERATION)
for _ in range(50):
    say(address, b"WATCHDOG=1")
bench.turn()
print(len(bench.events))
bench.until(lambda: len(bench.events) == 50)
"""


def test_a_flood_is_taken_in_bounded_pieces() -> None:
    """One wake-up takes no more than it may, however many wait (a longer queue needs a network namespace)."""
    script = ["unshare", "--net", sys.executable, "-c", FLOOD]
    assert subprocess.run(script, capture_output=True, check=True, cwd=ROOT).stdout == b"16\n"


def test_drain_takes_what_is_left_at_once(bench: Told) -> None:
    say(bench.notify.open(CHILD, GENERATION), b"STATUS=last words")
    bench.notify.drain(CHILD)
    bench.notify.drain(CHILD + 1)
    assert bench.events == [Notified(CHILD, GENERATION, status="last words")]


# Under the init.

DAEMON = r"""
import os, socket, sys, time
address = os.environ["NOTIFY_SOCKET"]
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.connect(address.replace("@", "\0", 1))
s.send(b"STATUS=warming up")
{body}
time.sleep(600)
"""


def daemon(tmp_path: Path, name: str, body: str) -> str:
    """The path of a daemon that notifies."""
    path = tmp_path / f"{name}.py"
    path.write_text(DAEMON.replace("{body}", body))
    return f"""
    [daemons.{name}]
    command = ["{sys.executable}", "{path}"]
    ready = {{ notify = true, timeout = "300s" }}
    """


@pytest.mark.parametrize("pid_1", [False, True], ids=["subreaper", "pid1"])
def test_a_daemon_is_ready_when_it_says_so(tmp_path: Path, pid_1: bool) -> None:
    """Its own word counts, and so does that of a process of its session; a stranger's does not."""
    stranger = (
        "import subprocess\n"
        'tell = "import socket, sys; s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM);'
        ' s.sendto(sys.argv[2].encode(), sys.argv[1].replace(chr(64), chr(0), 1))"\n'
        "subprocess.run([sys.executable, '-c', tell, address, 'READY=1'], start_new_session=True)\n"
        "time.sleep(1)\n"
        "print('READY was claimed for it', flush=True)\n"
        "subprocess.run([sys.executable, '-c', tell + '; import time; time.sleep(1)', address, 'READY=1'])\n"
    )
    with running(tmp_path, daemon(tmp_path, "d", stranger), pid_1=pid_1) as init:
        init.line("[d] READY was claimed for it")
        assert ("child_ready", "d") not in init.names()
        init.event("child_ready", "d")
        assert init.stop() == 0


PATHS_ALONE = """
import os, socket, sys, time
address = os.environ["NOTIFY_SOCKET"]
if not os.path.exists(address):
    sys.exit("there is no file " + address)
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
    s.sendto(b"READY=1", address)
time.sleep(600)
"""


@pytest.mark.skipif(not os.access(SHM, os.W_OK), reason=f"{SHM} is not there, or not for this user")
@pytest.mark.parametrize("user", ["", 'user = "nobody"'])
def test_a_library_that_knows_paths_alone_is_heard(tmp_path: Path, user: str) -> None:
    """Rust's and PyPI's sd-notify look for a file of the name in NOTIFY_SOCKET, and give up where there is none."""
    python = shutil.which("python3", path="/usr/bin") if user else sys.executable
    if user and (os.geteuid() != 0 or python is None):
        pytest.skip("only root can start a daemon of another user, and that needs a Python that others may run")
    bundle = f"""
    [daemons.d]
    command = ["{python}", "-c", '''{PATHS_ALONE}''']
    ready = {{ notify = true, timeout = "300s" }}
    {user}
    """
    with running(tmp_path, bundle) as init:
        init.event("child_ready", "d")
        assert init.stop() == 0


def answers(init: Init) -> bool:
    """Whether all that is done once at the start is done."""
    try:
        return bool(client.ask(init.control, "health"))
    except client.NoAnswer:
        return False


def test_a_word_in_time_beats_a_missed_deadline(tmp_path: Path) -> None:
    """A word that came in time counts before a deadline that the init slept through.

    A stopped init, or a frozen container: what came meanwhile is judged before the timers (contract 8).
    """
    go = tmp_path / "go"
    body = f"while not os.path.exists('{go}'): time.sleep(0.01)\ns.send(b'READY=1')\nprint('said', flush=True)"
    bundle = daemon(tmp_path, "d", body).replace("300s", "1h") + "[bundle]\nlogs = 'inherit'"
    with running(tmp_path, bundle, leaps=True) as init:
        eventually(lambda: answers(init), "the init at rest")
        init.send(signal.SIGSTOP)
        go.touch()
        init.line("said")
        init.leap(3_600)
        init.event("child_ready", "d")
        assert init.stop() == 0


def test_the_address_is_for_its_daemon_alone(tmp_path: Path) -> None:
    """The address reaches only the daemon that it is for."""
    bundle = daemon(tmp_path, "d", "s.send(b'READY=1')") + (
        '[jobs.j]\ncommand = ["/bin/sh", "-c", "echo \\"<$NOTIFY_SOCKET>\\""]\nafter = ["d"]\n'
    )
    with running(tmp_path, bundle, env={"NOTIFY_SOCKET": "/run/systemd/notify"}) as init:
        assert init.wait() == 0
        assert "[j] <>" in init.out


def test_a_watchdog_that_falls_silent_is_unhealthy(tmp_path: Path) -> None:
    body = "s.send(b'WATCHDOG_USEC=300000\\nREADY=1')\nfor _ in range(5): time.sleep(0.05); s.send(b'WATCHDOG=1')"
    bundle = daemon(tmp_path, "d", body) + 'on_unhealthy = "stop"\n'
    with running(tmp_path, bundle) as init:
        assert init.event("child_unhealthy", "d")["reason"] == "no WATCHDOG=1 for 300 ms"
        assert init.wait() == 69
