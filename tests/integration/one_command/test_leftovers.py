"""What one command leaves behind (contract 4, 5): reaped while it lives, ended after it, named in the report."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.integration.support.init import HEARS, PYTHON, ROOT, eventually
from tests.integration.support.one_command import children, field, python, run, running, state

pytestmark = pytest.mark.real

# Leaves orphans that end at once, and prints how many zombies its parent, the init, has in the end.
ORPHANS = """
import os, time
count = 300
for _ in range(count):
    if os.fork() == 0:
        if os.fork() == 0:
            os._exit(3)
        os._exit(0)
    os.wait()
def states():
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            fields = open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == os.getppid():
            yield fields[0]
deadline = time.monotonic() + float(os.environ.get("PATIENCE", "30"))
while (zombies := list(states()).count("Z")) and time.monotonic() < deadline:
    time.sleep(0.05)
print(zombies)
"""

# An init whose reaper looks after the command alone.
WITHOUT_REAPER = """
import posix, sys
from bottle_init.cli.main import main
from bottle_init.linux.one import Command
def reap(self):
    if self.code is None and (status := posix.waitpid(self.pid, posix.WNOHANG))[0]:
        self._note_end(status[1])
        posix._exit(self.code)
Command._reap = reap
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(params=[False, True], ids=["subreaper", "pid1"])
def pid_1(request: pytest.FixtureRequest) -> bool:
    """Both places that an init can have."""
    return bool(request.param)


def report_of(path: Path) -> dict[str, Any]:
    """A report as `--report` has written it."""
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def test_orphans_are_reaped_while_the_command_lives(pid_1: bool) -> None:
    end = run(*python(ORPHANS), pid_1=pid_1)
    assert (end.returncode, end.stdout) == (0, "0\n")


def test_without_the_reaper_they_would_not_be() -> None:
    """The negative control of the test above."""
    init = python(WITHOUT_REAPER)
    init = [init[0], "-S", *init[3:]]
    with running(*python(ORPHANS), init=init, env={"PATIENCE": "1"}, cwd=ROOT) as it:
        assert it.line() == "300"
        assert it.wait() == 0


# A process that has been sent SIGSTOP has stopped a moment later.
STOP_OTHER = "kill -STOP $other; until grep -q '^State:.T' /proc/$other/status; do :; done;"


def test_leftovers_in_the_session_get_term(pid_1: bool, tmp_path: Path) -> None:
    """What is left in the session gets TERM and is reaped. The second one has to have its CONT to act on its TERM."""
    script = f"""
        (trap "echo one; exit" TERM; echo up; while :; do sleep 0.05; done) &
        (trap "echo two; exit" TERM; echo up; while :; do sleep 0.05; done) & other=$!
        echo up; read go; {STOP_OTHER} exit 4
    """
    report = tmp_path / "report.json"
    with running("sh", "-c", script, options=[f"--report={report}"], pid_1=pid_1) as it:
        assert [it.line() for _ in range(3)] == ["up"] * 3
        it.tell("go")
        assert sorted(it.process.stdout or ()) == ["one\n", "two\n"]
        assert it.wait() == 4
    names = [survivor["name"] for survivor in report_of(report)["survivors"]]
    assert names.count("sh") >= 2, "a sleep that has been forked and not yet executed is called sh, too"


@pytest.mark.parametrize(("stop", "heard"), [("", ["heard 15"]), (STOP_OTHER, ["heard 15", "heard 18"])])
def test_only_what_is_stopped_gets_cont(stop: str, heard: list[str]) -> None:
    """A program may have a handler for CONT; one that is stopped can act on its TERM only after it."""
    script = f"{sys.executable} -I -S -c '{HEARS}' & other=$!; read go; {stop} exit 4"
    with running("sh", "-c", script) as it:
        assert it.line() == "up"
        it.tell("go")
        assert [line.strip() for line in it.process.stdout or ()] == heard
        assert it.wait() == 4


