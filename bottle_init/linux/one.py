"""One command under the init, which stays out of its way as tini does (contract 5, "One command").

Everything that can wait until the command is on its way is imported after the fork. The wait is
one sigwaitinfo(2) on all signals, which are blocked for the init's whole life: it costs one system
call for each signal, and tells who sent it.
"""

from __future__ import annotations

import gc
import posix
from _signal import (
    SIG_DFL,
    SIG_IGN,
    SIG_SETMASK,
    SIGCHLD,
    SIGHUP,
    SIGINT,
    SIGKILL,
    SIGPIPE,
    SIGSTOP,
    SIGTERM,
    SIGXFSZ,
    default_int_handler,
    getsignal,
    pthread_sigmask,
    signal,
    sigpending,
    sigtimedwait,
    sigwait,
    sigwaitinfo,
    valid_signals,
)
from os import fsencode

from bottle_init.core import command as core
from bottle_init.core.signals import CONT, STOP_SIGNALS
from bottle_init.linux import spawn
from bottle_init.linux.sys import environ

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from signal import struct_siginfo

    from bottle_init.core.actions import Exit
    from bottle_init.core.spec import Bundle, Lease
    from bottle_init.core.state import Death, State, Survivor
    from bottle_init.linux.oom import OomCounter
    from bottle_init.linux.reaper import Tree
    from bottle_init.linux.remote import Remote

    Wait = Callable[[float | None], struct_siginfo | None]

EX_UNAVAILABLE = 69
REAPED_AT_ONCE = 1_000
"""So many orphans are reaped before the next look at what else has come: a storm of them delays no signal."""

_SI_KERNEL = 0x80
_STDIN = 0
_STDERR = 2
_TOLD = 1_000


def run(
    words: Sequence[str],
    rules: core.Rules,
    mask: Iterable[int],
    report: str = "",
    control: str = "",
    lease: Lease | None = None,
) -> int:
    """Run `words` to its end and end what it leaves behind; returns the init's exit code.

    All signals are blocked already; `mask` is what was blocked before, as the command is to inherit
    it. `report` is a path to write the report to, `control` an address for the control socket; "" for
    neither. `lease` is what the command's life hangs on. An error of the init's own is told on stderr and
    gives 70 (contract 8).
    """
    command = Command(words, rules, report, control, lease)
    try:
        return command.run(mask)
    except BaseException as problem:  # noqa: BLE001 - contract 8: whatever it is, the command is ended, and 70.
        from bottle_init.linux import emergency

        pids = {command.pid: (0, 1)} if command.pid and command.code is None else {}
        return emergency.end_command(problem, command.as_bundle(), pids, command.report)


def complain(text: str) -> None:
    """One line on stderr, if it can be written."""
    try:
        posix.write(_STDERR, b"bottle-init: " + spawn.encode(text) + b"\n")
    except BrokenPipeError:
        sigtimedwait((SIGPIPE,), 0)  # That was about the init's own line, and is not the command's to hear of.
    except OSError:
        pass  # Nobody reads it.


def complain_if_room(text: str) -> None:
    """As `complain`, but never waits for a reader: a pipe that is not full takes so much at once (pipe(7))."""
    from select import POLLOUT, poll

    watcher = poll()
    watcher.register(_STDERR, POLLOUT)
    if watcher.poll(0):
        complain(text[:_TOLD])


