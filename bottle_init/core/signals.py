"""Which signal goes to whom (contract 5)."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

HUP: Final = 1
INT: Final = 2
QUIT: Final = 3
KILL: Final = 9
USR1: Final = 10
USR2: Final = 12
TERM: Final = 15
CHLD: Final = 17
CONT: Final = 18
STOP: Final = 19
WINCH: Final = 28

RTMIN: Final = 34
RTMAX: Final = 64

STOP_SIGNALS: Final = (TERM, INT, QUIT)
"""What a stop is requested by, where the bundle does not name others."""

BY_NAME: Final = (HUP, USR1, USR2, WINCH, *range(RTMIN, RTMAX + 1))
"""Forwarded to the children whose `signals` names them, and to no others."""


def for_child(rules: tuple[tuple[int, int], ...], signal: int) -> int:
    """The signal that a child with these `signals` gets for one that reached the init; 0 where it names none."""
    for source, target in rules:
        if source == signal:
            return target
    return 0