def test_what_has_left_the_session_is_ended_too(pid_1: bool, tmp_path: Path) -> None:
    """What has moved into another session is ended too.

    Ended by the SIGKILL that everything gets, as it ignores TERM; the command's code stays.
    """
    script = """
        setsid sh -c 'trap "" TERM; echo $$; echo up; while :; do sleep 0.05; done' &
        read go; exit 4
    """
    report = tmp_path / "report.json"
    with running("sh", "-c", script, options=[f"--report={report}"], pid_1=pid_1) as it:
        it.line()
        assert it.line() == "up"
        it.tell("go")
        assert it.wait() == 4
        assert it.process.stdout is not None
        assert it.process.stdout.read() == "", "the last that could write to it is gone"
    survivors = report_of(report)["survivors"]
    assert any("trap" in survivor["command"] for survivor in survivors)


def init_with_deadlines(session_ms: int, everything_ms: int) -> list[str]:
    """An init that presses what is left harder after these times."""
    script = (
        "import sys\n"
        "from bottle_init.cli.main import main\n"
        "from bottle_init.core import command\n"
        f"command.SESSION_KILL_MS, command.EVERYTHING_KILL_MS = {session_ms}, {everything_ms}\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    return [sys.executable, "-S", "-c", script]


NEVER_MS = 1_000_000

# Leaves a process behind that ignores TERM, in the command's session or in another.
STUBBORN = """
import _signal, os, sys, time
_signal.signal(_signal.SIGTERM, _signal.SIG_IGN)
for word in sys.argv[1:]:
    child = os.fork()
    if child == 0:
        if word == "fled":
            os.setsid()
        print(word, "up", flush=True)
        while True:
            time.sleep(1000)
input()
os._exit(6)
"""


def test_a_second_stop_signal_kills_at_once(pid_1: bool) -> None:
    """A second stop signal kills at once what is left.

    The deadlines are out of reach here: only the signals can end this.
    """
    init = init_with_deadlines(NEVER_MS, NEVER_MS)
    with running(*python(STUBBORN, "stays", "fled"), init=init, pid_1=pid_1, cwd=ROOT) as it:
        assert sorted([it.line(), it.line()]) == ["fled up", "stays up"]
        command = it.command
        it.tell("go")
        eventually(lambda: state(command) == "", "the command's end")
        it.send(signal.SIGTERM)
        it.send(signal.SIGHUP)
        eventually(lambda: state(it.init) == "S")
        assert it.process.poll() is None, "the first stop signal leaves them their time"
        it.send(signal.SIGINT)
        assert it.wait() == 6


def test_the_sessions_deadline(pid_1: bool) -> None:
    """The session's deadline applies to the session alone."""
    init = init_with_deadlines(0, NEVER_MS)
    with running(*python(STUBBORN, "stays", "fled"), init=init, pid_1=pid_1, cwd=ROOT) as it:
        assert sorted([it.line(), it.line()]) == ["fled up", "stays up"]
        command = it.command
        left = {field(pid, 6) == command: pid for pid in children(command)}
        it.tell("go")
        eventually(lambda: state(left[True]) == "", "the end of the one in the session")
        assert state(left[False]) == "S"
        it.send(signal.SIGTERM)
        it.send(signal.SIGINT)
        it.wait()
        assert state(left[False]) == ""


def test_a_single_childs_neighbours_are_left_alone(tmp_path: Path) -> None:
    """A single child's neighbours in the session are left alone.

    The session is the shell's, which has started other things in it.
    """
    pidfile = tmp_path / "pid"
    command = ["sh", "-c", "sleep 1000 & exit 3"]
    with running(*command, options=["--single-child"], start_new_session=True, init=_beside_a_neighbour(pidfile)) as it:
        assert it.wait() == 3
        neighbour = int(pidfile.read_text())
        assert state(neighbour) == "S"
        os.kill(neighbour, signal.SIGKILL)


def _beside_a_neighbour(pidfile: Path) -> list[str]:
    """An init that is started by a shell which has another process in the same session."""
    script = f'sleep 1000 >&- 2>&- & echo $! >{pidfile}; "$@"; exit $?'
    return ["sh", "-c", script, "sh", *PYTHON]
