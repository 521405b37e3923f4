"""`supervise-operator`: the agent's questions, and what becomes of the daemons, for `docker exec`."""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Iterator
from typing import Any

from sidecars import layout
from sidecars.identity import become

_USAGE = "usage: supervise-operator list|status|events [--json] | supervise-operator answer ID TEXT..."


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
        case ["list" | "status" | "events" as command] | ["list" | "status" | "events" as command, "--json"]:
            return {"command": "list" if command == "list" else "status"}
        case ["answer", question_id, *words] if words:
            return {"command": "answer", "id": question_id, "text": " ".join(words)}
    print(_USAGE, file=sys.stderr)
    raise SystemExit(2)


def _printable(text: str) -> str:
    """The agent wrote it, and it goes to the operator's terminal: no control sequences."""
    return "".join(character if character.isprintable() else " " for character in text)


def _questions(answer: dict[str, Any]) -> Iterator[str]:
    for question in answer["questions"]:
        yield f"{question['id']}  {_printable(question['text'])}"


def _status(answer: dict[str, Any]) -> Iterator[str]:
    """A line for each daemon, below one that says how much that is worth."""
    yield _subscription(answer) + (", the bundle is stopping" if answer["stopping"] else "")
    width = max((len(daemon["name"]) for daemon in answer["daemons"]), default=0)
    for daemon in answer["daemons"]:
        line = f"{daemon['name']:{width}}  {daemon['state']} since {daemon['since']}, restarts: {daemon['restarts']}"
        if last := daemon["last_exit"]:
            how = f"killed by signal {last['signal']}" if last["signal"] else f"exited with {last['code']}"
            line += f", {how} at {last['timestamp']}"
        yield line


def _events(answer: dict[str, Any]) -> Iterator[str]:
    """A line for each event, below one that says from when on they are known."""
    yield _subscription(answer)
    for event in answer["recent"]:
        named = {"timestamp", "event", "child"}
        facts = [f"{key}={value}" for key, value in event.items() if key not in named]
        yield "  ".join([event["timestamp"], *filter(None, [event.get("child")]), event["event"], *facts])


def _subscription(answer: dict[str, Any]) -> str:
    if answer["events"] == "following":
        return f"events: following since {answer['following_since']}"
    return f"events: unknown since {answer['unknown_since']}: {answer['reason']}"


_TABLES = {"list": _questions, "status": _status, "events": _events}


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
    if sys.argv[2:] == ["--json"]:
        print(json.dumps(answer))
    elif table := _TABLES.get(sys.argv[1]):
        for line in table(answer):
            print(line)


if __name__ == "__main__":
    main()
