"""What happened: the core's only input, in the past tense.

Whoever runs the core (Linux, the simulated kernel) hands over these and nothing else. An event
about a child carries the `generation` of the process that it is about, because a probe, a timer
or a recycled pid may speak of one that is long gone; the core drops what is stale.
"""

from __future__ import annotations

from bottle_init.core.state import Survivor
from bottle_init.core.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from bottle_init.core.actions import ForwardSignal, SendSignal


class Event(Value):
    """Base of all events."""


# Requests: they count as having come before every death of the same wake-up (contract 2).


class SignalReceived(Event):
    """A signal reached the init; `sender_pid` is 0 where the kernel does not tell."""

    signal: int
    sender_pid: int = 0
    sender_uid: int | None = None


class StopOrdered(Event):
    """The control socket said stop, without naming a child. `request` is answered by `Answer`."""

    request: int = 0
    sender_pid: int = 0
    sender_uid: int | None = None


class LeaseTaken(Event):
    """The peer that the lease hangs on is there."""


class LeaseEnded(Event):
    """The peer that the lease hangs on is gone, or was never there; `reason` says how that was seen."""

    reason: str


class LeaseRenewed(Event):
    """`ctl renew` was said in time."""

    request: int = 0


class ChildStopOrdered(Event):
    """`ctl stop NAME`. `barred` is why the kernel does not let the init signal the child's process, "" if it does."""

    child: int
    request: int = 0
    barred: str = ""


class ChildStartOrdered(Event):
    """`ctl start NAME`."""

    child: int
    request: int = 0


class ChildRestartOrdered(Event):
    """`ctl restart NAME`; `barred` as for a stop."""

    child: int
    request: int = 0
    barred: str = ""


class ChildSignalOrdered(Event):
    """`ctl signal NAME SIGNAL`; it does not count as the init's own (contract 2)."""

    child: int
    signal: int
    request: int = 0


# Observations.


class ChildForked(Event):
    """The fork that `Spawn` asked for succeeded. It arrives before anything else is looked at.

    `barred` is why the init will not be able to signal the child once that runs as its user, "" if it will.
    """

    child: int
    generation: int
    pid: int
    barred: str = ""


class ForkFailed(Event):
    """The fork that `Spawn` asked for failed: a failed start, without a death (contract 8)."""

    child: int
    generation: int
    reason: str


class ChildExecuted(Event):
    """The child's own program runs from now on."""

    child: int
    generation: int


class ExecFailed(Event):
    """The child could not become its program; its death with 126 or 127 follows."""

    child: int
    generation: int
    reason: str


class ProbeSucceeded(Event):
    """The probe that `StartProbe` started has its answer, and it is yes."""

    child: int
    generation: int
    probe: int


class ProbeFailed(Event):
    """The probe that `StartProbe` started has its answer, and it is no, for `reason`."""

    child: int
    generation: int
    probe: int
    reason: str


class Notified(Event):
    """A datagram of the child's on `NOTIFY_SOCKET` (sd_notify(3)); None for what it did not say."""

    child: int
    generation: int
    ready: bool = False
    stopping: bool = False
    reloading: bool = False
    watchdog: bool = False
    watchdog_trigger: bool = False
    watchdog_ms: int | None = None
    status: str | None = None


class SessionSurveyed(Event):
    """What was still there of a dead child's session when it was looked for."""

    child: int
    generation: int
    survivors: tuple[Survivor, ...] = ()


class TreeSurveyed(Event):
    """What was still there of the init's descendants when they were looked for."""

    survivors: tuple[Survivor, ...] = ()


class SignalForwarded(Event):
    """A `ForwardSignal` was carried out: the signal was sent to these children of its targets, by their indexes.

    `refused` are those that the kernel let have no signal, each with the reason.
    """

    order: ForwardSignal
    sent: tuple[int, ...]
    refused: tuple[tuple[int, str], ...] = ()


