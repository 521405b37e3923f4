"""`--control` for one command: the same wait for signals, and the control socket beside it (contract 5, 6)."""

from __future__ import annotations

from _signal import SIGTERM, sigtimedwait
from select import EPOLLIN

from bottle_init.core.events import ChildSignalOrdered, ChildStopOrdered, LeaseRenewed, StopOrdered
from bottle_init.core.state import State
from bottle_init.core.words import ENDED, GOING_DOWN, RUNNING
from bottle_init.linux.control import Control
from bottle_init.linux.sys import libc
from bottle_init.linux.sys.clock import monotonic_ms
from bottle_init.linux.sys.poller import Poller

TYPE_CHECKING = False
if TYPE_CHECKING:
    from signal import struct_siginfo

    from bottle_init.core.events import Event
    from bottle_init.linux.one import Command


class Remote:
    """Who asks sees the command as the one job of a bundle."""

    def __init__(self, command: Command) -> None:
        self._command = command
        self._poller = Poller()
        self._poller.watch(libc.signalfd(command.every), EPOLLIN, lambda _mask: None)
        self._state = State(command.as_bundle(), command.started_at_ms)
        child = self._state.children[0]
        child.status = RUNNING
        child.pid = command.pid
        child.generation = 1
        child.started_at_ms = command.started_at_ms
        self._control = Control(command.control, self._poller, self._heed, self._view)

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
            info: struct_siginfo | None = sigtimedwait(self._command.every, 0)
            now_ms = monotonic_ms()
            if info is not None or (end_ms is not None and now_ms >= end_ms):
                return info
            times = [at_ms for at_ms in (end_ms, self._control.deadline_ms()) if at_ms is not None]
            self._poller.wait(max(0, min(times) - now_ms) if times else None)
            self._control.tick(monotonic_ms())

    def _view(self) -> tuple[State, int]:
        command, state = self._command, self._state
        if command.code is not None:
            state.children[0].status = ENDED
        if command.asked is not None or command.code is not None:
            state.phase = GOING_DOWN
        return state, monotonic_ms()

    def _heed(self, event: Event) -> None:
        """An order. To stop the command is to send it TERM, as everywhere; it cannot be started a second time."""
        command = self._command
        request = getattr(event, "request", 0)
        if command.code is not None:
            self._control.answer(request, False, "the command has ended")
        elif isinstance(event, StopOrdered | ChildStopOrdered):
            pid, uid = getattr(event, "sender_pid", 0), getattr(event, "sender_uid", None)
            command.note_request("the control socket", pid, uid)
            command.sent |= 1 << command.targets[SIGTERM]
            command.send(command.targets[SIGTERM])
            self._control.answer(request, True, "stopping")
        elif isinstance(event, ChildSignalOrdered):
            command.send(event.signal)
            self._control.answer(request, True, f"sent signal {event.signal}")
        elif isinstance(event, LeaseRenewed):
            self._control.answer(request, False, "one command has no lease to renew")
        else:
            self._control.answer(request, False, "one command is neither started again nor restarted")
