"""What one command may have beside its signals: a lease, and the control socket (contract 5.2, 6.2)."""

from __future__ import annotations

from _signal import sigtimedwait
from posix import close
from select import EPOLLIN

from bottle_init.core.events import (
    ChildSignalOrdered,
    ChildStopOrdered,
    LeaseEnded,
    LeaseRenewed,
    LeaseTaken,
    StopOrdered,
)
from bottle_init.core.state import LEASE_PATIENCE_MS
from bottle_init.core.words import ENDED
from bottle_init.linux.sys import libc
from bottle_init.linux.sys.clock import monotonic_ms
from bottle_init.linux.sys.poller import Poller

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from signal import struct_siginfo

    from bottle_init.core.events import Event
    from bottle_init.core.spec import Lease
    from bottle_init.core.state import State
    from bottle_init.linux.control import Control
    from bottle_init.linux.lease import Watch


class Remote:
    """Who asks sees the command as the one job of a bundle.

    `look` gives what there is to see of the command; `stop(pid, uid)` asks it to stop for that client, `send` sends it
    a signal, and both return "" or why that cannot be; `lose(reason)` tells of the end of its lease.
    """

    def __init__(
        self,
        look: Callable[[], State],
        stop: Callable[[int, int | None], str],
        send: Callable[[int], str],
        lose: Callable[[str], None],
    ) -> None:
        self._signals: Sequence[int] = ()
        self._look = look
        self._stop = stop
        self._send = send
        self._lose = lose
        self._poller = Poller()
        self._control: Control | None = None
        self._lease: Watch | None = None
        self._lease_event: LeaseTaken | LeaseEnded | None = None
        """What the lease's peer has done last."""

    def descriptors(self) -> tuple[int, ...]:
        """What has to stay open for the lease."""
        return (self._poller.fileno(), self._lease.fileno() if self._lease is not None else -1)

    def take_lease(self, lease: Lease, has_fd: bool, signals: Sequence[int]) -> int | str:
        """Wait until the peer is there: returns 0, one of `signals` that has come first, or why it cannot be had."""
        from bottle_init.linux.lease import Watch

        end_ms = monotonic_ms() + LEASE_PATIENCE_MS
        waiting = libc.signalfd(signals)
        self._poller.watch(waiting, EPOLLIN, lambda _mask: None)
        self._lease = Watch(lease, has_fd, self._poller, self._note_lease)
        while self._lease_event is None:
            info: struct_siginfo | None = sigtimedwait(signals, 0)
            if info is not None:
                return info.si_signo
            left_ms = end_ms - monotonic_ms()
            if left_ms <= 0:
                return f"nobody has taken the connection for {LEASE_PATIENCE_MS // 1_000} seconds"
            self._poller.wait(left_ms)
        self._poller.forget(waiting)
        close(waiting)
        lease_event, self._lease_event = self._lease_event, None
        return lease_event.reason if isinstance(lease_event, LeaseEnded) else 0

    def _note_lease(self, event: Event) -> None:
        if isinstance(event, LeaseTaken | LeaseEnded):
            self._lease_event = event

    def wait_for(self, signals: Sequence[int]) -> None:
        """From now on `wait` is for these."""
        self._signals = signals
        self._poller.watch(libc.signalfd(signals), EPOLLIN, lambda _mask: None)

    def listen(self, address: str, note: Callable[[str], None]) -> str:
        """Open the control socket; returns "" or why that cannot be. `note` is told why clients have to wait."""
        from bottle_init.linux.control import Control

        self._control = Control(address, self._poller, self._obey, lambda: (self._look(), monotonic_ms()), note)
        return self._control.open()

    def close(self, line: bytes) -> None:
        """The last event for those who follow, and no more answers."""
        if self._control is not None:
            if line:
                self._control.publish(line)
            self._control.close()
        if self._lease is not None:
            self._lease.close()

    def wait(self, timeout_s: float | None) -> struct_siginfo | None:
        """The next signal, with clients served until it comes; None if the time is over first, or the lease."""
        end_ms = None if timeout_s is None else monotonic_ms() + int(timeout_s * 1_000)
        while True:
            info: struct_siginfo | None = sigtimedwait(self._signals, 0)
            now_ms = monotonic_ms()
            if info is not None or (end_ms is not None and now_ms >= end_ms):
                return info
            control_ms = self._control.deadline_ms() if self._control is not None else None
            times = [at_ms for at_ms in (end_ms, control_ms) if at_ms is not None]
            self._poller.wait(max(0, min(times) - now_ms) if times else None)
            if self._control is not None:
                self._control.tick(monotonic_ms())
            if isinstance(self._lease_event, LeaseEnded):
                reason, self._lease_event = self._lease_event.reason, None
                self._lose(reason)
                return None

    def _obey(self, event: Event) -> None:
        """An order. To stop the command is to send it TERM, as everywhere; it cannot be started a second time."""
        request = getattr(event, "request", 0)
        if self._look().children[0].status == ENDED:
            self._answer(request, False, "the command has ended")
        elif isinstance(event, StopOrdered | ChildStopOrdered):
            refusal = self._stop(getattr(event, "sender_pid", 0), getattr(event, "sender_uid", None))
            self._answer(request, not refusal, refusal or "stopping")
        elif isinstance(event, ChildSignalOrdered):
            refusal = self._send(event.signal)
            self._answer(request, not refusal, refusal or f"sent signal {event.signal}")
        elif isinstance(event, LeaseRenewed):
            self._answer(request, False, "one command has no lease to renew")
        else:
            self._answer(request, False, "one command is neither started again nor restarted")

    def _answer(self, request: int, done: bool, text: str) -> None:
        if self._control is not None:
            self._control.answer(request, done, text)
