"""`--control` for one command: the same wait for signals, and the control socket beside it (contract 5, 6)."""

from __future__ import annotations

from _signal import sigtimedwait
from select import EPOLLIN

from bottle_init.core.events import ChildSignalOrdered, ChildStopOrdered, LeaseRenewed, StopOrdered
from bottle_init.core.words import ENDED
from bottle_init.linux.control import Control
from bottle_init.linux.sys import libc
from bottle_init.linux.sys.clock import monotonic_ms
from bottle_init.linux.sys.poller import Poller

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from signal import struct_siginfo

    from bottle_init.core.events import Event
    from bottle_init.core.state import State


class Remote:
    """Who asks sees the command as the one job of a bundle.

    `signals` are those to wait for; `look` gives what there is to see of the command; `stop(pid, uid)` asks it to stop
    for that client, `send` sends it a signal.
    """

    def __init__(
        self,
        address: str,
        signals: Sequence[int],
        look: Callable[[], State],
        stop: Callable[[int, int | None], None],
        send: Callable[[int], None],
    ) -> None:
        self._signals = signals
        self._look = look
        self._stop = stop
        self._send = send
        self._poller = Poller()
        self._poller.watch(libc.signalfd(signals), EPOLLIN, lambda _mask: None)
        self._control = Control(address, self._poller, self._obey, lambda: (look(), monotonic_ms()))

    def open(self) -> str:
        """Listen; returns "" or why that cannot be."""
        return self._control.open()

    def close(self, line: bytes) -> None:
        """The last event for those who follow, and no more answers."""
        if line:
            self._control.publish(line)
        self._control.close()

    def wait(self, timeout_s: float | None) -> struct_siginfo | None:
        """The next signal, with clients served until it comes; None if the time is over first."""
        end_ms = None if timeout_s is None else monotonic_ms() + int(timeout_s * 1_000)
        while True:
            info: struct_siginfo | None = sigtimedwait(self._signals, 0)
            now_ms = monotonic_ms()
            if info is not None or (end_ms is not None and now_ms >= end_ms):
                return info
            times = [at_ms for at_ms in (end_ms, self._control.deadline_ms()) if at_ms is not None]
            self._poller.wait(max(0, min(times) - now_ms) if times else None)
            self._control.tick(monotonic_ms())

    def _obey(self, event: Event) -> None:
        """An order. To stop the command is to send it TERM, as everywhere; it cannot be started a second time."""
        request = getattr(event, "request", 0)
        if self._look().children[0].status == ENDED:
            self._control.answer(request, False, "the command has ended")
        elif isinstance(event, StopOrdered | ChildStopOrdered):
            self._stop(getattr(event, "sender_pid", 0), getattr(event, "sender_uid", None))
            self._control.answer(request, True, "stopping")
        elif isinstance(event, ChildSignalOrdered):
            self._send(event.signal)
            self._control.answer(request, True, f"sent signal {event.signal}")
        elif isinstance(event, LeaseRenewed):
            self._control.answer(request, False, "one command has no lease to renew")
        else:
            self._control.answer(request, False, "one command is neither started again nor restarted")
