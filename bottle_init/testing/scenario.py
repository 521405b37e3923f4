"""What a simulated life consists of: how each process behaves, and what happens around the bundle.

All of it are plain frozen values with well-behaved defaults: `Life()` is a daemon that is ready at
once, runs until it is told to stop and then dies of that signal. A counter-example is a `Scenario`,
and shrinking one means putting defaults back in.
"""

from __future__ import annotations

from dataclasses import dataclass

from bottle_init.core.events import Event
from bottle_init.core.spec import Bundle

KILL = 9
TERM = 15


@dataclass(frozen=True, slots=True)
class End:
    """How a process ends: it exits with `code`, or is killed by `signal` where that is not 0."""

    code: int = 0
    signal: int = 0
    oom: bool = False

    def __str__(self) -> str:
        if self.oom:
            return f"killed by signal {self.signal}, out of memory"
        return f"killed by signal {self.signal}" if self.signal else f"exit {self.code}"


@dataclass(frozen=True, slots=True)
class Say:
    """One datagram to `NOTIFY_SOCKET`, `at_ms` after the daemon was executed (sd_notify(3))."""

    at_ms: int
    ready: bool = False
    stopping: bool = False
    reloading: bool = False
    watchdog: bool = False
    watchdog_trigger: bool = False
    watchdog_ms: int | None = None
    status: str | None = None


@dataclass(frozen=True, slots=True)
class Write:
    """`lines` lines to stdout, `at_ms` after the exec, of `line_bytes` (40 to 65,536) each.

    While its pipe is full the process waits, and whatever else it would have done waits with it (pipe(7));
    signals act on it all the same.
    """

    at_ms: int
    lines: int = 1
    line_bytes: int = 100


@dataclass(frozen=True, slots=True)
class Remnant:
    """A process that a child starts besides itself, and that may outlive it.

    `born_ms` counts from the child's exec. `escapes`: it calls setsid(2), so that only a survey of
    the whole tree finds it. `adopted`: it was double-forked, so that it is the init's from birth.
    `kept`: its parent is a process that has fled to another session, and reaps it itself.
    `run_ms` is its natural life, `stop_ms` how long it takes to die of TERM, `kill_ms` of KILL; None
    is for ever. Before it ends of its own accord or of TERM it forks another like itself, `heirs` times in a row.
    `refuses`: the kernel lets the init send it no signal. `probes`: it is an exec probe, which the init has started.
    """

    born_ms: int = 0
    escapes: bool = False
    adopted: bool = False
    kept: bool = False
    heirs: int = 0
    run_ms: int | None = None
    stop_ms: int | None = 0
    kill_ms: int | None = 0
    refuses: bool = False
    probes: bool = False


@dataclass(frozen=True, slots=True)
class Life:
    """One process of a child's, from fork to death. Times are milliseconds since its exec, unless said otherwise.

    `fork_error`, `exec_error` (126 or 127): it never comes to be. `needs_user`: it runs as a user that is there only
    once a process that `makes_user` has ended with success. `run_ms`, `end`: when and how it
    ends of its own accord. `catches` is what it has handlers for from `handlers_ms` on; until then every signal
    has its default effect. Of those that it catches it ends on its stop signal and on `heeds`,
    after `stop_ms` (None: never), with `stop_end`. `dies_ms` is how long a signal takes that kills it
    by default, `kill_ms` how long SIGKILL takes (None: it is in uninterruptible sleep for ever).
    `stopped_ms`: when somebody sends it SIGSTOP. `refuses` is what the kernel does not let the init send it from
    `refuses_ms` on, as after a change of user: `all`, `stop` for all but SIGKILL, or `kill` for SIGKILL alone.

    `ready_ms`: when its port begins to answer. A probe takes `probe_ms`, and an exec probe that is killed is gone
    after `kill_ms` as well; within a span of `sick` its answer is no, within one of `hangs` there is none.
    `writes` are its lines.
    """

    fork_error: str = ""
    exec_ms: int = 0
    exec_error: int = 0
    needs_user: bool = False
    makes_user: bool = False
    run_ms: int | None = None
    end: End = End()
    handlers_ms: int = 0
    catches: tuple[int, ...] = ()
    heeds: tuple[int, ...] = ()
    stop_ms: int | None = 0
    stop_end: End = End()
    dies_ms: int = 0
    kill_ms: int | None = 0
    stopped_ms: int | None = None
    refuses: str = ""
    refuses_ms: int = 0
    ready_ms: int | None = 0
    probe_ms: int = 0
    sick: tuple[tuple[int, int], ...] = ()
    hangs: tuple[tuple[int, int], ...] = ()
    says: tuple[Say, ...] = ()
    writes: tuple[Write, ...] = ()
    leaves: tuple[Remnant, ...] = ()
    reaps: bool = True


