"""A scripted process for the real kernel: it behaves as a `Life` says.

It is run by its path, and needs nothing but the standard library. Its argument is JSON: `lives` (one
object for each start, the last one repeats; the fields of `Life` that differ from its defaults),
`stop_signal`, and `directory` and `name` for what it leaves there: the number of its starts, and the
file that says that its port would answer.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

LONGEST_LIFE_S = 300
"""Whatever goes wrong, nothing of this outlives that."""

PIPE_BUF = 4_096
"""A pipe that can be written to takes so much without blocking (pipe(7))."""

STDOUT = 1


class StandIn:
    """One start of one child."""

    def __init__(self, script: dict[str, Any]) -> None:
        self.started_s = time.monotonic()
        self.stop_signal: int = script["stop_signal"]
        directory = Path(script["directory"])
        self.beacon = directory / f"{script['name']}.ready"
        self.beacon.unlink(missing_ok=True)
        count = directory / f"{script['name']}.starts"
        starts = int(count.read_text()) if count.exists() else 0
        count.write_text(str(starts + 1))
        lives = script["lives"]
        self.life: dict[str, Any] = lives[min(starts, len(lives) - 1)]
        self.agenda: list[tuple[float, str, Any, bool]] = []
        """When, what, its facts, and whether that has to wait for what is being written."""
        self.outgoing = b""
        self.lines = 0

    def run(self) -> None:
        """Live until the agenda says how to end, or a signal does."""
        inbox, outbox = os.pipe()
        os.set_blocking(outbox, False)
        signal.set_wakeup_fd(outbox, warn_on_full_buffer=False)
        for caught in (signal.SIGINT, signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(caught, signal.SIG_DFL)  # The interpreter has handlers of its own for these.
        for number in self.life.get("catches", ()):
            signal.signal(number, lambda *_: None)
        if self.life.get("reaps", True):
            signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        self._plan()
        while True:
            entry = min(filter(self._may_happen, self.agenda), key=lambda entry: entry[0])
            outlets = [STDOUT] if self.outgoing else []
            heard, room, _ = select.select([inbox], outlets, [], max(0.0, entry[0] - self._now_s()))
            if heard:
                for number in os.read(inbox, 64):
                    self._handle_requests(number)
            elif room:
                self.outgoing = self.outgoing[os.write(STDOUT, self.outgoing[:PIPE_BUF]) :]
            elif entry[0] <= self._now_s():
                self.agenda.remove(entry)
                getattr(self, f"_{entry[1]}")(entry[2])

    def _may_happen(self, entry: tuple[float, str, Any, bool]) -> bool:
        return not (self.outgoing and entry[3])

    def _now_s(self) -> float:
        return time.monotonic() - self.started_s

    def _at(self, at_ms: float, what: str, facts: Any = None, *, waits: bool = False) -> None:
        self.agenda.append((at_ms / 1_000, what, facts, waits))

    def _plan(self) -> None:
        life = self.life
        self._at(LONGEST_LIFE_S * 1_000, "end", {"code": 99})
        if life.get("run_ms") is not None:
            self._at(life["run_ms"], "end", life.get("end", {}), waits=True)
        if life.get("stopped_ms") is not None:
            self._at(life["stopped_ms"], "suspend")
        if life.get("ready_ms", 0) is not None:
            self._at(life.get("ready_ms", 0), "answer", waits=True)
        for start_ms, end_ms in life.get("sick", ()):
            self._at(start_ms, "refuse")
            self._at(end_ms, "answer")
        for say in life.get("says", ()):
            self._at(say["at_ms"], "say", say, waits=True)
        for write in life.get("writes", ()):
            self._at(write["at_ms"], "write", write, waits=True)
        for remnant in life.get("leaves", ()):
            self._at(remnant.get("born_ms", 0), "leave", remnant, waits=True)

    def _handle_requests(self, number: int) -> None:
        stop_ms = self.life.get("stop_ms", 0)
        if (number == self.stop_signal or number in self.life.get("heeds", ())) and stop_ms is not None:
            self._at(self._now_s() * 1_000 + stop_ms, "end", self.life.get("stop_end", {}))

    def _end(self, end: dict[str, Any]) -> None:
        die(end.get("code", 0), end.get("signal", 0))

    def _suspend(self, _: None) -> None:
        os.kill(os.getpid(), signal.SIGSTOP)

    def _answer(self, _: None) -> None:
        draft = self.beacon.with_suffix(".draft")
        draft.write_text(str(os.getpid()))
        draft.rename(self.beacon)

    def _refuse(self, _: None) -> None:
        self.beacon.unlink(missing_ok=True)

    def _say(self, say: dict[str, Any]) -> None:
        lines = ["READY=1"] if say.get("ready") else []
        lines += ["WATCHDOG=1"] if say.get("watchdog") else []
        lines += [f"STATUS={say['status']}"] if say.get("status") else []
        address = os.environ["NOTIFY_SOCKET"].replace("@", "\0", 1)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as outlet:
            outlet.sendto("\n".join(lines).encode(), address)

    def _write(self, write: dict[str, Any]) -> None:
        numbers = range(self.lines, self.lines + write.get("lines", 1))
        width = min(max(write.get("line_bytes", 100), 40), 65_536)
        self.lines += len(numbers)
        self.outgoing = b"".join((b"%d " % number).ljust(width - 1, b"x") + b"\n" for number in numbers)

    def _leave(self, remnant: dict[str, Any]) -> None:
        pid = os.fork()
        if pid:
            if remnant.get("adopted"):
                try:
                    os.waitpid(pid, 0)
                except ChildProcessError:
                    pass
            return
        if remnant.get("adopted") and os.fork():
            os._exit(0)
        self._be(remnant)

    def _be(self, remnant: dict[str, Any]) -> None:
        """What is left behind lives its own life."""
        signal.set_wakeup_fd(-1)
        for number in self.life.get("catches", ()):
            signal.signal(number, signal.SIG_DFL)
        if remnant.get("escapes"):
            os.setsid()
        stop_ms = remnant.get("stop_ms", 0)
        if stop_ms is None:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        elif stop_ms:
            signal.signal(signal.SIGTERM, lambda *_: die_after(stop_ms, signal.SIGTERM))
        run_ms = remnant.get("run_ms")
        time.sleep(LONGEST_LIFE_S if run_ms is None else run_ms / 1_000)
        os._exit(0)


def die(code: int, number: int) -> None:
    """Exit, or be killed by a signal."""
    if number:
        if number != signal.SIGKILL:
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
        time.sleep(1)
    os._exit(code)


def die_after(after_ms: int, number: int) -> None:
    """Take one's time to die of a signal."""
    time.sleep(after_ms / 1_000)
    die(0, number)


if __name__ == "__main__":
    StandIn(json.loads(sys.argv[1])).run()
