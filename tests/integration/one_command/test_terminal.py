"""One command on a terminal (contract 5): job control, the controlling terminal, who is in the foreground."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import pytest

from tests.integration.support.init import PATIENCE_S, PYTHON, ROOT, descendants, eventually
from tests.integration.support.one_command import ENVIRON, field, one, python, running, state

pytestmark = pytest.mark.real

STOPPING = (signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU)

# Prints what the terminal is to it; then each signal that it gets, until the terminal is gone.
AT_TERMINAL = """
import _signal, os
every = _signal.valid_signals()
_signal.pthread_sigmask(_signal.SIG_BLOCK, every)
try:
    tty = os.open("/dev/tty", os.O_RDWR)
    print("controlling", os.tcgetpgrp(tty) == os.getpgrp(), flush=True)
except OSError:
    print("none", flush=True)
print("ready", flush=True)
while True:
    print("got", _signal.sigwait(every).real, flush=True)
"""


class Terminal:
    """The user's side of a pseudo-terminal, and the leader of the session on its other side."""

    def __init__(self, pid: int, fd: int) -> None:
        self.pid = pid
        self.fd = fd
        self.seen = ""

    def type(self, text: str) -> None:
        """Type this text, without a newline."""
        os.write(self.fd, text.encode())

    def expect(self, pattern: str) -> re.Match[str]:
        """Wait until the output has this in it, and forget all up to there."""
        deadline = time.monotonic() + PATIENCE_S
        while not (found := re.search(pattern, self.seen)):
            left = deadline - time.monotonic()
            assert left > 0, f"{pattern!r} was not seen; only {self.seen!r}"
            if select.select([self.fd], [], [], left)[0]:
                try:
                    self.seen += os.read(self.fd, 65_536).decode("utf-8", "replace")
                except OSError:
                    raise AssertionError(f"{pattern!r} was not seen before the end; only {self.seen!r}") from None
        self.seen = self.seen[found.end() :]
        return found

    def wait(self) -> int:
        """The exit code of the process on the other side, whose output is read meanwhile."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.pid = 0
                code = os.waitstatus_to_exitcode(status)
                return code if code >= 0 else 128 - code
            if select.select([self.fd], [], [], 0.01)[0]:
                try:
                    self.seen += os.read(self.fd, 65_536).decode("utf-8", "replace")
                except OSError:
                    time.sleep(0.01)
        raise AssertionError(f"it did not end; its last words were {self.seen!r}")


@contextmanager
def terminal(command: Sequence[str]) -> Iterator[Terminal]:
    """Start a command on a new pseudo-terminal; whatever is left of it is killed at the end."""
    pid, fd = pty.fork()
    if pid == 0:
        try:
            os.execvpe(command[0], list(command), {**ENVIRON, "PS1": "$ ", "TERM": "dumb"})  # noqa: S606
        finally:
            os._exit(127)
    it = Terminal(pid, fd)
    try:
        yield it
    finally:
        if it.pid:
            for each in (*descendants(pid), pid):
                with suppress(ProcessLookupError):
                    os.kill(each, signal.SIGKILL)
            os.waitpid(pid, 0)
        os.close(fd)


NAMESPACE_LEADER = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", "setsid", "--ctty"]
"""As in a container with a terminal: PID 1 leads the session that has it."""


@pytest.fixture(params=[[], NAMESPACE_LEADER], ids=["subreaper", "pid1"])
def leader(request: pytest.FixtureRequest) -> list[str]:
    """Both places of an init that leads the terminal's session."""
    prefix: list[str] = request.param
    return prefix


