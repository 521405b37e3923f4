"""A listening socket and its clients, none of which is ever waited for.

Clients are let in a bounded number at a time; what they send is taken piece by piece, and what they do not take yet
waits in a buffer that whoever serves them can measure.
"""

from __future__ import annotations

import _socket
import errno
import posix
from select import EPOLLIN, EPOLLOUT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from bottle_init.linux.sys.poller import Bulk, Poller

    Watcher = Poller | Bulk

_ACCEPTS = 16
_PAUSE_MS = 1_000
_BACKLOG = 128
_S_IFMT = 0o170000
_S_IFSOCK = 0o140000
_STREAM = _socket.SOCK_STREAM | _socket.SOCK_NONBLOCK | _socket.SOCK_CLOEXEC


class Listener:
    """Listens at one address of a Unix socket: a path, or `@name` for an abstract one.

    `clock` gives monotonic milliseconds; `welcome` is called with each new connection, which does not block. `note` is
    told why clients have to wait, once until one is let in again. `mode` is what the file of a path lets others do;
    connecting takes the right to write (unix(7)).
    """

    def __init__(
        self,
        address: str,
        poller: Watcher,
        clock: Callable[[], int],
        welcome: Callable[[_socket.socket], None],
        note: Callable[[str], None],
        mode: int = 0o600,
    ) -> None:
        self._address = address
        self._poller = poller
        self._clock = clock
        self._welcome = welcome
        self._note = note
        self._has_noted = False
        self._mode = mode
        self._socket: _socket.socket | None = None
        self._resume_at_ms: int | None = None
        self._owned: tuple[int, int] | None = None

    @property
    def family(self) -> int:
        """The address family of the socket (socket(2))."""
        return _socket.AF_UNIX

    def open(self) -> str:
        """Listen; returns "" or, in words, why that cannot be. Without an address there is nobody to listen for."""
        if not self._address:
            return ""
        try:
            self._socket = self._listen()
        except OSError as problem:
            reason = problem.strerror or str(problem)
            if problem.errno == errno.EADDRINUSE:
                is_path = self.family == _socket.AF_UNIX and not self._address.startswith("@")
                reason = f"another process listens there{', or it is not a socket' if is_path else ''}"
            return f"{self._address}: {reason}"
        self._poller.watch(self._socket.fileno(), EPOLLIN, self._accept)
        return ""

    def close(self) -> None:
        """Let nobody in any more, and take the file of the socket away."""
        if self._socket is not None:
            self._poller.forget(self._socket.fileno())
            self._socket.close()
            self._socket = None
        self._resume_at_ms = None
        self._unlink_own()

    def deadline_ms(self) -> int | None:
        """When `tick` has to be called even if nothing happens."""
        return self._resume_at_ms

    def tick(self, now_ms: int) -> None:
        """Let clients in again after a pause."""
        if self._resume_at_ms is not None and self._resume_at_ms <= now_ms and self._socket is not None:
            self._resume_at_ms = None
            self._poller.watch(self._socket.fileno(), EPOLLIN, self._accept)

    def _listen(self) -> _socket.socket:
        listener = _socket.socket(self.family, _STREAM)
        try:
            self._bind(listener)
            listener.listen(_BACKLOG)
        except BaseException:
            listener.close()
            raise
        return listener

    def _bind(self, listener: _socket.socket) -> None:
        if self._address.startswith("@"):
            listener.bind("\0" + self._address[1:])
        else:
            self._bind_path(listener)

    def _bind_path(self, listener: _socket.socket) -> None:
        """Bind for those whom the mode names; what a dead init has left there makes room, anything else does not."""
        umask = posix.umask(0o777 & ~self._mode)
        try:
            try:
                listener.bind(self._address)
            except OSError as problem:
                if problem.errno != errno.EADDRINUSE or not _is_stale(self._address):
                    raise
                posix.unlink(self._address)
                listener.bind(self._address)
        finally:
            posix.umask(umask)
        found = posix.lstat(self._address)
        self._owned = (found.st_dev, found.st_ino)

    def _unlink_own(self) -> None:
        if self._owned is None:
            return
        try:
            found = posix.lstat(self._address)
            if (found.st_dev, found.st_ino) == self._owned:
                posix.unlink(self._address)
        except OSError:
            pass  # Somebody has removed it already, or the filesystem has become read-only.
        self._owned = None

    def _accept(self, _mask: int) -> None:
        for _ in range(_ACCEPTS):
            if self._socket is None:
                return
            try:
                fd = _accept(self._socket)
            except BlockingIOError:
                return
            except OSError as problem:
                if problem.errno != errno.ECONNABORTED:
                    self._pause(problem)
                return
            self._has_noted = False
            self._welcome(_socket.socket(self.family, _STREAM, 0, fd))

    def _pause(self, problem: OSError) -> None:
        """No descriptor or no memory is left: a client that cannot be let in must not wake the init all the time."""
        if self._socket is not None:
            self._poller.forget(self._socket.fileno())
            self._resume_at_ms = self._clock() + _PAUSE_MS
        if not self._has_noted:
            self._has_noted = True
            self._note(problem.strerror or str(problem))


