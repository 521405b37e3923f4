"""The whole tree on the real kernel (contract 4): whatever its shape, it is found, stopped, reaped and told apart."""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bottle_init.linux.sys import proc
from tests.integration.support import one_command
from tests.integration.support.init import MAIN, descendants, eventually, running, sh

pytestmark = pytest.mark.real

# With a timeout that no test waits out, an overlooked process holds up the stop until the test gives up.
NEVER = "[bundle]\nstop_timeout = '900s'\n"

# A process of which only the second thread goes on: to the kernel its first one is a zombie.
HEADLESS = """
import _thread, ctypes, os, sys, time
if os.fork():
    while not os.path.exists(sys.argv[1]):
        time.sleep(0.01)
    print("up", flush=True)
    time.sleep(1000)
if "fled" in sys.argv:
    os.setsid()
def last():
    time.sleep(0.2)
    open(sys.argv[1], "w").close()
    time.sleep(1000)
_thread.start_new_thread(last, ())
ctypes.CDLL(None).pthread_exit(None)
"""

# Leaves a child in its session whose own parent has fled to another one, and reaps it there. Each line is one write.
KEEPER = """
import os, time
if os.fork() == 0:
    kept = os.fork()
    if kept == 0:
        os.write(1, b"kept\\n")
        time.sleep(1000)
    os.setsid()
    os.write(1, b"keeper\\n")
    os.wait()
    time.sleep(1000)
time.sleep(1000)
"""

# Leaves a child that, asked to end, first starts another one. That one blocks TERM until it would die of it: the
# interpreter forgets after a fork what came during it.
HEIRS = """
import os, signal, time
def bequeath(*_):
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    if os.fork():
        os._exit(0)
    print("heir", flush=True)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
if os.fork() == 0:
    signal.signal(signal.SIGTERM, bequeath)
    print("first", flush=True)
    while True:
        time.sleep(1000)
time.sleep(1000)
"""

PTRACE_SEIZE = 0x4206

TRACER = f"""
import ctypes, errno, sys
if not ctypes.CDLL(None, use_errno=True).ptrace({PTRACE_SEIZE}, int(sys.argv[1]), None, None):
    print("attached", flush=True)
    sys.stdin.read()
else:
    print(errno.errorcode[ctypes.get_errno()])
"""


def python_daemon(tmp_path: Path, script: str, *words: str) -> str:
    """A daemon that runs this Python script, with a stop_timeout that no test waits out."""
    path = tmp_path / "daemon.py"
    path.write_text(script)
    command = [sys.executable, str(path), *words]
    return f"[daemons.d]\ncommand = {command}\nstop_timeout = '800s'\n"


