"""The bundle's end: once all children are down, the rest of the tree; once that is gone, the exit (contract 4)."""

from __future__ import annotations

from bottle_init.core import signals, telling, verdict
from bottle_init.core.actions import Exit, SurveySession, SurveyTree
from bottle_init.core.dying import log_barred, note_survivors
from bottle_init.core.events import GiveUpPassed
from bottle_init.core.stopping import is_cleared, is_down
from bottle_init.core.words import CLEARING, DONE, GIVE_UP_MS, KILLING, KILLING_ALL, UP

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bottle_init.core.events import TreeSurveyed
    from bottle_init.core.turn import Turn


def end_when_gone(turn: Turn) -> None:
    """Once all children are down, the rest of the tree; once that is gone, the exit."""
    state = turn.state
    if state.finishing or not all(is_down(child) and is_cleared(child) for child in turn.children):
        return
    state.finishing = True
    survey_tree(turn)


def survey_tree(turn: Turn) -> None:
    """See to whatever is left below the init."""
    turn.act(SurveyTree(signals.KILL if turn.state.phase == KILLING_ALL else signals.TERM))


def kill_all(turn: Turn) -> None:
    """The deadline, or the second stop signal: SIGKILL for everything (contract 4).

    The children's records are moved by the caller, through the table.
    """
    state = turn.state
    state.phase = KILLING_ALL
    state.give_up_at_ms = turn.now_ms + GIVE_UP_MS
    state.finishing = False
    turn.act(SurveyTree(signals.KILL))


def tree_surveyed(turn: Turn, event: TreeSurveyed) -> None:
    """Nothing is left below the init: the bundle has ended."""
    if turn.state.phase in (UP, DONE):
        return
    log_barred(turn, event.survivors)
    note_survivors(turn, event.survivors)
    given_up = {child.ghost_pid: None for child in turn.children if child.ghost_pid and child.barred}
    if turn.state.finishing and all(survivor.barred or survivor.pid in given_up for survivor in event.survivors):
        finish(turn)


def barred_children(turn: Turn, event: TreeSurveyed) -> list[int]:
    """Those that SIGKILL for everything was meant for, and that the kernel does not let the init kill."""
    reasons = {survivor.pid: survivor.barred for survivor in event.survivors if survivor.barred}
    found = [child.index for child in turn.children if child.status == KILLING and child.pid in reasons]
    for index in found:
        child = turn.edit(index)
        child.barred = reasons[child.pid]
    return found


def look_again(turn: Turn) -> None:
    """Others have ended: whoever waits for the last of them looks whether that was it.

    What has been forked since the last look is asked to end like the rest.
    """
    for child in turn.children:
        if child.status == CLEARING:
            number = signals.KILL if GiveUpPassed in child.timers else signals.TERM
            turn.act(SurveySession(child.index, child.generation, number))
    if turn.state.finishing:
        survey_tree(turn)


def finish(turn: Turn) -> None:
    """Exit with the code of contract 2."""
    state = turn.state
    stop = state.stop
    if stop is None:
        raise RuntimeError("the bundle ends, and nothing has stopped it")
    state.phase = DONE
    state.code = verdict.exit_code(stop, turn.children, state.bundle.exit_code_from)
    deaths = tuple(child.last_death for child in turn.children if child.last_death is not None)
    told = [(child.spec, child.last_death) for child in turn.children if child.last_death is not None]
    hint = telling.hint(stop, told, state.survivors)
    turn.act(Exit(state.code, stop, deaths, state.survivors, turn.now_ms, hint))
