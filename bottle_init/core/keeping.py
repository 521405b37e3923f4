"""Capabilities that a oneshot keeps from all that start after it (contract 4): the init gives them up as well."""

from __future__ import annotations

from bottle_init.core.actions import DropCapabilities
from bottle_init.core.stopping import begin_stop
from bottle_init.core.words import EX_UNAVAILABLE, POLICY

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bottle_init.core.events import CapabilitiesDropped
    from bottle_init.core.state import Child, State
    from bottle_init.core.turn import Turn


def drop_when_done(turn: Turn) -> None:
    """Once all oneshots that keep something have succeeded, nothing else starts before the init has given it up."""
    state = turn.state
    if not state.keepers or state.dropping or state.dropped:
        return
    if all(is_done(turn.children[index]) for index in state.keepers):
        state.dropping = True
        turn.act(DropCapabilities(kept(state)))


def is_done(child: Child) -> bool:
    """Whether a oneshot has succeeded, and needs what it keeps no more."""
    return child.ever_ready


def kept(state: State) -> tuple[str, ...]:
    """The names of all that is kept, each once."""
    names = (name for index in state.keepers for name in state.bundle.children[index].keeps)
    return tuple(sorted(dict.fromkeys(names)))


def dropped(turn: Turn, event: CapabilitiesDropped) -> None:
    """The init has given them up; where it can't, whoever starts later would have them, and so nobody does."""
    state = turn.state
    names = ", ".join(kept(state)).upper()
    state.dropping = False
    if event.reason:
        turn.log("capabilities_not_dropped", level="error", capabilities=kept(state), reason=event.reason)
        begin_stop(turn, POLICY, f"{names} could not be given up: {event.reason}", EX_UNAVAILABLE)
    else:
        state.dropped = True
        turn.log("capabilities_dropped", capabilities=kept(state))


def refusal(child: Child) -> str:
    """Why this child is not to be started again, "" where it may be."""
    if not child.spec.keeps or not is_done(child):
        return ""
    return f"cannot be started again: it has kept {', '.join(child.spec.keeps).upper()} from all that start after it"
