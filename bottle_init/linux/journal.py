"""What the init says: its log, its answers, the events for those who follow, and the report at the end."""

from __future__ import annotations

import posix

from bottle_init.core import actions as act
from bottle_init.core.flow import Farewell
from bottle_init.linux.sys import proc
from bottle_init.linux.sys.clock import monotonic_ms, wall_s
from bottle_init.words import jsonlines

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from bottle_init.core.actions import Action
    from bottle_init.core.events import Event
    from bottle_init.core.spec import Bundle
    from bottle_init.core.state import State
    from bottle_init.linux.control import Control
    from bottle_init.linux.logs import Logs
    from bottle_init.linux.manager import Manager
    from bottle_init.linux.sys.poller import Poller
    from bottle_init.linux.web import Web

    Facts = tuple[tuple[str, object], ...]


NAMES_KEPT = 256
"""Of so many senders of signals the name is remembered."""


class Journal:
    """Carries out what the core says; `do` has the method for each action.

    `report` is a path, None for no file; `tell` makes the story of a report's line.
    """

    def __init__(
        self,
        bundle: Bundle,
        poller: Poller,
        emit: Callable[[Event], None],
        view: Callable[[], State],
        logs: Logs,
        report: str | None,
        tell: Callable[[bytes], str],
    ) -> None:
        self._bundle = bundle
        self._poller = poller
        self._emit = emit
        self._view = view
        self._logs = logs
        self._report = report
        self._tell = tell
        self._control: Control | None = None
        self._web: Web | None = None
        self._manager: Manager | None = None
        self._pending: list[tuple[str, str, Facts, int]] = []
        self._asker = ""
        self._asker_pid = 0
        self._names: dict[int, str] = {}
        """The names of those that have sent signals, as they were then, by their pids."""
        self.do: dict[type[Action], Callable[[Any], None]] = {
            act.Answer: self._answer,
            act.LogEvent: self._log_event,
            act.NoteStop: self._note_stop,
        }

    def open_late(self, address: str, http: str | None) -> None:
        """What no daemon has to wait for: the control socket, "" for none, and the pages."""
        manager = posix.environ.get(b"NOTIFY_SOCKET")
        if manager:
            from bottle_init.linux.manager import Manager

            self._manager = Manager(manager, self._poller, self._note_unheard)
            self._manager.tell(self._view())
        if address:
            from bottle_init.linux.control import Control

            now = lambda: (self._view(), monotonic_ms())  # noqa: E731
            self._control = Control(address, self._poller, self._emit, now, self._note_waiting("control"))
            problem = self._control.open()
            if problem:
                self.log("control_unavailable", "warning", (("reason", problem),))
        if http is not None:
            from bottle_init.linux.web import Web

            self._web = Web(http, self._poller, self._view, self._logs, self._note_waiting("http"))
            problem = self._web.open()
            if problem:
                self.log("http_unavailable", "warning", (("reason", problem),))

    def deadline_ms(self) -> int | None:
        """When `tick` has to be called even if nothing happens."""
        servers = [server.deadline_ms() for server in (self._control, self._web) if server is not None]
        return min((at_ms for at_ms in servers if at_ms is not None), default=None)

    def tick(self, now_ms: int) -> None:
        """What clients of the init have been waiting for."""
        for server in (self._control, self._web):
            if server is not None:
                server.tick(now_ms)

    def _answer(self, action: act.Answer) -> None:
        """Answer a client of the control socket."""
        if self._control is not None and action.request:
            self._control.answer(action.request, action.done, action.text)

    def _log_event(self, action: act.LogEvent) -> None:
        """An event of the core's, for the log and for those who follow."""
        child = (("child", action.child),) if action.child else ()
        self._pending.append((action.event, action.level, (*child, *action.facts), action.sender_pid))

    def _note_stop(self, action: act.NoteStop) -> None:
        """A stop has begun; who asked for it is looked up after all signals have been sent."""
        self._logs.stop()
        self._asker_pid = action.sender_pid

    def log_pending(self) -> None:
        """Log what the core has decided to: after the actions, so that no signal waits for a line about it."""
        if self._asker_pid:
            self._asker, self._asker_pid = _name_of(self._asker_pid) or "", 0
        pending, self._pending = self._pending, []
        for event, level, facts, sender_pid in pending:
            name = (("sender_name", self._name(sender_pid)),) if sender_pid else ()
            self.log(event, level, (*facts, *name))
        if self._manager is not None:
            self._manager.tell(self._view())

    def _name(self, pid: int) -> str | None:
        """The name of who has sent a signal, kept while it can be looked up: later another process may have the pid."""
        name = _name_of(pid)
        self._names.pop(pid, None)
        if name is not None:
            self._names[pid] = name
        if len(self._names) > NAMES_KEPT:
            del self._names[next(iter(self._names))]
        return name

    def note_missing(self, reason: str) -> None:
        """Say what of its own set-up the init could not have."""
        self.log("setup_incomplete", "warning", (("reason", reason),))

    def _note_waiting(self, key: str) -> Callable[[str], None]:
        return lambda reason: self.log("clients_waiting", "warning", (("address", key), ("reason", reason)))

    def _note_unheard(self, reason: str) -> None:
        self.log("manager_unreachable", "warning", (("reason", reason),))

    def log(self, event: str, level: str, facts: Facts) -> None:
        """One line of the init's own; a fact that is None is left out."""
        known = [fact for fact in facts if fact[1] is not None]
        line = jsonlines.encode(event, level, known, jsonlines.timestamp(wall_s()))
        self._logs.event(line)
        if self._control is not None:
            self._control.publish(line)

    def close(self, end: act.Exit) -> None:
        """Report, and hand out what is still to be written, for as long as somebody reads."""
        from bottle_init.linux import report

        logs = self._logs
        logs.finish()
        self._flush(end.stop.deadline_ms)
        logs.give_up()
        record = report.build(end, self._bundle, logs.tail, logs.dropped(), self._asker, self._names)
        stamp = jsonlines.timestamp(wall_s())
        for problem in report.write(record, report.encode(record, stamp), self._report):
            self.log("report_unwritten", "error", (("reason", problem),))
        line = report.encode(report.for_log(record), stamp)
        if not (logs.is_read_by_people and self._has_told(line)):
            logs.event(line)
        if self._control is not None:
            self._control.publish(line)
            self._control.close()
        if self._web is not None:
            self._web.close()
        self._flush(end.stop.deadline_ms)

    def _has_told(self, line: bytes) -> bool:
        """Show the report as a story; whether that was possible."""
        try:
            text = self._tell(line)
        except Exception:  # noqa: BLE001 - nothing that is wrong with looks may cost the report.
            return False
        self._logs.story(text.rstrip("\n").encode("utf-8", "backslashreplace"))
        return True

    def _flush(self, deadline_ms: int) -> None:
        """A reader that still reads is waited for, within the deadline; one that does not is not."""
        logs, now_ms = self._logs, monotonic_ms()
        farewell = Farewell(now_ms, deadline_ms)
        while (until_ms := farewell.until_ms(logs.pending(), logs.unread(), now_ms)) is not None:
            self._poller.wait(until_ms - now_ms)
            now_ms = monotonic_ms()
            logs.flush(now_ms)


def _name_of(pid: int) -> str | None:
    process = proc.look(pid)
    return process.name if process is not None else None
