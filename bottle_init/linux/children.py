"""The processes that the init has started: their ends, their probes, and what they leave behind."""

from __future__ import annotations

import posix
from select import EPOLLIN

from bottle_init.core import actions as act
from bottle_init.core import events as ev
from bottle_init.linux import reaper
from bottle_init.linux.sys import libc, proc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from bottle_init.core.actions import Action
    from bottle_init.core.events import Event
    from bottle_init.core.spec import Bundle
    from bottle_init.core.state import State
    from bottle_init.linux.journal import Facts
    from bottle_init.linux.oom import OomCounter
    from bottle_init.linux.probes import Probes
    from bottle_init.linux.starts import Starts
    from bottle_init.linux.sys.environ import Room
    from bottle_init.linux.sys.poller import Poller


class Children:
    """Carries out what the core orders for children, and emits what the kernel tells of them.

    `view` gives the core's present state; `log` writes a line of the init's own; `do` has the method for each action.
    """

    def __init__(
        self,
        bundle: Bundle,
        poller: Poller,
        emit: Callable[[Event], None],
        view: Callable[[], State],
        starts: Starts,
        room: Room,
        log: Callable[[str, str, Facts], None],
    ) -> None:
        self.tree = reaper.Tree(starts.pids, room)
        self.awaits_orphans = False
        """Whether the core wants to hear of orphans, as of its last step."""
        self._poller = poller
        self._emit = emit
        self._view = view
        self._bundle = bundle
        self._starts = starts
        self._pids = starts.pids
        self._log = log
        self._watched: dict[int, int] = {}
        self._unwatched: dict[str, int] = {}
        """What was told last of each child: the pid of a process whose end the init cannot see."""
        self._oom: OomCounter | None = None
        self._probes: Probes | None = None
        self.do: dict[type[Action], Callable[[Any], None]] = {
            act.Spawn: starts.spawn,
            act.SendSignal: self._send_signal,
            act.ForwardSignal: self._forward_signal,
            act.DropCapabilities: self._drop_capabilities,
            act.KillSession: self._kill_session,
            act.SurveySession: self._survey_session,
            act.SurveyTree: self._survey_tree,
            act.StartProbe: self._start_probe,
            act.CancelProbe: self._cancel_probe,
        }

    def open_late(self) -> None:
        """What neither daemons nor the first lines of the log have to wait for."""
        from bottle_init.linux.oom import OomCounter

        self._oom = OomCounter(self._starts.kills)
        if any(spec.ready or spec.health for spec in self._bundle.children):
            from bottle_init.linux.probes import Probes

            run, end = self._starts.run_probe, self.tree.end_probe
            self._probes = Probes(self._poller, self._probed, run, end, self._kill_leftovers)

    # Ends.

    def reap(self) -> None:
        """Take in all deaths, and a bounded number of orphans.

        To whoever waits for the last process, a probe's end is one like an orphan's: it may have been found dying.
        """
        deaths, others = self.tree.reap()
        for pid, status in deaths:
            owner = self._pids.pop(pid)
            if owner is None:
                others += 1
                self._probe_reaped(pid, status)
            else:
                self._child_reaped(pid, status, *owner)
        if others and self.awaits_orphans:
            self._emit(ev.OrphansReaped(others))

    def _child_reaped(self, pid: int, status: int, child: int, generation: int) -> None:
        """The last words of a child, and what it notified, come before its death."""
        self._starts.ended(pid, child)
        number = posix.WTERMSIG(status) if posix.WIFSIGNALED(status) else 0
        code = 0 if number else posix.WEXITSTATUS(status)
        self._emit(ev.ChildExited(child, generation, code, number, self._was_oom(child, pid, number)))

    def _was_oom(self, child: int, pid: int, signal: int) -> bool | None:
        """Whether it was the kernel's OOM killer that ended a child, and not the init; None where that is unknown."""
        if signal != reaper.SIGKILL or self._view().children[child].forced:
            return False
        return None if self._oom is None else self._oom.killed(pid)

    # Signals.

    def _pid_of(self, child: int, generation: int) -> int:
        """The pid of a child's present process, 0 where that has been reaped."""
        record = self._view().children[child]
        return record.pid if record.generation == generation and record.pid in self._pids else 0

    def _send_signal(self, action: act.SendSignal) -> None:
        child, generation, signal = action.child, action.generation, action.signal
        pid = self._pid_of(child, generation)
        refusal = proc.send_to_pid(pid, signal) if pid else ""
        if action.request:
            reason = refusal if pid else "not running"
            refused = bool(refusal)
            self._emit(ev.OrderedSignalSent(action, reason, refused))
        elif refusal:
            self._emit(ev.SignalRefused(child, generation, signal, refusal))

    def _forward_signal(self, action: act.ForwardSignal) -> None:
        sent, refused = [], []
        for child, generation, signal in action.targets:
            pid = self._pid_of(child, generation)
            if not pid:
                continue
            refusal = proc.send_to_pid(pid, signal)
            if refusal:
                refused.append((child, refusal))
            else:
                sent.append(child)
        self._emit(ev.SignalForwarded(action, tuple(sent), tuple(refused)))

    def _drop_capabilities(self, action: act.DropCapabilities) -> None:
        try:
            libc.drop_capabilities(action.names)
        except OSError as problem:
            self._emit(ev.CapabilitiesDropped(problem.strerror or str(problem)))
        else:
            self._emit(ev.CapabilitiesDropped())

    # Probes.

    def _start_probe(self, action: act.StartProbe) -> None:
        if self._probes is not None:
            self._probes.start(action.child, action.generation, action.probe, action.how)

    def _cancel_probe(self, action: act.CancelProbe) -> None:
        if self._probes is not None:
            self._probes.cancel(action.child, action.generation, action.probe)

    def _probed(self, event: Event) -> None:
        """Hand over an answer; that a daemon fails because it is ending is told by its death, which follows."""
        pid = self._pid_of(event.child, event.generation) if isinstance(event, ev.ProbeFailed) else 0
        if not (pid and proc.is_ending(pid)):
            self._emit(event)

    def _probe_reaped(self, pid: int, status: int) -> None:
        if self._probes is not None:
            self._probes.reaped(pid, status)

    def _kill_leftovers(self, leader: int) -> None:
        """End what a probe has left behind."""
        self.tree.session(leader, reaper.SIGKILL)

    # What is left.

    def _kill_session(self, action: act.KillSession) -> None:
        pid = self._pid_of(action.child, action.generation)
        refusal = self.tree.kill_session(pid) if pid else ""
        self._emit(ev.SessionKilled(action.child, action.generation, refusal))

    def _survey_session(self, action: act.SurveySession) -> None:
        death = self._view().children[action.child].last_death
        left = self.tree.session(death.pid, action.signal) if death is not None else ()
        if self.tree.others is not None:
            self._watch(self.tree.others, self._bundle.children[action.child].name)
        self._emit(ev.SessionSurveyed(action.child, action.generation, left))

    def _watch(self, process: proc.ProcStat, child: str) -> None:
        """Learn of the end of a process that another one will reap: no SIGCHLD tells the init.

        One of a session is enough, as its end leads to the next look. `child` has left it behind, "" where that is
        unknown.
        """
        if process.pid in self._watched:
            return
        try:
            fd = proc.hold(process)
        except ProcessLookupError:
            self._emit(ev.SurvivorEnded(process.pid))
            return
        except OSError as problem:
            self._note_unwatched(process, child, problem)
            return

        def on_end(_mask: int) -> None:
            del self._watched[process.pid]
            self._poller.forget(fd)
            posix.close(fd)
            self._emit(ev.SurvivorEnded(process.pid))

        self._watched[process.pid] = fd
        self._poller.watch(fd, EPOLLIN, on_end)

    def _note_unwatched(self, process: proc.ProcStat, child: str, problem: OSError) -> None:
        """Say, once for each such process, that it is looked for again only when its time to stop is over."""
        if self._unwatched.get(child) == process.pid:
            return
        self._unwatched[child] = process.pid
        reason = problem.strerror or str(problem)
        about = (("child", child or None), ("process", process.name), ("pid", process.pid), ("reason", reason))
        self._log("leftover_unwatched", "warning", about)

    def _survey_tree(self, action: act.SurveyTree) -> None:
        left = self.tree.everything(action.signal)
        for _ in range(reaper.LOOKS):
            if left or self.tree.childless:
                break
            self.reap()  # What has ended since the last look is gone only once it has been reaped.
            left = self.tree.everything(action.signal)
        else:
            left = self.tree.unreaped()
        if self.tree.others is not None:
            self._watch(self.tree.others, "")
        self._emit(ev.TreeSurveyed(left))
