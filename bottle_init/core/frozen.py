"""Time that passed while the init could not act: nobody has missed anything in it (contract 4.3)."""

from __future__ import annotations

from bottle_init.core import starting
from bottle_init.core.events import ProbeTimedOut, ReadyDeadlinePassed, RunTimeoutPassed, WatchdogPassed
from bottle_init.core.state import LEASE_PATIENCE_MS
from bottle_init.core.words import UP

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from bottle_init.core.state import Child
    from bottle_init.core.turn import Turn

FROZEN_MS: Final = 1_000
"""An init that wakes later than this after the moment that it asked for was frozen, or had no CPU (contract 4.3)."""


def thaw(turn: Turn, late_ms: int) -> None:
    """The init wakes `late_ms` after the moment that it asked for: what others have to be in time for begins anew."""
    turn.log("was_frozen", level="warning", for_ms=late_ms)
    for index, child in enumerate(turn.children):
        if any(timer in child.timers for timer in _FULL_MS):
            _begin_anew(turn, turn.edit(index))
    state, lease = turn.state, turn.state.bundle.lease
    if state.phase != UP or lease is None:
        return
    if state.lease_at_ms is not None and lease.renew_ms is not None:
        state.lease_at_ms = turn.now_ms + lease.renew_ms
    if state.lease_due_ms is not None:
        state.lease_due_ms = turn.now_ms + LEASE_PATIENCE_MS


def _begin_anew(turn: Turn, child: Child) -> None:
    for timer, full_ms in _FULL_MS.items():
        if timer in child.timers:
            turn.set_timer(child, timer, full_ms(child))


def _ready_ms(child: Child) -> int:
    return child.spec.ready.timeout_ms if child.spec.ready is not None else 0


def _run_ms(child: Child) -> int:
    return child.spec.timeout_ms or 0


def _watchdog_ms(child: Child) -> int:
    return child.watchdog_ms


_FULL_MS: Final = {
    ReadyDeadlinePassed: _ready_ms,
    ProbeTimedOut: starting.probe_timeout_ms,
    WatchdogPassed: _watchdog_ms,
    RunTimeoutPassed: _run_ms,
}
"""What a child has to be in time for, and how long it has for that. Pauses and the times of a stop are not here."""
