"""Reaping, and the tree below the init: who is left of a session, who is left at all (contract 4).

The kernel hands every orphan to the init, so the last process of a session to end is always reaped
here. Two cheap answers come before any look at all of /proc: a wait that finds no child at all
means that nothing is left anywhere, and a list of own children in which all are known means that
no orphan is left of anybody's session.
"""

from __future__ import annotations

import errno
import posix
from _signal import pidfd_send_signal

from bottle_init.core.model import Survivor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterator

SIGKILL = 9
SIGCONT = 18
SIGSTOP = 19

_RESERVE = 2
"""A process is looked up while its pidfd is open."""

_SHOWN = 300
"""Bytes of a command line that a report shows."""


class Process:
    """One line of /proc/PID/stat, as far as the tree needs it."""

    __slots__ = ("name", "parent", "pid", "session", "started", "state")

    def __init__(self, pid: int, stat: bytes) -> None:
        head, _, rest = stat.rpartition(b") ")
        fields = rest.split()
        self.pid = pid
        self.name = head.partition(b" (")[2].decode("utf-8", "replace")
        self.state = fields[0]
        self.parent = int(fields[1])
        self.session = int(fields[3])
        self.started = fields[19]

    def is_gone(self) -> bool:
        """A zombie has ended already; only its parent has to learn of it."""
        return self.state in (b"Z", b"X")


def look(pid: int) -> Process | None:
    """One process, None where there is none."""
    stat = _read(f"/proc/{pid}/stat")
    return Process(pid, stat) if stat else None


def _read(path: str) -> bytes:
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


def processes() -> Iterator[Process]:
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


def descendants(root: int, session: int = -1) -> list[Process]:
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


def caught_signals(pid: int) -> int:
    """The set of signals that a process catches, as bits `1 << s` (SigCgt of /proc/PID/status); 0 if unknown."""
    for line in _read(f"/proc/{pid}/status").split(b"\n"):
        if line.startswith(b"SigCgt:"):
            return int(line[7:], 16) << 1
    return 0


def survivor(process: Process) -> Survivor:
    """A process as the report names it."""
    words = _read(f"/proc/{process.pid}/cmdline")[:_SHOWN].replace(b"\0", b" ").strip()
    return Survivor(process.pid, process.name, words.decode("utf-8", "replace"))


def send(process: Process, number: int) -> None:
    """Signal exactly the process that was looked at, not one that has got its pid since (pidfd_open(2))."""
    try:
        fd = posix.pidfd_open(process.pid)
    except OSError as problem:
        if problem.errno != errno.ESRCH and _is_same(process):
            send_to_pid(process.pid, number)  # No pidfd to be had: the look just now has to do.
        return
    try:
        if _is_same(process):
            pidfd_send_signal(fd, number)
    except OSError:
        pass  # It has ended meanwhile, or is another user's and out of reach; the next survey tells.
    finally:
        posix.close(fd)


def _is_same(process: Process) -> bool:
    again = look(process.pid)
    return again is not None and again.started == process.started


def send_to_pid(pid: int, number: int) -> None:
    """Signal a child that has not been reaped, whose pid therefore is its own still."""
    try:
        posix.kill(pid, number)
    except OSError:
        pass  # A zombie, or out of reach for lack of CAP_KILL; its deadline goes on.


class Room:
    """Descriptors held in reserve, let go while somebody has to open a file even though none is left."""

    def __init__(self) -> None:
        self._held: list[int] = []
        self.__exit__()

    def __enter__(self) -> None:
        while self._held:
            posix.close(self._held.pop())

    def __exit__(self, *_: object) -> None:
        try:
            while len(self._held) < _RESERVE:
                self._held.append(posix.open("/", posix.O_PATH | posix.O_CLOEXEC))
        except OSError:
            pass  # Somebody else has taken it; what is looked up then may be missed, and is at the next look.


