"""The facilities around the loop, brought together: none of them knows of another.

What is needed to start a daemon is imported at once; everything else (probes, the control socket,
the lease, the report) only once the first daemons run, so that no daemon ever waits for it.
"""

from __future__ import annotations

from bottle_init.core.events import ProbeFailed
from bottle_init.core.flow import Farewell
from bottle_init.linux import reaper
from bottle_init.linux.logs import Logs
from bottle_init.linux.sys import proc
from bottle_init.linux.sys.clock import monotonic_ms, wall_s
from bottle_init.linux.sys.poller import Bulk
from bottle_init.words import jsonlines

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bottle_init.core import actions as act
    from bottle_init.core.events import Event
    from bottle_init.core.state import State
    from bottle_init.linux.control import Control
    from bottle_init.linux.init import Init
    from bottle_init.linux.lease import Watch
    from bottle_init.linux.notify import Notify
    from bottle_init.linux.oom import OomCounter
    from bottle_init.linux.probes import Probes


class Leaves:
    """What `Init` calls; each method is one facility's."""

    def __init__(self, init: Init) -> None:
        self.init = init
        names = [spec.name for spec in init.bundle.children]
        self.logs = Logs(init.bundle.logs, names, Bulk(init.poller))
        self.probes: Probes | None = None
        self.notify: Notify | None = None
        self.control: Control | None = None
        self.lease: Watch | None = None
        self.oom: OomCounter | None = None
        self.untold: list[tuple[str, str, tuple[tuple[str, object], ...]]] = []
        self.asker = ""

    def open_late(self) -> None:
        """What no daemon has to wait for."""
        init = self.init
        from bottle_init.linux import emergency, report  # noqa: F401 - at the end there may be no descriptor to import with.
        from bottle_init.linux.oom import OomCounter

        jsonlines.quoting()
        self.oom = OomCounter()
        if any(spec.ready or spec.health for spec in init.bundle.children):
            from bottle_init.linux.probes import Probes

            self.probes = Probes(init.poller, self._probed, init.run_probe, init.tree.end_probe, self._kill_leftovers)
        if init.control:
            from bottle_init.linux.control import Control

            self.control = Control(init.control, init.poller, init.emit, self._view)
            problem = self.control.open()
            if problem:
                self.log("control_unavailable", "warning", (("reason", problem),))
        if init.lease is not None and init.lease.renew_ms is None:
            from bottle_init.linux.lease import Watch

            self.lease = Watch(init.lease, init.has_lease_fd, init.poller, init.emit)

    def _view(self) -> tuple[State, int]:
        """What `health` and `status` are answered from."""
        return self.init.state, monotonic_ms()

    def deadline_ms(self) -> int | None:
        """When a facility wants to be called even if nothing happens."""
        return self.logs.deadline_ms()

    def tick(self, now_ms: int) -> None:
        """Let the facilities look at the clock."""
        self.logs.tick(now_ms)

    # Children.

    def environment(self, child: int, generation: int) -> dict[bytes, bytes]:
        """What is added to a child's environment at this start."""
        ready = self.init.bundle.children[child].ready
        if ready is None or ready.probe.kind != "notify":
            return {}
        if self.notify is None:
            from bottle_init.linux.notify import Notify

            self.notify = Notify(self.init.poller, self.init.emit, self._belongs)
        return {b"NOTIFY_SOCKET": self.notify.open(child, generation).encode()}

    def _belongs(self, child: int, pid: int) -> bool:
        """Whether a process is the child's, by its session."""
        leader = self.init.state.children[child].pid
        if pid == leader:
            return True  # It may have been reaped a moment ago, and what it said still counts.
        process = proc.look(pid)
        return leader != 0 and process is not None and process.session == leader

    def stdio(self, child: int) -> tuple[int, int]:
        """The descriptors for a new process's stdout and stderr. Raises OSError."""
        return self.logs.open(child)

    def spawned(self, child: int) -> None:
        """The fork has been tried: the child's ends are the child's alone."""
        self.logs.opened(child)

    def child_reaped(self, child: int) -> None:
        """Take the last words of a child, and what it notified, before its death is judged."""
        self.logs.drain(child)
        if self.notify is not None and self.init.bundle.children[child].ready is not None:
            self.notify.drain(child)

    def was_oom(self, child: int, pid: int, signal: int) -> bool:
        """Whether it was the kernel's OOM killer that ended a child, and not the init."""
        if signal != reaper.SIGKILL or self.oom is None or self.init.state.children[child].forced:
            return False
        return self.oom.killed(pid)

    # Probes.

    def start_probe(self, action: act.StartProbe) -> None:
        """Have a probe out; its answer is an event, later."""
        if self.probes is not None:
            self.probes.start(action.child, action.generation, action.probe, action.how)

    def _probed(self, event: Event) -> None:
        """Hand over an answer; that a daemon fails because it is ending is told by its death, which follows."""
        pid = self.init.pid_of(event.child, event.generation) if isinstance(event, ProbeFailed) else 0
        if not (pid and proc.is_ending(pid)):
            self.init.emit(event)

    def _kill_leftovers(self, leader: int) -> None:
        """End what a probe has left behind."""
        self.init.tree.session(leader, reaper.SIGKILL)

    def cancel_probe(self, action: act.CancelProbe) -> None:
        """Drop a probe."""
        if self.probes is not None:
            self.probes.cancel(action.child, action.generation, action.probe)

    def probe_reaped(self, pid: int, status: int) -> None:
        """A probe's process was reaped."""
        if self.probes is not None:
            self.probes.reaped(pid, status)

    # What is told.

    def answer(self, action: act.Answer) -> None:
        """Answer a client of the control socket."""
        if self.control is not None and action.request:
            self.control.answer(action.request, action.done, action.text)

    def announce(self, action: act.Announce) -> None:
        """An event of the core's, for the log and for those who follow."""
        if action.event == "stopping":
            self.logs.stop()
        child = (("child", action.child),) if action.child else ()
        self.untold.append((action.event, action.level, (*child, *action.facts)))

    def tell(self) -> None:
        """Log what has been announced: after the actions, so that no signal waits for a line about it."""
        untold, self.untold = self.untold, []
        for event, level, facts in untold:
            if event == "stopping":
                self._note_asker(dict(facts).get("sender_pid"))
            self.log(event, level, facts)

    def _note_asker(self, pid: object) -> None:
        """Keep the name of who asked for the stop while it is there: at the end another process may have the pid."""
        process = proc.look(pid) if isinstance(pid, int) else None
        self.asker = process.name if process is not None else ""

    def log(self, event: str, level: str, facts: tuple[tuple[str, object], ...]) -> None:
        """One line of the init's own; a fact that is None is left out."""
        known = [fact for fact in facts if fact[1] is not None]
        line = jsonlines.encode(event, level, known, jsonlines.timestamp(wall_s()))
        self.logs.event(line)
        if self.control is not None:
            self.control.publish(line)

    def close(self, end: act.Exit) -> int:
        """Report, and hand out what is still to be written, for as long as somebody reads; returns the code."""
        from bottle_init.linux import report

        init = self.init
        self.logs.finish()
        self._flush(end.stop.deadline_ms)
        self.logs.give_up()
        record = report.build(end, init.bundle, self.logs.tail, self.logs.dropped(), self.asker)
        line = report.encode(record, jsonlines.timestamp(wall_s()))
        for problem in report.publish(record, line, init.report):
            self.log("report_unwritten", "error", (("reason", problem),))
        self.logs.event(line)
        if self.control is not None:
            self.control.publish(line)
            self.control.close()
        self._flush(end.stop.deadline_ms)
        return end.code

    def _flush(self, deadline_ms: int) -> None:
        """A reader that still reads is waited for, within the deadline; one that does not is not."""
        logs, now_ms = self.logs, monotonic_ms()
        farewell = Farewell(now_ms, deadline_ms)
        while (until_ms := farewell.until_ms(logs.pending(), logs.unread(), now_ms)) is not None:
            self.init.poller.wait(until_ms - now_ms)
            now_ms = monotonic_ms()
            logs.flush(now_ms)
