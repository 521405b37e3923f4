"""The way out when the init itself has failed: needs nothing that the core decides (contract 2 and 8).

Every child is sent its stop signal at once, everything is killed at the deadline, and the code is 70. All else
(words, the children's last lines, the report) is attempted, and given up where that fails too.
"""

from __future__ import annotations

import posix
from _signal import sigtimedwait
from select import POLLOUT, poll
from time import sleep

from bottle_init.core.actions import Exit
from bottle_init.core.state import Stop
from bottle_init.core.words import GIVE_UP_MS
from bottle_init.linux import reaper, report
from bottle_init.linux.sys import proc
from bottle_init.linux.sys.clock import monotonic_ms, wall_s
from bottle_init.words import jsonlines
from bottle_init.words.exits import EX_SOFTWARE
from bottle_init.words.text import plain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from bottle_init.core.spec import Bundle
    from bottle_init.linux.logs import Logs

KIND = "internal"
"""The report's `kind` of such an end."""

SIGCHLD = 17

_EVENT_BYTES = 4_095
"""What a pipe that has room at all takes in one piece, less a newline (pipe(7), PIPE_BUF)."""
_CAUSE_LIMIT = 300
_LOOK_MS = 100
_STALL_MS = 100


class Outlet:
    """Where words and lines go: the init's logs, as far as they still work, else stderr as it is."""

    def __init__(self, logs: Logs | None) -> None:
        self.logs = logs

    def attempt(self, call: Callable[[Logs], Any]) -> Any:
        """One call of the logs, None if it failed; there is no other after that."""
        if self.logs is None:
            return None
        try:
            return call(self.logs)
        except BaseException:  # noqa: BLE001 - it may be just them that have failed.
            self.logs = None
            return None

    def event(self, line: bytes) -> None:
        """One line of the init's own."""
        self.attempt(lambda logs: logs.event(line))
        if self.logs is None:
            _write_at_once(line + b"\n")

    def flush(self) -> None:
        """Write what is left, to a reader that takes it."""
        until_ms = monotonic_ms() + _STALL_MS
        while self.attempt(lambda logs: logs.flush(0)) is False and monotonic_ms() < until_ms:
            sleep(0.005)


def end(
    problem: BaseException,
    bundle: Bundle,
    pids: Mapping[int, tuple[int, int] | None],
    logs: Logs | None = None,
    path: str | None = None,
) -> int:
    """Say what has gone wrong, end everything below the init, report as for a bundle, and return 70.

    `pids` are what the init has started and not reaped, as the loop has them; `path` is the report's.
    """
    began_ms = monotonic_ms()
    outlet = Outlet(logs)
    end_all(problem, bundle, pids, outlet)
    try:
        _report(problem, bundle, began_ms, outlet, path)
    except Exception:  # noqa: BLE001 - the exit code says the least that there is to say.
        outlet.flush()
    return EX_SOFTWARE


def _report(problem: BaseException, bundle: Bundle, began_ms: int, outlet: Outlet, path: str | None) -> None:
    """The last words of the children, then the report, as at any other end."""
    outlet.attempt(lambda logs: logs.finish())
    outlet.flush()
    outlet.attempt(lambda logs: logs.give_up())
    record = record_of(problem, bundle, began_ms, outlet.attempt(lambda logs: logs.dropped()) or 0)
    line = report.encode(record, jsonlines.timestamp(wall_s()))
    for unwritten in report.write(record, line, path):
        outlet.event(_event("report_unwritten", "error", ("reason", unwritten)))
    outlet.event(line)
    outlet.flush()


def end_command(problem: BaseException, bundle: Bundle, pids: Mapping[int, tuple[int, int] | None], path: str) -> int:
    """The same for one command, which is reported on only if there is a path for that, and not on its own stderr."""
    began_ms = monotonic_ms()
    end_all(problem, bundle, pids, Outlet(None))
    if path:
        record = record_of(problem, bundle, began_ms, 0)
        report.write(record, report.encode(record, jsonlines.timestamp(wall_s())), path)
    return EX_SOFTWARE


def end_all(problem: BaseException, bundle: Bundle, pids: Mapping[int, tuple[int, int] | None], outlet: Outlet) -> None:
    """Each child's own stop signal at once, SIGKILL for all that is left at the deadline."""
    deadline_ms = monotonic_ms() + bundle.stop_timeout_ms
    for pid, owner in pids.items():
        if owner is not None:
            proc.send_to_pid(pid, bundle.children[owner[0]].stop_signal)
            proc.send_to_pid(pid, reaper.SIGCONT)
    outlet.attempt(lambda logs: logs.stop())
    outlet.event(internal_error(problem))
    tree = reaper.Tree({})
    if not _wait(tree, deadline_ms, outlet):
        tree.everything(reaper.SIGKILL)
        _wait(tree, deadline_ms + GIVE_UP_MS, outlet)


def _wait(tree: reaper.Tree, until_ms: int, outlet: Outlet) -> bool:
    """Reap until no child is left; False if the time is over first. Who still writes is read, and so never waits."""
    while True:
        tree.reap()
        if tree.childless:
            return True
        left_ms = until_ms - monotonic_ms()
        if left_ms <= 0:
            return False
        if not outlet.attempt(lambda logs: logs.pump()) and not tree.may_be_more:
            sigtimedwait((SIGCHLD,), min(left_ms, _LOOK_MS) / 1_000)


def record_of(problem: BaseException, bundle: Bundle, began_ms: int, dropped: int) -> report.Record:
    """The report of such an end. Which deaths there were, only the core knew."""
    now_ms = monotonic_ms()
    stop = Stop(KIND, f"internal error: {plain(_said(problem), _CAUSE_LIMIT)}", began_ms, now_ms, EX_SOFTWARE)
    return report.build(Exit(EX_SOFTWARE, stop, (), (), now_ms), bundle, lambda _child: (), dropped)


def internal_error(problem: BaseException) -> bytes:
    """The event of that name: what the exception said and where it went, in as much of a line as is written at once."""
    code = ("code", EX_SOFTWARE)
    story = "".join((*_where(problem), _said(problem)))
    try:
        while len(line := _event("internal_error", "critical", code, ("exception", story))) > _EVENT_BYTES:
            story = "... " + story[len(story) // 2 :]
    except Exception:  # noqa: BLE001 - what puts quotes around a text has to be imported, and cannot be.
        line = _event("internal_error", "critical", code)
    return line


def _where(problem: BaseException) -> list[str]:
    """The lines of a traceback. The module of that name would have to be found and read, and cannot always be."""
    found = []
    at = problem.__traceback__
    while at is not None:
        code = at.tb_frame.f_code
        found.append(f"{code.co_filename}:{at.tb_lineno}, in {code.co_name}\n")
        at = at.tb_next
    return found


def _said(problem: BaseException) -> str:
    try:
        return f"{type(problem).__name__}: {problem}"
    except Exception:  # noqa: BLE001 - its own text is broken too.
        return type(problem).__name__


def _event(name: str, level: str, *facts: tuple[str, object]) -> bytes:
    return jsonlines.encode(name, level, facts, jsonlines.timestamp(wall_s()))


def _write_at_once(line: bytes) -> None:
    """To stderr, if somebody reads that; the last thing to fail must not block."""
    watcher = poll()
    watcher.register(2, POLLOUT)
    try:
        if watcher.poll(0):
            posix.write(2, line)
    except OSError:
        pass  # Nobody reads it; the exit code says it all the same.
