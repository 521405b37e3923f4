"""What must hold after every step, in production too.

A violation is a bug of the init, not of a daemon: the loop answers it as contract 8 says (70).
Checks raise explicitly, since `python -O` strips `assert`.
"""

from __future__ import annotations

from bottle_init.core.words import ALIVE, BACKOFF, CLEARING, DEAD, DONE, KILLING, KILLING_ALL, SPAWNING, UP, WAITING

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from bottle_init.core.state import Child, State


class InvariantViolated(Exception):
    """The core has contradicted itself; the message names the child and the rule."""


def check(state: State, touched: Iterable[int]) -> None:
    """Raise `InvariantViolated` for the first rule that does not hold.

    `touched` are the indexes of the children that the step has edited; it is given all of them
    where the phase has changed, since that is the one thing that can break a child's rules from outside.
    """
    if (state.stop is None) != (state.phase == UP):
        raise InvariantViolated(f"phase {state.phase} with stop {state.stop}")
    if (state.code is None) != (state.phase != DONE):
        raise InvariantViolated(f"phase {state.phase} with code {state.code}")
    for index in touched:
        child = state.children[index]
        broken = _broken(state, child)
        if broken:
            raise InvariantViolated(f"{child.spec.name} ({child.status}): {broken}")


def _broken(state: State, child: Child) -> str:
    return _broken_status(child) or _broken_end(state, child)


def _broken_status(child: Child) -> str:
    status = child.status
    if status == DEAD:
        return "a death was not judged in its own step"
    if (child.pid != 0) != (status in ALIVE and status != SPAWNING):
        return f"pid {child.pid}"
    if child.fresh and not child.ever_ready:
        return "ready now, and never ready"
    if child.probe and status not in ALIVE:
        return "a probe is out for a process that is gone"
    if status in (CLEARING, BACKOFF) and not child.timers:
        return "nothing would ever end this"
    return ""


def _broken_end(state: State, child: Child) -> str:
    status = child.status
    if state.phase != UP and status in (SPAWNING, WAITING, BACKOFF):
        return "a start is awaited during a stop"
    if status == KILLING and not child.timers and state.phase not in (KILLING_ALL, DONE):
        return "nothing would ever give up"
    if len(child.restarts) > child.spec.restarts.max:
        return "more restarts than its budget allows"
    if state.phase == DONE and child.pid:
        return "the bundle has ended before its child"
    return ""
