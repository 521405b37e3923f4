"""The filter of sockets that an agent of a cluster runs under, on the real kernel: it needs no privilege."""

import errno
import json
import platform
import subprocess
import sys
from importlib.resources import files

import pytest

from launcher import socket_filter

SOURCE = (files("launcher") / "socket_filter.py").read_text()
MADE = """\
import ctypes, errno, json, socket, subprocess, sys
made = {}
for family in range(1, 46):
    try:
        socket.socket(family, socket.SOCK_DGRAM).close()
        made[family] = 0
    except OSError as error:
        made[family] = error.errno
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall(425, 1, None)
made["io_uring"] = ctypes.get_errno()
print(json.dumps(made))
"""
IN_A_CHILD = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]], check=True)"


def filtered(*command: str) -> "subprocess.CompletedProcess[str]":
    """Run a command under the filter."""
    if platform.machine() not in socket_filter.ARCHITECTURES:
        pytest.skip(f"no filter is written for {platform.machine()}")
    line = (sys.executable, "-I", "-S", "-c", SOURCE, *command)
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    if "takes no filter" in done.stderr:
        pytest.skip(done.stderr)
    return done


@pytest.mark.parametrize("command", [("-c", MADE), ("-c", IN_A_CHILD, MADE)], ids=["itself", "a child"])
def test_few_kinds_of_sockets_can_be_made(command: tuple[str, ...]) -> None:
    """Unix, IPv4 and netlink; and none by io_uring, which no filter sees. Defence: the filter, which is inherited."""
    made = json.loads(filtered(sys.executable, *command).stdout)
    assert made.pop("io_uring") == errno.EPERM
    assert {int(family) for family, error in made.items() if error != errno.EAFNOSUPPORT} == {1, 2, 16}


def test_without_the_filter_more_can_be_made() -> None:
    """The negative control: io_uring at least is refused for another reason, or not at all."""
    done = subprocess.run((sys.executable, "-c", MADE), capture_output=True, text=True, check=True)
    made = json.loads(done.stdout)
    if made["10"] == errno.EAFNOSUPPORT:
        pytest.skip("this kernel has no IPv6")
    assert made["10"] == 0


def test_it_becomes_the_command() -> None:
    """With the command's arguments, words and exit code, and in its process."""
    done = filtered("sh", "-c", 'echo "$0"; cat /proc/$$/comm; exit 7', "two words")
    assert (done.stdout, done.returncode) == ("two words\nsh\n", 7)


@pytest.mark.parametrize(("command", "code"), [("no-such-program", 127), ("/dev", 126)])
def test_a_command_that_is_none(command: str, code: int) -> None:
    """The shell's codes, and one line without a traceback."""
    done = filtered(command)
    assert done.returncode == code
    assert done.stderr.startswith(f"{command}: ")
    assert done.stderr.count("\n") == 1


def test_on_another_machine_nothing_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Defence: a machine whose numbers of system calls are not known gets no filter that lets them through."""
    monkeypatch.setattr("os.uname", lambda: type("Uname", (), {"machine": "sparc64"}))
    monkeypatch.setattr("os.execvp", lambda *_command: pytest.fail("it ran"))
    with pytest.raises(SystemExit, match="machine of this kind: 'sparc64'"):
        socket_filter.main()


@pytest.mark.parametrize("machine", socket_filter.ARCHITECTURES)
def test_every_jump_stays_in_the_filter(machine: str) -> None:
    """And every way through it ends with a verdict (BPF_RET)."""
    code = socket_filter.instructions(machine)
    for at, (operation, if_true, if_false, _) in enumerate(code):
        if operation != socket_filter.RETURN:
            assert at + 1 + max(if_true, if_false) < len(code)
    assert code[-1] == (socket_filter.RETURN, 0, 0, socket_filter.ERROR | errno.ENOSYS)
