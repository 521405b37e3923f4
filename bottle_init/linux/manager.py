"""The service manager that the init itself was started by: what it hears over `NOTIFY_SOCKET` (sd_notify(3)).

`READY=1` once all daemons have been ready, `STATUS=` with each change of health, `STOPPING=1` with the stop.
"""

from __future__ import annotations

import _socket
import errno
from select import EPOLLOUT

from bottle_init.core import status
from bottle_init.core.words import DAEMON, JOB, UP

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from bottle_init.core.state import State
    from bottle_init.linux.sys.poller import Poller


class Manager:
    """Tells the manager at `address` how the bundle is; `complain` is called once with why it cannot be told."""

    def __init__(self, address: bytes, poller: Poller, complain: Callable[[str], None]) -> None:
        self._poller = poller
        self._complain = complain
        self._socket: _socket.socket | None = None
        self._unsent: list[bytes] = []
        self._status = ""
        self._is_ready = False
        self._is_stopping = False
        try:
            self._socket = _connected(address)
        except OSError as problem:
            complain(problem.strerror or str(problem))

    def tell(self, state: State) -> None:
        """Say what has changed since the last time."""
        if self._socket is None:
            return
        assignments = []
        if not self._is_ready and _has_been_ready(state):
            self._is_ready = True
            assignments.append("READY=1")
        if not self._is_stopping and state.phase != UP:
            self._is_stopping = True
            assignments.append("STOPPING=1")
        present = _status_of(state)
        if present != self._status:
            self._status = present
            assignments.append(f"STATUS={present}")
        if assignments:
            self._unsent.append("\n".join(assignments).encode())
            if len(self._unsent) == 1:
                self._send()

    def _send(self, _mask: int = 0) -> None:
        """Send what there is to say; where the manager's queue is full, go on when it is not."""
        if self._socket is None:
            return
        was_waiting = bool(_mask)
        try:
            while self._unsent:
                self._socket.send(self._unsent[0], _socket.MSG_NOSIGNAL)
                del self._unsent[0]
        except BlockingIOError:
            if not was_waiting:
                self._poller.watch(self._socket.fileno(), EPOLLOUT, self._send)
            return
        except OSError as problem:
            self._complain(problem.strerror or str(problem))
            self._unsent.clear()
        if was_waiting:
            self._poller.forget(self._socket.fileno())


def _connected(address: bytes) -> _socket.socket:
    """A socket to a path or an abstract name, `@` for its leading NUL. Raises OSError."""
    if address[:1] not in (b"/", b"@"):
        raise OSError(errno.EAFNOSUPPORT, "it is neither a path that begins with / nor an abstract name")
    found = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM | _socket.SOCK_NONBLOCK | _socket.SOCK_CLOEXEC)
    try:
        found.connect(b"\0" + address[1:] if address[:1] == b"@" else address)
    except OSError:
        found.close()
        raise
    return found


def _has_been_ready(state: State) -> bool:
    """Whether all daemons have been ready; without daemons, whether the jobs run or have run."""
    daemons = [child for child in state.children if child.spec.kind == DAEMON and child.spec.enabled]
    if daemons:
        return all(child.ever_ready for child in daemons)
    return all(child.ever_ready for child in state.children if child.spec.kind == JOB and child.spec.enabled)


def _status_of(state: State) -> str:
    """The health, and whom it is due to."""
    answer = status.health(state)
    names = [daemon.name for daemon in answer.daemons if daemon.health == answer.health != status.HEALTHY]
    return f"{answer.health} ({', '.join(names)})" if names else answer.health
