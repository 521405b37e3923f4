"""The lease on a peer: a descriptor that was handed down, or a connection that the init makes (contract 9).

The bundle lives as long as its peer. What the peer sends is thrown away; only its end matters.
"""

from __future__ import annotations

import _socket
import errno
import posix
from select import EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLOUT, EPOLLRDHUP, poll

from bottle_init.core.events import LeaseEnded, LeaseTaken
from bottle_init.linux.sys import environ

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from bottle_init.core.events import Event
    from bottle_init.core.spec import Lease
    from bottle_init.linux.sys.poller import Poller

LOCALHOST = ("127.0.0.1", "::1")
_IN_PROGRESS = (errno.EINPROGRESS, errno.EINTR)
_THROWN_AWAY = 65_536
_ENDED = EPOLLHUP | EPOLLERR | EPOLLRDHUP
_S_IFMT = 0o170000
_S_IFSOCK = 0o140000

_SILENCE = ((_socket.TCP_KEEPIDLE, 15), (_socket.TCP_KEEPINTVL, 5), (_socket.TCP_KEEPCNT, 3))
"""Seconds, seconds and a count: a peer whose machine is gone says nothing, and is given up after half a minute."""


def as_given(lease: Lease) -> tuple[Lease, bool]:
    """The lease, a path in it made absolute, and whether its descriptor is there: to be asked before any is opened."""
    lease = lease.replace(connect=environ.address_as_given(lease.connect))
    return lease, lease.fd is not None and environ.is_open(lease.fd)


class Watch:
    """Watches the peer of `{ fd }` and `{ connect }`; the time of `{ renew }` is the core's.

    Emits `LeaseTaken` once the peer is there. One that cannot be watched (a descriptor that is not open, a refused
    connection) never is: the lease ends, for a reason that says so. `has_fd` tells whether the descriptor was open
    before the init had any of its own.
    """

    def __init__(self, lease: Lease, has_fd: bool, poller: Poller, emit: Callable[[Event], None]) -> None:
        self._poller = poller
        self._emit = emit
        self._fd = -1
        self._name = ""
        self._socket: _socket.socket | None = None
        self._addresses: list[tuple[int, str | tuple[str, int]]] = []
        if lease.fd is not None and has_fd:
            self._watch_inherited(lease.fd)
        elif lease.fd is not None:
            self._end(f"descriptor {lease.fd} was not open when the init started")
        elif lease.connect is not None:
            self._connect(lease.connect)

    def fileno(self) -> int:
        """The descriptor that is watched, -1 for none."""
        return self._fd

    def close(self) -> None:
        """Watch no more. A descriptor that was handed down stays open."""
        if self._fd >= 0:
            self._poller.forget(self._fd)
            self._fd = -1
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _end(self, reason: str) -> None:
        self.close()
        self._emit(LeaseEnded(reason))

    def _watch_inherited(self, fd: int) -> None:
        """Hang-ups alone wake the init; only a socket can hold back its end behind unread data.

        The descriptor is shared with whoever else has it, so its O_NONBLOCK stays as it is: no
        read here ever waits, because of MSG_DONTWAIT.
        """
        self._name = f"descriptor {fd}"
        try:
            if posix.fstat(fd).st_mode & _S_IFMT == _S_IFSOCK:
                self._socket = _socket.socket(fileno=posix.dup(fd))
                self._fd = self._socket.fileno()
                self._poller.watch(self._fd, EPOLLIN | EPOLLRDHUP, self._discard)
            else:
                self._poller.watch(fd, EPOLLRDHUP, self._hung_up)
                self._fd = fd
            if _is_hung_up(self._fd):
                self._end(f"{self._name} had been closed by the other side before the init started")
            else:
                self._emit(LeaseTaken())
        except PermissionError:
            self._end(f"{self._name} is a file, and no file tells when its other side is gone")
        except OSError as problem:
            self._end(f"{self._name} cannot be watched: {(problem.strerror or str(problem)).lower()}")

    def _hung_up(self, mask: int) -> None:
        if self._fd >= 0 and mask & _ENDED:
            self._end(f"{self._name} was closed by the other side")

    def _connect(self, peer: str) -> None:
        self._name = peer
        scheme, _, where = peer.partition(":")
        if scheme == "unix":
            self._addresses = [(_socket.AF_UNIX, "\0" + where[1:] if where.startswith("@") else where)]
        else:
            host, _, port = where.rpartition(":")
            hosts = LOCALHOST if host == "localhost" else (host.strip("[]"),)
            self._addresses = [
                (_socket.AF_INET6 if ":" in host else _socket.AF_INET, (host, int(port))) for host in hosts
            ]
        self._try_next(errno.EINVAL)

    def _try_next(self, error: int) -> None:
        """Try the next address; where none is left, the lease ends for the last one's reason."""
        while self._addresses:
            self.close()
            family, address = self._addresses.pop(0)
            try:
                error = self._attempt(family, address)
            except OSError as problem:
                error = problem.errno or errno.EINVAL
            if not error or error in _IN_PROGRESS:
                return
        self._end(f"no connection to {self._name}: {posix.strerror(error).lower()}")

    def _attempt(self, family: int, address: str | tuple[str, int]) -> int:
        """Begin to connect; returns 0 or an errno. Raises OSError."""
        if isinstance(address, tuple):
            _socket.inet_pton(family, address[0])
        connection = _socket.socket(family, _socket.SOCK_STREAM | _socket.SOCK_NONBLOCK | _socket.SOCK_CLOEXEC)
        self._socket = connection
        if family != _socket.AF_UNIX:
            connection.setsockopt(_socket.SOL_SOCKET, _socket.SO_KEEPALIVE, 1)
            for option, value in _SILENCE:
                connection.setsockopt(_socket.IPPROTO_TCP, option, value)
        error = connection.connect_ex(address)
        if not error or error in _IN_PROGRESS:
            self._fd = connection.fileno()
            self._poller.watch(self._fd, EPOLLOUT, self._connected)
        return error

    def _connected(self, _mask: int) -> None:
        if self._socket is None:
            return
        error = self._socket.getsockopt(_socket.SOL_SOCKET, _socket.SO_ERROR)
        if error:
            self._try_next(error)
            return
        try:
            self._socket.getpeername()
        except OSError:
            return  # The poller meant an earlier owner of the same descriptor.
        self._poller.forget(self._fd)
        self._poller.watch(self._fd, EPOLLIN | EPOLLRDHUP, self._discard)
        self._emit(LeaseTaken())

    def _discard(self, _mask: int) -> None:
        """Throw away one bounded piece of what the peer sends, or learn that it is gone."""
        if self._socket is None:
            return
        try:
            if self._socket.recv(_THROWN_AWAY, _socket.MSG_DONTWAIT):
                return
            reason = f"{self._name} was closed by the other side"
        except BlockingIOError:
            return
        except OSError as problem:
            reason = f"{self._name}: {posix.strerror(problem.errno or errno.EIO).lower()}"
        self._end(reason)


def _is_hung_up(fd: int) -> bool:
    """Whether the other side of a descriptor has gone already."""
    now = poll()
    now.register(fd, EPOLLRDHUP)
    return any(mask & _ENDED for _, mask in now.poll(0))
