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

from bottle_init.core.state import Survivor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

SIGKILL = 9
SIGCONT = 18
SIGSTOP = 19

_PF_EXITING = 0x4
"""The kernel's flag of a thread in do_exit(), as /proc/PID/stat shows it of the first one."""

_RESERVE = 2
"""A process is looked up while its pidfd is open."""

_SHOWN = 300
"""Bytes of a command line that a report shows."""

REAPED_AT_ONCE = 10_000
"""So many orphans are reaped before the next look at what else has come."""

LOOKS = 10
"""So often one call looks for what it has missed: /proc is no snapshot, and a fork bomb must not hold the init."""


class Process:
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


def descendants(root: int, session: int | None = None) -> list[Process]:
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
    return _signal_sets(pid).get(b"SigCgt", 0)


def is_default(pid: int, number: int) -> bool:
    """Whether a process neither blocks nor ignores nor catches a signal; false if unknown."""
    sets = _signal_sets(pid)
    return bool(sets) and not any(sets[key] >> number & 1 for key in (b"SigBlk", b"SigIgn", b"SigCgt"))


def _signal_sets(pid: int) -> dict[bytes, int]:
    """The lines `Sig...` of /proc/PID/status that are sets, by their names, as bits `1 << s`; none if unknown."""
    lines = [line.partition(b":") for line in _read(f"/proc/{pid}/status").split(b"\n") if line.startswith(b"Sig")]
    return {key: int(value, 16) << 1 for key, _, value in lines if key != b"SigQ"}


def is_ending(pid: int) -> bool:
    """Whether a process has begun to end: its sockets are closed some time before it can be reaped.

    One of which the first thread alone has ended may live for long.
    """
    process = look(pid)
    if process is None or not process.flags & _PF_EXITING:
        return False
    return process.is_gone() or process.state != b"Z"


def survivor(process: Process, *, dying: bool = False) -> Survivor:
    """A process as the report names it."""
    words = _read(f"/proc/{process.pid}/cmdline")[:_SHOWN].replace(b"\0", b" ").strip()
    return Survivor(process.pid, process.name, words.decode("utf-8", "replace"), process.started, dying)


def hold(process: Process) -> int:
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


