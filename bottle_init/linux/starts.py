"""From the core's order to start a child to the word of the child that it runs.

This is all of the children that a start needs; the rest (`children.py`) is imported once the first daemons run.
"""

from __future__ import annotations

import errno
import posix
from select import EPOLLIN, POLLIN, poll

from bottle_init.core import events as ev
from bottle_init.core.words import INHERIT
from bottle_init.linux import spawn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from bottle_init.core import actions as act
    from bottle_init.core.events import Event
    from bottle_init.core.spec import Bundle, ExecSettings
    from bottle_init.core.state import State
    from bottle_init.linux.logs import Logs
    from bottle_init.linux.notify import Notify
    from bottle_init.linux.sys.environ import Given, Room
    from bottle_init.linux.sys.poller import Poller


EXEC_MS = 1_000
"""How long a start for which no descriptor is left waits for one, at most."""


class Starts:
    """Forks children, and emits what becomes of that.

    `view` gives the core's present state; `logs` the descriptors that children write to; `room` those in reserve;
    `given` is what children inherit.
    """

    def __init__(
        self,
        bundle: Bundle,
        poller: Poller,
        emit: Callable[[Event], None],
        view: Callable[[], State],
        logs: Logs,
        room: Room,
        given: Given,
    ) -> None:
        self.pids: dict[int, tuple[int, int] | None] = {}
        """What the init has started and not reaped: whose process each is, None for a probe's."""
        self.kills = given.kills
        """What the kernel's counts of OOM kills were before the first start."""
        self.in_need: Callable[[], None] = lambda: None
        """Called when no descriptor is left, before the reserve is used."""
        self._bundle = bundle
        self._poller = poller
        self._emit = emit
        self._view = view
        self._logs = logs
        self._room = room
        self._reports: dict[int, tuple[int, int, int]] = {}
        """Where each child reports to that has not become its program yet, by its pid; the child and its generation."""
        self._plans = [spawn.Plan(spec.command, spec.settings, given) for spec in bundle.children]
        self._null = posix.open("/dev/null", posix.O_RDWR | posix.O_CLOEXEC)
        self._notify: Notify | None = None

    def spawn(self, action: act.Spawn) -> None:
        """Fork a child; `ChildForked` or `ForkFailed` answers."""
        try:
            self._spawn(action)
        except OSError as problem:
            if problem.errno == errno.EMFILE:
                self._spawn_in_need(action)
            else:
                self._fail(action, problem)

    def _spawn_in_need(self, action: act.Spawn) -> None:
        """No descriptor is left: use those in reserve, take back what can be, or wait for one that comes back."""
        with self._room:
            self.in_need()
            while True:
                try:
                    self._spawn(action)
                except OSError as problem:
                    if problem.errno == errno.EMFILE and (self._logs.let_go() or self._await_report()):
                        continue
                    self._fail(action, problem)
                return

    def make_room(self, count: int) -> None:
        """Wait, while fewer than `count` descriptors are free, until children have become their programs."""
        while not self._room.is_free(count) and self._await_report():
            pass

    def _await_report(self) -> bool:
        """Wait until another child has become its program, which gives a descriptor back; whether one has.

        From fork to exec it is a millisecond or two, so for once the init waits: the core has no start that is late.
        """
        ready = poll()
        for report, _, _ in self._reports.values():
            ready.register(report, POLLIN)
        for fd, _ in ready.poll(EXEC_MS) if self._reports else ():
            pid = next(pid for pid, (report, _, _) in self._reports.items() if report == fd)
            self._read_report(*self._reports.pop(pid))
            return True
        return False

    def _fail(self, action: act.Spawn, problem: OSError) -> None:
        self._emit(ev.ForkFailed(action.child, action.generation, problem.strerror or str(problem)))

    def _spawn(self, action: act.Spawn) -> None:
        """Fork a child. Raises OSError, with nothing left of the attempt."""
        child, generation = action.child, action.generation
        forked = False
        try:
            extra = self._environment(child, generation)
            stdio = self._logs.open(child)
            stdin = 0 if self._bundle.children[child].settings.stdin == INHERIT else self._null
            pid, report = spawn.start(self._plans[child], (stdin, *stdio), extra)
            forked = True
        finally:
            self._logs.opened(child, forked=forked)
        self.pids[pid] = (child, generation)
        self._reports[pid] = (report, child, generation)
        self._emit(ev.ChildForked(child, generation, pid, barred(self._plans[child].settings)))

        def on_report(_mask: int) -> None:
            if self._reports.pop(pid, None) is not None:
                self._read_report(report, child, generation)

        self._poller.watch(report, EPOLLIN, on_report)

    def run_probe(self, child: int, command: tuple[str, ...], output: int) -> int:
        """Start a probe as its daemon is started (contract 6); returns its pid. Raises OSError."""
        words = [spawn.encode(word) for word in command]
        pid = spawn.fork(self._plans[child], words, (self._null, output, output), {}, output)
        self.pids[pid] = None
        return pid

    def ended(self, pid: int, child: int) -> None:
        """A child has been reaped: what it has reported and notified comes before its death."""
        if pid in self._reports:
            self._read_report(*self._reports.pop(pid))
        self._logs.drain(child)
        if self._notify is not None and self._bundle.children[child].ready is not None:
            self._notify.drain(child)

    def close(self) -> None:
        """Take away what is in a filesystem."""
        if self._notify is not None:
            self._notify.close_all()

    def _environment(self, child: int, generation: int) -> dict[bytes, bytes]:
        """What is added to a child's environment at this start. Raises OSError."""
        ready = self._bundle.children[child].ready
        if ready is None or ready.probe.kind != "notify":
            return {}
        if self._notify is None:
            from bottle_init.linux.notify import Notify

            self._notify = Notify(self._poller, self._emit, self._belongs)
        return {b"NOTIFY_SOCKET": self._notify.open(child, generation).encode()}

    def _belongs(self, child: int, pid: int) -> bool:
        """Whether a process is the child's, by its session."""
        leader = self._view().children[child].pid
        if pid == leader:
            return True  # It may have been reaped a moment ago, and what it said still counts.
        from bottle_init.linux.sys import proc

        process = proc.look(pid)
        return leader != 0 and process is not None and process.session == leader

    def _read_report(self, report: int, child: int, generation: int) -> None:
        """The child has become its program (end of file), or says why it could not."""
        try:
            reason = posix.read(report, 4_096)
        except BlockingIOError:
            return  # It was killed between fork and exec: neither.
        finally:
            self._poller.forget(report)
            posix.close(report)
        if reason:
            self._emit(ev.ExecFailed(child, generation, reason.decode("utf-8", "replace")))
        else:
            self._emit(ev.ChildExecuted(child, generation))


def barred(settings: ExecSettings) -> str:
    """Why the init will not be able to signal a child of this user's, "" if it will (kill(2))."""
    if settings.user is None:
        return ""
    from bottle_init.linux.sys import libc, proc

    if libc.has_capability("kill"):
        return ""
    try:
        uid = spawn.Identity(settings).uid
    except spawn.CannotStart:
        return ""  # Nor will it run.
    return "" if uid in (posix.getuid(), posix.geteuid()) else proc.LACKS_KILL
