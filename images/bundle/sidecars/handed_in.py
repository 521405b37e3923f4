"""Secrets that no file of the engine's ever holds: the operator writes them to `bottle-secrets`, and setup waits.

With `BOTTLE_SECRETS=stdin`, setup listens on a socket in root's own directory on the tmpfs. `docker exec -i BUNDLE
bottle-secrets` passes on one JSON object, `{NAME: VALUE}`, and prints what setup says to it.
"""

from __future__ import annotations

import json
import os
import re
import socket
import sys
import time
from contextlib import suppress

from sidecars import layout, privileges
from sidecars.staging import StagingError, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Final

VARIABLE: Final = "BOTTLE_SECRETS"
PATIENCE_S: Final = 60.0
EX_UNAVAILABLE: Final = 69
_MAX_BYTES: Final = 1 << 20
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_PAUSE_S: Final = 0.05


class HandedInError(Exception):
    """What was handed in cannot be used, in words for the operator. The words never hold a value."""


def expected() -> bool:
    """Whether setup has to wait. Raises `StagingError` for a word that means nothing."""
    word = os.environ.get(VARIABLE, "")
    if word not in ("", "stdin"):
        raise StagingError(f'{VARIABLE}: must be "stdin" or unset, is {word!r}')
    return word == "stdin"


def parse(content: bytes) -> dict[str, str]:
    """The secrets of a JSON object. Raises `HandedInError`."""
    try:
        secrets = json.loads(content)
    except (ValueError, RecursionError):
        raise HandedInError("not a JSON object of names and values") from None
    if not isinstance(secrets, dict) or not all(isinstance(value, str) for value in secrets.values()):
        raise HandedInError("not a JSON object of names and values: every value has to be a string")
    for name in secrets:
        if not _NAME.fullmatch(name):
            raise HandedInError(f"{name[:60]!r} is not a name: letters, digits, _, . and -")
    return secrets


def store(secrets: dict[str, str]) -> None:
    """Puts them where setup, `bottle-reload` and `bottle-rotate` look first. Raises `OSError`."""
    layout.SECRETS.mkdir(mode=0o700, exist_ok=True)
    for name, value in secrets.items():
        replace(layout.SECRETS / name, value, 0o600)


def wait_for(missing: Callable[[], Iterable[str]]) -> None:
    """Takes what is handed in until nothing is missing any more. Raises `StagingError` after `PATIENCE_S`."""
    deadline_s = time.monotonic() + PATIENCE_S
    layout.SECRETS.mkdir(mode=0o700, exist_ok=True)
    with socket.socket(socket.AF_UNIX) as listener:
        layout.SECRETS_SOCKET.unlink(missing_ok=True)
        listener.bind(str(layout.SECRETS_SOCKET))
        listener.listen()
        try:
            while True:
                left_s = deadline_s - time.monotonic()
                if left_s <= 0:
                    raise _late(missing())
                listener.settimeout(left_s)
                with suppress(TimeoutError):
                    connection, _ = listener.accept()
                    with connection:
                        # Another one may come that does better: whoever hands in nothing must not use up the time.
                        connection.settimeout(min(5.0, left_s))
                        if _take(connection, missing):
                            return
        finally:
            layout.SECRETS_SOCKET.unlink(missing_ok=True)


def _take(connection: socket.socket, missing: Callable[[], Iterable[str]]) -> bool:
    """Answers one client. Returns whether everything is there now."""
    try:
        store(parse(_whole(connection)))
        lacking = list(missing())
        answer = f"still missing: {', '.join(lacking)}" if lacking else ""
    except HandedInError as error:
        lacking, answer = ["?"], str(error)
    with suppress(OSError):
        connection.sendall(answer.encode())
    return not lacking


def _whole(connection: socket.socket) -> bytes:
    parts = []
    size = 0
    while part := connection.recv(65_536):
        parts.append(part)
        size += len(part)
        if size > _MAX_BYTES:
            raise HandedInError(f"more than {_MAX_BYTES} bytes")
    return b"".join(parts)


def _late(missing: Iterable[str]) -> StagingError:
    return StagingError(
        f"{VARIABLE}=stdin, and within {PATIENCE_S:g} s nobody handed in {', '.join(missing)}: "
        "docker exec -i BUNDLE bottle-secrets",
        EX_UNAVAILABLE,
    )


def main() -> None:
    """`bottle-secrets`: exits 0 once setup has all that it needs, 1 with setup's words, 69 where no setup waits."""
    privileges.drop()
    answer = _delivered(sys.stdin.buffer.read(_MAX_BYTES + 1))
    if answer:
        print(f"bottle-secrets: {answer}", file=sys.stderr)
        raise SystemExit(1)


def _delivered(content: bytes) -> str:
    """What setup says, once it listens: the container may have started a moment ago."""
    deadline_s = time.monotonic() + PATIENCE_S
    while True:
        try:
            return _hand_in(content)
        except OSError:
            if layout.PREPARED.exists() or time.monotonic() > deadline_s:
                print("bottle-secrets: no setup waits for secrets (bottle-rotate replaces one)", file=sys.stderr)
                raise SystemExit(EX_UNAVAILABLE) from None
        time.sleep(_PAUSE_S)


def _hand_in(content: bytes) -> str:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(PATIENCE_S)
        connection.connect(str(layout.SECRETS_SOCKET))
        connection.sendall(content)
        connection.shutdown(socket.SHUT_WR)
        return _whole(connection).decode("utf-8", "replace")
