"""Causes in words, for the report and the log (contract 7)."""

from __future__ import annotations

from bottle_init.core import signals, verdict
from bottle_init.core.words import DAEMON, NATURAL, OOM_UNKNOWN, POLICY

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from bottle_init.core.spec import Budget, Spec
    from bottle_init.core.state import Death, Forwarded, Stop, Survivor

_NAMED = 5


def span(ms: int) -> str:
    """A time for people: `300 ms`, `1.5 s`."""
    return f"{ms} ms" if ms < 1_000 else f"{ms / 1_000:g} s"


def budget(restarts: Budget) -> str:
    """How many restarts in which time are forgiven."""
    return f"{restarts.max} within {span(restarts.window_ms)}"


def describe(death: Death) -> str:
    """A death in words."""
    if death.given_up:
        return f"could not be ended: {death.detail}"
    if death.timeout_ms is not None:
        return f"ran longer than its timeout of {span(death.timeout_ms)}" + (
            " and had to be killed" if was_killed(death) else ""
        )
    if death.severity == verdict.FORCED:
        return "had to be killed"
    if death.signal:
        why = "out of memory" if death.oom else OOM_UNKNOWN if death.oom is None else ""
        told = f"was killed by signal {death.signal}" + (f" ({why})" if why else "")
    else:
        told = f"exited with {death.code}" + (f" ({death.detail})" if death.detail else "")
    return told + (describe_forwarded(death.forwarded) if death.forwarded else "")


def was_killed(death: Death) -> bool:
    """Whether the init's SIGKILL ended it, and not something before."""
    return death.forced and death.signal == signals.KILL and death.sent


def describe_forwarded(signal: Forwarded) -> str:
    """Who had sent the init what a child was then sent, as the end of a sentence about the child's death."""
    came = "" if signal.source == signal.signal else f" for signal {signal.source}"
    sender = f"process {signal.sender_pid}" if signal.sender_pid else "outside of the container or the kernel"
    return f", which the init had forwarded{came} from {sender}"


def hint(stop: Stop, deaths: Iterable[tuple[Spec, Death]], survivors: Iterable[Survivor]) -> str:
    """What a person may try, "" where nothing is known.

    A daemon that ends with success at once, while processes are there that outlived it, has most likely forked into the
    background. It is the culprit of a policy stop, or any of them where no child was left.
    """
    left = [one.name for one in survivors if one.pid and not one.barred]
    for spec, death in deaths:
        to_blame = stop.kind == NATURAL or (stop.kind == POLICY and stop.culprit == spec.name)
        unasked = not (death.stopping or death.brought_about or death.given_up)
        if left and to_blame and unasked and spec.kind == DAEMON and verdict.is_success(spec, death):
            shown = ", ".join(dict.fromkeys(left[:_NAMED]))
            return (
                f"{spec.name} seems to have gone into the background: it ended with success and left processes behind "
                f"({shown}). Run it in the foreground: most daemons have an option for that, nginx has daemon off;"
            )
    return ""
