"""What a death outside a stop leads to (contract 3), judged for all deaths of one sweep together.

Each death gets one answer: forgiven, restarted, or a trigger of a policy stop. The worst trigger
of the sweep becomes the bundle's cause, so the order within the sweep cannot matter.
"""

from __future__ import annotations

from bottle_init.core import backoff, policies, telling, verdict
from bottle_init.core.stopping import begin_stop, halt
from bottle_init.core.telling import describe
from bottle_init.core.values import Value
from bottle_init.core.words import (
    BACKOFF,
    CLEARING,
    DAEMON,
    DEAD,
    EX_UNAVAILABLE,
    HALT_DEPENDENCY,
    HALT_HEALTH,
    HALT_READINESS,
    HALT_REQUEST,
    HALT_RESTART,
    HALT_TIMEOUT,
    NEXT_BACKOFF,
    NEXT_END,
    NEXT_HOLD,
    NEXT_START,
    NO_HALT,
    ONESHOT,
    POLICY,
    RUNNING,
    SPAWNING,
    STARTING,
    UP,
    WAITING,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from bottle_init.core.state import Child, Death
    from bottle_init.core.turn import Turn


COMES_BACK: Final = (HALT_RESTART, HALT_DEPENDENCY, HALT_HEALTH, HALT_READINESS)
"""Why a child is taken down that is to be started again."""


class Trigger(Value):
    """A death that the policy does not forgive, and the code that it ends the bundle with."""

    death: Death
    code: int
    cause: str


def judge(turn: Turn) -> None:
    """Answer every death of the sweep; the worst that is not forgiven begins a policy stop."""
    fallen = [turn.edit(index) for index in sorted(turn.sweep)]
    found = [trigger for child in fallen if (trigger := answer(turn, child)) is not None]
    if found:
        trigger = min(found, key=_rank)
        begin_stop(turn, POLICY, trigger.cause, trigger.code, trigger.death.name)
        return
    for child in fallen:
        if child.next in (NEXT_BACKOFF, NEXT_START):
            rest_for_one(turn, child)


def _rank(trigger: Trigger) -> tuple[int, int]:
    return verdict.rank_of_cause(trigger.death)


def answer(turn: Turn, child: Child) -> Trigger | None:
    """Decide what becomes of a dead child; a trigger where its death is to stop the bundle."""
    death = child.last_death
    if death is None:
        raise RuntimeError(f"{child.spec.name} is to be judged and has not died")
    _log_death(turn, child, death)
    child.next = NEXT_END
    if backoff.is_steady(child.spec.backoff, death.ran_ms):
        child.streak = 0
    if turn.state.phase != UP:
        child.standing = death
        return None
    if child.halt == HALT_REQUEST:
        child.next = NEXT_HOLD
        return None
    if child.halt in (HALT_HEALTH, HALT_READINESS):
        return _restart(turn, child, death)
    if child.halt not in (NO_HALT, HALT_TIMEOUT):
        child.next = NEXT_START
        return None
    return _by_policy(turn, child, death)


def _by_policy(turn: Turn, child: Child, death: Death) -> Trigger | None:
    """The answer to a death that nobody asked for."""
    spec = child.spec
    success = verdict.is_success(spec, death)
    answer = policies.STOP
    if spec.kind == DAEMON:
        answer = policies.answer(spec.policy, success=success, crash=death.signal != 0)
    if answer == policies.AGAIN:
        return _restart(turn, child, death)
    child.standing = death
    if spec.kind == ONESHOT and success:
        child.ready = child.ever_ready = True
        turn.log("oneshot_done", child)
        return None
    if answer == policies.ACCEPT:
        if is_awaited(turn, child):
            cause = f"{spec.name} {describe(death)} before it was ready, and others wait for it"
            return Trigger(death, verdict.unsuccessful_code(death), cause)
        return None
    return Trigger(death, verdict.code_of(death), f"{spec.name} {describe(death)}")


def _restart(turn: Turn, child: Child, death: Death) -> Trigger | None:
    """Answer a death by a restart, or by a policy stop where the budget is used up (contract 2, rule 6)."""
    if plan_restart(turn, child):
        return None
    child.standing = None if death.brought_about else death
    why = child.halt_reason or describe(death)
    cause = f"{child.spec.name} used up its restarts ({telling.budget(child.spec.restarts)}): {why}"
    return Trigger(death, verdict.unsuccessful_code(death), cause)


def plan_restart(turn: Turn, child: Child) -> bool:
    """Decide on a restart after the backoff; False where the budget is used up, judged at the death."""
    spec = child.spec
    child.restarts = backoff.recent(spec.restarts, child.restarts, turn.now_ms)
    if backoff.is_spent(spec.restarts, child.restarts, turn.now_ms):
        return False
    delay_ms = backoff.delay_ms(spec.backoff, child.streak)
    child.streak += 1
    child.restarts += (turn.now_ms,)
    child.resume_at_ms = turn.now_ms + delay_ms
    child.next = NEXT_BACKOFF
    turn.log("child_restarting", child, "warning", delay_ms=delay_ms, restart=len(child.restarts))
    return True


def failed_start(turn: Turn, child: Child, reason: str) -> bool:
    """A daemon's failed fork: the restart policies answer it, else it is a policy stop with 69.

    Returns whether a restart has been planned.
    """
    spec = child.spec
    if spec.kind == DAEMON and policies.restarts(spec.policy) and plan_restart(turn, child):
        rest_for_one(turn, child)
        return True
    begin_stop(turn, POLICY, f"{spec.name} could not be started: {reason}", EX_UNAVAILABLE, spec.name)
    return False


def rest_for_one(turn: Turn, child: Child) -> None:
    """Take down the daemons that run after a restarting one; they start again once it is ready anew.

    A dependent that died in the same sweep has had its own answer; where that is a restart, it
    waits in the same line. One that has ended for good, or was stopped by request, stays so.
    """
    if not child.spec.restart_dependents:
        return
    child.ready = False
    for index in turn.state.dependents[child.index]:
        dependent = turn.children[index]
        if dependent.spec.kind != DAEMON:
            continue
        if dependent.status in (SPAWNING, STARTING, RUNNING) and dependent.halt == NO_HALT:
            dependent = turn.edit(index)
            halt(turn, dependent, HALT_DEPENDENCY)
        if is_coming_back(dependent):
            turn.edit(index).ready = False


def is_coming_back(child: Child) -> bool:
    """Whether a child that is not up, or is going down, is to be started again."""
    if child.status in (DEAD, CLEARING):
        return child.next in (NEXT_BACKOFF, NEXT_START)
    return child.status in (BACKOFF, WAITING) or child.halt in COMES_BACK


def is_awaited(turn: Turn, child: Child) -> bool:
    """Whether others still wait for this child, which has not been ready (contract 2, rule 8)."""
    if child.ready:
        return False
    dependents = turn.state.dependents[child.index]
    return any(is_coming_back(turn.children[index]) for index in dependents)


def _log_death(turn: Turn, child: Child, death: Death) -> None:
    if death.given_up:
        return  # It has not ended, and the log says so already.
    level = "info" if death.severity == verdict.CLEAN or death.brought_about else "warning"
    turn.log(
        "child_exited",
        child,
        level,
        pid=death.pid,
        code=death.code,
        signal=death.signal or None,
        severity=verdict.SEVERITIES[death.severity],
        oom=death.oom or None,
        detail=death.detail or None,
    )
