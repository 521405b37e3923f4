"""`supervise-operator list` and `supervise-operator answer ID TEXT…`, for `docker exec`."""

from __future__ import annotations

import json
import socket
import sys
from typing import Any

from sidecars import layout
from sidecars.identity import become

_USAGE = "usage: supervise-operator list [--json] | supervise-operator answer ID TEXT..."


def ask(request: dict[str, str]) -> dict[str, Any]:
    """The daemon's answer. Raises `OSError` where there is no daemon."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        connection.connect(str(layout.OPERATOR_SOCKET))
        connection.sendall(json.dumps(request).encode() + b"\n")
        with connection.makefile("rb") as reader:
            answer: dict[str, Any] = json.loads(reader.readline())
    return answer


def _request(arguments: list[str]) -> dict[str, str]:
    match arguments:
        case ["list"] | ["list", "--json"]:
            return {"command": "list"}
        case ["answer", question_id, *words] if words:
            return {"command": "answer", "id": question_id, "text": " ".join(words)}
    print(_USAGE, file=sys.stderr)
    raise SystemExit(2)


def _printable(text: str) -> str:
    """The agent wrote it, and it goes to the operator's terminal: no control sequences."""
    return "".join(character if character.isprintable() else " " for character in text)


def main() -> None:
    """Exits 1 where the daemon refuses or does not answer, 2 for a wrong command line."""
    request = _request(sys.argv[1:])
    become("supervise")
    try:
        answer = ask(request)
    except OSError as error:
        print(f"supervise does not answer: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    if "error" in answer:
        print(answer["error"], file=sys.stderr)
        raise SystemExit(1)
    if "--json" in sys.argv:
        print(json.dumps(answer))
        return
    for question in answer.get("questions", []):
        print(f"{question['id']}  {_printable(question['text'])}")


if __name__ == "__main__":
    main()
