"""The one table: status of a child x event -> what is done, and where that may lead.

Rules of the table:

1. Every cell is declared: a `Row`, `ignore` (the event has no meaning there, for a reason that is
   given) or `impossible` (whoever runs the core would have to break its protocol; the init then
   ends with 70 rather than guess).
2. A row names the function that carries the rule, and every status that it may lead to. `step`
   checks each move against that, in production too.
3. Nothing else moves a child. `docs/state-machine.md` is drawn from this table, and CI compares.
"""

from __future__ import annotations

from bottle_init.core import control, dying, health, refusing, starting, stopping
from bottle_init.core.events import (
    BackoffPassed,
    ChildExecuted,
    ChildExited,
    ChildForked,
    ChildRestartOrdered,
    ChildSignalOrdered,
    ChildStartOrdered,
    ChildStopOrdered,
    DeathJudged,
    ExecFailed,
    ForkFailed,
    GiveUpPassed,
    KillOrdered,
    Notified,
    ProbeDue,
    ProbeFailed,
    ProbeSucceeded,
    ProbeTimedOut,
    ReadyDeadlinePassed,
    RunTimeoutPassed,
    SessionKilled,
    SessionSurveyed,
    SignalRefused,
    StartDue,
    StopDelayPassed,
    StopDue,
    StopTimeoutPassed,
    WatchdogPassed,
)
from bottle_init.core.values import Value
from bottle_init.core.words import (
    BACKOFF,
    CLEARING,
    DEAD,
    DRAINING,
    ENDED,
    KILLING,
    RUNNING,
    SPAWNING,
    STARTING,
    STOPPED,
    STOPPING,
    WAITING,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, Final

    from bottle_init.core.events import Event
    from bottle_init.core.state import Child
    from bottle_init.core.turn import Turn

    Rule = Callable[[Turn, Child, Any], None]


class Row(Value):
    """A transition: the rule, and the statuses that it may lead to. A rule may always leave the status as it is."""

    rule: Rule
    to: tuple[str, ...] = ()


class Ignore(Value):
    """The event has no meaning in this status."""

    why: str


class Impossible(Value):
    """The event cannot come in this status."""

    why: str


if TYPE_CHECKING:
    Cell = Row | Ignore | Impossible


def ignore(why: str, *events: type[Event]) -> dict[type[Event], Cell]:
    """Cells that are ignored for one reason."""
    return dict.fromkeys(events, Ignore(why))


def impossible(why: str, *events: type[Event]) -> dict[type[Event], Cell]:
    """Cells that cannot be reached for one reason."""
    return dict.fromkeys(events, Impossible(why))


_TURNS = (StartDue, StopDue)
_TIMERS = (
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
_PROBES = (ProbeSucceeded, ProbeFailed)
_FORK = (ChildForked, ForkFailed)
_LIFE = (*_FORK, ChildExecuted, ExecFailed, ChildExited)
_REFUSALS = (SignalRefused, SessionKilled)

_NO_TIMER = "no such timer is set here"
_NO_PROCESS = "there is no process"
_NO_PROBE = "its probe was dropped"
_ONE_FORK = "the fork has been answered"
_NOT_DEAD = "it has not died"
_NO_SURVEY = "nobody has looked for its session"


def _without_process(*timers: type[Event]) -> dict[type[Event], Cell]:
    """What holds for every status in which a child has no process and nothing to end."""
    others = [timer for timer in _TIMERS if timer not in timers]
    return {
        **impossible(_NO_TIMER, *others),
        **impossible(_NO_PROCESS, *_LIFE),
        **impossible(_NOT_DEAD, DeathJudged),
        **ignore(_NO_PROCESS, Notified, *_REFUSALS, *_PROBES),
        **ignore(_NO_SURVEY, SessionSurveyed),
        ChildSignalOrdered: Row(control.cannot_signal),
    }


def _with_process(*timers: type[Event]) -> dict[type[Event], Cell]:
    """What holds for every status in which a child has a process."""
    others = [timer for timer in _TIMERS if timer not in timers]
    return {
        **impossible(_NO_TIMER, *others),
        **impossible(_ONE_FORK, *_FORK),
        **impossible("it has a process", StartDue),
        **impossible(_NOT_DEAD, DeathJudged),
        **ignore(_NO_SURVEY, SessionSurveyed),
        ExecFailed: Row(starting.exec_failed),
        ChildExited: Row(dying.die, (DEAD,)),
        SignalRefused: Row(refusing.refused_too),
        **ignore("it is not being killed", SessionKilled),
        ChildSignalOrdered: Row(control.signal),
        KillOrdered: Row(stopping.kill_with_all, (KILLING,)),
    }


def _going_down(*timers: type[Event]) -> dict[type[Event], Cell]:
    """What holds once the stop of a child has begun: only its end matters."""
    return {
        **_with_process(*timers),
        **ignore(_NO_PROBE, *_PROBES),
        Notified: Row(starting.note_said),
        ChildExecuted: Row(starting.note_executed),
        ChildStopOrdered: Row(control.stop),
        ChildStartOrdered: Row(control.is_started),
        ChildRestartOrdered: Row(control.restart),
    }


TABLE: Final[Mapping[str, Mapping[type[Event], Cell]]] = {
    WAITING: {
        **_without_process(),
        StartDue: Row(starting.spawn, (SPAWNING,)),
        StopDue: Row(stopping.stand_down, (STOPPED,)),
        KillOrdered: Row(stopping.stand_down, (STOPPED,)),
        ChildStopOrdered: Row(control.hold_unstarted, (STOPPED,)),
        ChildStartOrdered: Row(control.is_started),
        ChildRestartOrdered: Row(control.is_started),
    },
    SPAWNING: {
        **impossible("the answer to the fork comes first", *_TURNS, KillOrdered, *_TIMERS, *_PROBES, Notified),
        **impossible("the answer to the fork comes first", ChildExecuted, ExecFailed, ChildExited),
        **impossible("the answer to the fork comes first", ChildStopOrdered, ChildStartOrdered, ChildRestartOrdered),
        **impossible("the answer to the fork comes first", ChildSignalOrdered, SessionSurveyed, *_REFUSALS),
        **impossible(_NOT_DEAD, DeathJudged),
        ChildForked: Row(starting.forked, (STARTING,)),
        ForkFailed: Row(starting.fork_failed, (BACKOFF, STOPPED)),
    },
    STARTING: {
        **_with_process(ReadyDeadlinePassed, ProbeDue, ProbeTimedOut, RunTimeoutPassed),
        StopDue: Row(stopping.stop_when_drained, (DRAINING, STOPPING)),
        ChildExecuted: Row(starting.executed, (RUNNING,)),
        ProbeDue: Row(starting.probe_readiness, (RUNNING,)),
        ProbeSucceeded: Row(starting.answered_ready, (RUNNING,)),
        ProbeFailed: Row(starting.not_ready_yet),
        ProbeTimedOut: Row(starting.not_ready_yet),
        Notified: Row(starting.notified, (RUNNING,)),
        ReadyDeadlinePassed: Row(starting.miss_readiness),
        RunTimeoutPassed: Row(starting.run_too_long),
        ChildStopOrdered: Row(control.stop),
        ChildStartOrdered: Row(control.is_started),
        ChildRestartOrdered: Row(control.restart),
    },
    RUNNING: {
        **_with_process(ProbeDue, ProbeTimedOut, WatchdogPassed, RunTimeoutPassed),
        **impossible("its program runs", ExecFailed),
        StopDue: Row(stopping.stop_when_drained, (DRAINING, STOPPING)),
        ChildExecuted: Row(starting.note_executed),
        ProbeDue: Row(health.check),
        ProbeSucceeded: Row(health.pass_check),
        ProbeFailed: Row(health.fail_check),
        ProbeTimedOut: Row(health.fail_check),
        WatchdogPassed: Row(health.miss_watchdog),
        Notified: Row(health.notified),
        RunTimeoutPassed: Row(starting.run_too_long),
        ChildStopOrdered: Row(control.stop),
        ChildStartOrdered: Row(control.is_started),
        ChildRestartOrdered: Row(control.restart),
    },
    DRAINING: {
        **_going_down(StopDelayPassed),
        **ignore("its turn is looked at after every timer", StopDelayPassed),
        **ignore("it has had no signal yet", SignalRefused),
        StopDue: Row(stopping.stop_when_drained, (STOPPING,)),
    },
    STOPPING: {
        **_going_down(StopTimeoutPassed),
        **impossible("its turn has come before", StopDue),
        StopTimeoutPassed: Row(stopping.kill, (KILLING,)),
        SignalRefused: Row(refusing.refused, (STARTING, RUNNING, KILLING)),
    },
    KILLING: {
        **_going_down(GiveUpPassed),
        **impossible("its turn has come before", StopDue),
        GiveUpPassed: Row(dying.give_up, (DEAD,)),
        KillOrdered: Row(stopping.kill_with_all),
        SessionKilled: Row(stopping.session_killed),
    },
    DEAD: {
        **impossible("a death is judged in the step that it comes in", *_TURNS, KillOrdered, *_TIMERS, *_PROBES),
        **impossible("a death is judged in the step that it comes in", *_LIFE, Notified),
        **impossible("a death is judged in the step that it comes in", ChildStopOrdered, ChildStartOrdered),
        **impossible("a death is judged in the step that it comes in", ChildRestartOrdered, ChildSignalOrdered),
        **impossible("a death is judged in the step that it comes in", *_REFUSALS),
        **ignore(_NO_SURVEY, SessionSurveyed),
        DeathJudged: Row(dying.clear_or_end, (CLEARING, STOPPED, ENDED)),
    },
    CLEARING: {
        **_without_process(StopTimeoutPassed, GiveUpPassed),
        **ignore("what it left behind is being ended", *_TURNS),
        KillOrdered: Row(dying.leave_to_all, (ENDED,)),
        SessionSurveyed: Row(dying.surveyed, (WAITING, BACKOFF, STOPPED, ENDED)),
        StopTimeoutPassed: Row(dying.clear_by_force),
        GiveUpPassed: Row(dying.give_up_session, (WAITING, BACKOFF, STOPPED, ENDED)),
        ChildStopOrdered: Row(control.hold_cleared),
        ChildStartOrdered: Row(control.start_cleared),
        ChildRestartOrdered: Row(control.start_cleared),
    },
    BACKOFF: {
        **_without_process(BackoffPassed),
        **impossible("its pause comes first", StartDue),
        StopDue: Row(stopping.stand_down, (STOPPED,)),
        KillOrdered: Row(stopping.stand_down, (STOPPED,)),
        BackoffPassed: Row(starting.resume, (WAITING,)),
        ChildStopOrdered: Row(control.hold_unstarted, (STOPPED,)),
        ChildStartOrdered: Row(control.start, (WAITING,)),
        ChildRestartOrdered: Row(control.start, (WAITING,)),
    },
    STOPPED: {
        **_without_process(),
        **impossible("nobody has ordered that", StartDue),
        **ignore("it is stopped", StopDue, KillOrdered),
        ChildExited: Row(dying.reap_late, (CLEARING,)),
        ChildStopOrdered: Row(control.is_stopped),
        ChildStartOrdered: Row(control.start, (WAITING,)),
        ChildRestartOrdered: Row(control.start, (WAITING,)),
    },
    ENDED: {
        **_without_process(),
        **impossible("it has ended for good", StartDue),
        StopDue: Row(dying.clear, (CLEARING,)),
        KillOrdered: Row(dying.leave_to_all),
        ChildExited: Row(dying.reap_late),
        ChildStopOrdered: Row(control.is_stopped),
        ChildStartOrdered: Row(control.start, (CLEARING,)),
        ChildRestartOrdered: Row(control.start, (CLEARING,)),
    },
}
