"""Restart delays and budgets (contract 3)."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bottle_init.core.spec import Backoff, Budget


def delay_ms(backoff: Backoff, restarts: int) -> int:
    """The pause before the next restart, after `restarts` of them in a row: initial x factor^n, capped.

    Multiplied step by step and capped at every one, so that no exponent can overflow.
    """
    delay = float(backoff.initial_ms)
    for _ in range(restarts):
        if delay >= backoff.limit_ms or delay == 0 or backoff.factor == 1:
            break
        delay *= backoff.factor
    return int(min(delay, backoff.limit_ms))


def is_steady(backoff: Backoff, ran_ms: int) -> bool:
    """Whether a child has run for so long that its delays begin anew."""
    return ran_ms >= backoff.limit_ms


def recent(budget: Budget, restarts: tuple[int, ...], now_ms: int) -> tuple[int, ...]:
    """The restarts, by their times, that still weigh on the budget."""
    return tuple(at_ms for at_ms in restarts if now_ms - at_ms < budget.window_ms)


def is_spent(budget: Budget, restarts: tuple[int, ...], now_ms: int) -> bool:
    """Whether one more restart now would be more than `max` within the window."""
    return len(recent(budget, restarts, now_ms)) >= budget.max