@contextmanager
def tracer_of(pid: int) -> Iterator[None]:
    """A process that traces another, and takes no notice of its end."""
    command = [sys.executable, "-c", TRACER, str(pid)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as tracer:
        assert tracer.stdout is not None
        said = tracer.stdout.readline()
        if said == "EPERM\n":
            pytest.skip("no process may trace another's child here (ptrace_scope, a container without SYS_PTRACE)")
        assert said == "attached\n"
        yield


@pytest.mark.parametrize("where", ["stays", "fled"])
def test_a_headless_process_is_no_zombie(tmp_path: Path, pid_1: bool, where: str) -> None:
    """A process whose first thread has ended is no zombie: it is ended like any other."""
    bundle = NEVER + python_daemon(tmp_path, HEADLESS, str(tmp_path / "up"), where)
    with running(tmp_path, bundle, pid_1=pid_1) as init:
        init.line("[d] up")
        below = descendants(init.pid)
        assert init.stop() == 0
        assert len(init.report()["survivors"]) == 1
        assert not [pid for pid in below if Path(f"/proc/{pid}").exists()]


def test_what_another_process_reaps(tmp_path: Path, pid_1: bool) -> None:
    """The end of what another process reaps is noticed, and no timeout is waited out for it."""
    with running(tmp_path, NEVER + python_daemon(tmp_path, KEEPER), pid_1=pid_1) as init:
        init.line("[d] kept")
        init.line("[d] keeper")
        assert init.stop() == 0
        assert len(init.report()["survivors"]) == 2


NO_PIDFD = f"""
import errno, os, posix, sys

def pidfd_open(pid):
    raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

posix.pidfd_open = pidfd_open
{MAIN}"""


def test_what_another_process_reaps_unseen(tmp_path: Path, pid_1: bool) -> None:
    """As before Linux 5.3, or without a descriptor: the time to stop is waited out, and once that is told."""
    daemon = python_daemon(tmp_path, KEEPER).replace("800s", "3s")
    with running(tmp_path, NEVER + daemon, pid_1=pid_1, executable_code=(NO_PIDFD,)) as init:
        init.line("[d] kept")
        init.line("[d] keeper")
        assert init.stop() == 0
        told = [event for event in init.events if event["event"] == "leftover_unwatched"]
        assert [(one["level"], one["reason"]) for one in told] == [("warning", os.strerror(errno.ENOSYS))]
        assert told[0]["pid"] in {one["pid"] for one in init.report()["survivors"]}


def test_a_probe_that_takes_its_time_to_die(tmp_path: Path, pid_1: bool) -> None:
    """A probe that is found dying when the bundle ends is waited for, and its end is noticed.

    Held by `Children.reap`. To free its memory takes the kernel longer than the init needs to look for what is left.
    """
    up = tmp_path / "up"
    probe = f"import time; memory = bytearray(b'x') * (256 << 20); open({str(up)!r}, 'w').close(); time.sleep(1000)"
    script = f"while [ ! -e {up} ]; do sleep 0.05; done; exit 3"
    ready = f"ready = {{ exec = {json.dumps([sys.executable, '-c', probe])} }}"
    with running(tmp_path, NEVER + sh("daemon", "d", script, ready), pid_1=pid_1) as init:
        assert init.wait() == 3
        assert init.report()["survivors"] == []


def test_what_is_forked_while_a_session_ends(tmp_path: Path, pid_1: bool) -> None:
    """What is forked while a session is being ended gets its TERM too."""
    with running(tmp_path, NEVER + python_daemon(tmp_path, HEIRS), pid_1=pid_1) as init:
        init.line("[d] first")
        assert init.stop() == 0
        init.line("[d] heir")
        assert len(init.report()["survivors"]) == 2


def test_a_zombie_that_its_tracer_keeps(tmp_path: Path) -> None:
    """A zombie that its tracer does not release does not hold up the init.

    The kernel hands it to its tracer first, so the init can never reap it (ptrace(2)).
    """
    bundle = "[bundle]\nstop_timeout = '1h'\n" + sh("daemon", "d", "setsid sleep 1000 & echo up; exec sleep 1000")
    with running(tmp_path, bundle, leaps=True) as init:
        init.line("[d] up")
        daemon = init.event("child_started", "d")["pid"]
        (orphan,) = (pid for pid in descendants(init.pid) if pid != daemon)
        with tracer_of(orphan):
            init.send(signal.SIGTERM)
            init.event("child_exited", "d")
            init.leap(3_600)
            assert init.wait() == 0
        assert [survivor["pid"] for survivor in init.report()["survivors"]] == [orphan]


def test_one_command_names_such_a_zombie_too(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    script = "setsid sleep 1000 & echo up; read end"
    with one_command.running("sh", "-c", script, options=[f"--report={path}"]) as it:
        assert it.line() == "up"
        command = it.command
        (orphan,) = (pid for pid in descendants(it.init) if pid != command)
        with tracer_of(orphan):
            os.kill(orphan, signal.SIGKILL)
            eventually(lambda: one_command.state(orphan) == "Z", "its end")
            it.tell("end")
            eventually(lambda: not one_command.state(command), "the command's end")
            it.send(signal.SIGTERM)
            it.send(signal.SIGINT)
            assert it.wait() == 0
    assert [survivor["pid"] for survivor in json.loads(path.read_text())["survivors"]] == [orphan]


def test_what_cannot_be_looked_at_is_not_gone() -> None:
    """A process that no descriptor is left to look at is not taken for gone.

    An init that took it for gone would look for it again at once, and find it again, for ever.
    """
    process = proc.look(os.getpid())
    assert process is not None
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.open("/dev/null", os.O_RDONLY)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + 1, hard))
    try:
        with pytest.raises(OSError, match="looked at") as refused:
            proc.hold(process)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert refused.value.errno == errno.EMFILE
    os.close(proc.hold(process))


