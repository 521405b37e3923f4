"""Deaths -> the exit code (contract 2). The whole table is `severity_of`; the rest is choosing the death.

The order of severities is total, and ties go to the child declared first, so no code ever depends
on the order in which the kernel hands over simultaneous deaths.
"""

from __future__ import annotations

from bottle_init.core import policies
from bottle_init.core.words import DAEMON, EX_UNAVAILABLE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Final

    from bottle_init.core.spec import Spec
    from bottle_init.core.state import Child, Death, Stop

# Severities, worst first: a smaller number is worse.
CRASH: Final = 0
FORCED: Final = 1
FAILURE: Final = 2
LEFT: Final = 3
CLEAN: Final = 4
SEVERITIES: Final = ("crash", "forced", "failure", "left", "clean")

SIGKILL: Final = 9


def severity_of(
    spec: Spec,
    code: int,
    signal: int,
    *,
    sent: int,
    stopping: bool,
    forced: bool = False,
    asked: bool = False,
) -> int:
    """The severity of one death.

    `code` is `n` for `exited n` and `128+s` for a kill by `s`, `signal` is that s or 0; `sent` is
    the set of signals that the init sent to this process, or in a stop forwarded to it, as bits `1 << s`; `stopping`
    says that the bundle's stop has begun; `forced` that the child's `timeout` ran out; `asked` that
    the init was taking the child down, outside a stop.
    """
    if forced or (signal == SIGKILL and sent >> SIGKILL & 1):
        return FORCED
    if code in spec.success_codes:
        missed = spec.kind == DAEMON and not policies.accepts_success(spec.policy)
        return LEFT if missed and not (stopping or asked) else CLEAN
    by = signal or code - 128
    if (stopping or asked) and by > 0 and sent >> by & 1:
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


def exit_code(stop: Stop, children: Sequence[Child], exit_code_from: str | None) -> int:
    """The exit code of a bundle that has ended (contract 2, rules 1 to 3)."""
    if exit_code_from is not None:
        last = next((child.last_death for child in children if child.spec.name == exit_code_from), None)
        return EX_UNAVAILABLE if last is None else code_of(last)
    if stop.code is not None:
        return stop.code
    counted = worst(child.standing for child in children if child.standing is not None)
    return 0 if counted is None else code_of(counted)


def worst(deaths: Iterable[Death]) -> Death | None:
    """The worst death, by severity and then by the order of declaration; None of none."""
    return min(deaths, key=rank, default=None)


def rank(death: Death) -> tuple[int, int]:
    """The key of the total order; the smallest is the worst."""
    return death.severity, death.child


def rank_of_cause(death: Death) -> tuple[int, int]:
    """The key by which the cause of a policy stop is chosen (rule 1); the smallest is the worst.

    A death that the init brought about is no worse than the 69 that it stands for.
    """
    return LEFT if death.brought_about else death.severity, death.child
