"""Processes as /proc shows them (proc(5)), and signals to exactly the one that was looked at."""

from __future__ import annotations

import errno
import posix
from _signal import pidfd_send_signal

from bottle_init.linux.sys import libc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

LACKS_KILL = "the init lacks CAP_KILL"

_PF_EXITING = 0x4
"""The kernel's flag of a thread in do_exit(), as /proc/PID/stat shows it of the first one."""

_SIGCONT = 18

_SHOWN = 300
"""Bytes of a command line that a report shows."""


class Refusals:
    """How many signals the kernel has refused (EPERM, kill(2))."""

    def __init__(self) -> None:
        self.count = 0

    def note(self, problem: OSError) -> None:
        """Count a signal that was not sent, if that is why."""
        self.count += problem.errno == errno.EPERM


refusals = Refusals()


class ProcStat:
    """One line of /proc/PID/stat, as far as the tree needs it."""

    __slots__ = ("flags", "name", "parent", "pid", "session", "started", "state", "threads")

    def __init__(self, pid: int, stat: bytes) -> None:
        head, _, rest = stat.rpartition(b") ")
        fields = rest.split()
        self.pid = pid
        self.name = head.partition(b" (")[2].decode("utf-8", "replace")
        self.state = fields[0]
        self.parent = int(fields[1])
        self.session = int(fields[3])
        self.flags = int(fields[6])
        self.threads = int(fields[17])
        self.started = int(fields[19])

    def is_gone(self) -> bool:
        """A zombie has ended already; only its parent has to learn of it.

        A process of which the first thread alone has ended looks like one, but for the others that it counts.
        """
        return self.state in (b"Z", b"X") and self.threads <= 1


def look(pid: int) -> ProcStat | None:
    """One process, None where there is none."""
    stat = read(f"/proc/{pid}/stat")
    return ProcStat(pid, stat) if stat else None


def read(path: str) -> bytes:
    """A whole file of /proc, empty where it cannot be had."""
    try:
        fd = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
    except OSError:
        return b""
    try:
        whole = posix.read(fd, 65_536)
        while len(whole) >= 4_000 and (more := posix.read(fd, 65_536)):  # The kernel hands out a page at a time.
            whole += more
    except OSError:
        return b""
    else:
        return whole
    finally:
        posix.close(fd)


def processes() -> Iterator[ProcStat]:
    """Every process that /proc shows."""
    try:
        names = posix.listdir("/proc")
    except OSError:
        return
    for name in names:
        if name.isdigit():
            process = look(int(name))
            if process is not None:
                yield process


def descendants(root: int, session: int | None = None) -> list[ProcStat]:
    """All that have not ended below `root`, or in or below `session`, whatever sessions they have fled to."""
    every = {process.pid: process for process in processes()}
    below = {root: True}
    below.update((pid, True) for pid, process in every.items() if process.session == session)

    def is_below(pid: int) -> bool:
        chain = []
        while pid not in below and pid in every:
            chain.append(pid)
            pid = every[pid].parent
        verdict = below.get(pid, False)
        below.update(dict.fromkeys(chain, verdict))
        return verdict

    return [process for pid, process in every.items() if pid != root and not process.is_gone() and is_below(pid)]


def is_default(pid: int, number: int) -> bool:
    """Whether a process neither blocks nor ignores nor catches a signal; false if unknown."""
    sets = _signal_sets(pid)
    return bool(sets) and not any(sets[key] >> number & 1 for key in (b"SigBlk", b"SigIgn", b"SigCgt"))


def _signal_sets(pid: int) -> dict[bytes, int]:
    """The lines `Sig...` of /proc/PID/status that are sets, by their names, as bits `1 << s`; none if unknown."""
    lines = [line.partition(b":") for line in read(f"/proc/{pid}/status").split(b"\n") if line.startswith(b"Sig")]
    return {key: int(value, 16) << 1 for key, _, value in lines if key != b"SigQ"}


def is_ending(pid: int) -> bool:
    """Whether a process has begun to end: its sockets are closed some time before it can be reaped.

    One of which the first thread alone has ended may live for long.
    """
    process = look(pid)
    if process is None or not process.flags & _PF_EXITING:
        return False
    return process.is_gone() or process.state != b"Z"


def command_line(pid: int) -> bytes:
    """The arguments of a process, as far as a report shows them, with spaces between; empty if unknown."""
    return read(f"/proc/{pid}/cmdline")[:_SHOWN].replace(b"\0", b" ").strip()


def hold(process: ProcStat) -> int:
    """A descriptor of exactly the process that was looked at, not of one that has got its pid since.

    It can be polled, and is readable once the process has ended (pidfd_open(2)). Raises OSError, ESRCH for one
    that is gone, EMFILE where no descriptor is left to look at it with.
    """
    fd = posix.pidfd_open(process.pid)
    now = look(process.pid)
    if now is not None and now.started == process.started:
        return fd
    posix.close(fd)
    if now is None and posix.access(f"/proc/{process.pid}", posix.F_OK):
        raise OSError(errno.EMFILE, "it is there, and cannot be looked at")
    raise ProcessLookupError(errno.ESRCH, "it is gone")


def ask(process: ProcStat, number: int) -> str:
    """Signal exactly the process that was looked at, and let it go on if it is stopped, so that it can act on that.

    One that runs gets no CONT: it may have a handler for it. Returns as `send` does.
    """
    refusal = send(process, number)
    if not refusal and is_stopped(process.pid):
        send(process, _SIGCONT)
    return refusal


def is_stopped(pid: int) -> bool:
    """Whether a process is stopped by a signal, and by no tracer; the first thread may have ended before the others."""
    process = look(pid)
    if process is None or process.state != b"Z":
        return process is not None and process.state == b"T"
    try:
        threads = posix.listdir(f"/proc/{pid}/task") if process.threads > 1 else []
    except OSError:
        return False
    stats = (read(f"/proc/{pid}/task/{thread}/stat") for thread in threads)
    return any(stat.rpartition(b") ")[2].startswith(b"T") for stat in stats)


def send(process: ProcStat, number: int) -> str:
    """Signal exactly the process that was looked at, not one that has got its pid since.

    Returns "", also where it has ended meanwhile, or why the kernel refuses that.
    """
    try:
        fd = hold(process)
    except OSError as problem:
        if problem.errno == errno.ESRCH or not _is_same(process):
            return ""
        return send_to_pid(process.pid, number)  # No pidfd to be had: the look just now has to do.
    try:
        pidfd_send_signal(fd, number)
    except ProcessLookupError:
        return ""
    except OSError as problem:
        refusals.note(problem)
        return why_refused(problem)
    finally:
        posix.close(fd)
    return ""


def _is_same(process: ProcStat) -> bool:
    again = look(process.pid)
    return again is not None and again.started == process.started


def send_to_pid(pid: int, number: int) -> str:
    """Signal a child that has not been reaped, whose pid therefore is its own still. Returns "" or why that is refused.

    A zombie takes every signal. The signal 0 only asks.
    """
    try:
        posix.kill(pid, number)
    except ProcessLookupError:
        return ""
    except OSError as problem:
        refusals.note(problem)
        return why_refused(problem)
    return ""


def why_refused(problem: OSError) -> str:
    """Why a signal was refused, in words: kill(2) wants the same user or CAP_KILL, and so may a security module."""
    if problem.errno == errno.EPERM and not libc.has_capability("kill"):
        return LACKS_KILL
    return (problem.strerror or str(problem)).lower()
