"""What the probes say: datagrams on a Unix socket, each with the time at which it happened."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from benchmarks.processes import Running

HERE = Path(__file__).parent
PATIENCE_S = 60.0
SLICE_S = 0.5


class Said(NamedTuple):
    """One event of one probe, at `ns` of CLOCK_MONOTONIC."""

    name: str
    event: str
    ns: int
    pid: int


class Silence(Exception):
    """A probe has not said what it should have."""


class Wire:
    """The socket that all probes talk to, at `path`."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "wire"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.bind(str(self.path))

    def next(self, event: str, running: Running | None = None, patience_s: float = PATIENCE_S) -> Said:
        """The next thing said that is of this kind.

        Raises Silence, at once if the supervisor that should have brought it about has ended.
        """
        deadline = time.monotonic() + patience_s
        while time.monotonic() < deadline:
            self._socket.settimeout(SLICE_S)
            try:
                name, kind, ns, pid = self._socket.recv(256).decode().split()
            except TimeoutError:
                if running and running.has_ended():
                    raise Silence(f"it has ended before a probe said {event!r}: {running.last_words()}") from None
                continue
            if kind == event:
                return Said(name, kind, int(ns), int(pid))
        raise Silence(f"no probe said {event!r} within {patience_s:.0f} s")

    def all(self, event: str, count: int, running: Running | None = None) -> list[Said]:
        """So many of this kind. Raises Silence."""
        return [self.next(event, running) for _ in range(count)]

    def close(self) -> None:
        """Listen no more."""
        self._socket.close()

    def clear(self) -> None:
        """Forget what was said and not asked for."""
        self._socket.setblocking(False)
        try:
            while True:
                self._socket.recv(256)
        except BlockingIOError:
            self._socket.setblocking(True)


class Probe:
    """The program that runs under the supervisors: `command(...)` is its argv."""

    def __init__(self, cache: Path, wire: Wire, *, compiler: str | None) -> None:
        self.wire = wire
        self.kind = "probe.c, static" if compiler else "probe.py: there is no C compiler here, so starts are slower"
        self.program = [str(build(cache, compiler))] if compiler else [sys.executable, "-IS", str(HERE / "probe.py")]

    def command(self, mode: str, name: str, count: int = 0) -> list[str]:
        """What a supervisor should run."""
        return [*self.program, mode, str(self.wire.path), name, str(count)]


def compiler() -> str | None:
    """A C compiler, if there is one."""
    return shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")


def build(cache: Path, with_compiler: str) -> Path:
    """The compiled probe. Raises CalledProcessError."""
    source, program = HERE / "probe.c", cache / "probe"
    draft = cache / f"probe.{os.getpid()}"
    subprocess.run([with_compiler, "-O2", "-static", "-o", draft, source], check=True)
    draft.replace(program)
    return program