def send(process: Process, *numbers: int) -> None:
    """Signal exactly the process that was looked at, not one that has got its pid since."""
    try:
        fd = hold(process)
    except OSError as problem:
        if problem.errno != errno.ESRCH and _is_same(process):
            for number in numbers:
                send_to_pid(process.pid, number)  # No pidfd to be had: the look just now has to do.
        return
    try:
        for number in numbers:
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

    `started` has the pids that the init started itself and has not reaped: they are in nobody
    else's session.
    """

    def __init__(self, started: Mapping[int, object]) -> None:
        self._started = started
        self.childless = False
        self.may_be_more = False
        self._orphans: bool | None = None
        self._found: dict[int, Survivor] = {}
        self._asked: dict[int, int] = {}
        """When each pid that has had its TERM was started."""
        self._ended: dict[int, int] = {}
        """When each pid was started that `end_probe` has sent SIGKILL."""
        self.others: Process | None = None
        """One that the last look has found and that is another process's to reap."""
        self.pid = posix.getpid()
        self.room = Room()

    def reap(self) -> tuple[list[tuple[int, int]], int]:
        """Reap: `(pid, wait status)` of all that have ended of those the init started, and how many others had.

        The others are bounded, so that no storm of them keeps the init from what else has come; `may_be_more` then.
        """
        deaths: dict[int, int] = {}
        orphans = 0
        self.childless = self.may_be_more = False
        self._orphans = None
        started, waitpid = self._started, posix.waitpid
        while orphans < REAPED_AT_ONCE:
            try:
                pid, status = waitpid(-1, posix.WNOHANG)
            except ChildProcessError:
                self.childless = True
                break
            if pid == 0:
                break
            if pid in started and pid not in deaths:
                deaths[pid] = status
            else:
                orphans += 1  # One that has got a dead child's pid, even within this sweep, is an orphan too.
        else:
            self.may_be_more = True
            looked_at = [waitpid(pid, posix.WNOHANG) for pid in started if pid not in deaths]
            deaths.update(death for death in looked_at if death[0])
        return list(deaths.items()), orphans

    def session(self, leader: int, number: int) -> tuple[Survivor, ...]:
        """Who is left of a dead leader's session; each is sent `number` first: any but SIGKILL once in its life.

        A session keeps the kernel from giving its number to a new process (setsid(2)). So where there is one of that
        pid the leader's session has ended, and what has the same number now is somebody else's.
        """
        self.others = None
        with self.room:
            if self.childless or not self._has_orphans():
                return ()
            every = {one.pid: one for one in processes()}
            self._asked = {
                pid: born for pid, born in self._asked.items() if pid in every and every[pid].started == born
            }
            if leader in every:
                return ()
            return self._signal([one for one in every.values() if one.session == leader and not one.is_gone()], number)

    def everything(self, number: int) -> tuple[Survivor, ...]:
        """Who is left below the init; each is sent `number` first: any but SIGKILL once in its life.

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

    def unreaped(self) -> tuple[Survivor, ...]:
        """Children that wait(2) does not hand over although nothing lives below the init any more.

        A zombie is its tracer's first (ptrace(2)), and a process of another user's may be hidden (proc(5), hidepid).
        """
        found = tuple(survivor(one) for one in processes() if one.parent == self.pid)
        return found or (Survivor(0, "unknown: hidden in /proc"),)

    def kill_session(self, leader: int) -> None:
        """SIGKILL for a child and its session, until a look finds nobody new."""
        send_to_pid(leader, SIGKILL)
        seen: dict[int, bool] = {}
        with self.room:
            for _ in range(LOOKS):
                every = processes()
                fresh = [one for one in every if one.session == leader and not one.is_gone() and one.pid not in seen]
                if not fresh:
                    return
                for one in fresh:
                    seen[one.pid] = True
                    send(one, SIGKILL)

    def end_probe(self, leader: int) -> None:
        """SIGKILL for a probe, its session and all below them: nothing that a child has left behind.

        They are stopped first: one that is not could fork meanwhile, or lose its parent and be found no more.
        """
        family: dict[int, Process] = {}
        with self.room:
            for _ in range(LOOKS if self._sees_itself() else 0):
                fresh = [one for one in descendants(-1, leader) if one.pid not in family]
                if not fresh:
                    break
                for one in fresh:
                    family[one.pid] = one
                    send(one, SIGSTOP)
            for one in family.values():
                send(one, SIGKILL)
        send_to_pid(leader, SIGKILL)
        self._ended = {pid: born for pid, born in self._ended.items() if (now := look(pid)) and now.started == born}
        self._ended.update((pid, one.started) for pid, one in family.items())

    def _signal(self, left: list[Process], number: int) -> tuple[Survivor, ...]:
        """Name all, then signal all: the name of what has been signalled may be gone."""
        self._found = {process.pid: self._named(process) for process in left}
        self.others = next((process for process in left if process.parent != self.pid), None)
        for process in left:
            if number == SIGKILL:
                send(process, SIGKILL)
            elif self._asked.get(process.pid) != process.started:
                self._asked[process.pid] = process.started
                send(process, number, SIGCONT)
        return tuple(self._found.values())

    def _named(self, process: Process) -> Survivor:
        known = self._found.get(process.pid)
        if known is not None and known.born == process.started:
            return known
        return survivor(process, dying=self._ended.get(process.pid) == process.started)

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
        return not listed or any(int(word) not in self._started for word in listed.split())

    def _sees_itself(self) -> bool:
        """Whether /proc is there and is that of the init's own PID namespace."""
        try:
            return posix.readlink("/proc/self") == str(self.pid)
        except OSError:
            return False

    def _blind(self, number: int) -> tuple[Survivor, ...]:
        """Without a /proc: as PID 1 signal everything, once; that a child is left at all is all that is known."""
        if self.pid == 1 and number != SIGKILL and 0 not in self._asked:
            self._asked[0] = 0
            send_to_pid(-1, number)
        return (Survivor(0, "unknown: no /proc of this PID namespace"),)
