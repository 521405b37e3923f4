"""What becomes of a signal that reaches the init and is no stop signal: who gets it, and who does not (contract 5).

A child gets HUP, USR1, USR2, WINCH and the real-time signals only where its `signals` names them. What
`/proc` shows of its handlers says nothing of what it wants: runtimes catch signals that their programs never asked
for, and die of them, and a program that waits by sigwait(3) or signalfd(2) shows no handler at all.
"""

from __future__ import annotations

from bottle_init.core import signals
from bottle_init.core.actions import ForwardSignal, LogEvent
from bottle_init.core.state import Forwarded
from bottle_init.core.stopping import log_refused
from bottle_init.core.words import ALIVE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from bottle_init.core.events import SignalForwarded, SignalReceived
    from bottle_init.core.state import Child
    from bottle_init.core.turn import Turn

NOT_NAMED: Final = "not named"
NOT_READY: Final = "not ready"
NOT_RUNNING: Final = "not running"
REFUSED: Final = "refused by the kernel"
IGNORED: Final = "ignored"


def receive(turn: Turn, event: SignalReceived) -> None:
    """Sort the children by what this signal is to them, and have it passed on; one that no child can get is ignored."""
    if event.signal == signals.CONT:
        targets = tuple((child.index, child.generation, signals.CONT) for child in turn.children if is_alive(child))
        passed_over = tuple((child.spec.name, NOT_RUNNING) for child in turn.children if not is_alive(child))
        _send(turn, ForwardSignal(signals.CONT, targets, event.sender_pid, event.sender_uid, (), passed_over))
    elif event.signal in signals.BY_NAME:
        _pass_on(turn, event)
    else:
        log_received(turn, event.signal, event.sender_pid, event.sender_uid, effect=IGNORED)


def _pass_on(turn: Turn, event: SignalReceived) -> None:
    targets: list[tuple[int, int, int]] = []
    waiting: list[tuple[str, str]] = []
    passed_over: list[tuple[str, str]] = []
    for child in turn.children:
        signal = signals.for_child(child.spec.signals, event.signal)
        if not signal:
            passed_over.append((child.spec.name, NOT_NAMED))
        elif not is_alive(child):
            passed_over.append((child.spec.name, NOT_RUNNING))
        elif child.fresh:
            targets.append((child.index, child.generation, signal))
        else:
            waiting.append((child.spec.name, NOT_READY))
            keep(
                turn.edit(child.index), Forwarded(signal, event.signal, event.sender_pid, event.sender_uid, turn.now_ms)
            )
    order = ForwardSignal(
        event.signal, tuple(targets), event.sender_pid, event.sender_uid, tuple(waiting), tuple(passed_over)
    )
    _send(turn, order)


def is_alive(child: Child) -> bool:
    """Whether there is a process to be signalled."""
    return child.status in ALIVE


def keep(child: Child, signal: Forwarded) -> None:
    """Have it wait until the child is ready; of two for one signal the later one is kept, as the kernel keeps one."""
    child.waiting_signals = (*(one for one in child.waiting_signals if one.signal != signal.signal), signal)


def deliver(turn: Turn, child: Child) -> None:
    """The child is ready: it gets what has waited for that."""
    waiting, child.waiting_signals = child.waiting_signals, ()
    for one in waiting:
        target = (child.index, child.generation, one.signal)
        turn.act(ForwardSignal(one.source, (target,), one.sender_pid, one.sender_uid, late=True))


def drop(turn: Turn, child: Child) -> None:
    """The process that they waited for has ended."""
    waiting, child.waiting_signals = child.waiting_signals, ()
    for one in waiting:
        turn.log("signal_dropped", child, signal=one.source, reason="it ended before it was ready")


def _send(turn: Turn, order: ForwardSignal) -> None:
    if order.targets:
        turn.act(order)
    else:
        _log_order(turn, order, (), {})


def forwarded(turn: Turn, event: SignalForwarded) -> None:
    """It has been sent: what comes of it may be the init's own doing (contract 2, clean), and is told as such."""
    order = event.order
    for index, generation, signal in order.targets:
        child = turn.children[index]
        if index in event.sent and child.generation == generation and is_alive(child):
            note(turn.edit(index), Forwarded(signal, order.signal, order.sender_pid, order.sender_uid, turn.now_ms))
    if not order.late:
        _log_order(turn, order, event.sent, dict(event.refused))
    for index, _, signal in order.targets:
        child = turn.children[index]
        if order.late and index in event.sent:
            turn.log("signal_delivered", child, signal=order.signal, sent=signal)
    for index, reason in event.refused:
        signal = next(signal for target, _, signal in order.targets if target == index)
        log_refused(turn, turn.children[index], signal, reason)


def note(child: Child, signal: Forwarded) -> None:
    """Remember what has been forwarded. CONT ends nothing, so no end is ever its doing."""
    if signal.signal != signals.CONT:
        child.forwarded = (*(one for one in child.forwarded if one.signal != signal.signal), signal)


def _log_order(turn: Turn, order: ForwardSignal, sent: tuple[int, ...], refused: dict[int, str]) -> None:
    names = tuple(turn.children[index].spec.name for index, _, _ in order.targets if index in sent)
    others = [
        (turn.children[index].spec.name, REFUSED if index in refused else NOT_RUNNING)
        for index, _, _ in order.targets
        if index not in sent
    ]
    passed_over = dict((*order.passed_over, *others))
    log_received(
        turn,
        order.signal,
        order.sender_pid,
        order.sender_uid,
        sent_to=names or None,
        waiting=dict(order.waiting) or None,
        passed_over=passed_over or None,
    )


def log_received(turn: Turn, signal: int, pid: int, uid: int | None, **facts: object) -> None:
    """The event that every signal but CHLD is; pid 0 is the kernel, or a process that cannot be seen from here."""
    sender = (("signal", signal), ("sender_pid", pid or None), ("sender_uid", uid))
    turn.act(LogEvent("signal_received", facts=(*sender, *facts.items()), sender_pid=pid))
