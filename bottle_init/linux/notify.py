"""sd_notify(3): what a daemon says of itself over the socket that `NOTIFY_SOCKET` names.

Each start of a daemon gets a socket of its own, so a datagram to an earlier start's address reaches nobody. It has a
path below /dev/shm, because some libraries send to nothing else. Where that cannot be, the kernel binds it to a free
abstract address, which needs no filesystem. Neither keeps a secret; what counts is that the kernel says which process
sent a datagram (SCM_CREDENTIALS), and that this process belongs to the daemon's session.
"""

from __future__ import annotations

import _socket
import posix
from select import EPOLLIN
from sys import byteorder

from bottle_init.core.events import Notified
from bottle_init.linux.sys.shm import SHM, Sockets
from bottle_init.words.text import plain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from bottle_init.core.events import Event
    from bottle_init.linux.sys.poller import Poller

_DATAGRAM = 4_096
"""Bytes of a datagram; systemd takes no longer ones either."""

_PER_WAKE_UP = 16
_INT = 4
_UCRED = 12
_MOST_DESCRIPTORS = 253
_ANCILLARY = _socket.CMSG_SPACE(_UCRED) + _socket.CMSG_SPACE(_MOST_DESCRIPTORS * _INT)
_STATUS = 500
_DIGITS = 20
_FOREVER_US = 2**64 - 1
"""USEC_INFINITY: no watchdog."""


class Notify:
    """The notify sockets of all daemons that have one.

    `belongs(child, pid)` tells whether that process is of the session of that child's present process. `parent` is the
    directory below which the sockets have paths, if they can.
    """

    def __init__(
        self,
        poller: Poller,
        emit: Callable[[Event], None],
        belongs: Callable[[int, int], bool],
        parent: str = SHM,
    ) -> None:
        self._poller = poller
        self._emit = emit
        self._belongs = belongs
        self._paths = Sockets(parent)
        self._open: dict[int, tuple[_socket.socket, int, str]] = {}

    def open(self, child: int, generation: int) -> str:
        """A new socket for a new start; returns the value for `NOTIFY_SOCKET`. Raises OSError."""
        self.close(child)
        listener = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM | _socket.SOCK_NONBLOCK | _socket.SOCK_CLOEXEC)
        try:
            listener.setsockopt(_socket.SOL_SOCKET, _socket.SO_PASSCRED, 1)
            path = self._bind(listener)
        except OSError:
            listener.close()
            raise
        self._open[child] = (listener, generation, path)
        self._poller.watch(listener.fileno(), EPOLLIN, lambda _mask: self._read(child))
        if path:
            return path
        name: bytes = listener.getsockname()
        return "@" + name[1:].decode("ascii")

    def _bind(self, listener: _socket.socket) -> str:
        """Bind to a path, else to an abstract address, which is "" here. Raises OSError."""
        try:
            return self._paths.bind(listener)
        except OSError:
            listener.bind("")  # No memory file system, or not for this init: an address that any init can have.
            return ""

    def close(self, child: int) -> None:
        """Hear no more of this child."""
        if child in self._open:
            listener, _, path = self._open.pop(child)
            self._poller.forget(listener.fileno())
            listener.close()
            if path:
                self._paths.remove(path)

    def close_all(self) -> None:
        """The init ends: leave nothing behind."""
        for child in list(self._open):
            self.close(child)

    def drain(self, child: int) -> None:
        """The daemon has been reaped: take what it has still said."""
        self._read(child)

    def _read(self, child: int) -> None:
        """Take a bounded number of datagrams. Those of strangers are dropped, and all descriptors are closed.

        The descriptor of a BARRIER=1 is closed with the others, and so after everything that was
        sent before it has been handed on; that is what its sender waits for.
        """
        if child not in self._open:
            return
        listener, generation, _ = self._open[child]
        for _ in range(_PER_WAKE_UP):
            try:
                data, ancillary, flags, _ = listener.recvmsg(_DATAGRAM, _ANCILLARY, _socket.MSG_CMSG_CLOEXEC)
            except OSError:
                return
            sender, descriptors = _unpack(ancillary)
            whole = not flags & _socket.MSG_TRUNC
            if whole and sender and self._belongs(child, sender):
                event = parse(child, generation, data)
                if event is not None:
                    self._emit(event)
            for descriptor in descriptors:
                posix.close(descriptor)


def _unpack(ancillary: list[tuple[int, int, bytes]]) -> tuple[int, list[int]]:
    """The sender's pid (0: of another PID namespace, or unknown) and the descriptors that came along."""
    sender = 0
    descriptors: list[int] = []
    for level, kind, data in ancillary:
        if level != _socket.SOL_SOCKET:
            continue
        if kind == _socket.SCM_CREDENTIALS and len(data) >= _UCRED:
            sender = int.from_bytes(data[:_INT], byteorder, signed=True)
        elif kind == _socket.SCM_RIGHTS:
            whole = len(data) - len(data) % _INT
            descriptors += [int.from_bytes(data[at : at + _INT], byteorder) for at in range(0, whole, _INT)]
    return sender, descriptors


def parse(child: int, generation: int, datagram: bytes) -> Notified | None:
    """The assignments of one datagram; None if none of them means anything here. Of a repeated name the last counts."""
    said = {}
    for line in datagram.split(b"\n"):
        name, equals, value = line.partition(b"=")
        if equals:
            said[name] = value
    status = said.get(b"STATUS")
    event = Notified(
        child,
        generation,
        ready=said.get(b"READY") == b"1",
        stopping=said.get(b"STOPPING") == b"1",
        reloading=said.get(b"RELOADING") == b"1",
        watchdog=said.get(b"WATCHDOG") == b"1",
        watchdog_trigger=said.get(b"WATCHDOG") == b"trigger",
        watchdog_ms=_watchdog_ms(said.get(b"WATCHDOG_USEC", b"")),
        status=None if status is None else plain(status, _STATUS),
    )
    return None if event == Notified(child, generation) else event


def _watchdog_ms(microseconds: bytes) -> int | None:
    """The watchdog's time, never rounded down to none; 0 switches it off, None is no answer."""
    if not microseconds.isdigit() or len(microseconds) > _DIGITS:
        return None
    number = int(microseconds)
    return 0 if number >= _FOREVER_US else (number + 999) // 1_000
