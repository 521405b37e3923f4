"""Signals that ask the launcher to end, held back while an engine command runs.

A `docker create` that is killed half way may still leave its container behind, created a moment after the clean-up
has looked for it. So nothing is interrupted inside a command: a signal is noted, and acted on between two.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from launcher.errors import Interrupted

HELD = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class HeldSignals:
    """The first signal that came since the holding began, if any."""

    def __init__(self) -> None:
        self._first: signal.Signals | None = None
        self._answered = False
        self._arrived = threading.Event()

    def note(self, number: int, _frame: FrameType | None) -> None:
        """The handler itself."""
        self._first = self._first or signal.Signals(number)
        self._arrived.set()

    @property
    def came(self) -> bool:
        """Whether a signal has come."""
        return self._first is not None

    def check(self) -> None:
        """Raise `Interrupted` if a signal came."""
        if self._first is not None:
            self._answered = True
            raise Interrupted(self._first, self._first.name)

    def sleep(self, seconds: float) -> None:
        """Wait, and raise `Interrupted` as soon as a signal comes."""
        self._arrived.wait(seconds)
        self.check()

    def hand_on(self) -> None:
        """Send the signal again, if one came and `check` did not raise it: to its former handler."""
        if self._first is not None and not self._answered:
            signal.raise_signal(self._first)


@contextmanager
def hold_signals() -> Iterator[HeldSignals]:
    """Hold INT, TERM and HUP until the block ends; one that `check` has not raised by then takes effect at its end.

    Python handles signals in the main thread alone: in another, nothing is held and nothing needs to be.
    """
    held = HeldSignals()
    if threading.current_thread() is not threading.main_thread():
        yield held
        return
    before = {number: signal.signal(number, held.note) for number in HELD}
    try:
        yield held
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        held.hand_on()
