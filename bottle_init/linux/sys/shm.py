"""Sockets with a path that needs no disk: below /dev/shm, in a directory that only this user writes to.

/dev/shm is in memory (shm_open(3)), so a disk that is full, frozen or read-only does not matter. Containers have one
even with a read-only root and without root's rights. All containers of a Kubernetes pod have the same one.
"""

from __future__ import annotations

import _socket
import errno
import posix
from time import monotonic_ns

from bottle_init.linux.sys.clock import wall_s

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

SHM: Final = "/dev/shm"  # noqa: S108 - What is done about others that write there is below.
_DIRECTORY = 0o040000
_FORMAT = 0o170000
_STICKY = 0o1000
_BY_OTHERS = 0o022
_MODE = 0o711
_SOCKET_MODE = 0o666
_OLD_S = 60
"""A socket without a listener that is younger may be one that another init is just about to bind."""

_MOST_SWEPT = 100
_TRIES = 3


class Sockets:
    """Binds datagram sockets to paths below `parent`, which everybody may send to."""

    def __init__(self, parent: str = SHM) -> None:
        self._parent = parent
        self._directory = f"{parent}/bottle_init.{posix.geteuid()}"
        self._is_swept = False

    def bind(self, socket: _socket.socket) -> str:
        """Bind a socket to a new path, and return that. Raises OSError where there is no private place."""
        for _ in range(_TRIES):
            self._make()
            try:
                return self._bind(socket)
            except FileNotFoundError:
                pass  # Another init has just removed its last socket, and the directory with it.
        return self._bind(socket)

    def _bind(self, socket: _socket.socket) -> str:
        path = f"{self._directory}/{monotonic_ns():x}"
        umask = posix.umask(0o777 & ~_SOCKET_MODE)
        try:
            socket.bind(path)
        finally:
            posix.umask(umask)
        return path

    def remove(self, path: str) -> None:
        """Take a socket's path away, and the directory with the last one."""
        try:
            posix.unlink(path)
            posix.rmdir(self._directory)
        except OSError:
            pass  # It is gone already, or others are there: of this init, or of one that has the same /dev/shm.

    def _make(self) -> None:
        """Make the directory, or take one of this user's own. Raises OSError."""
        found = posix.lstat(self._parent)
        if found.st_mode & _BY_OTHERS and not found.st_mode & _STICKY:
            raise OSError(errno.EPERM, "others may replace what is there")
        try:
            posix.mkdir(self._directory, 0o700)
        except FileExistsError:
            own = posix.lstat(self._directory)
            if own.st_mode & _FORMAT != _DIRECTORY or own.st_uid != posix.geteuid():
                raise
        posix.chmod(self._directory, _MODE)
        if not self._is_swept:
            self._is_swept = True
            self._sweep()

    def _sweep(self) -> None:
        """Remove a bounded number of paths that inits have left behind which were killed."""
        try:
            names = posix.listdir(self._directory)[:_MOST_SWEPT]
        except OSError:
            return  # It has gone again, or no descriptor is left; nothing depends on this.
        for name in names:
            path = f"{self._directory}/{name}"
            try:
                if posix.lstat(path).st_mtime < wall_s() - _OLD_S and _is_stale(path):
                    posix.unlink(path)
            except OSError:
                pass  # Another init has swept it.


def _is_stale(path: str) -> bool:
    knock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
    try:
        return knock.connect_ex(path) == errno.ECONNREFUSED
    finally:
        knock.close()
