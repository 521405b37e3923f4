"""Taking children down: the order and the signals (contract 4).

A child is taken down in two moves. `halt` records that the decision has been taken and why; its
stop signal is sent when its turn comes, which is when all halted children that run after it are
gone. What is left of its session then goes too (`dying.py`), and only then is it down.
"""

from __future__ import annotations

from bottle_init.core import signals
from bottle_init.core.actions import KillSession, NoteStop, SendSignal
from bottle_init.core.events import (
    GiveUpPassed,
    ProbeDue,
    ProbeTimedOut,
    ReadyDeadlinePassed,
    RunTimeoutPassed,
    StopDelayPassed,
    StopTimeoutPassed,
    WatchdogPassed,
)
from bottle_init.core.state import Stop
from bottle_init.core.words import (
    ALIVE,
    DOWN,
    DRAINING,
    GIVE_UP_MS,
    GOING_DOWN,
    HALT_BUNDLE,
    HALT_TIMEOUT,
    KILLING,
    NO_HALT,
    RUNNING,
    STARTING,
    STOPPED,
    STOPPING,
    UP,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from bottle_init.core.events import Event, SessionKilled
    from bottle_init.core.state import Child
    from bottle_init.core.turn import Turn

NOT_SIGNALLED: Final = "may not be signalled"


def begin_stop(
    turn: Turn,
    kind: str,
    cause: str,
    code: int | None = None,
    culprit: str = "",
    sender_pid: int = 0,
    sender_uid: int | None = None,
) -> None:
    """Begin the stop of the whole bundle, unless one is under way: the first cause wins (contract 2).

    `culprit` is the name of the child that the cause is about, if it is about one.
    """
    state = turn.state
    if state.phase != UP:
        return
    state.phase = GOING_DOWN
    deadline_ms = turn.now_ms + state.bundle.stop_timeout_ms
    state.stop = Stop(kind, cause, turn.now_ms, deadline_ms, code, culprit, sender_pid, sender_uid)
    turn.act(NoteStop(sender_pid))
    turn.log("stopping", kind=kind, cause=cause, sender_pid=sender_pid or None, sender_uid=sender_uid)
    for index, child in enumerate(turn.children):
        if child.status in ALIVE:
            halt(turn, turn.edit(index), HALT_BUNDLE)


def halt(turn: Turn, child: Child, reason: str) -> None:
    """Record the decision to take a living child down; its turn comes with the bundle's order."""
    if child.halt == NO_HALT:
        child.halt_at_ms = turn.now_ms
    if child.halt != HALT_TIMEOUT:
        child.halt = reason
    turn.drop_probe(child)
    turn.drop_timers(child, ReadyDeadlinePassed, RunTimeoutPassed, WatchdogPassed, ProbeDue, ProbeTimedOut)


def is_down(child: Child) -> bool:
    """Whether neither the child nor anything of its session is in the way of those it runs after."""
    return child.status in DOWN


def may_stop(turn: Turn, index: int) -> bool:
    """Whether every child that runs after this one and is to be taken down is down (contract 4)."""
    dependents = [turn.children[other] for other in turn.state.dependents[index]]
    if turn.state.phase == UP:
        return all(is_down(dependent) for dependent in dependents if dependent.halt)
    return all(is_down(dependent) and is_cleared(dependent) for dependent in dependents)


def awaits_stop_signal(child: Child) -> bool:
    """Whether a child's stop signal is still to be sent, and its `stop_delay` does not hold it back."""
    if child.status == DRAINING:
        return StopDelayPassed not in child.timers
    return child.status in (STARTING, RUNNING)


def is_cleared(child: Child) -> bool:
    """Whether the session of the child's last process has been looked after, if it ever had one."""
    return child.session_cleared or child.generation == 0


def send_stop(turn: Turn, child: Child) -> None:
    """The stop signal to the child alone; then CONT, so that a stopped one can act on it."""
    turn.move(child, STOPPING)
    child.signalled_at_ms = turn.now_ms
    child.sent |= 1 << child.spec.stop_signal
    turn.act(SendSignal(child.index, child.generation, child.spec.stop_signal))
    turn.act(SendSignal(child.index, child.generation, signals.CONT))
    turn.set_timer(child, StopTimeoutPassed, child.spec.stop_timeout_ms)


# Rows of the table.


def stop_when_drained(turn: Turn, child: Child, event: Event) -> None:
    """The child's turn has come: its stop signal, at the earliest `stop_delay` after the decision."""
    delay_ms = child.halt_at_ms + child.spec.stop_delay_ms - turn.now_ms
    if delay_ms > 0:
        turn.move(child, DRAINING)
        turn.set_timer(child, StopDelayPassed, delay_ms)
    else:
        send_stop(turn, child)


def kill(turn: Turn, child: Child, event: Event) -> None:
    """`stop_timeout` is over, or the stop signal was refused: SIGKILL for the child and its session."""
    turn.move(child, KILLING)
    mark_killed(child)
    turn.act(KillSession(child.index, child.generation))
    turn.set_timer(child, GiveUpPassed, GIVE_UP_MS)


def session_killed(turn: Turn, child: Child, event: SessionKilled) -> None:
    """SIGKILL has been sent, or refused: then nothing else is left to try, and waiting would bring nothing."""
    if event.reason:
        log_refused(turn, child, signals.KILL, event.reason)
        child.barred = event.reason
        turn.set_timer(child, GiveUpPassed, 0)
    else:
        after_ms = turn.now_ms - (turn.now_ms if child.signalled_at_ms is None else child.signalled_at_ms)
        turn.log("child_killed", child, "warning", after_ms=after_ms)


def log_refused(turn: Turn, child: Child, signal: int, reason: str) -> None:
    """A signal that the kernel refuses was never sent, and the log says why."""
    turn.log("signal_refused", child, "error", pid=child.pid, signal=signal, reason=reason)


def mark_killed(child: Child) -> None:
    """Remember that the init has sent SIGKILL to this process."""
    child.sent |= 1 << signals.KILL
    child.forced = True


def kill_with_all(turn: Turn, child: Child, event: Event) -> None:
    """Everything goes at once: `SurveyTree` sends the SIGKILL, the tree's own deadline watches over it."""
    turn.drop_probe(child)
    child.timers.clear()
    child.halt = child.halt or HALT_BUNDLE
    mark_killed(child)
    turn.move(child, KILLING)


def stand_down(turn: Turn, child: Child, event: Event) -> None:
    """A child without a process is not to be started any more."""
    child.timers.clear()
    turn.move(child, STOPPED)
