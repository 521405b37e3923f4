"""The way out when the init itself has failed: needs nothing of the core (contract 2 and 8).

Every child is sent its stop signal at once, everything is killed at the deadline, and the code is 70.
"""

from __future__ import annotations

import posix
from _signal import sigtimedwait

from bottle_init.core.model import EX_SOFTWARE, GIVE_UP_MS
from bottle_init.linux import reaper
from bottle_init.linux.clock import monotonic_ms

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from bottle_init.core.model import Bundle

SIGCHLD = 17


def end(problem: BaseException, bundle: Bundle, pids: Mapping[int, tuple[int, int] | None]) -> int:
    """Say what has gone wrong, end everything below the init, and return 70."""
    _say(problem)
    for pid, owner in pids.items():
        if owner is not None:
            reaper.send_to_pid(pid, bundle.children[owner[0]].stop_signal)
            reaper.send_to_pid(pid, reaper.SIGCONT)
    tree = reaper.Tree({})
    deadline_ms = monotonic_ms() + bundle.stop_timeout_ms
    if not _wait(tree, deadline_ms):
        tree.everything(reaper.SIGKILL)
        _wait(tree, deadline_ms + GIVE_UP_MS)
    return EX_SOFTWARE


def _wait(tree: reaper.Tree, until_ms: int) -> bool:
    """Reap until no child is left; False if the time is over first."""
    while True:
        tree.reap()
        if tree.childless:
            return True
        left_ms = until_ms - monotonic_ms()
        if left_ms <= 0:
            return False
        sigtimedwait((SIGCHLD,), min(left_ms, 100) / 1_000)


def _say(problem: BaseException) -> None:
    """One JSON line on stderr, if somebody reads that; the last thing to fail must not block."""
    import json
    from select import POLLOUT, poll
    from traceback import format_exception

    story = "".join(format_exception(problem))
    record = {"event": "internal_error", "level": "critical", "code": EX_SOFTWARE, "exception": story[-3_000:]}
    watcher = poll()
    watcher.register(2, POLLOUT)
    try:
        if watcher.poll(0):
            posix.write(2, json.dumps(record).encode()[:4_095] + b"\n")
    except OSError:
        pass  # Nobody reads stderr; the exit code says it all the same.