def test_the_terminal_is_handed_to_the_command(leader: list[str]) -> None:
    """Ctrl-C, Ctrl-\\ and Ctrl-Z reach it, once; none of what letting go of the terminal sends to the init does."""
    with terminal([*leader, *one(*python(AT_TERMINAL))]) as it:
        it.expect("controlling True")
        it.expect("ready")
        for typed, number in (("\x03", signal.SIGINT), ("\x1c", signal.SIGQUIT), ("\x1a", signal.SIGTSTP)):
            it.type(typed)
            assert int(it.expect(r"got (\d+)")[1]) == number
        it.type("\x03")
        assert int(it.expect(r"got (\d+)")[1]) == signal.SIGINT


def test_ctrl_c_ends_the_command_with_130(leader: list[str]) -> None:
    with terminal([*leader, *one("sh", "-c", "echo ready; exec sleep 1000")]) as it:
        it.expect("ready")
        it.type("\x03")
        assert it.wait() == 130


def test_a_single_child_gets_ctrl_c_once(leader: list[str]) -> None:
    """A single child shares the terminal and gets Ctrl-C once.

    The terminal sends it to the whole foreground group: passed on as well, it would come twice.
    """
    with terminal([*leader, *one(*python(AT_TERMINAL), options=["--single-child"])]) as it:
        it.expect("controlling True")
        it.expect("ready")
        for _ in range(3):
            it.type("\x03")
            assert int(it.expect(r"got (\d+)")[1]) == signal.SIGINT
        it.type("\x1c")
        assert int(it.expect(r"got (\d+)")[1]) == signal.SIGQUIT, "and no INT before it"


def test_a_shell_can_stop_the_job_and_continue_it() -> None:
    """Under a shell, which keeps the terminal: Ctrl-Z stops the command and the init, `fg` wakes both."""
    with terminal(["bash", "--norc", "-i"]) as it:
        it.expect(r"\$ ")
        it.type(" ".join([*PYTHON, "--", "cat"]) + "\n")
        init = eventually(lambda: descendants(it.pid)[:1])[0]
        command = eventually(lambda: [pid for pid in descendants(init) if _name(pid) == "cat"])[0]
        it.type("hello\n")
        it.expect("hello\r\nhello")
        it.type("\x1a")
        it.expect("Stopped")
        eventually(lambda: (state(init), state(command)) == ("T", "T"))
        it.type("fg\n")
        eventually(lambda: state(init) == state(command) == "S")
        it.type("again\n")
        it.expect("again\r\nagain")
        it.type("\x03")
        it.expect(r"\$ ")
        it.type("echo code=$?\n")
        it.expect("code=130")
        it.type("exit\n")
        assert it.wait() == 0


def test_a_shell_stops_and_continues_a_single_child() -> None:
    """A shell can stop a single child and continue it."""
    with terminal(["bash", "--norc", "-i"]) as it:
        it.expect(r"\$ ")
        it.type(" ".join([*PYTHON, "--single-child", "--", "cat"]) + "\n")
        init = eventually(lambda: descendants(it.pid)[:1])[0]
        command = eventually(lambda: [pid for pid in descendants(init) if _name(pid) == "cat"])[0]
        it.type("\x1a")
        it.expect("Stopped")
        eventually(lambda: state(init) == state(command) == "T")
        it.type("fg\n")
        eventually(lambda: state(init) == state(command) == "S")
        it.type("again\n")
        it.expect("again\r\nagain")
        it.type("\x04")
        it.expect(r"\$ ")
        it.type("echo code=$?\n")
        it.expect("code=0")
        it.type("exit\n")
        assert it.wait() == 0


