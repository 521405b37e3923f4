"""Deaths -> the exit code (contract 2). The whole table is `severity_of`; the rest is choosing the death.

The order of severities is total, and ties go to the child declared first, so no code ever depends
on the order in which the kernel hands over simultaneous deaths.
"""

from __future__ import annotations

from bottle_init.core.state import Death
from bottle_init.core.words import DAEMON, EX_UNAVAILABLE, EXIT_ON_CHILD_DEATH, RESTART

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Final

    from bottle_init.core.spec import Spec

# Severities, worst first: a smaller number is worse.
CRASH: Final = 0
FORCED: Final = 1
FAILURE: Final = 2
LEFT: Final = 3
CLEAN: Final = 4
SEVERITIES: Final = ("crash", "forced", "failure", "left", "clean")

SIGKILL: Final = 9


def severity_of(
    spec: Spec, code: int, signal: int, *, sent: int, stopping: bool, forced: bool = False, asked: bool = False
) -> int:
    """The severity of one death.

    `code` is `n` for `exited n` and `128+s` for a kill by `s`, `signal` is that s or 0; `sent` is
    the set of signals that the init sent or forwarded to this process, as bits `1 << s`; `stopping`
    says that the bundle's stop has begun; `forced` that the child's `timeout` ran out; `asked` that
    the init was taking the child down, outside a stop.
    """
    if forced or (signal == SIGKILL and sent >> SIGKILL & 1):
        return FORCED
    if code in spec.success_codes:
        wanted = spec.kind == DAEMON and spec.policy in (EXIT_ON_CHILD_DEATH, RESTART)
        return LEFT if wanted and not (stopping or asked) else CLEAN
    by = signal or code - 128
    if stopping and by > 0 and sent >> by & 1:
        return CLEAN
    return CRASH if signal else FAILURE


def is_success(spec: Spec, death: Death) -> bool:
    """Whether a death is a success in the sense of contract 1."""
    return death.severity != FORCED and death.code in spec.success_codes


def code_of(death: Death) -> int:
    """The exit code that a death of this severity stands for, by the table."""
    if death.severity == CLEAN:
        return 0
    if death.severity == LEFT:
        return EX_UNAVAILABLE
    if death.severity == FORCED:
        return 128 + SIGKILL
    return death.code


def unsuccessful_code(death: Death) -> int:
    """The code of a policy stop for a death that is no success, 69 for one that is, or that the init brought about."""
    if death.brought_about or death.severity in (LEFT, CLEAN):
        return EX_UNAVAILABLE
    return code_of(death)


def worst(deaths: Iterable[Death]) -> Death | None:
    """The worst death, by severity and then by the order of declaration; None of none."""
    return min(deaths, key=rank, default=None)


def rank(death: Death) -> tuple[int, int]:
    """The key of the total order; the smallest is the worst."""
    return death.severity, death.child
