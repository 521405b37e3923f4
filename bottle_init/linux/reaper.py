"""Reaping, and the tree below the init: who is left of a session, who is left at all (contract 4).

The kernel hands every orphan to the init, so the last process of a session to end is always reaped
here. Two cheap answers come before any look at all of /proc: a wait that finds no child at all
means that nothing is left anywhere, and a list of own children in which all are known means that
no orphan is left of anybody's session.
"""

from __future__ import annotations

import posix

from bottle_init.core.state import Survivor
from bottle_init.linux.sys.environ import Room
from bottle_init.linux.sys.proc import (
    ProcStat,
    ask,
    command_line,
    descendants,
    look,
    processes,
    read,
    send,
    send_to_pid,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

SIGKILL = 9
SIGCONT = 18
SIGSTOP = 19

REAPED_AT_ONCE = 10_000
"""So many orphans are reaped before the next look at what else has come."""

LOOKS = 10
"""So often one call looks for what it has missed: /proc is no snapshot, and a fork bomb must not hold the init."""


def survivor(process: ProcStat, *, dying: bool = False, barred: str = "") -> Survivor:
    """A process as the report names it."""
    words = command_line(process.pid).decode("utf-8", "replace")
    return Survivor(process.pid, process.name, words, process.started, dying, barred)


class Tree:
    """The init's view of everything below it.

    `started` has the pids that the init started itself and has not reaped: they are in nobody
    else's session.
    """

    def __init__(self, started: Mapping[int, object], room: Room | None = None) -> None:
        self._started = started
        self.childless = False
        self.may_be_more = False
        self._orphans: bool | None = None
        self._found: dict[int, Survivor] = {}
        self._asked: dict[int, int] = {}
        """When each pid that has had its TERM was started."""
        self._barred: dict[int, tuple[int, str]] = {}
        """When each pid that was signalled last was started, and why the kernel has refused that, "" if it has not."""
        self._ended: dict[int, int] = {}
        """When each pid was started that `end_probe` has sent SIGKILL."""
        self.others: ProcStat | None = None
        """One that the last look has found and that is another process's to reap."""
        self.pid = posix.getpid()
        self._room = Room() if room is None else room

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
        with self._room:
            if self.childless or not self._has_orphans():
                return ()
            every = {one.pid: one for one in processes()}
            self._asked = {
                pid: born for pid, born in self._asked.items() if pid in every and every[pid].started == born
            }
            self._barred = {pid: self._barred[pid] for pid in self._barred if pid in every}
            if leader in every:
                return ()
            return self._signal([one for one in every.values() if one.session == leader and not one.is_gone()], number)

    def everything(self, number: int) -> tuple[Survivor, ...]:
        """Who is left below the init; each is sent `number` first: any but SIGKILL once in its life.

        As PID 1 of its namespace the init sends SIGKILL by one call, which nothing can escape by
        forking. What `docker exec` put there is not below the init; the kernel ends it with the init.
        """
        self.others = None
        if self.childless:
            return ()
        if number == SIGKILL and self.pid == 1:
            send_to_pid(-1, SIGKILL)
        with self._room:
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

    def kill_session(self, leader: int) -> str:
        """SIGKILL for a child and its session, until a look finds nobody new.

        Returns "" or why the child itself may not be killed; what else may not be, the next survey tells.
        """
        refusal = send_to_pid(leader, SIGKILL)
        seen: dict[int, bool] = {}
        with self._room:
            for _ in range(LOOKS):
                every = processes()
                fresh = [one for one in every if one.session == leader and not one.is_gone() and one.pid not in seen]
                if not fresh:
                    break
                for one in fresh:
                    seen[one.pid] = True
                    send(one, SIGKILL)
        return refusal

    def end_probe(self, leader: int) -> str:
        """SIGKILL for a probe, its session and all below them: nothing that a child has left behind.

        Returns "" or why the probe itself may not be killed.

        They are stopped first: one that is not could fork meanwhile, or lose its parent and be found no more.
        """
        family: dict[int, ProcStat] = {}
        with self._room:
            for _ in range(LOOKS if self._sees_itself() else 0):
                fresh = [one for one in descendants(-1, leader) if one.pid not in family]
                if not fresh:
                    break
                for one in fresh:
                    family[one.pid] = one
                    send(one, SIGSTOP)
            for one in family.values():
                send(one, SIGKILL)
        refusal = send_to_pid(leader, SIGKILL)
        self._ended = {pid: born for pid, born in self._ended.items() if (now := look(pid)) and now.started == born}
        self._ended.update((pid, one.started) for pid, one in family.items())
        return refusal

    def _signal(self, left: list[ProcStat], number: int) -> tuple[Survivor, ...]:
        """Name all, then signal all: the name of what has been signalled may be gone."""
        self._found = {process.pid: self._named(process) for process in left}
        for process in left:
            refusal = ""
            if number == SIGKILL:
                refusal = send(process, SIGKILL)
            elif self._asked.get(process.pid) != process.started:
                self._asked[process.pid] = process.started
                if ask(process, number):
                    refusal = send(process, SIGKILL)  # Nothing that is asked of it reaches it.
            else:
                continue
            self._barred[process.pid] = process.started, refusal
            self._found[process.pid] = self._found[process.pid].replace(barred=refusal)
        awaited = (one for one in left if one.parent != self.pid and not self._found[one.pid].barred)
        self.others = next(awaited, None)
        return tuple(self._found.values())

    def _named(self, process: ProcStat) -> Survivor:
        known = self._found.get(process.pid)
        if known is not None and known.born == process.started:
            return known
        born, barred = self._barred.get(process.pid, (None, ""))
        return survivor(
            process,
            dying=self._ended.get(process.pid) == process.started,
            barred=barred if born == process.started else "",
        )

    def _has_orphans(self) -> bool:
        """Whether the init has children that it did not start; true where the kernel does not list them.

        Only a death makes orphans, so one look at the list serves all the deaths that were reaped together.
        """
        if self._orphans is None:
            self._orphans = self._look_for_orphans()
        return self._orphans

    def _look_for_orphans(self) -> bool:
        listed = read(f"/proc/self/task/{self.pid}/children")
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
