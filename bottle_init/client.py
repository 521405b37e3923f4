"""How the running init is asked, by its control socket (contract 6)."""

from __future__ import annotations

import _socket
import sys
from errno import EAGAIN
from time import monotonic

from bottle_init.linux.sys import peer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

PATIENCE_S = 5
"""An init that does not answer within this many seconds does not answer."""

_READ = 65_536
_LONG = 8 if sys.maxsize > 2**32 else 4


class NoAnswer(Exception):
    """The init cannot be asked, for a reason that is a sentence for people."""


def ask(address: str, request: str) -> str:
    """The whole answer to one request. Raises NoAnswer, also for one that breaks off or takes too long."""
    deadline_s = monotonic() + PATIENCE_S
    parts = []
    connection = _connect(address)
    try:
        _send(connection, request)
        while piece := _receive(connection, address):
            parts.append(piece)
            if monotonic() > deadline_s:
                raise NoAnswer(_too_late(address))
    finally:
        connection.close()
    answer = b"".join(parts)
    if not answer.endswith(b"\n"):
        raise NoAnswer(f"the init at {address} broke off its answer")
    return answer.decode("utf-8", "replace")


def status(address: str) -> dict[str, Any]:
    """What `status --json` tells. Raises NoAnswer, also for what is no init."""
    from json import loads

    answer = ask(address, "status")
    if not answer.startswith("{"):
        raise NoAnswer(answer.strip())
    try:
        facts: dict[str, Any] = loads(answer)
        facts["children"]
    except (ValueError, KeyError, RecursionError):
        raise NoAnswer(f"what listens at {address} does not answer as an init does") from None
    return facts


def stream(address: str, request: str) -> Iterator[bytes]:
    """The answer to one request, line by line as it comes, until the init ends it. Raises NoAnswer.

    Raises BrokenPipeError as soon as nobody reads what is printed any more, not only at the next event.
    """
    from select import POLLIN, poll

    connection = _connect(address)
    either = poll()
    either.register(connection.fileno(), POLLIN)
    if sys.stdout is not None:
        either.register(1, 0)
    try:
        _send(connection, request)
        held = b""
        while piece := _receive(connection, address):
            *lines, held = (held + piece).split(b"\n")
            for line in lines:
                yield line + b"\n"
            if any(fd != connection.fileno() for fd, _ in either.poll()):
                raise BrokenPipeError
    finally:
        connection.close()


def _connect(address: str) -> _socket.socket:
    """A connection to the init and to nobody else. Raises NoAnswer."""
    if not address:
        raise NoAnswer("no control socket is set (--control, $BOTTLE_INIT_CONTROL)")
    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    try:
        _set_patience(connection, PATIENCE_S)
        connection.connect("\0" + address[1:] if address.startswith("@") else address)
        pid, uid = peer.credentials(connection)
    except OSError as problem:
        connection.close()
        if problem.errno == EAGAIN:
            raise NoAnswer(_too_late(address)) from None
        reason = (problem.strerror or str(problem)).lower()
        raise NoAnswer(f"no running init answers at {address}: {reason}") from None
    objection = peer.objection(pid, uid, trusted=1)
    if objection:
        connection.close()
        raise NoAnswer(f"what listens at {address} is not this container's init: {objection}")
    return connection


def _set_patience(connection: _socket.socket, seconds: int) -> None:
    """Let the kernel end a wait: a blocking connect(2) obeys this, while a non-blocking one fails at a full backlog."""
    timeval = seconds.to_bytes(_LONG, sys.byteorder) + bytes(_LONG)
    connection.setsockopt(_socket.SOL_SOCKET, _socket.SO_SNDTIMEO, timeval)
    connection.setsockopt(_socket.SOL_SOCKET, _socket.SO_RCVTIMEO, timeval)


def _send(connection: _socket.socket, request: str) -> None:
    try:
        connection.sendall(request.encode("utf-8", "surrogateescape") + b"\n", _socket.MSG_NOSIGNAL)
    except OSError:
        pass  # It has been closed already; what was said before that is still there to be read.


def _receive(connection: _socket.socket, address: str) -> bytes:
    """The next piece, b"" at the end."""
    try:
        piece: bytes = connection.recv(_READ)
    except BlockingIOError:
        raise NoAnswer(_too_late(address)) from None
    except OSError:
        return b""
    return piece


def _too_late(address: str) -> str:
    return f"the init at {address} does not answer within {PATIENCE_S} s"
