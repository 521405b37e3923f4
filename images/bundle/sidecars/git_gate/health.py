"""`python3 -m sidecars.git_gate.health`: exits 0 if git-gate answers in git's protocol, else 1.

It asks for a repository that is there and is in no policy: git-daemon and the access hook have to do their work to
refuse it, and nothing is logged, fetched or served. (A bare connection would be logged as a client that hung up.)
"""

from __future__ import annotations

import socket
import sys

from sidecars import layout

_TIMEOUT_S = 8.0


def problem() -> str | None:
    """What is wrong with git-gate, or `None`."""
    request = f"git-upload-pack /{layout.GIT_HEALTH}\0host=localhost\0".encode()
    try:
        with socket.create_connection(("127.0.0.1", layout.GIT_GATE_PORT), timeout=_TIMEOUT_S) as connection:
            connection.sendall(f"{len(request) + 4:04x}".encode() + request)
            answer = connection.recv(8, socket.MSG_WAITALL)
    except OSError as error:
        return f"no answer: {error}"
    return None if answer[4:] == b"ERR " else f"an answer that is not git's: {answer!r}"


def main() -> None:
    """Prints what is wrong, if anything is."""
    if found := problem():
        print(f"git-gate: {found}", file=sys.stderr)
        raise SystemExit(1)


if __name__ == "__main__":
    main()