class TcpListener(Listener):
    """The same at `HOST:PORT`: an IP literal, one of IPv6 in brackets, or `localhost`, which is 127.0.0.1."""

    @property
    def family(self) -> int:
        """AF_INET6 for an address in brackets."""
        return _socket.AF_INET6 if self._address.startswith("[") else _socket.AF_INET

    def _bind(self, listener: _socket.socket) -> None:
        host, _, port = self._address.rpartition(":")
        listener.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)  # Connections of an earlier init linger there.
        if self.family == _socket.AF_INET6:
            listener.setsockopt(_socket.IPPROTO_IPV6, _socket.IPV6_V6ONLY, 1)
        listener.bind(("127.0.0.1" if host == "localhost" else host.strip("[]"), int(port)))


class Connection:
    """One client's connection: what it has said, and what it has not taken yet.

    `serve` is called whenever there is something to read for one that is `heard`, or room for what waits.
    """

    __slots__ = ("_mask", "_poller", "_socket", "heard", "received", "to_send")

    def __init__(self, connection: _socket.socket, poller: Watcher, serve: Callable[[], None]) -> None:
        connection.setblocking(False)
        self._socket = connection
        self._poller = poller
        self._mask = EPOLLIN
        self.heard = True
        self.received = b""
        self.to_send = bytearray()
        poller.watch(connection.fileno(), self._mask, lambda _mask: serve())

    @property
    def is_open(self) -> bool:
        """Whether `close` has not been called yet."""
        return self._socket.fileno() >= 0

    def hear(self, most: int) -> bool:
        """Take one piece of at most so many bytes; False once the other side has ended."""
        try:
            piece = self._socket.recv(most)
        except BlockingIOError:
            return True
        except OSError:
            return False
        self.received += piece
        return bool(piece)

    def flush(self) -> bool:
        """Send what the client takes now, the rest when it takes more; False where the connection is broken."""
        try:
            sent = self._socket.send(self.to_send, _socket.MSG_NOSIGNAL)
        except BlockingIOError:
            sent = 0
        except OSError:
            return False
        del self.to_send[:sent]
        return True

    def end_output(self) -> None:
        """Tell the client that nothing more comes; what it still says can be heard."""
        try:
            self._socket.shutdown(_socket.SHUT_WR)
        except OSError:
            pass  # It has gone already.

    def watch(self) -> None:
        """Wait for what there is to wait for. A hang-up is always seen; data that nobody will read wakes nobody."""
        mask = (EPOLLIN if self.heard else 0) | (EPOLLOUT if self.to_send else 0)
        if mask != self._mask:
            self._mask = mask
            self._poller.change(self._socket.fileno(), mask)

    def close(self) -> None:
        """Be done with this client."""
        self._poller.forget(self._socket.fileno())
        self._socket.close()


def _accept(listener: _socket.socket) -> int:
    """accept4(2), as `_socket` names it; the descriptor is not inheritable. Raises OSError."""
    fd: int = listener._accept()[0]  # type: ignore[attr-defined]  # noqa: SLF001
    return fd


def _is_stale(path: str) -> bool:
    """Whether `path` is a socket at which nobody listens any more."""
    if posix.lstat(path).st_mode & _S_IFMT != _S_IFSOCK:
        return False
    knock = _socket.socket(_socket.AF_UNIX, _STREAM)
    try:
        return knock.connect_ex(path) == errno.ECONNREFUSED
    finally:
        knock.close()