class Tree:
    """The init's view of everything below it.

    `is_known` tells the pids that the init started itself and has not reaped: they are in nobody
    else's session.
    """

    def __init__(self, is_known: Callable[[int], bool]) -> None:
        self._is_known = is_known
        self.childless = False
        self._orphans: bool | None = None
        self.pid = posix.getpid()
        self.room = Room()

    def reap(self, known: Container[int]) -> tuple[list[tuple[int, int]], int]:
        """Reap all that have ended: `(pid, wait status)` of those `known`, and how many others there were."""
        deaths: list[tuple[int, int]] = []
        orphans = 0
        self.childless = False
        self._orphans = None
        waitpid = posix.waitpid
        while True:
            try:
                pid, status = waitpid(-1, 1)
            except ChildProcessError:
                self.childless = True
                return deaths, orphans
            if pid == 0:
                return deaths, orphans
            if pid in known:
                deaths.append((pid, status))
            else:
                orphans += 1

    def session(self, leader: int, number: int) -> tuple[Survivor, ...]:
        """Who is left of a dead leader's session; each is sent `number` first, unless that is 0."""
        with self.room:
            if self.childless or not self._has_orphans():
                return ()
            left = [one for one in processes() if one.session == leader and not one.is_gone() and one.pid != leader]
            return self._signal(left, number)

    def everything(self, number: int) -> tuple[Survivor, ...]:
        """Who is left below the init; each is sent `number` first, unless that is 0.

        As PID 1 of its namespace the init sends SIGKILL by one call, which nothing can escape by
        forking. What `docker exec` put there is not below the init; the kernel ends it with the init.
        """
        if self.childless:
            return ()
        if number == SIGKILL and self.pid == 1:
            send_to_pid(-1, SIGKILL)
        with self.room:
            left = descendants(self.pid)
            if not left and not self._sees_itself():
                return self._blind(number)
            return self._signal(left, number)

    def kill_session(self, leader: int) -> None:
        """SIGKILL for a child and its session, until a look finds nobody new."""
        send_to_pid(leader, SIGKILL)
        seen: dict[int, bool] = {}
        with self.room:
            while fresh := [
                one for one in processes() if one.session == leader and not one.is_gone() and one.pid not in seen
            ]:
                for one in fresh:
                    seen[one.pid] = True
                    send(one, SIGKILL)

    def kill_family(self, leader: int) -> None:
        """SIGKILL for a child, its session and all below them.

        They are stopped first: one that is not could fork meanwhile, or lose its parent and be found no more.
        """
        family: dict[int, Process] = {}
        send_to_pid(leader, SIGSTOP)
        with self.room:
            seeing = self._sees_itself()
            while seeing and (fresh := [one for one in descendants(leader, leader) if one.pid not in family]):
                for one in fresh:
                    family[one.pid] = one
                    send(one, SIGSTOP)
            for one in family.values():
                send(one, SIGKILL)
        send_to_pid(leader, SIGKILL)

    def _signal(self, left: list[Process], number: int) -> tuple[Survivor, ...]:
        found = tuple(survivor(process) for process in left)
        if number:
            for process in left:
                send(process, number)
                if number != SIGKILL:
                    send(process, SIGCONT)
        return found

    def _has_orphans(self) -> bool:
        """Whether the init has children that it did not start; true where the kernel does not list them.

        Only a death makes orphans, so one look at the list serves all the deaths that were reaped together.
        """
        if self._orphans is None:
            self._orphans = self._look_for_orphans()
        return self._orphans

    def _look_for_orphans(self) -> bool:
        listed = _read(f"/proc/self/task/{self.pid}/children")
        if not listed and not self._sees_itself():
            return True
        return not listed or any(not self._is_known(int(word)) for word in listed.split())

    def _sees_itself(self) -> bool:
        """Whether /proc is there and is that of the init's own PID namespace."""
        try:
            return posix.readlink("/proc/self") == str(self.pid)
        except OSError:
            return False

    def _blind(self, number: int) -> tuple[Survivor, ...]:
        """Without a /proc: as PID 1 signal everything; that a child is left at all is all that is known."""
        if number and self.pid == 1:
            send_to_pid(-1, number)
        return (Survivor(0, "unknown: no /proc of this PID namespace"),)