class SignalRefused(Event):
    """The kernel did not let a `SendSignal` through, for `reason`."""

    child: int
    generation: int
    signal: int
    reason: str


class OrderedSignalSent(Event):
    """A `SendSignal` that an operator had ordered was carried out, or not, for `reason`; `refused`: by the kernel."""

    order: SendSignal
    reason: str = ""
    refused: bool = False


class SessionKilled(Event):
    """A `KillSession` was carried out, or the kernel did not let the init kill the child itself, for `reason`."""

    child: int
    generation: int
    reason: str = ""


class CapabilitiesDropped(Event):
    """A `DropCapabilities` was carried out, or could not be, for `reason`: the init may still have one of them."""

    reason: str = ""


class TimeNoted(Event):
    """A `NoteTime` was reached: all that was decided before it has been done by now."""


class OrphansReaped(Event):
    """Processes that the init did not start have been reaped in this wake-up."""

    count: int


class SurvivorEnded(Event):
    """One that a survey had found has ended, and is another process's to reap."""

    pid: int


# Deaths.


class ChildExited(Event):
    """A child was reaped: exited with `code`, or killed by `signal` where that is not 0. `oom` is None if unknown."""

    child: int
    generation: int
    code: int
    signal: int = 0
    oom: bool | None = False


# Timers: the core makes these itself, for what its own deadlines say at `now_ms`.


class Timer(Event):
    """Base of the timers; each is one child's, and belongs to one generation of it."""

    child: int


class ReadyDeadlinePassed(Timer):
    """`ready.timeout` has passed, and the daemon is not ready."""

    child: int


class ProbeDue(Timer):
    """The next probe is to be made."""

    child: int


class ProbeTimedOut(Timer):
    """The probe that is out has not answered within its `timeout`."""

    child: int


class WatchdogPassed(Timer):
    """No WATCHDOG=1 within the time that the daemon itself had set."""

    child: int


class RunTimeoutPassed(Timer):
    """The oneshot's or job's `timeout` has passed."""

    child: int


class StopDelayPassed(Timer):
    """`stop_delay` has passed."""

    child: int


class StopTimeoutPassed(Timer):
    """`stop_timeout` has passed since the stop signal, and something is still there."""

    child: int


class GiveUpPassed(Timer):
    """A second has passed since the SIGKILL, and something is still there."""

    child: int


class BackoffPassed(Timer):
    """The pause before a restart is over."""

    child: int


# Turns: the core makes these itself, when the order of the bundle has come to a child.


class StartDue(Event):
    """All that the child is after is ready."""

    child: int


class StopDue(Event):
    """All that runs after the child and was to be stopped is gone."""

    child: int


class KillOrdered(Event):
    """The bundle's deadline has passed, or a second stop signal came: everything goes at once."""

    child: int


class DeathJudged(Event):
    """The sweep has been judged as one; the child's own part of that is in its record."""

    child: int


REQUESTS: Final[tuple[type[Event], ...]] = (
    SignalReceived,
    StopOrdered,
    LeaseTaken,
    LeaseEnded,
    LeaseRenewed,
    ChildStopOrdered,
    ChildStartOrdered,
    ChildRestartOrdered,
    ChildSignalOrdered,
)

CHILD_EVENTS: Final[tuple[type[Event], ...]] = (
    StartDue,
    StopDue,
    KillOrdered,
    ChildStopOrdered,
    ChildStartOrdered,
    ChildRestartOrdered,
    ChildSignalOrdered,
    ChildForked,
    ForkFailed,
    ChildExecuted,
    ExecFailed,
    ProbeSucceeded,
    ProbeFailed,
    Notified,
    SignalRefused,
    SessionKilled,
    ChildExited,
    DeathJudged,
    SessionSurveyed,
    ReadyDeadlinePassed,
    ProbeDue,
    ProbeTimedOut,
    WatchdogPassed,
    RunTimeoutPassed,
    StopDelayPassed,
    StopTimeoutPassed,
    GiveUpPassed,
    BackoffPassed,
)