@dataclass(frozen=True, slots=True)
class Request:
    """Something that reaches the init from outside, `at_ms` after its start: a signal, an order, the lease."""

    at_ms: int
    event: Event


@dataclass(frozen=True, slots=True)
class Freeze:
    """A span in which the init is not scheduled; all that happens in it is one wake-up.

    `whole`: nor is anything else in its container, as under `docker pause`.
    """

    at_ms: int
    for_ms: int
    whole: bool = False


@dataclass(frozen=True, slots=True)
class Stall:
    """A span in which the reader of the init's stdout takes nothing, or only `sip_bytes` twice a second."""

    at_ms: int
    for_ms: int
    sip_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Storm:
    """`count` strangers that the init has inherited end at once."""

    at_ms: int
    count: int


@dataclass(frozen=True, slots=True)
class Scenario:
    """One whole run. `lives[i]` are the processes of child i, one after another; the last one repeats.

    At `stop_at_ms` somebody sends the bundle's first stop signal to whatever still runs, so every scenario ends.
    `late_answers`: a probe that was cancelled may answer nevertheless, as on a real machine where
    the answer was in flight. `jumbled`: what happens in one wake-up is seen in the reverse order,
    as where it comes through several descriptors. `one_pipe`: stdout and stderr of the init are one
    pipe, so that its own lines wait for the same reader as the children's. `recycled`: a new process
    gets the pid that was freed last. `lease_ms`: when the peer of a lease takes the init's connection (None: never), or
    refuses it, for `lease_error`. `descriptors`: how many the init may have open for its children (None: enough); each
    takes two for its output, and one more until its program is executed. `drop_error`: why the kernel takes no
    capability away from the init, "" where it does.
    """

    bundle: Bundle
    lives: tuple[tuple[Life, ...], ...]
    requests: tuple[Request, ...] = ()
    freezes: tuple[Freeze, ...] = ()
    storms: tuple[Storm, ...] = ()
    stalls: tuple[Stall, ...] = ()
    stop_at_ms: int = 60_000
    late_answers: bool = False
    jumbled: bool = False
    recycled: bool = False
    one_pipe: bool = False
    drop_error: str = ""
    descriptors: int | None = None
    lease_ms: int | None = 0
    lease_error: str = ""

    def life(self, child: int, generation: int) -> Life:
        """The behaviour of the `generation`th process of a child."""
        lives = self.lives[child]
        return lives[min(generation, len(lives)) - 1] if lives else Life()

    @property
    def has_logs(self) -> bool:
        """Whether there are any lines to be simulated."""
        return bool(self.stalls) or any(life.writes for lives in self.lives for life in lives)

    def thaw(self, at_ms: int) -> int:
        """When the init sees what happens at `at_ms`."""
        for freeze in sorted(self.freezes, key=_start_ms):
            if freeze.at_ms <= at_ms < freeze.at_ms + freeze.for_ms:
                at_ms = freeze.at_ms + freeze.for_ms
        return at_ms


def _start_ms(freeze: Freeze) -> int:
    return freeze.at_ms
