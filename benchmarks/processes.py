"""Supervisors as processes: start one, look at all that is below it, end it, and time that."""

from __future__ import annotations

import ctypes
import fcntl
import os
import select
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

PR_SET_CHILD_SUBREAPER = 36
F_SETPIPE_SZ = 1031
PATIENCE_S = 60.0


class Stuck(Exception):
    """Something did not end."""


def become_subreaper() -> None:
    """What a supervisor leaves behind comes to us, and is ended by us."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


class Running:
    """A supervisor that was started at `started_ns` of CLOCK_MONOTONIC.

    Its stdout is a pipe that is `reader` here, its stderr another that nobody reads and that is big
    enough for what it says; both are what a container's engine would give it.
    """

    alive: ClassVar[set[int]] = set()

    def __init__(
        self, argv: Sequence[str], environ: Mapping[str, str] | None = None, *, pipe_bytes: int = 1 << 20
    ) -> None:
        self.reader, stdout = os.pipe2(os.O_CLOEXEC)
        self.errors, stderr = os.pipe2(os.O_CLOEXEC)
        fcntl.fcntl(self.reader, F_SETPIPE_SZ, pipe_bytes)
        fcntl.fcntl(self.errors, F_SETPIPE_SZ, 1 << 20)
        files = [
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
            (os.POSIX_SPAWN_DUP2, stdout, 1),
            (os.POSIX_SPAWN_DUP2, stderr, 2),
        ]
        env = {**os.environ, **(environ or {})}
        self.status: int | None = None
        self.started_ns = time.monotonic_ns()
        self.pid = os.posix_spawnp(argv[0], list(argv), env, file_actions=files, setsid=True)
        os.close(stdout)
        os.close(stderr)
        self.alive.add(self.pid)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def since_start_ms(self, ns: int) -> float:
        """Milliseconds from just before the start to `ns`."""
        return (ns - self.started_ns) / 1e6

    def wait(self) -> int:
        """Wait for its end; returns the time of it, ns of CLOCK_MONOTONIC."""
        _, self.status = os.waitpid(self.pid, 0)
        ended_ns = time.monotonic_ns()
        self.alive.discard(self.pid)
        return ended_ns

    def has_ended(self) -> bool:
        """Whether there is nothing more to be expected of it; it stays to be waited for."""
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def last_words(self) -> str:
        """The beginning of what it wrote to stderr."""
        os.set_blocking(self.errors, False)
        try:
            return os.read(self.errors, 300).decode("utf-8", "replace").strip()
        except BlockingIOError:
            return "without a word"

    def end(self, number: int) -> float:
        """Milliseconds from sending this signal until it and all that was below it is gone. Raises Stuck."""
        handles = [os.pidfd_open(pid) for pid in descendants(self.pid)]
        own = os.pidfd_open(self.pid)
        try:
            sent_ns = time.monotonic_ns()
            os.kill(self.pid, number)
            await_end(own)
            ended_ns = self.wait()
            for handle in handles:
                if await_end(handle):
                    ended_ns = time.monotonic_ns()
        finally:
            for handle in (own, *handles):
                os.close(handle)
        return (ended_ns - sent_ns) / 1e6

    def supervisors(self, probes: Iterable[int]) -> list[int]:
        """The pids of the supervisor's own processes: itself and all below it but the probes."""
        working = set(probes)
        return [pid for pid in (self.pid, *descendants(self.pid)) if pid not in working]

    def close(self) -> None:
        """Kill whatever is left, and reap it, strays that have come to us included. Raises Stuck."""
        os.close(self.reader)
        os.close(self.errors)
        if self.status is None:
            for pid in (self.pid, *descendants(self.pid)):
                kill(pid)
            self.wait()
        deadline = time.monotonic() + PATIENCE_S
        while strays := [pid for pid in children(os.getpid()) if pid not in self.alive]:
            for stray in strays:
                kill(stray)
                os.waitpid(stray, os.WNOHANG)
            if time.monotonic() > deadline:
                raise Stuck("a process of the benchmark did not end")
            time.sleep(0.001)


def await_end(handle: int) -> bool:
    """Wait for a process's end; says whether there was anything to wait for. Raises Stuck."""
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    if poll.poll(0):
        return False
    if not poll.poll(PATIENCE_S * 1_000):
        raise Stuck(f"a process did not end within {PATIENCE_S:.0f} s")
    return True


def kill(pid: int) -> None:
    """SIGKILL, if it is still there."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def children(pid: int) -> list[int]:
    """The children of a process, of all its threads."""
    return [int(word) for text in each_task(pid, "children") for word in text.split()]


def descendants(pid: int) -> list[int]:
    """All processes below one."""
    return [below for child in children(pid) for below in (child, *descendants(child))]


def each_task(pid: int, file: str) -> list[str]:
    """One file of /proc for each of a process's threads; none for a process that is gone."""
    try:
        return [(task / file).read_text() for task in Path(f"/proc/{pid}/task").iterdir()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def pss_mb(pids: Iterable[int]) -> float:
    """The proportional set size of all of them (proc(5), smaps_rollup), in MB of 10⁶ bytes."""
    kib = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                kib += int(line.split()[1])
    return kib * 1_024 / 1e6


def switches(pids: Iterable[int]) -> int:
    """How often all threads of these processes have been switched away from, which is how often they ran."""
    return sum(
        int(line.split()[1])
        for pid in pids
        for text in each_task(pid, "status")
        for line in text.splitlines()
        if "voluntary_ctxt_switches" in line
    )


def cpu_ms(pid: int) -> float:
    """The time that a process's threads have spent on a CPU (schedstat, in ns)."""
    return sum(int(text.split()[0]) for text in each_task(pid, "schedstat")) / 1e6


def settle(pids: Callable[[], Iterable[int]], *, least_s: float = 0.0, most_s: float = 5.0) -> None:
    """Wait until the processes have done nothing for 20 ms, and at least so long."""
    deadline = time.monotonic() + most_s
    time.sleep(least_s)
    before = -1.0
    while time.monotonic() < deadline:
        spent = sum(cpu_ms(pid) for pid in pids())
        if spent == before:
            return
        before = spent
        time.sleep(0.02)