def _name(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/comm") as file:
            return file.read().strip()
    except OSError:
        return ""


@pytest.mark.parametrize("options", [[], ["--single-child"]], ids=["group", "single"])
@pytest.mark.parametrize("number", STOPPING)
def test_job_control_stops_command_and_init(number: int, options: list[str]) -> None:
    """A stop signal of job control stops the command and the init.

    In a session without a shell to wake them, too, where the kernel ignores these signals.
    """
    with running("sh", "-c", "echo ready; exec sleep 1000", options=options, start_new_session=True) as it:
        assert it.line() == "ready"
        init, command = it.init, it.command
        it.send(number)
        eventually(lambda: (state(init), state(command)) == ("T", "T"))
        it.send(signal.SIGCONT)
        eventually(lambda: state(init) != "T" and state(command) != "T")
        it.send(signal.SIGTERM)
        assert it.wait() == 143


@pytest.mark.parametrize("options", [[], ["--single-child"]], ids=["group", "single"])
@pytest.mark.parametrize("number", STOPPING)
def test_pid_1_stops_the_command_but_not_itself(number: int, options: list[str]) -> None:
    """As PID 1 the init stops the command and stays awake itself.

    No process could wake it, so it keeps passing signals on.
    """
    words = ["sh", "-c", "echo ready; exec sleep 1000"]
    with running(*words, options=options, pid_1=True, start_new_session=True) as it:
        assert it.line() == "ready"
        init, command = it.init, it.command
        it.send(number)
        eventually(lambda: state(command) == "T")
        assert state(init) != "T"
        it.send(signal.SIGCONT)
        eventually(lambda: state(command) != "T")
        it.send(signal.SIGTERM)
        assert it.wait() == 143


def test_a_single_child_handles_a_stop_signal() -> None:
    """A single child that handles a stop signal of job control gets it."""
    script = "trap 'echo got it; exit 3' TSTP; echo ready; while :; do sleep 0.05; done"
    with running("sh", "-c", script, options=["--single-child"], start_new_session=True) as it:
        assert it.line() == "ready"
        it.send(signal.SIGTSTP)
        assert it.line() == "got it"
        it.send(signal.SIGCONT)
        assert it.wait() == 3


# An init to which a CONT comes before it has stopped itself.
CONTINUED = """
import posix, sys
from bottle_init.cli.main import main
from bottle_init.linux.one import Command
send = Command.send
def send_and_continue(self, number):
    send(self, number)
    if number == 19:
        posix.kill(posix.getpid(), 18)
Command.send = send_and_continue
sys.exit(main(sys.argv[1:]))
"""


def test_a_cont_that_comes_at_once_is_not_lost() -> None:
    """STOP discards a CONT that is pending, and no second one would come."""
    init = [sys.executable, "-S", "-c", CONTINUED]
    with running("sh", "-c", "echo ready; exec sleep 1000", init=init, cwd=ROOT) as it:
        assert it.line() == "ready"
        it.send(signal.SIGTSTP)
        it.send(signal.SIGTERM)
        assert it.wait() == 143


def test_the_whole_group_is_stopped() -> None:
    with running("sh", "-c", "sleep 1000 & echo ready; wait") as it:
        assert it.line() == "ready"
        init, command = it.init, it.command
        sleeper = eventually(lambda: descendants(command))[0]
        it.send(signal.SIGTSTP)
        eventually(lambda: {state(pid) for pid in (init, command, sleeper)} == {"T"})
        it.send(signal.SIGCONT)
        eventually(lambda: "T" not in {state(pid) for pid in (init, command, sleeper)})
        it.send(signal.SIGTERM)
        assert it.wait() == 143


def test_a_terminal_of_another_session_is_left_to_it() -> None:
    """Started from a shell, the command reads from the terminal, but has none as its controlling terminal."""
    with terminal(["bash", "--norc", "-i"]) as it:
        it.expect(r"\$ ")
        it.type(" ".join([*PYTHON, "--", "sh", "-c", "'echo go; read line; echo \"<$line>\"'"]) + "\n")
        it.expect("go\r\n")
        command = descendants(descendants(it.pid)[0])[0]
        assert field(command, 7) == 0, "no controlling terminal"
        it.type("word\n")
        it.expect("<word>")
        it.type("exit\n")
        assert it.wait() == 0


def test_without_a_terminal_nothing_is_asked_of_one() -> None:
    with running(sys.executable, "-I", "-S", "-c", AT_TERMINAL) as it:
        assert [it.line(), it.line()] == ["none", "ready"]
