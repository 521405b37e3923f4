"""The policies (contract 3): what a daemon's death does outside a stop. The table here is the contract's own."""

from __future__ import annotations

from bottle_init.core.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Final

STOP: Final = "stop"
"""The bundle stops."""
AGAIN: Final = "again"
"""The daemon is restarted, as long as its budget lasts."""
ACCEPT: Final = "accept"
"""The others go on; the bundle ends when its last child has ended."""


class Policy(Value):
    """One row: what a success, a failure and a crash bring (contract 1 and 2 say which death is which)."""

    success: str
    failure: str
    crash: str


DEFAULT: Final = "exit-on-child-death"

POLICIES: Final[Mapping[str, Policy]] = {
    DEFAULT: Policy(STOP, STOP, STOP),
    "exit-on-child-failure": Policy(ACCEPT, STOP, STOP),
    "restart": Policy(AGAIN, AGAIN, AGAIN),
    "restart-on-failure": Policy(ACCEPT, AGAIN, AGAIN),
    "restart-on-crash": Policy(ACCEPT, STOP, AGAIN),
    "wait-for-all": Policy(ACCEPT, ACCEPT, ACCEPT),
}


def answer(policy: str, *, success: bool, crash: bool) -> str:
    """What this policy brings for a death: STOP, AGAIN or ACCEPT."""
    row = POLICIES[policy]
    if success:
        return row.success
    return row.crash if crash else row.failure


def accepts_success(policy: str) -> bool:
    """Whether a daemon that ends with success, unasked, is not missed."""
    return POLICIES[policy].success == ACCEPT


def restarts(policy: str) -> bool:
    """Whether a failure is answered by a restart; a failed fork and a missed readiness deadline are failures too."""
    return POLICIES[policy].failure == AGAIN
