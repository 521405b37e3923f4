"""What an operator may order: `ctl stop|start|restart|signal NAME` (contract 2, rule 7; contract 3).

Every order is answered, once, by `Answer`; none of them waits for its effect.
"""

from __future__ import annotations

from bottle_init.core import dying, judging, keeping, stopping
from bottle_init.core.actions import Answer, SendSignal
from bottle_init.core.events import ChildRestartOrdered, ChildSignalOrdered, ChildStartOrdered, ChildStopOrdered
from bottle_init.core.words import HALT_REQUEST, HALT_RESTART, NEXT_HOLD, NEXT_START, STOPPED, UP, WAITING

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from bottle_init.core.events import OrderedSignalSent
    from bottle_init.core.state import Child
    from bottle_init.core.turn import Turn

    Order = ChildStopOrdered | ChildStartOrdered | ChildRestartOrdered | ChildSignalOrdered

ORDERS: Final = {
    ChildStopOrdered: "stop requested",
    ChildStartOrdered: "start requested",
    ChildRestartOrdered: "restart requested",
    ChildSignalOrdered: "signal requested",
}
"""What the log calls them."""


def hold_unstarted(turn: Turn, child: Child, event: Order) -> None:
    """`stop` of a child that has no process: it is not started until somebody orders that."""
    if _may(turn, event):
        turn.move(child, STOPPED)
        child.timers.clear()
        _done(turn, child, event, "stopped")


def stop(turn: Turn, child: Child, event: ChildStopOrdered) -> None:
    """`stop` of a living child; one that was to be restarted is held instead."""
    if _may_end(turn, child, event):
        stopping.halt(turn, child, HALT_REQUEST)
        _done(turn, child, event, "stopping")


def hold_cleared(turn: Turn, child: Child, event: Order) -> None:
    """`stop` of a child that has died, while its session is being ended."""
    if _may(turn, event):
        child.next = NEXT_HOLD
        _done(turn, child, event, "stopping")


def is_stopped(turn: Turn, child: Child, event: Order) -> None:
    """`stop` of what is not running."""
    _done(turn, child, event, "not running")


def start(turn: Turn, child: Child, event: Order) -> None:
    """`start` or `restart` of a child without a process; what its last one left behind goes first."""
    if not _may_start(turn, child, event):
        return
    _done(turn, child, event, "starting")
    child.standing = None
    child.next = NEXT_START
    child.timers.clear()
    if stopping.is_cleared(child):
        turn.move(child, WAITING)
    else:
        dying.clear(turn, child, event)


def is_started(turn: Turn, child: Child, event: Order) -> None:
    """`start` of what runs, or is about to; one that is being stopped by request comes back."""
    if not _may(turn, event):
        return
    if child.halt == HALT_REQUEST:
        child.halt = HALT_RESTART
        _done(turn, child, event, "restarting")
    else:
        _done(turn, child, event, "already started")


def start_cleared(turn: Turn, child: Child, event: Order) -> None:
    """`start` or `restart` of a child that has died, while its session is being ended."""
    if _may_start(turn, child, event):
        child.standing = None
        child.next = NEXT_START
        _done(turn, child, event, "starting")


def restart(turn: Turn, child: Child, event: ChildRestartOrdered) -> None:
    """`restart` of a living child: without a delay, outside the budget."""
    if _may_end(turn, child, event):
        stopping.halt(turn, child, HALT_RESTART)
        judging.rest_for_one(turn, child)
        _done(turn, child, event, "restarting")


def signal(turn: Turn, child: Child, event: ChildSignalOrdered) -> None:
    """`signal` to a living child. It is the operator's, not the init's, so it is not noted as sent."""
    turn.act(SendSignal(child.index, child.generation, event.signal, event.request))


def signal_sent(turn: Turn, event: OrderedSignalSent) -> None:
    """It was sent, or not: only now there is an answer."""
    order = event.order
    child = turn.children[order.child]
    if not event.reason:
        _answer(turn, child, order.request, ORDERS[ChildSignalOrdered], f"sent signal {order.signal}")
        return
    if event.refused:
        stopping.log_refused(turn, child, order.signal, event.reason)
    told = f"{stopping.NOT_SIGNALLED}: {event.reason}" if event.refused else event.reason
    refuse(turn, order.request, f"{child.spec.name}: {told}")


def cannot_signal(turn: Turn, child: Child, event: Order) -> None:
    """`signal` to a child without a process."""
    refuse(turn, event.request, f"{child.spec.name}: not running")


def refuse(turn: Turn, request: int, text: str) -> None:
    """Say no to a client of the control socket."""
    turn.act(Answer(request, False, text))


def _may(turn: Turn, event: Order) -> bool:
    if turn.state.phase == UP:
        return True
    refuse(turn, event.request, "the bundle is stopping")
    return False


def _may_end(turn: Turn, child: Child, event: ChildStopOrdered | ChildRestartOrdered) -> bool:
    """A child that the kernel does not let the init signal goes on."""
    if not _may(turn, event):
        return False
    if not event.barred:
        return True
    stopping.log_refused(turn, child, child.spec.stop_signal, event.barred)
    refuse(turn, event.request, f"{child.spec.name}: {stopping.NOT_SIGNALLED}: {event.barred}")
    return False


def _may_start(turn: Turn, child: Child, event: Order) -> bool:
    """A oneshot that keeps something runs once, and what still lives has no successor."""
    if not _may(turn, event):
        return False
    why_not = keeping.refusal(child)
    if child.ghost_pid:
        why_not = f"process {child.ghost_pid}, which could not be ended, still lives"
    if why_not:
        refuse(turn, event.request, f"{child.spec.name}: {why_not}")
    return not why_not


def _done(turn: Turn, child: Child, event: Order, what: str) -> None:
    _answer(turn, child, event.request, ORDERS[type(event)], what)


def _answer(turn: Turn, child: Child, request: int, order: str, what: str) -> None:
    turn.act(Answer(request, True, f"{child.spec.name}: {what}"))
    turn.log("ordered", child, order=order, answer=what)
