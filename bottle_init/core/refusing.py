"""A stop signal that the kernel refuses: the child is killed, or goes on, or the bundle stops (contract 4)."""

from __future__ import annotations

from bottle_init.core import health, starting, stopping
from bottle_init.core.events import (
    ProbeDue,
    ReadyDeadlinePassed,
    RunTimeoutPassed,
    StopTimeoutPassed,
    WatchdogPassed,
)
from bottle_init.core.words import (
    EX_UNAVAILABLE,
    HALT_REQUEST,
    HALT_RESTART,
    NO_HALT,
    ONESHOT,
    POLICY,
    RUNNING,
    STARTING,
    UP,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bottle_init.core.events import SignalRefused
    from bottle_init.core.state import Child
    from bottle_init.core.turn import Turn


def refused(turn: Turn, child: Child, event: SignalRefused) -> None:
    """The kernel has refused the child's stop signal, or the CONT that follows it.

    In a stop of the bundle SIGKILL is tried at once. Outside one an operator's order is dropped, and the child goes on;
    whatever else the init wants to end it for cannot be had, so that is a policy stop, in which its turn will come.
    """
    stopping.log_refused(turn, child, event.signal, event.reason)
    if event.signal != child.spec.stop_signal:
        return
    child.sent &= ~(1 << event.signal)
    turn.drop_timers(child, StopTimeoutPassed)
    if turn.state.phase != UP:
        stopping.kill(turn, child, event)
        return
    by_operator = child.halt in (HALT_REQUEST, HALT_RESTART)
    take_back_stop(turn, child)
    if by_operator:
        carry_on(turn, child)
    else:
        name = child.spec.name
        stopping.begin_stop(turn, POLICY, f"{name} {stopping.NOT_SIGNALLED}: {event.reason}", EX_UNAVAILABLE, name)


def refused_too(turn: Turn, child: Child, event: SignalRefused) -> None:
    """The CONT after a stop signal that was refused: one event says enough."""


def take_back_stop(turn: Turn, child: Child) -> None:
    """The stop signal was never sent; the decision to stop the child stays."""
    child.signalled_at_ms = None
    is_up = child.fresh or (child.executed and child.spec.kind == ONESHOT)
    turn.move(child, RUNNING if is_up else STARTING)


def carry_on(turn: Turn, child: Child) -> None:
    """The child is not to be stopped after all: all that it is asked for or has time for begins anew.

    What it has said meanwhile counts now.
    """
    spec = child.spec
    child.halt = NO_HALT
    child.ready = child.ready or child.fresh
    if spec.timeout_ms is not None:
        turn.set_timer(child, RunTimeoutPassed, spec.timeout_ms)
    if child.fresh:
        if spec.health is not None:
            turn.set_timer(child, ProbeDue, spec.health.interval_ms)
        if child.watchdog_ms:
            turn.set_timer(child, WatchdogPassed, child.watchdog_ms)
        if child.said_ill is not None:
            health.take_word(turn, child, ill=child.said_ill)
    elif spec.ready is not None and spec.ready.probe.kind == "notify" and child.said_ready:
        starting.become_ready(turn, child)
    elif spec.ready is not None:
        turn.set_timer(child, ReadyDeadlinePassed, spec.ready.timeout_ms)
        if child.executed and spec.ready.probe.kind != "notify":
            after_ms = spec.ready.probe.after_ms if spec.ready.probe.kind == "after" else 0
            turn.set_timer(child, ProbeDue, after_ms)
    elif child.executed and spec.kind != ONESHOT:
        starting.become_ready(turn, child)
    child.said_ready, child.said_ill = False, None
