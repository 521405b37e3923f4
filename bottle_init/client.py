"""`health`, `status` and `ctl`: what asks the running init, by its control socket (contract 6).

`health` is an image's HEALTHCHECK and runs every few seconds for as long as a container lives, so
it imports nothing that it does not need: the init formats the answer, and the first word of it is
the verdict. What the other two need is imported when they run.
"""

from __future__ import annotations

import _socket
import sys
from errno import EAGAIN
from posix import isatty
from time import monotonic, sleep

from bottle_init import cli
from bottle_init.linux import peer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, Protocol

    class Options(Protocol):
        """What these commands want to know of the command line."""

        @property
        def control(self) -> str | None: ...
        @property
        def strict(self) -> bool: ...
        @property
        def json(self) -> bool: ...
        @property
        def watch(self) -> bool: ...
        @property
        def follow(self) -> bool: ...
        @property
        def verb(self) -> str: ...
        @property
        def name(self) -> str: ...
        @property
        def signal(self) -> int: ...


EX_OK = 0
EX_NO = 1
EX_USAGE = 2

PATIENCE_S = 5
"""An init that does not answer within this many seconds does not answer."""

REFRESH_S = 2
"""Seconds between two tables of `status --watch`."""

_READ = 65_536
_LONG = 8 if sys.maxsize > 2**32 else 4
_JSON_HEAD = '{"health": "'


class NoAnswer(Exception):
    """The init cannot be asked, for a reason that is a sentence for people."""


# What the commands do; each returns its exit code.


def health(options: Options) -> int:
    """Print the answer; 0 for `healthy` and (unless strict) `degraded`, 1 for all else, no running init included."""
    try:
        answer = ask(options.control or "", "health json" if options.json else "health")
    except NoAnswer as problem:
        return _complain("health", str(problem), EX_NO)
    if answer.startswith("error "):
        return _complain("health", answer.strip().removeprefix("error "), EX_NO)
    verdict = answer.partition("\n")[0]
    if options.json:
        verdict = verdict.removeprefix(_JSON_HEAD).partition('"')[0]
    cli.show(answer)
    return EX_OK if verdict == "healthy" or (verdict == "degraded" and not options.strict) else EX_NO


def status(options: Options) -> int:
    """Print what the children are doing: a table, or JSON; again and again with `--watch`, until Ctrl-C."""
    from bottle_init import status as tables

    figures = tables.Figures()
    try:
        while True:
            told = _status_once(options, figures)
            if options.watch and isatty(1):
                told = tables.CLEAR + told
            cli.show(told)
            if not options.watch:
                break
            sleep(REFRESH_S)
    except NoAnswer as problem:
        return _complain("status", str(problem), EX_NO)
    except KeyboardInterrupt:
        return EX_OK
    if figures.missing and not options.json:
        cli.complain(tables.HOW_TO_GET_FIGURES)
    return EX_OK


def _status_once(options: Options, figures: Any) -> str:
    from json import dumps, loads

    from bottle_init import status as tables

    answer = ask(options.control or "", "status")
    if not answer.startswith("{"):
        raise NoAnswer(answer.strip())
    try:
        facts = loads(answer)
        children = facts["children"]
    except (ValueError, KeyError, RecursionError):
        raise NoAnswer(f"what listens at {options.control} does not answer as an init does") from None
    figures.add(children)
    return dumps(facts) + "\n" if options.json else tables.table(facts)


def ctl(options: Options) -> int:
    """Give one order, and print what the init says to it: 0 done, 1 refused or no running init, 2 not understood."""
    if options.verb == "events":
        return _events(options)
    words = ["ctl", options.verb, options.name, str(options.signal or "")]
    try:
        kind, _, text = ask(options.control or "", " ".join(word for word in words if word)).strip().partition(" ")
    except NoAnswer as problem:
        return _complain("ctl", str(problem), EX_NO)
    if kind == "ok":
        cli.show(text + "\n")
        return EX_OK
    return _complain("ctl", text, EX_USAGE if kind == "usage" else EX_NO)


def _events(options: Options) -> int:
    """Print the init's events as they happen, the present status first, until it ends or Ctrl-C."""
    if not options.follow:
        hint = "the init keeps no past events (its log has them): ctl events --follow shows those to come"
        return _complain("ctl events", hint, EX_USAGE)
    try:
        for piece in stream(options.control or "", "events"):
            if piece.startswith(b"error "):
                return _complain("ctl events", piece.decode().strip().removeprefix("error "), EX_NO)
            cli.show(piece.decode("utf-8", "replace"))
    except NoAnswer as problem:
        return _complain("ctl events", str(problem), EX_NO)
    except KeyboardInterrupt:
        pass
    return EX_OK


def _complain(command: str, text: str, code: int) -> int:
    cli.complain(f"bottle-init {command}: {text}")
    return code


# How the init is asked.


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