class Command:
    """What the init knows of its command, which lives until `code` is set.

    `target` is what a signal is sent to: the command's group, or the command alone.
    """

    def __init__(
        self, words: Sequence[str], rules: core.Rules, report: str, control: str, lease: Lease | None = None
    ) -> None:
        self.words = tuple(words)
        self.rules = rules
        self.report = report
        self.control = control
        self.lease = lease
        self.lease_ended_ms: int | None = None
        self.killed_ms: int | None = None
        self.init_pid = posix.getpid()
        self.every = tuple(valid_signals())
        self.wait: Wait = self._wait
        self.pid = 0
        self.target = 0
        self.targets: dict[int, int] = {}
        self.plain: dict[int, int] = {}
        self.code: int | None = None
        self.signal = 0
        self.childless = False
        self.may_be_more = False
        self.asked: tuple[str, int, int | None] | None = None
        self.asked_at_ms = 0
        self.asker = ""
        self.sent = 0
        self.started_at_ms = 0
        self.ended_at_ms = 0
        self.oom_counter: OomCounter | None = None
        self.oom: bool | None = False
        self.remote: Remote | None = None
        self.survivors: dict[tuple[int, int | None], Survivor] = {}

    def run(self, mask: Iterable[int]) -> int:
        """From the first system call to the exit code."""
        try:
            if self.lease is not None and (code := self._take_lease(self.lease)) is not None:
                return code
            self._start(mask)
        except OSError as problem:
            return self._give_up(f"{self.words[0]}: cannot be started: {problem.strerror}")
        self._settle()
        self._supervise()
        if not self.childless:
            self._end_leftovers()
        return self._close()

    def _give_up(self, reason: str, code: int = EX_UNAVAILABLE) -> int:
        """Nothing runs, and nothing will."""
        complain_if_room(reason)
        if self.report:
            from bottle_init.core.actions import Exit
            from bottle_init.core.state import Stop
            from bottle_init.core.words import POLICY, REQUESTED
            from bottle_init.linux.sys.clock import monotonic_ms

            now_ms = monotonic_ms()
            stop = Stop(POLICY if code == EX_UNAVAILABLE else REQUESTED, reason, now_ms, now_ms, code)
            self._write_report(Exit(code, stop, (), (), now_ms))
        return code

    # Until the command runs.

    def _take_lease(self, lease: Lease) -> int | None:
        """Wait for the lease; returns the exit code if it cannot be had, or if a stop signal comes first."""
        from bottle_init.linux.lease import as_given
        from bottle_init.linux.remote import Remote

        given, has_fd = as_given(lease)
        if lease.fd is not None and has_fd:
            posix.set_inheritable(lease.fd, False)
        self.remote = Remote(self._look, self._stop, self.send, self._lose_lease)
        found = self.remote.take_lease(given, has_fd, STOP_SIGNALS)
        if isinstance(found, str):
            return self._give_up(f"the lease cannot be had: {found}")
        return self._give_up(f"signal {found}", 128 + found) if found else None

    def _start(self, mask: Iterable[int]) -> None:
        """Take the signals over, let go of the terminal, fork. Raises OSError."""
        children_ignored = getsignal(SIGCHLD) is SIG_IGN
        if children_ignored:  # Inherited, it would take the wait status of every child away.
            signal(SIGCHLD, SIG_DFL)
        if getsignal(SIGINT) is default_int_handler:
            signal(SIGINT, SIG_DFL)
        if self.init_pid != 1:
            self._adopt_orphans()
        self._heed_parent()
        terminal = not self.rules.single_child and posix.isatty(_STDIN)
        if terminal:
            release_terminal()
        environment = environ.inherited()
        if self.report:  # What the kernel kills before the first look would not be counted.
            from bottle_init.linux.oom import OomCounter

            self.oom_counter = OomCounter()
        self.pid = posix.fork()
        if self.pid == 0:
            self._become(mask, environment, terminal=terminal, children_ignored=children_ignored)
        self.target = self.pid if self.rules.single_child else -self.pid

    def _adopt_orphans(self) -> None:
        """Not PID 1: be the one that orphans below come to (PR_SET_CHILD_SUBREAPER, prctl(2)), before there are any."""
        from bottle_init.linux.sys import libc

        libc.prctl(libc.PR_SET_CHILD_SUBREAPER, 1)

    def _heed_parent(self) -> None:
        """`--parent-death-signal`: the kernel sends it to the init, which passes it on like any other."""
        number = self.rules.parent_death_signal
        if number:
            from bottle_init.linux.sys import libc

            parent = posix.getppid()
            libc.prctl(libc.PR_SET_PDEATHSIG, number)
            if posix.getppid() != parent:  # It died just before.
                posix.kill(self.init_pid, number)

    def _become(
        self, mask: Iterable[int], environment: dict[bytes, bytes], *, terminal: bool, children_ignored: bool
    ) -> None:
        """In the child: undo what the init and its interpreter have changed, and execute. Never returns."""
        code = spawn.CANNOT_EXECUTE
        try:
            if not self.rules.single_child:
                posix.setsid()
            if terminal:
                acquire_terminal()
            if self.rules.parent_death_signal in (SIGKILL, SIGSTOP):
                self._die_with_init()
            signal(SIGPIPE, SIG_DFL)
            signal(SIGXFSZ, SIG_DFL)
            if children_ignored:
                signal(SIGCHLD, SIG_IGN)
            environ.address_to(posix.getpid(), self.init_pid, environment)
            words = [fsencode(word) for word in self.words]
            pthread_sigmask(SIG_SETMASK, mask)
            spawn.execute(words, environment, scripts=True)
        except spawn.CannotStart as problem:
            code = problem.code
            complain(str(problem))
        except BaseException as problem:  # noqa: BLE001 - whatever it is, the child must not run on as a second init.
            complain(f"{type(problem).__name__}: {problem}")
        posix._exit(code)  # noqa: SLF001 - that is its name.

    def _die_with_init(self) -> None:
        """What the init cannot catch it cannot pass on: the kernel sends it to the command when the init dies of it."""
        from bottle_init.linux.sys import libc

        libc.prctl(libc.PR_SET_PDEATHSIG, self.rules.parent_death_signal)
        if posix.getppid() != self.init_pid:
            posix.kill(posix.getpid(), self.rules.parent_death_signal)

    # While the command lives.

    def _settle(self) -> None:
        """What the command does not have to wait for."""
        from bottle_init.linux.sys.clock import monotonic_ms

        gc.enable()
        self.started_at_ms = monotonic_ms()
        self.targets = {number: core.target_of(self.rules, number) for number in self.every}
        self.plain = {number: target for number, target in self.targets.items() if core.is_plain(number, target)}
        if self.report or self.control or self.remote is not None:
            _import_late()
        if self.report:
            self.report = environ.absolute(self.report)
        self.control = environ.socket_address(self.control)
        kept = self.remote.descriptors() if self.remote is not None else ()
        let_go(None if self.report else kept)
        if self.control or self.remote is not None:
            self._listen()

    def _listen(self) -> None:
        """Be there for clients of the control socket, and for the lease. Raises OSError if the lease has to go."""
        from bottle_init.linux.remote import Remote

        try:
            remote = self.remote or Remote(self._look, self._stop, self.send, self._lose_lease)
            remote.wait_for(self.every)
            problem = remote.listen(self.control, self._note_waiting) if self.control else ""
        except OSError as failure:
            if self.remote is not None:
                raise
            complain_if_room(f"control socket {self.control}: {failure.strerror}")
            return
        if problem:
            complain_if_room(f"control socket {problem}")
        self.remote = remote
        self.wait = remote.wait

    def _note_waiting(self, reason: str) -> None:
        complain_if_room(f"control socket {self.control}: clients have to wait: {reason}")

    def _look(self) -> State:
        """What clients of the control socket are to see."""
        from bottle_init.core.state import of_command

        ended = self.code is not None
        return of_command(self.as_bundle(), self.pid, self.started_at_ms, stopping=self.asked is not None, ended=ended)

    def _stop(self, pid: int, uid: int | None) -> str:
        """Do what a client of the control socket asks for. Returns "" or why that cannot be."""
        return self._request("the control socket", pid, uid)

    def _lose_lease(self, reason: str) -> None:
        """The lease has ended: from now on the command has its time to end."""
        from bottle_init.linux.sys.clock import monotonic_ms

        self.lease_ended_ms = monotonic_ms()
        self._request(f"the lease: {reason}", 0, None)

    def _request(self, cause: str, pid: int, uid: int | None) -> str:
        """The same as a TERM that reaches the init. Returns "" or why it could not be passed on."""
        self.note_request(cause, pid, uid)
        return self._send_own(self.targets[SIGTERM])

    def _wait(self, timeout_s: float | None) -> struct_siginfo | None:
        """The next signal; None if the time is over first."""
        info: struct_siginfo | None
        info = sigwaitinfo(self.every) if timeout_s is None else sigtimedwait(self.every, timeout_s)
        return info

    def _supervise(self) -> None:
        """Pass signals on and reap, until the command has ended."""
        asks_for_sender = bool(self.report or self.remote or self.rules.single_child)
        while self.code is None:
            info = None
            if self.may_be_more or asks_for_sender:
                info = self.wait(self._patience_s())
                number = info.si_signo if info is not None else SIGCHLD
            else:
                number = self._pass_plain_ones_on()
            if number == SIGCHLD:
                self._reap()
            else:
                self._pass_on(number, info)
            if self.lease_ended_ms is not None and self.code is None:
                self._outlive_lease(self.lease_ended_ms)

    def _patience_s(self) -> float | None:
        """How long to wait for a signal at most."""
        if self.may_be_more:
            return 0
        if self.lease_ended_ms is None:
            return None
        from bottle_init.linux.sys.clock import monotonic_ms

        due_ms = core.next_without_lease_ms(self.rules, self.lease_ended_ms, self.killed_ms)
        return max(0, due_ms - monotonic_ms()) / 1_000

    def _outlive_lease(self, ended_ms: int) -> None:
        """The lease has ended, and the command lives: in time everything goes, and is then given up."""
        from bottle_init.linux.sys.clock import monotonic_ms

        now_ms = monotonic_ms()
        if now_ms < core.next_without_lease_ms(self.rules, ended_ms, self.killed_ms):
            return
        if self.killed_ms is None:
            from bottle_init.linux.reaper import Tree

            self.killed_ms = now_ms
            self.sent |= 1 << SIGKILL
            Tree({}).everything(SIGKILL)
        else:
            self.code, self.signal, self.ended_at_ms = 128 + SIGKILL, SIGKILL, now_ms

    def _pass_plain_ones_on(self) -> int:
        """Pass signals on until one comes that means more to the init; returns that one.

        The shortest way there is: what the init does after its kill(2), the command waits for where
        both share a processor, and the record of the sender takes longer to make than all the rest.
        """
        every, plain, group, kill = self.every, self.plain, self.target, posix.kill
        number: int
        while (number := sigwait(every)) in plain:
            try:
                kill(group, plain[number])
            except OSError as problem:
                self._send_alone(plain[number], problem)
        return number

    def _reap(self) -> None:
        """Reap a bounded number of all that have ended; notes the command's own end, and whether no child is left."""
        waitpid = posix.waitpid
        self.may_be_more = False
        for _ in range(REAPED_AT_ONCE):
            try:
                pid, status = waitpid(-1, posix.WNOHANG)
            except ChildProcessError:
                self.childless = True
                return
            if pid == 0:
                return
            if pid == self.pid and self.code is None:
                self._note_end(status)
        self.may_be_more = True

    def _note_end(self, status: int) -> None:
        """The command has ended."""
        self.signal = posix.WTERMSIG(status) if posix.WIFSIGNALED(status) else 0
        self.code = 128 + self.signal if self.signal else posix.WEXITSTATUS(status)
        if self.report:
            from bottle_init.linux.sys.clock import monotonic_ms

            self.ended_at_ms = monotonic_ms()
            was_killed = self.signal == SIGKILL and not self.sent >> SIGKILL & 1
            self.oom = was_killed and self.oom_counter is not None and self.oom_counter.killed(self.pid)

    def _pass_on(self, number: int, info: struct_siginfo | None) -> None:
        """One signal to the command, with all that it brings; `info` is None where nobody wants to know the sender."""
        target = self.targets[number]
        if target and (info is None or not self._has_it_already(info)):
            self._send_own(target, SIGSTOP if self._must_be_stopped(target) else target)
        if number in STOP_SIGNALS:
            by_process = info is not None and info.si_code <= 0
            sender = (info.si_pid, info.si_uid) if info is not None and by_process else (0, None)
            self.note_request(f"signal {number}", *sender)
        is_pid_1 = self.init_pid == 1
        if core.sleeps_too(number, target, is_pid_1=is_pid_1) and CONT not in sigpending():  # STOP discards a CONT.
            posix.kill(self.init_pid, SIGSTOP)

    def _send_own(self, target: int, number: int = 0) -> str:
        """Send a signal that counts as the init's, once it has been sent: `target`, or `number` in its place."""
        refusal = self.send(number or target)
        if not refusal:
            self.sent |= 1 << target
        return refusal

    def send(self, number: int) -> str:
        """Send the command's group a signal. Returns "" or why that cannot be."""
        try:
            posix.kill(self.target, number)
        except OSError as problem:
            return self._send_alone(number, problem)
        return ""

    def _send_alone(self, number: int, problem: OSError) -> str:
        """The group cannot be had: just forked, the command has none yet. It is not reaped, so it is there itself."""
        if isinstance(problem, ProcessLookupError):
            posix.kill(self.pid, number)
            return ""
        from bottle_init.linux.sys import proc

        refusal = f"signal {number} could not be passed on: {proc.why_refused(problem)}"
        complain_if_room(f"{self.words[0]}: {refusal}")
        return refusal

    def _must_be_stopped(self, target: int) -> bool:
        """Whether a single child leaves this stop signal to the kernel, which ignores it if their group is orphaned.

        STOP does the same, and everywhere.
        """
        if not self.rules.single_child or target not in core.JOB_CONTROL:
            return False
        from bottle_init.linux.sys import proc

        return proc.is_default(self.pid, target)

    def _has_it_already(self, info: struct_siginfo) -> bool:
        """Whether a terminal has sent this signal to the command itself."""
        if not self.rules.single_child or info.si_code != _SI_KERNEL:
            return False
        same_group = posix.getpgid(self.pid) == posix.getpgrp()
        return core.has_it_already(self.rules, info.si_signo, by_kernel=True, same_group=same_group)

    def note_request(self, cause: str, pid: int, uid: int | None) -> None:
        """Keep the first request to stop, for the report and for what is left."""
        if self.asked is None:
            from bottle_init.linux.sys.clock import monotonic_ms

            self.asked, self.asked_at_ms = (cause, pid, uid), monotonic_ms()
            if self.report and pid:
                self._note_asker(pid)

    def _note_asker(self, pid: int) -> None:
        """Keep a name while it is there: at the end another process may have the pid."""
        from bottle_init.linux.sys import proc

        process = proc.look(pid)
        self.asker = process.name if process is not None else ""

    # Once it has ended.

    def _end_leftovers(self) -> None:
        """TERM, and in the end SIGKILL, for what the command has left behind; ends when all of it is reaped."""
        from bottle_init.linux.reaper import Tree
        from bottle_init.linux.sys.clock import monotonic_ms

        self._reap()
        if self.childless:
            return
        tree = Tree({})
        was_asked = self.asked is not None
        left = core.begin(self.rules, monotonic_ms(), was_asked=was_asked, lease_ended_ms=self.lease_ended_ms)
        while not self.childless:
            now_ms = monotonic_ms()
            if not self.may_be_more:
                stage = core.stage(left, now_ms)
                found = self._press(tree, stage)
                if stage == core.GIVE_UP or (found and all(one.barred for one in found)):
                    self._give_up_on(found)
                    return
            pause_ms = 0 if self.may_be_more else core.next_stage_ms(left, now_ms) - now_ms
            info = self.wait(pause_ms / 1_000)
            if info is not None and info.si_signo in STOP_SIGNALS:
                left = core.stop_again(left, monotonic_ms())
            self._reap()

    def _give_up_on(self, found: tuple[Survivor, ...]) -> None:
        """What is left stays: the kernel does not let the init kill it, or SIGKILL does not end it."""
        for why in dict.fromkeys(one.barred for one in found):
            names = ", ".join(f"{one.name} ({one.pid})" for one in found if one.barred == why)
            complain_if_room(f"may not be signalled: {names}: {why}" if why else f"no SIGKILL ended: {names}")

    def _press(self, tree: Tree, stage: str) -> tuple[Survivor, ...]:
        """Signal whatever is left as this stage says, what has been forked since the last one included; returns it."""
        if stage == core.KILL_SESSION and not self.rules.single_child:
            tree.session(self.pid, SIGKILL)
        found = tree.everything(SIGTERM if stage in (core.ASK, core.KILL_SESSION) else SIGKILL)
        if not found and stage == core.GIVE_UP:
            found = tree.unreaped()
        self.survivors.update({(one.pid, one.born): one for one in found})
        return found

    def _close(self) -> int:
        """The exit code, and the report where one was asked for."""
        if self.code is None:
            raise RuntimeError("the command has not ended")
        code = core.exit_code(self.rules, self.code)
        line = b""
        if self.report:
            from bottle_init.linux.sys.clock import monotonic_ms

            line = self._write_report(self._exit(code, monotonic_ms()))
        if self.remote is not None:
            self.remote.close(line)
        return code

    # For those who look at it as at a bundle: the report, the control socket, the way out after an error.

    def as_bundle(self) -> Bundle:
        """The command as the one job of a bundle."""
        from bottle_init.core.spec import Bundle, Spec
        from bottle_init.core.words import JOB

        name = self.words[0].rpartition("/")[2] or self.words[0]
        return Bundle((Spec(name, JOB, self.words),), logs="inherit", control=self.control)

    def _write_report(self, end: Exit) -> bytes:
        """The report, as if of that bundle. It goes where it was asked for, and not into the command's own stderr."""
        from bottle_init.linux import report
        from bottle_init.linux.sys.clock import wall_s
        from bottle_init.words import jsonlines

        record = report.build(end, self.as_bundle(), lambda _child: (), 0, self.asker)
        line = report.encode(record, jsonlines.timestamp(wall_s()))
        for problem in report.write(record, line, self.report):
            complain_if_room(problem)
        return line

    def _exit(self, code: int, now_ms: int) -> Exit:
        from bottle_init.core.actions import Exit
        from bottle_init.core.state import Stop
        from bottle_init.core.telling import describe
        from bottle_init.core.words import NATURAL, REQUESTED

        death = self._death()
        if self.asked is None:
            stop = Stop(NATURAL, f"{death.name} {describe(death)}", self.ended_at_ms, now_ms, code, death.name)
        else:
            cause, pid, uid = self.asked
            stop = Stop(REQUESTED, cause, self.asked_at_ms, now_ms, code, "", pid, uid)
        return Exit(code, stop, (death,), tuple(self.survivors.values()), now_ms)

    def _death(self) -> Death:
        """The command's end as the verdict sees it; `forced` and `oom` can only be another's doing."""
        from bottle_init.core import verdict
        from bottle_init.core.state import Death
        from bottle_init.core.words import OOM_UNKNOWN

        spec = self.as_bundle().children[0]
        stopping = self.asked is not None
        severity = verdict.severity_of(spec, self.code or 0, self.signal, sent=self.sent, stopping=stopping)
        return Death(
            0,
            spec.name,
            self.pid,
            self.code or 0,
            self.signal,
            severity,
            self.ended_at_ms,
            self.ended_at_ms - self.started_at_ms,
            sent=bool(self.signal and self.sent >> self.signal & 1),
            forced=self.killed_ms is not None,
            oom=self.oom,
            stopping=stopping,
            detail=OOM_UNKNOWN if self.oom is None else "",
            stop_ms=self.ended_at_ms - self.asked_at_ms if stopping else None,
        )


