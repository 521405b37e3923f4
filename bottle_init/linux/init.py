"""The init at work: wait, gather, step, do, until the core says exit.

One wake-up takes what is there (all signals, all deaths, a bounded number of log bytes), hands it
to the core as events, and carries out the core's actions; what a syscall answers goes back into
the core before anything else. Nothing here decides, and nothing here blocks.
"""

from __future__ import annotations

import gc
import posix

from bottle_init.core import actions as act
from bottle_init.core import events as ev
from bottle_init.core import supervisor
from bottle_init.linux import reaper, spawn
from bottle_init.linux.leaves import Leaves
from bottle_init.linux.sys import environ as environ_of
from bottle_init.linux.sys import libc, proc
from bottle_init.linux.sys.clock import monotonic_ms
from bottle_init.linux.sys.poller import Poller
from bottle_init.linux.sys.signals import SIGCHLD, Signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from bottle_init.cli.options import Options
    from bottle_init.core.actions import Action, Exit
    from bottle_init.core.events import Event
    from bottle_init.core.spec import Bundle, Lease
    from bottle_init.core.state import State

EPOLLIN = 1

LONGEST_SLEEP_MS = 1_000_000_000
"""epoll_wait(2) takes a C int; whatever is further off than this is waited for in parts."""


def run(bundle: Bundle, options: Options) -> int:
    """Run a bundle to its end; returns the exit code of contract 2, 70 for an error of the init's own."""
    init: Init | None = None
    try:
        init = Init(bundle, options)
        return init.run()
    except BaseException as problem:  # noqa: BLE001 - contract 8: whatever it is, every child is ended, and 70.
        return _fail(problem, bundle, init)


def _fail(problem: BaseException, bundle: Bundle, init: Init | None) -> int:
    if init is None:
        from bottle_init.linux import emergency

        return emergency.end(problem, bundle, {})
    with init.tree.room:  # There may be no other descriptor, to import with or to look for what is left with.
        from bottle_init.linux import emergency

        return emergency.end(problem, bundle, init.pids, init.leaves.logs, init.report)


