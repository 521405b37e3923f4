"""Who is at the other end of a Unix socket, and whether it may be (contract 6). Used by both ends."""

from __future__ import annotations

import _socket
import posix
from sys import byteorder

_UCRED = 12
_STATUS = 65_536


def credentials(connection: _socket.socket) -> tuple[int, int]:
    """The pid (0: of a PID namespace that cannot be seen from here) and the uid of the other end."""
    data: bytes = connection.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, _UCRED)
    return int.from_bytes(data[:4], byteorder, signed=True), int.from_bytes(data[4:8], byteorder)


def objection(pid: int, uid: int, trusted: int = 0) -> str:
    """Why this process is not to be talked to, "" if it may be: root or our own uid, in our own PID namespace.

    `trusted` is the pid of one that may have any uid: PID 1 is the init, whoever it runs as.
    """
    if pid <= 0 or not _is_of_our_namespace(pid):
        return "it is in another PID namespace"
    own = posix.geteuid()
    if uid not in (0, own) and pid != trusted:
        return f"its user id is {uid}, not root's" + (f" or {own}" if own else "")
    return ""


def _is_of_our_namespace(pid: int) -> bool:
    """Whether a process that we can name is ours, and not of a namespace below.

    `NSpid` of /proc/PID/status (proc(5)) has one number for each level, and unlike /proc/PID/ns it
    is readable without any privilege. Where /proc is of another namespace or has no such line,
    nothing more can be learned than that the process has a pid here.
    """
    try:
        if posix.readlink("/proc/self") != str(posix.getpid()):
            return True
    except OSError:
        return True
    return _depth(str(pid)) == _depth("self")


def _depth(process: str) -> int:
    """How many PID namespaces a process has a pid in, as seen from here; -1 for one that is gone."""
    try:
        fd = posix.open(f"/proc/{process}/status", posix.O_RDONLY | posix.O_CLOEXEC)
    except OSError:
        return -1
    try:
        status = posix.read(fd, _STATUS)
    except OSError:
        return -1
    finally:
        posix.close(fd)
    _, found, rest = status.partition(b"\nNSpid:")
    return len(rest.partition(b"\n")[0].split()) if found else 0