def _import_late() -> None:
    """Import what is needed from now on, before the last descriptors are taken: to import takes one."""
    from bottle_init.linux import control, emergency, oom, reaper, remote, report  # noqa: F401
    from bottle_init.words import jsonlines

    jsonlines.quoting()


def release_terminal() -> None:
    """Let go of the controlling terminal, so that the command's session can have it (tty_ioctl(4), TIOCNOTTY).

    Only a session's leader has it to give. The kernel then sends HUP and CONT to the terminal's
    foreground group, the init among them: they are about the init's terminal, not the command's.
    """
    if posix.getsid(0) != posix.getpid():
        return
    from fcntl import ioctl
    from termios import TIOCNOTTY

    pending = sigpending()
    try:
        ioctl(_STDIN, TIOCNOTTY)
    except OSError:
        return  # Standard input is a terminal, but not the controlling one.
    for number in (SIGHUP, CONT):
        if number not in pending:
            sigtimedwait((number,), 0)


def acquire_terminal() -> None:
    """Make standard input the controlling terminal of this new session, if it is nobody else's."""
    from fcntl import ioctl
    from termios import TIOCSCTTY

    try:
        ioctl(_STDIN, TIOCSCTTY, 0)
    except OSError:
        pass  # It is another session's, a shell's for one: reading and writing work all the same.


def let_go(keep: Sequence[int] | None) -> None:
    """Hold nothing that is the command's alone: neither its directory nor what it was handed above 2, but for `keep`.

    None keeps all: `--report /dev/fd/3` is one of them.

    Descriptors that were inherited are passed on, as tini does: an exec without close-on-exec says
    that they are meant for whoever comes after (a socket of systemd's, make's job server, a shell's
    `<(...)`). Held on to here, a pipe among them would never end.
    """
    posix.chdir("/")
    try:
        while (fd := posix.open("/", posix.O_PATH | posix.O_CLOEXEC)) <= _STDERR:
            pass  # Nothing that the init opens later may become its own stderr.
        posix.close(fd)
    except OSError:
        pass  # No descriptor is free, and so none of these three.
    if keep is None:
        return
    try:
        names = posix.listdir("/proc/self/fd")
    except OSError:
        return
    for name in names:
        if int(name) > _STDERR and int(name) not in keep:
            try:
                posix.close(int(name))
            except OSError:
                continue  # The listing's own.