def test_three_hundred_survivors_are_all_named(tmp_path: Path) -> None:
    script = "i=0; while [ $i -lt 150 ]; do sleep 1000 & i=$((i+1)); done; echo up; wait"
    with running(tmp_path, sh("daemon", "a", script) + sh("daemon", "b", script, "after = ['a']")) as init:
        init.line("[a] up")
        init.line("[b] up")
        assert init.stop() == 0
        assert len(init.report()["survivors"]) == 300


# The kernel gives out pids in turn; in a new namespace a test can set where it continues (proc(5), ns_last_pid).

FORK_NEXT_AS = "echo $(({pid} - 1)) > /proc/sys/kernel/ns_last_pid"
can_choose_pids = pytest.mark.skipif(
    not Path("/proc/sys/kernel/ns_last_pid").exists(),
    reason="this kernel lets no process choose a pid (CONFIG_CHECKPOINT_RESTORE)",
)


@can_choose_pids
def test_a_recycled_session_number(tmp_path: Path) -> None:
    """A session whose number belongs to another daemon by now is left alone.

    What a daemon has left in its session is ended with the bundle, and by then its pid may be another daemon's.
    """
    back = f"""
        if [ ! -e first ]; then
            touch first
            while [ ! -e pid ]; do sleep 0.01; done
            read pid < pid
            {FORK_NEXT_AS.format(pid="pid")}
            exit 0
        fi
        (sh -c 'trap "echo worker; exit" TERM; sleep 0.2; echo working; while :; do sleep 0.02; done' &)
        (sleep 0.1 &)
        trap "echo back; exit 0" TERM
        while :; do sleep 0.02; done
    """
    more = f"cwd = '{tmp_path}'\npolicy = 'restart'\nbackoff = {{ initial = 0 }}\nstop_delay = '500ms'"
    bundle = "[bundle]\npolicy = 'exit-on-child-failure'\n"
    bundle += sh("daemon", "gone", "exit 0") + sh("daemon", "back", back, more)
    with running(tmp_path, bundle, pid_1=True) as init:
        pid = init.event("child_exited", "gone")["pid"]
        (tmp_path / "pid.new").write_text(f"{pid}\n")
        (tmp_path / "pid.new").rename(tmp_path / "pid")
        init.line("[back] working")
        assert init.event("child_started", "back", count=2)["pid"] == pid
        assert init.stop() == 0
        assert init.out[-2:] == ["[back] back", "[back] worker"]


@can_choose_pids
def test_a_stranger_with_a_dead_daemons_pid(tmp_path: Path) -> None:
    """A process that has been given a dead daemon's pid is a stranger.

    It gets nothing that is the daemon's, and its death is not the daemon's.
    """
    stranger = f"""
        while [ ! -e pid ]; do sleep 0.01; done
        read pid < pid
        trap "echo hup" HUP
        (
            {FORK_NEXT_AS.format(pid="pid")}
            (trap "echo stranger hup" HUP; touch stranger; while :; do sleep 0.02; done) &
        )
        while :; do sleep 0.02; done
    """
    rare = "policy = 'restart'\nbackoff = { initial = '800s', limit = '900s' }\nsignals = { HUP = 'HUP' }"
    bundle = sh("daemon", "d", "exit 3", rare)
    bundle += sh("daemon", "other", stranger, f"cwd = '{tmp_path}'\nsignals = {{ HUP = 'HUP' }}")
    with running(tmp_path, bundle, pid_1=True) as init:
        pid = init.event("child_exited", "d")["pid"]
        (tmp_path / "pid.new").write_text(f"{pid}\n")
        (tmp_path / "pid.new").rename(tmp_path / "pid")
        eventually((tmp_path / "stranger").exists, "the stranger")
        outside = next(each for each in descendants(init.pid) if in_namespace(each) == pid)
        init.send(signal.SIGHUP)
        init.line("[other] hup")
        os.kill(outside, signal.SIGKILL)
        eventually(lambda: outside not in descendants(init.pid), "the stranger's end")
        assert init.stop() == 0
        assert "[other] stranger hup" not in init.out
        assert init.names().count(("child_exited", "d")) == 1


def in_namespace(pid: int) -> int:
    """A process's pid in its innermost PID namespace (proc(5), NSpid)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("NSpid:"):
            return int(line.split()[-1])
    raise AssertionError(f"/proc/{pid}/status has no NSpid")
