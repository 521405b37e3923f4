"""The operator's side of supervise: a Unix socket in a directory that is supervise's alone."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys

from sidecars import layout
from sidecars.identity import acting_as, user_ids

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

_PATIENCE_S = 10


class RefusedError(Exception):
    """What supervise says, or why it does not answer."""


def ask(command: str, **arguments: str) -> dict[str, Any]:
    """supervise's answer to one command. Raises `RefusedError`."""
    with _connection() as connection:
        connection.settimeout(_PATIENCE_S)
        lines = _lines(connection, {"command": command, **arguments})
        answer = next(lines, None)
    if answer is None:
        raise RefusedError("supervise has closed the connection")
    if "error" in answer:
        raise RefusedError(answer["error"])
    return answer


def follow() -> Iterator[dict[str, Any]]:
    """What waits, and then every change, until supervise ends. Raises `RefusedError`."""
    with _connection() as connection:
        yield from _lines(connection, {"command": "follow"})


def _lines(connection: socket.socket, request: dict[str, str]) -> Iterator[dict[str, Any]]:
    try:
        connection.sendall(json.dumps(request).encode() + b"\n")
        with connection.makefile("rb") as reader:
            for line in reader:
                yield json.loads(line)
    except (OSError, ValueError) as error:
        raise RefusedError(f"supervise does not answer: {error}") from error


@contextlib.contextmanager
def _connection() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            # Root has no CAP_DAC_OVERRIDE, and supervise asks the kernel who has connected.
            with acting_as(*user_ids("supervise")) if os.geteuid() == 0 else contextlib.nullcontext():
                connection.connect(str(layout.OPERATOR_SOCKET))
        except OSError as error:
            raise RefusedError(f"supervise does not answer: {error}") from error
        yield connection


def printable(text: str) -> str:
    """Somebody else wrote it, and it goes to the operator's terminal: one line, no control sequences."""
    return "".join(character if character.isprintable() else " " for character in text)


def fail(command: str, message: str, code: int = 1) -> SystemExit:
    """The end of a command that could not do what it was asked for."""
    print(f"{command}: {message}", file=sys.stderr)
    return SystemExit(code)
