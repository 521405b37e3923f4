"""Taking children down: the order, the signals, the one deadline, the whole tree (contract 4).

A child is taken down in two moves. `halt` records that the decision has been taken and why; its
stop signal is sent when its turn comes, which is when all halted children that run after it are
gone. What is left of its session then goes too, and only then is it down.
"""

from __future__ import annotations

from bottle_init.core import signals, verdict
from bottle_init.core.actions import Answer, Exit, KillSession, SendSignal, SurveySession, SurveyTree
from bottle_init.core.events import (
    BackoffPassed,
    GiveUpPassed,
    ProbeDue,
    ProbeTimedOut,
    ReadyDeadlinePassed,
    RunTimeoutPassed,
    StopDelayPassed,
    StopTimeoutPassed,
    WatchdogPassed,
)
from bottle_init.core.state import Death, Stop, Survivor
from bottle_init.core.words import (
    ALIVE,
    BACKOFF,
    CLEARING,
    DEAD,
    DONE,
    DOWN,
    DRAINING,
    ENDED,
    EX_UNAVAILABLE,
    GIVE_UP_MS,
    GOING_DOWN,
    HALT_BUNDLE,
    HALT_DEPENDENCY,
    HALT_HEALTH,
    HALT_READINESS,
    HALT_REQUEST,
    HALT_RESTART,
    HALT_TIMEOUT,
    KILLING,
    KILLING_ALL,
    NEXT_BACKOFF,
    NEXT_END,
    NEXT_HOLD,
    NO_HALT,
    POLICY,
    RUNNING,
    STARTING,
    STOPPED,
    STOPPING,
    UP,
    WAITING,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bottle_init.core.events import ChildExited, Event, SessionSurveyed, SignalForwarded, TreeSurveyed
    from bottle_init.core.state import Child
    from bottle_init.core.turn import Turn

BROUGHT_ABOUT = (HALT_REQUEST, HALT_RESTART, HALT_DEPENDENCY, HALT_HEALTH, HALT_READINESS)
"""Deaths for these reasons are the init's own doing (contract 2, rule 7)."""


def begin_stop(
    turn: Turn,
    kind: str,
    cause: str,
    code: int | None = None,
    culprit: Death | None = None,
    sender_pid: int = 0,
    sender_uid: int | None = None,
) -> None:
    """Begin the stop of the whole bundle, unless one is under way: the first cause wins (contract 2)."""
    state = turn.state
    if state.phase != UP:
        return
    state.phase = GOING_DOWN
    deadline_ms = turn.now_ms + state.bundle.stop_timeout_ms
    state.stop = Stop(kind, cause, turn.now_ms, deadline_ms, code, culprit, sender_pid, sender_uid)
    turn.announce("stopping", kind=kind, cause=cause, sender_pid=sender_pid or None, sender_uid=sender_uid)
    for index, child in enumerate(turn.children):
        if child.status in ALIVE:
            halt(turn, turn.edit(index), HALT_BUNDLE)


def halt(turn: Turn, child: Child, reason: str) -> None:
    """Record the decision to take a living child down; its turn comes with the bundle's order."""
    if child.halt == NO_HALT:
        child.halt_at_ms = turn.now_ms
    if child.halt != HALT_TIMEOUT:
        child.halt = reason
    turn.drop_probe(child)
    turn.drop_timers(child, ReadyDeadlinePassed, RunTimeoutPassed, WatchdogPassed, ProbeDue, ProbeTimedOut)


def is_down(child: Child) -> bool:
    """Whether neither the child nor anything of its session is in the way of those it runs after."""
    return child.status in DOWN


def may_stop(turn: Turn, index: int) -> bool:
    """Whether every child that runs after this one and is to be taken down is down (contract 4)."""
    dependents = [turn.children[other] for other in turn.state.dependents[index]]
    if turn.state.phase == UP:
        return all(is_down(dependent) for dependent in dependents if dependent.halt)
    return all(is_down(dependent) and is_cleared(dependent) for dependent in dependents)


def awaits_turn(child: Child) -> bool:
    """Whether a child's stop signal is still to be sent, and its `stop_delay` does not hold it back."""
    if child.status == DRAINING:
        return StopDelayPassed not in child.timers
    return child.status in (STARTING, RUNNING)


def is_cleared(child: Child) -> bool:
    """Whether the session of the child's last process has been looked after, if it ever had one."""
    return child.swept or child.generation == 0


def send_stop(turn: Turn, child: Child) -> None:
    """The stop signal to the child alone; then CONT, so that a stopped one can act on it."""
    turn.move(child, STOPPING)
    child.signalled_at_ms = turn.now_ms
    child.sent |= 1 << child.spec.stop_signal
    turn.act(SendSignal(child.index, child.generation, child.spec.stop_signal))
    turn.act(SendSignal(child.index, child.generation, signals.CONT))
    turn.set_timer(child, StopTimeoutPassed, child.spec.stop_timeout_ms)


# Rows of the table.


def stop_when_drained(turn: Turn, child: Child, event: Event) -> None:
    """The child's turn has come: its stop signal, at the earliest `stop_delay` after the decision."""
    delay_ms = child.halt_at_ms + child.spec.stop_delay_ms - turn.now_ms
    if delay_ms > 0:
        turn.move(child, DRAINING)
        turn.set_timer(child, StopDelayPassed, delay_ms)
    else:
        send_stop(turn, child)


def kill(turn: Turn, child: Child, event: Event) -> None:
    """`stop_timeout` is over: SIGKILL for the child and its session."""
    turn.move(child, KILLING)
    mark_killed(child)
    turn.act(KillSession(child.index, child.generation))
    turn.set_timer(child, GiveUpPassed, GIVE_UP_MS)
    turn.announce("child_killed", child, "warning", after_ms=child.spec.stop_timeout_ms)


def mark_killed(child: Child) -> None:
    """Remember that the init has sent SIGKILL to this process."""
    child.sent |= 1 << signals.KILL
    child.forced = True


def kill_with_all(turn: Turn, child: Child, event: Event) -> None:
    """Everything goes at once: `SurveyTree` sends the SIGKILL, the tree's own deadline watches over it."""
    turn.drop_probe(child)
    child.timers.clear()
    child.halt = child.halt or HALT_BUNDLE
    mark_killed(child)
    turn.move(child, KILLING)


def leave_to_all(turn: Turn, child: Child, event: Event) -> None:
    """What is left of this child's session goes with everything else."""
    child.timers.clear()
    child.swept = True
    turn.move(child, ENDED)


def stand_down(turn: Turn, child: Child, event: Event) -> None:
    """A child without a process is not to be started any more."""
    child.timers.clear()
    turn.move(child, STOPPED)


def die(turn: Turn, child: Child, event: ChildExited) -> None:
    """Take a death in; it is judged together with all others of its sweep."""
    stopping = turn.state.phase != UP
    timed_out = child.halt == HALT_TIMEOUT
    brought_about = not stopping and child.halt in BROUGHT_ABOUT
    code = 128 + event.signal if event.signal else event.code
    child.last_death = Death(
        child=child.index,
        name=child.spec.name,
        pid=child.pid,
        code=code,
        signal=event.signal,
        severity=verdict.severity_of(
            child.spec,
            code,
            event.signal,
            sent=child.sent,
            stopping=stopping,
            forced=timed_out,
            asked=brought_about,
        ),
        at_ms=turn.now_ms,
        ran_ms=turn.now_ms - child.started_at_ms,
        sent=bool(event.signal) and bool(child.sent >> event.signal & 1),
        forced=child.forced or timed_out,
        oom=event.oom,
        stopping=stopping,
        brought_about=brought_about,
        stop_ms=None if child.signalled_at_ms is None else turn.now_ms - child.signalled_at_ms,
        detail=child.detail,
    )
    lay_out(turn, child)


def lay_out(turn: Turn, child: Child) -> None:
    """The process is gone, or given up: nothing that belonged to it is awaited any more."""
    child.pid = 0
    turn.drop_probe(child)
    child.timers.clear()
    turn.move(child, DEAD)
    turn.sweep.append(child.index)


def bury(turn: Turn, child: Child, event: Event) -> None:
    """After the judgement: see to what is left of the session, or leave it for the bundle's stop."""
    phase = turn.state.phase
    if phase == KILLING_ALL or child.swept:
        settle(turn, child)
    elif child.signalled_at_ms is None and (phase != UP or child.next == NEXT_END):
        turn.move(child, ENDED)
    else:
        clear(turn, child, event)


def clear(turn: Turn, child: Child, event: Event) -> None:
    """TERM for what a child has left in its session; SIGKILL once its `stop_timeout` is over."""
    turn.move(child, CLEARING)
    since_ms = turn.now_ms if child.signalled_at_ms is None else child.signalled_at_ms
    left_ms = since_ms + child.spec.stop_timeout_ms - turn.now_ms
    if child.forced or left_ms <= 0:
        clear_by_force(turn, child, event)
    else:
        turn.act(SurveySession(child.index, child.generation, signals.TERM))
        turn.set_timer(child, StopTimeoutPassed, left_ms)


def clear_by_force(turn: Turn, child: Child, event: Event) -> None:
    """SIGKILL for what a child has left in its session."""
    turn.act(SurveySession(child.index, child.generation, signals.KILL))
    turn.set_timer(child, GiveUpPassed, GIVE_UP_MS)


def surveyed(turn: Turn, child: Child, event: SessionSurveyed) -> None:
    """Once nothing is left of its session, the child is down."""
    child.survivors = event.survivors
    note_survivors(turn, event.survivors)
    if not event.survivors:
        settle(turn, child)


def note_survivors(turn: Turn, found: tuple[Survivor, ...]) -> None:
    """Keep what outlived its leader into the bundle's stop, for the report (contract 7).

    A child that was given up is named already, and is known by its birth from its first survey on. Pid 0 is one that
    cannot be seen, and no child's.
    """
    state = turn.state
    if not found or state.phase == UP:
        return
    named = list(state.survivors)
    known = {(survivor.pid, survivor.born): None for survivor in named}
    given_up = {survivor.pid: index for index, survivor in enumerate(named) if survivor.born is None}
    children = {child.pid: None for child in turn.children if child.pid}
    for survivor in found:
        if survivor.dying or survivor.pid in children or (survivor.pid, survivor.born) in known:
            continue
        index = given_up.pop(survivor.pid, None)
        if index is None:
            named.append(survivor)
        else:
            named[index] = named[index].but(born=survivor.born)
    state.survivors = tuple(named)


def give_up_session(turn: Turn, child: Child, event: Event) -> None:
    """What no SIGKILL ends is left behind."""
    for survivor in child.survivors:
        turn.announce("gave_up", child, "error", pid=survivor.pid, process=survivor.name)
    settle(turn, child)


def settle(turn: Turn, child: Child) -> None:
    """The child and its session are gone: what comes next was decided before."""
    child.timers.clear()
    child.swept = True
    child.halt = NO_HALT
    if turn.state.phase != UP or child.next == NEXT_END:
        turn.move(child, ENDED)
    elif child.next == NEXT_HOLD:
        turn.move(child, STOPPED)
    elif child.next == NEXT_BACKOFF and child.resume_at_ms > turn.now_ms:
        turn.move(child, BACKOFF)
        turn.set_timer(child, BackoffPassed, child.resume_at_ms - turn.now_ms)
    else:
        turn.move(child, WAITING)


def give_up(turn: Turn, child: Child, event: Event) -> None:
    """No SIGKILL ended the child itself: during a stop that counts as forced; else nothing can follow it."""
    spec = child.spec
    detail = "no SIGKILL ended it"
    turn.state.survivors += (Survivor(child.pid, spec.name, " ".join(spec.command)),)
    child.swept = True
    turn.announce("gave_up", child, "error", pid=child.pid, process=spec.name)
    child.last_death = Death(
        child.index,
        spec.name,
        child.pid,
        128 + signals.KILL,
        signals.KILL,
        verdict.FORCED,
        turn.now_ms,
        turn.now_ms - child.started_at_ms,
        sent=True,
        forced=True,
        stopping=turn.state.phase != UP,
        detail=detail,
    )
    lay_out(turn, child)
    if turn.state.phase == UP and child.halt != HALT_REQUEST:
        begin_stop(turn, POLICY, f"{spec.name}: {detail}", EX_UNAVAILABLE)


def reap_late(turn: Turn, child: Child, event: ChildExited) -> None:
    """A child that was given up has ended after all."""
    turn.announce("child_reaped_late", child, code=event.code, signal=event.signal or None)
    turn.others_ended = True


def note_forwarded(turn: Turn, child: Child, event: SignalForwarded) -> None:
    """What was forwarded counts as the init's own (contract 2, clean)."""
    child.sent |= 1 << event.signal


# The bundle as a whole.


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
    note_survivors(turn, event.survivors)
    if not event.survivors and turn.state.finishing:
        finish(turn)


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
    state.code = exit_code(turn, stop)
    deaths = tuple(child.last_death for child in turn.children if child.last_death is not None)
    turn.act(Exit(state.code, stop, deaths, state.survivors, turn.now_ms))


def exit_code(turn: Turn, stop: Stop) -> int:
    """Contract 2, rules 1 to 3."""
    chosen = turn.state.bundle.exit_code_from
    if chosen is not None:
        deaths = [child.last_death for child in turn.children if child.spec.name == chosen]
        return verdict.code_of(deaths[0]) if deaths and deaths[0] is not None else EX_UNAVAILABLE
    if stop.code is not None:
        return stop.code
    worst = verdict.worst(child.standing for child in turn.children if child.standing is not None)
    return 0 if worst is None else verdict.code_of(worst)


def refuse(turn: Turn, request: int, text: str) -> None:
    """Say no to a client of the control socket."""
    turn.act(Answer(request, False, text))
