"""One leaf of `bottle_init.linux` on the real kernel, turned by hand: a poller, and the events that come out."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from typing import Any

from bottle_init.core.events import Event
from bottle_init.linux.sys.poller import Poller
from tests.integration.support.init import PATIENCE_S


class Bench:
    """What the loop is to a leaf. `reaped`, where it is set, gets each process started here once it has ended."""

    def __init__(self) -> None:
        self.poller = Poller()
        self.events: list[Event] = []
        self.processes: dict[int, subprocess.Popen[bytes]] = {}
        self.reaped: Callable[[int, int], Any] | None = None
        self.wake_ups = 0

    def emit(self, event: Event) -> None:
        """What a leaf calls."""
        self.events.append(event)

    def run(self, _child: int, command: tuple[str, ...], output: int) -> int:
        """Start a probe's command as the loop does: in a new session, with only `output` to write to."""
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
        self.processes[process.pid] = process
        return process.pid

    def turn(self, timeout_ms: int = 5) -> None:
        """One wake-up."""
        self.poller.wait(timeout_ms)
        self.wake_ups += 1
        for pid, process in list(self.processes.items()):
            if process.poll() is not None:
                del self.processes[pid]
                if self.reaped is not None:
                    code = process.returncode
                    self.reaped(pid, -code if code < 0 else code << 8)

    def until(self, condition: Callable[[], Any], what: str = "the condition") -> Any:
        """Turn until `condition()` is true, and return what it gave."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            found = condition()
            if found:
                return found
            self.turn()
        raise AssertionError(f"{what} did not come about within {PATIENCE_S} s; events: {self.events}")

    def event(self) -> Event:
        """The next event, taken out."""
        self.until(lambda: self.events, "an event")
        return self.events.pop(0)

    def quiet(self, turns: int = 10) -> list[Event]:
        """What comes within some more turns."""
        for _ in range(turns):
            self.turn()
        taken, self.events = self.events, []
        return taken


def session_of(leader: int) -> list[int]:
    """The pids of all processes of a session that have not ended."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat") as file:
                    fields = file.read().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[3]) == leader and fields[0] not in "ZX":
                found.append(int(name))
    return found


def open_descriptors() -> int:
    """How many descriptors this process has."""
    return len(os.listdir("/proc/self/fd"))
