"""The init at work: wait, gather, step, do, until the core says exit.

One wake-up takes what is there (all signals, all deaths, a bounded number of log bytes), hands it
to the core as events, and carries out the core's actions; what a syscall answers goes back into
the core before anything else. Nothing here decides, and nothing here blocks.

What is needed to start a daemon is imported at once; everything else (probes, the control socket,
the lease, the report) only once the first daemons run, so that no daemon ever waits for it.
"""

from __future__ import annotations

import gc
import posix

from bottle_init.core import actions as act
from bottle_init.core import events as ev
from bottle_init.core import supervisor
from bottle_init.linux.logs import Logs
from bottle_init.linux.starts import Starts
from bottle_init.linux.sys import environ as environ_of
from bottle_init.linux.sys import libc
from bottle_init.linux.sys.clock import monotonic_ms
from bottle_init.linux.sys.environ import Given, Room, hold_stdio
from bottle_init.linux.sys.poller import Bulk, Poller
from bottle_init.linux.sys.signals import OF_ITS_OWN_WRITES, SIGCHLD, Signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from bottle_init.core.actions import Action, Exit
    from bottle_init.core.events import Event
    from bottle_init.core.spec import Bundle, Lease
    from bottle_init.core.state import State
    from bottle_init.linux.lease import Watch

EPOLLIN = 1

OPENED_LATE = 8
"""No more descriptors than this are opened once all that waits on nothing has been started."""

LONGEST_SLEEP_MS = 1_000_000_000
"""epoll_wait(2) takes a C int; whatever is further off than this is waited for in parts."""


def run(bundle: Bundle, report: str | None, tell: Callable[[bytes], str]) -> int:
    """Run a bundle to its end; returns the exit code of contract 2, 70 for an error of the init's own.

    `report` is the path of a file to write the report to; `tell` makes the story of a report's line, for a terminal.
    """
    init: Init | None = None
    try:
        init = Init(bundle, report, tell)
        return init.run()
    except BaseException as problem:  # noqa: BLE001 - contract 8: whatever it is, every child is ended, and 70.
        return _fail(problem, bundle, init)


def _fail(problem: BaseException, bundle: Bundle, init: Init | None) -> int:
    if init is None:
        from bottle_init.linux import emergency

        return emergency.end(problem, bundle, {})
    with init.room:  # There may be no other descriptor, to import with or to look for what is left with.
        from bottle_init.linux import emergency

        return emergency.end(problem, bundle, init.starts.pids, init.logs, init.report)


