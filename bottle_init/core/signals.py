"""Which signal goes to whom (contract 5)."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from bottle_init.core.spec import Spec

HUP: Final = 1
INT: Final = 2
QUIT: Final = 3
KILL: Final = 9
USR1: Final = 10
USR2: Final = 12
TERM: Final = 15
CONT: Final = 18
WINCH: Final = 28

RTMIN: Final = 34
RTMAX: Final = 64

STOP_SIGNALS: Final = (TERM, INT, QUIT)
"""A requested stop; the second one kills."""

CATCHABLE_ONLY: Final = (HUP, USR1, USR2, WINCH, *range(RTMIN, RTMAX + 1))
"""Forwarded to every child that catches them, never to one that they would end by default."""


def for_child(spec: Spec, signal: int) -> int:
    """The signal that reaches this child for one that reached the init; 0 where it is dropped."""
    for source, target in spec.signals:
        if source == signal:
            return target
    return signal
