"""One command under the init, for the tests: as PID 1 of a PID namespace, or as a subreaper."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.integration.support.init import NAMESPACE, PATIENCE_S, PYTHON, ROOT, descendants, eventually

ENVIRON = {**os.environ, "PYTHONPATH": str(ROOT)}


def one(*command: str, options: Sequence[str] = (), pid_1: bool = False, init: Sequence[str] = PYTHON) -> list[str]:
    """The command line that runs `command` under the init."""
    return [*(NAMESPACE if pid_1 else []), *init, *options, "--", *command]


def python(script: str, *arguments: str) -> list[str]:
    """A command that runs a Python script, without what a virtual environment adds to every start."""
    return [sys.executable, "-I", "-S", "-c", script, *arguments]


def run(
    *command: str, options: Sequence[str] = (), pid_1: bool = False, **popen: Any
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    popen.setdefault("env", ENVIRON)
    popen.setdefault("stdin", subprocess.DEVNULL)
    return subprocess.run(
        one(*command, options=options, pid_1=pid_1),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
        **popen,
    )


class Running:
    """A command that runs, and the init that it runs under."""

    def __init__(self, process: subprocess.Popen[str], pid_1: bool) -> None:
        self.process = process
        self.pid_1 = pid_1

    @property
    def init(self) -> int:
        """The init's pid, as seen from here."""
        return children(self.process.pid)[0] if self.pid_1 else self.process.pid

    @property
    def command(self) -> int:
        """The command's pid, as seen from here."""
        return children(self.init)[0]

    def send(self, number: int) -> None:
        """Send the init a signal."""
        os.kill(self.init, number)

    def line(self) -> str:
        """The next line that the command prints."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().rstrip("\n")

    def tell(self, text: str) -> None:
        """Give the command a line."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{text}\n")
        self.process.stdin.flush()

    def wait(self) -> int:
        """The init's exit code, as a shell would give it."""
        code = self.process.wait(PATIENCE_S)
        return code if code >= 0 else 128 - code


@contextmanager
def running(
    *command: str,
    options: Sequence[str] = (),
    pid_1: bool = False,
    env: Mapping[str, str] | None = None,
    init: Sequence[str] = PYTHON,
    **popen: Any,
) -> Iterator[Running]:
    """A command under the init; whatever is left of both is killed at the end."""
    with subprocess.Popen(
        one(*command, options=options, pid_1=pid_1, init=init),
        env={**ENVIRON, **(env or {})},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        **popen,
    ) as process:
        try:
            yield Running(process, pid_1)
        finally:
            kill_tree(process)


def kill_tree(process: subprocess.Popen[str]) -> None:
    """End what this test has started, and nothing else."""
    if process.poll() is None:
        below = descendants(process.pid)
        process.kill()
        for pid in below:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue


def children(pid: int) -> list[int]:
    """The pids of a process's children, once it has one."""
    listed = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(word) for word in eventually(lambda: listed.read_text().split(), f"a child of {pid}")]


def status(pid: int | str, key: str) -> str:
    """One value of /proc/PID/status."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == key:
            return value.strip()
    raise KeyError(key)


def state(pid: int) -> str:
    """A process's state, one letter; "" where it is gone."""
    try:
        return status(pid, "State")[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def field(pid: int, number: int) -> int:
    """A numeric field of /proc/PID/stat, by its number in proc(5)."""
    text = Path(f"/proc/{pid}/stat").read_text()
    return int(text.rpartition(")")[2].split()[number - 3])