class Init:
    """The descriptors, the pids and the leaves; all that is decided is in `state`."""

    def __init__(self, bundle: Bundle, options: Options) -> None:
        self.lease, self.has_lease_fd = lease_as_given(bundle.lease)
        hold_stdio()
        libc.keep_descriptors_from_children()
        self.signals = Signals()
        self.is_pid_1 = posix.getpid() == 1
        if not self.is_pid_1:
            libc.prctl(libc.PR_SET_CHILD_SUBREAPER, 1)
        self.report = environ_of.absolute(options.report) if options.report else None
        self.control = environ_of.socket_address(bundle.control)
        cwd_fd = open_cwd()
        self.bundle = bundle
        self.events: list[Event] = []
        self.pids: dict[int, tuple[int, int] | None] = {}
        """What the init has started and not reaped: whose process each is, None for a probe's."""
        self.reports: dict[int, int] = {}
        self.watched: dict[int, int] = {}
        self.sigchld = False
        self.deadline_ms: int | None = None
        self.awaits_orphans = False
        self.exit: Exit | None = None
        self.poller = Poller()
        self.poller.watch(self.signals.fd, EPOLLIN, self._on_signals)
        self.tree = reaper.Tree(self.pids)
        environ = environ_of.inherited()
        self.plans = [spawn.Plan(spec.command, spec.process, environ, cwd_fd) for spec in bundle.children]
        self.null = posix.open("/dev/null", posix.O_RDWR | posix.O_CLOEXEC)
        self.leaves = Leaves(self)
        self.do: dict[type[Action], Callable[[Any], None]] = {
            act.Spawn: self._spawn,
            act.SendSignal: self._send_signal,
            act.ForwardSignal: self._forward_signal,
            act.KillSession: self._kill_session,
            act.SurveySession: self._survey_session,
            act.SurveyTree: self._survey_tree,
            act.StartProbe: self.leaves.start_probe,
            act.CancelProbe: self.leaves.cancel_probe,
            act.Answer: self.leaves.answer,
            act.Announce: self.leaves.announce,
            act.Exit: self._exit,
        }
        self.state: State = supervisor.begin(bundle, monotonic_ms())

    def run(self) -> int:
        """From the first start to the last reaping."""
        self._step(monotonic_ms())
        with self.tree.room:
            self.leaves.open_late()
        gc.enable()
        while self.exit is None:
            self._turn()
        return self.leaves.close(self.exit)

    def _turn(self) -> None:
        """One wake-up."""
        self.poller.wait(self._timeout_ms())
        now_ms = monotonic_ms()
        is_late = self.deadline_ms is not None and self.deadline_ms <= now_ms
        if is_late:
            self.poller.wait(0)  # Stopped, or frozen, since its last look, the init has not seen what came in time.
        if self.sigchld:
            self._reap()
            self._on_signals(EPOLLIN)  # A request that came in while deaths were collected came before them.
        self.leaves.tick(now_ms)
        if self.events or is_late:
            self._step(now_ms)  # Bulk output alone gives the core nothing to judge.

    def _timeout_ms(self) -> int | None:
        if self.events or self.sigchld:
            return 0
        times = (self.deadline_ms, self.leaves.deadline_ms())
        soonest = min((at_ms for at_ms in times if at_ms is not None), default=None)
        return None if soonest is None else min(max(0, soonest - monotonic_ms()), LONGEST_SLEEP_MS)

    def _step(self, now_ms: int) -> None:
        """Step until no action has an answer of its own any more."""
        while True:
            batch, self.events = self.events, []
            self.state, todo = supervisor.step(self.state, now_ms, batch)
            for action in todo:
                self.do[type(action)](action)
            if not self.events or self.exit is not None:
                break
            now_ms = monotonic_ms()
        self.deadline_ms = supervisor.next_deadline_ms(self.state)
        self.awaits_orphans = supervisor.awaits_orphans(self.state)
        self.leaves.tell()

    def emit(self, event: Event) -> None:
        """Hand an event to the next step of this wake-up."""
        self.events.append(event)

    # What the kernel tells.

    def _on_signals(self, _mask: int) -> None:
        for number, pid, uid in self.signals.take():
            if number == SIGCHLD:
                self.sigchld = True
            else:
                self.emit(ev.SignalReceived(number, pid, uid))

    def _reap(self) -> None:
        deaths, orphans = self.tree.reap()
        self.sigchld = self.tree.may_be_more
        for pid, status in deaths:
            owner = self.pids.pop(pid)
            if owner is None:
                self.leaves.probe_reaped(pid, status)
            else:
                self._child_reaped(pid, status, *owner)
        if orphans and self.awaits_orphans:
            self.emit(ev.OrphansReaped(orphans))

    def _child_reaped(self, pid: int, status: int, child: int, generation: int) -> None:
        report = self.reports.pop(pid, None)
        if report is not None:
            self._read_report(report, child, generation)
        self.leaves.child_reaped(child)
        number = posix.WTERMSIG(status) if posix.WIFSIGNALED(status) else 0
        code = 0 if number else posix.WEXITSTATUS(status)
        self.emit(ev.ChildExited(child, generation, code, number, self.leaves.was_oom(child, pid, number)))

    def _read_report(self, report: int, child: int, generation: int) -> None:
        """The child has become its program (end of file), or says why it could not."""
        try:
            reason = posix.read(report, 4_096)
        except BlockingIOError:
            return  # It was killed between fork and exec: neither.
        finally:
            self.poller.forget(report)
            posix.close(report)
        if reason:
            self.emit(ev.ExecFailed(child, generation, reason.decode("utf-8", "replace")))
        else:
            self.emit(ev.ChildExecuted(child, generation))

    # What the core decides.

    def _spawn(self, action: act.Spawn) -> None:
        child, generation = action.child, action.generation
        try:
            extra = self.leaves.environment(child, generation)
            stdio = self.leaves.stdio(child)
            pid, report = spawn.start(self.plans[child], (self.null, *stdio), extra)
        except OSError as problem:
            self.leaves.spawned(child)
            self.emit(ev.ForkFailed(child, generation, problem.strerror or str(problem)))
            return
        self.leaves.spawned(child)
        self.pids[pid] = (child, generation)
        self.reports[pid] = report
        self.emit(ev.ChildForked(child, generation, pid))

        def on_report(_mask: int) -> None:
            if self.reports.pop(pid, None) is not None:
                self._read_report(report, child, generation)

        self.poller.watch(report, EPOLLIN, on_report)

    def run_probe(self, child: int, command: tuple[str, ...], output: int) -> int:
        """Start a probe as its daemon is started (contract 6); returns its pid. Raises OSError."""
        words = [spawn.encode(word) for word in command]
        pid = spawn.fork(self.plans[child], words, (self.null, output, output), {}, output)
        self.pids[pid] = None
        return pid

    def pid_of(self, child: int, generation: int) -> int:
        """The pid of a child's present process, 0 where that has been reaped."""
        record = self.state.children[child]
        return record.pid if record.generation == generation and record.pid in self.pids else 0

    def _send_signal(self, action: act.SendSignal) -> None:
        pid = self.pid_of(action.child, action.generation)
        if pid:
            proc.send_to_pid(pid, action.signal)

    def _forward_signal(self, action: act.ForwardSignal) -> None:
        pid = self.pid_of(action.child, action.generation)
        if pid and proc.caught_signals(pid) >> action.signal & 1:
            proc.send_to_pid(pid, action.signal)
            self.emit(ev.SignalForwarded(action.child, action.generation, action.signal))

    def _kill_session(self, action: act.KillSession) -> None:
        pid = self.pid_of(action.child, action.generation)
        if pid:
            self.tree.kill_session(pid)

    def _survey_session(self, action: act.SurveySession) -> None:
        death = self.state.children[action.child].last_death
        left = self.tree.session(death.pid, action.signal) if death is not None else ()
        if self.tree.others is not None:
            self._watch(self.tree.others)
        self.emit(ev.SessionSurveyed(action.child, action.generation, left))

    def _watch(self, process: proc.ProcStat) -> None:
        """Learn of the end of a process that another one will reap: no SIGCHLD tells the init.

        One of a session is enough, as its end leads to the next look. Without a descriptor the deadline has to do.
        """
        if process.pid in self.watched:
            return
        try:
            fd = proc.hold(process)
        except ProcessLookupError:
            self.emit(ev.SurvivorEnded(process.pid))
            return
        except OSError:
            return

        def on_end(_mask: int) -> None:
            del self.watched[process.pid]
            self.poller.forget(fd)
            posix.close(fd)
            self.emit(ev.SurvivorEnded(process.pid))

        self.watched[process.pid] = fd
        self.poller.watch(fd, EPOLLIN, on_end)

    def _survey_tree(self, action: act.SurveyTree) -> None:
        left = self.tree.everything(action.signal)
        for _ in range(reaper.LOOKS):
            if left or self.tree.childless:
                break
            self._reap()  # What has ended since the last look is gone only once it has been reaped.
            left = self.tree.everything(action.signal)
        else:
            left = self.tree.unreaped()
        self.emit(ev.TreeSurveyed(left))

    def _exit(self, action: act.Exit) -> None:
        self.exit = action


def lease_as_given(lease: Lease | None) -> tuple[Lease | None, bool]:
    """The lease, a path in it made absolute, and whether its descriptor is there: to be asked before any is opened."""
    if lease is None:
        return None, False
    scheme, _, path = (lease.connect or "").partition(":")
    if scheme == "unix":
        lease = lease.but(connect=f"unix:{environ_of.socket_address(path)}")
    return lease, lease.fd is not None and environ_of.is_open(lease.fd)


def hold_stdio() -> None:
    """Open /dev/null for whatever of 0, 1 and 2 was closed at the start, before another file takes its place."""
    while (fd := posix.open("/dev/null", posix.O_RDWR)) < 3:
        posix.set_inheritable(fd, True)
    posix.close(fd)


def open_cwd() -> int:
    """The directory that children start in; the init's own is `/`, so that it holds no mount busy."""
    try:
        fd = posix.open(".", posix.O_PATH | posix.O_DIRECTORY | posix.O_CLOEXEC)
    except OSError:
        fd = posix.open("/", posix.O_PATH | posix.O_DIRECTORY | posix.O_CLOEXEC)
    posix.chdir("/")
    return fd
