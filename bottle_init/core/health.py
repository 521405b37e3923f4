"""A daemon that is ready: its checks, its watchdog, and what becomes of it where they fail (contract 6)."""

from __future__ import annotations

from bottle_init.core import judging, starting
from bottle_init.core.events import ProbeDue, ProbeTimedOut, WatchdogPassed
from bottle_init.core.stopping import begin_stop, halt
from bottle_init.core.words import (
    EX_UNAVAILABLE,
    HALT_HEALTH,
    POLICY,
    RESTART_UNHEALTHY,
    STOP_UNHEALTHY,
    UP,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bottle_init.core.events import Event, Notified
    from bottle_init.core.state import Child
    from bottle_init.core.turn import Turn

# Rows of the table, for a daemon that is ready.


def check(turn: Turn, child: Child, event: Event) -> None:
    """The interval is over: ask."""
    health = child.spec.health
    if health is not None and not child.halt:
        starting.start_probe(turn, child, health.probe)


def pass_check(turn: Turn, child: Child, event: Event) -> None:
    """One good answer forgets all bad ones before it."""
    child.probe = 0
    child.check_has_passed = True
    child.failures = 0
    _record(turn, child, True, "")
    _recover(turn, child)
    _check_again(turn, child)


def fail_check(turn: Turn, child: Child, event: Event) -> None:
    """Count the failure, but for those within `start_period` that no success has ended."""
    turn.drop_probe(child)
    reason = getattr(event, "reason", "no answer in time")
    _record(turn, child, False, reason)
    health = child.spec.health
    if health is None or child.halt:
        return
    _check_again(turn, child)
    if child.check_has_passed or turn.now_ms - child.started_at_ms >= health.start_period_ms:
        child.failures += 1
        if child.failures >= health.retries:
            become_unhealthy(turn, child, reason, child.failures)


def _record(turn: Turn, child: Child, passed: bool, detail: str) -> None:
    if child.check_ok is not passed:
        child.check_since_ms = turn.now_ms
    child.check_ok = passed
    child.check_at_ms = turn.now_ms
    child.check_detail = detail


def _check_again(turn: Turn, child: Child) -> None:
    turn.drop_timers(child, ProbeTimedOut)
    if child.spec.health is not None and not child.halt:
        turn.set_timer(child, ProbeDue, child.spec.health.interval_ms)


def become_unhealthy(turn: Turn, child: Child, reason: str, failures: int = 0) -> None:
    """So many checks in a row have failed, or the daemon says so itself: do what `on_unhealthy` says, once."""
    if child.unhealthy:
        return
    child.unhealthy = True
    spec = child.spec
    turn.log("child_unhealthy", child, "error", failures=failures or None, reason=reason, action=spec.on_unhealthy)
    if failures and spec.health is not None:
        checks = f"{failures} checks in a row have" if failures > 1 else "a check has"
        reason = f"{checks} failed, the last answer to its {spec.health.probe.kind} probe was: {reason}"
    if turn.state.phase != UP or child.halt:
        return
    if spec.on_unhealthy == RESTART_UNHEALTHY:
        child.halt_reason = f"was unhealthy: {reason}"
        halt(turn, child, HALT_HEALTH)
        judging.rest_for_one(turn, child)
    elif spec.on_unhealthy == STOP_UNHEALTHY:
        begin_stop(turn, POLICY, f"{spec.name} is unhealthy: {reason}", EX_UNAVAILABLE, spec.name)


def _recover(turn: Turn, child: Child) -> None:
    """The daemon is well again, once nothing of what made it unhealthy holds any more."""
    health = child.spec.health
    if child.unhealthy and not child.self_reported_unhealthy and (health is None or child.failures < health.retries):
        child.unhealthy = False
        turn.log("child_healthy", child)


def miss_watchdog(turn: Turn, child: Child, event: Event) -> None:
    """The daemon has not sent the WATCHDOG=1 that it had promised (sd_notify(3))."""
    _take_self_report(turn, child, f"no WATCHDOG=1 for {child.watchdog_ms} ms")
    become_unhealthy(turn, child, child.self_reported_unhealthy)


def _take_self_report(turn: Turn, child: Child, reason: str) -> None:
    """The daemon's own word on its health, "" for well. A check beside it is another thing, and takes no word back."""
    child.self_reported_unhealthy = reason
    if child.spec.health is None:
        _record(turn, child, not reason, reason)


def notified(turn: Turn, child: Child, event: Notified) -> None:
    """sd_notify(3), from a daemon that is ready."""
    starting.note_said(turn, child, event)
    if event.reloading:
        child.reloading = True
        turn.log("child_reloading", child)
    if event.ready and child.reloading:
        child.reloading = False
        turn.log("child_reloaded", child)
    if (event.watchdog_trigger or event.watchdog) and not child.halt:
        take_word(turn, child, ill=event.watchdog_trigger)
    _arm_watchdog(turn, child, event)


def take_word(turn: Turn, child: Child, *, ill: bool) -> None:
    """The daemon has said `WATCHDOG=trigger`, or `WATCHDOG=1`, which takes that back."""
    if ill:
        _take_self_report(turn, child, "the daemon said WATCHDOG=trigger")
        become_unhealthy(turn, child, child.self_reported_unhealthy)
    elif child.self_reported_unhealthy:
        _take_self_report(turn, child, "")
        _recover(turn, child)


def _arm_watchdog(turn: Turn, child: Child, event: Notified) -> None:
    if child.halt or event.watchdog_ms == 0:
        turn.drop_timers(child, WatchdogPassed)
    elif child.watchdog_ms and (event.watchdog or event.watchdog_ms is not None):
        turn.set_timer(child, WatchdogPassed, child.watchdog_ms)