class Init:
    """The descriptors, and who does what the core decides; all that is decided is in `state`."""

    def __init__(self, bundle: Bundle, report: str | None, tell: Callable[[bytes], str]) -> None:
        self.bundle = bundle
        self.lease, self.has_lease_fd = _lease_as_given(bundle.lease)
        hold_stdio()
        libc.keep_descriptors_from_children()
        self.signals = Signals()
        self.pid = posix.getpid()
        if self.pid != 1:
            libc.prctl(libc.PR_SET_CHILD_SUBREAPER, 1)
        self.report = environ_of.absolute(report) if report else None
        self.tell = tell
        self.control = environ_of.socket_address(bundle.control)
        self.http = environ_of.address_as_given(bundle.http)
        self.events: list[Event] = []
        self.sigchld = False
        self.deadline_ms: int | None = None
        self.is_time_asked = False
        self.exit: Exit | None = None
        self.watch: Watch | None = None
        self.poller = Poller()
        self.poller.watch(self.signals.fd, EPOLLIN, self._on_signals)
        names, modes = [spec.name for spec in bundle.children], [spec.logs for spec in bundle.children]
        self.logs = Logs(bundle.logs, names, Bulk(self.poller), modes=modes)
        self.room = Room()
        self.given = Given()
        self.starts = Starts(bundle, self.poller, self.emit, self.view, self.logs, self.room, self.given)
        self.starts.in_need = self._import_late
        self.state: State = supervisor.begin(bundle, monotonic_ms())

    def run(self) -> int:
        """From the first start to the last reaping."""
        later = self._start()
        with self.room:
            self._open()
        self._carry_out(later)
        if self.events and self.exit is None:
            self._step(monotonic_ms())
        else:
            self._note_step()
        self.starts.make_room(OPENED_LATE)
        with self.room:
            self._import_late()
            self._open_late()
        gc.enable()
        while self.exit is None:
            self._turn()
        self.starts.close()
        self.journal.close(self.exit)
        return self.exit.code

    def _start(self) -> list[Action]:
        """Start what waits on nothing; returns what else the core has decided by then."""
        later: list[Action] = []
        while True:
            batch, self.events = self.events, []
            self.state, todo = supervisor.step(self.state, monotonic_ms(), batch)
            for action in todo:
                if isinstance(action, act.Spawn):
                    self.starts.spawn(action)
                else:
                    later.append(action)
            if not self.events:
                return later

    def _open(self) -> None:
        """What no daemon has to wait for, and the first lines of the log do."""
        from bottle_init.linux.children import Children
        from bottle_init.linux.journal import Journal

        journal = Journal(self.bundle, self.poller, self.emit, self.view, self.logs, self.report, self.tell)
        self.journal = journal
        self.children = Children(self.bundle, self.poller, self.emit, self.view, self.starts, self.room, journal.log)
        for reason in self.given.problems:
            self.journal.note_missing(reason)
        self.do: dict[type[Action], Callable[[Any], None]] = {
            **self.children.do,
            **self.journal.do,
            act.NoteTime: self._note_time,
            act.Exit: self._exit,
        }

    def _import_late(self) -> None:
        """Import what is needed from now on, before the last descriptors are taken: to import takes one."""
        from bottle_init.linux import children, emergency, journal, oom, report  # noqa: F401
        from bottle_init.words import jsonlines

        jsonlines.quoting()
        if any(spec.ready or spec.health for spec in self.bundle.children):
            from bottle_init.linux import notify, probes  # noqa: F401
        if posix.environ.get(b"NOTIFY_SOCKET"):
            from bottle_init.linux import manager  # noqa: F401
        if self.control:
            from bottle_init.linux import control  # noqa: F401
        if self.http is not None:
            from bottle_init.linux import web  # noqa: F401

    def _open_late(self) -> None:
        """What nobody has to wait for."""
        self.children.open_late()
        self.journal.open_late(self.control, self.http)
        if self.lease is not None and self.lease.renew_ms is None:
            from bottle_init.linux.lease import Watch

            self.watch = Watch(self.lease, self.has_lease_fd, self.poller, self.emit)

    def _turn(self) -> None:
        """One wake-up."""
        self.poller.wait(self._timeout_ms())
        now_ms = monotonic_ms()
        is_late = self.deadline_ms is not None and self.deadline_ms <= now_ms
        if is_late:
            self.poller.wait(0)  # Stopped, or frozen, since its last look, the init has not seen what came in time.
        if self._has_deaths():
            self.sigchld = False
            self.children.reap()
            self._on_signals(EPOLLIN)  # A request that came in while deaths were collected came before them.
        self.logs.tick(now_ms)
        self.journal.tick(now_ms)
        if self.events or is_late:
            self._step(now_ms)  # Bulk output alone gives the core nothing to judge.

    def _has_deaths(self) -> bool:
        """Whether there may be something to reap: the kernel said so, or the last look had its fill."""
        return self.sigchld or self.children.tree.may_be_more

    def _timeout_ms(self) -> int | None:
        if self.events or self._has_deaths():
            return 0
        times = (self.deadline_ms, self.logs.deadline_ms(), self.journal.deadline_ms())
        soonest = min((at_ms for at_ms in times if at_ms is not None), default=None)
        return None if soonest is None else min(max(0, soonest - monotonic_ms()), LONGEST_SLEEP_MS)

    def _step(self, now_ms: int) -> None:
        """Step until no action has an answer of its own any more."""
        while True:
            batch, self.events = self.events, []
            self.state, todo = supervisor.step(self.state, now_ms, batch)
            self._carry_out(todo)
            if not self.events or self.exit is not None:
                break
            now_ms = monotonic_ms()
        self._note_step()

    def _note_step(self) -> None:
        """The core waits again: until when, for what, and what it has said."""
        self.deadline_ms = supervisor.next_deadline_ms(self.state)
        self.children.awaits_orphans = supervisor.awaits_orphans(self.state)
        self.journal.log_pending()
        if self.is_time_asked:
            self.is_time_asked = False
            self.emit(ev.TimeNoted())  # Of the next turn, which begins now, and takes in what has come meanwhile.

    def _carry_out(self, actions: Iterable[Action]) -> None:
        for action in actions:
            self.do[type(action)](action)

    def emit(self, event: Event) -> None:
        """Hand an event to the next step of this wake-up."""
        self.events.append(event)

    def view(self) -> State:
        """The core's present state."""
        return self.state

    def _on_signals(self, _mask: int) -> None:
        for number, pid, uid in self.signals.take():
            if number == SIGCHLD:
                self.sigchld = True
            elif pid != self.pid or number not in OF_ITS_OWN_WRITES:
                self.emit(ev.SignalReceived(number, pid, uid))

    def _note_time(self, _action: act.NoteTime) -> None:
        self.is_time_asked = True

    def _exit(self, action: act.Exit) -> None:
        self.exit = action


def _lease_as_given(lease: Lease | None) -> tuple[Lease | None, bool]:
    if lease is None:
        return None, False
    from bottle_init.linux.lease import as_given

    return as_given(lease)
