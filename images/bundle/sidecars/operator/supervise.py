"""`supervise-operator`: the agent's questions and their answers, and what becomes of the daemons."""

from __future__ import annotations

import json
import sys

from sidecars import privileges
from sidecars.operator import requests
from sidecars.operator.channel import RefusedError, ask, printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

_USAGE = (
    "usage: supervise-operator list|status|events [--json] | supervise-operator follow | "
    "supervise-operator answer ID TEXT... | supervise-operator deny ID [TEXT...]"
)
EX_USAGE = 2


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
    named = ("timestamp", "event", "child")
    for event in answer["recent"]:
        facts = [f"{key}={event[key]}" for key in sorted(event) if key not in named]
        yield "  ".join([event["timestamp"], *filter(None, [event.get("child")]), event["event"], *facts])


def _subscription(answer: dict[str, Any]) -> str:
    if answer["events"] == "following":
        return f"events: following since {answer['following_since']}"
    return f"events: unknown since {answer['unknown_since']}: {answer['reason']}"


def _obey(arguments: list[str]) -> None:
    match arguments:
        case ["list"]:
            requests.listed(as_json=False)
        case ["list", "--json"]:
            requests.listed(as_json=True)
        case ["follow"]:
            requests.followed()
        case ["status" | "events"] | ["status" | "events", "--json"]:
            answer = ask("status")
            lines = _status if arguments[0] == "status" else _events
            print(json.dumps(answer) if "--json" in arguments else "\n".join(map(printable, lines(answer))))
        case ["answer", question, *words] if words:
            ask("answer", id=question, text=" ".join(words))
        case ["deny", question, *words]:
            ask("refuse", id=question, text=" ".join(words))
        case _:
            print(_USAGE, file=sys.stderr)
            raise SystemExit(EX_USAGE)


def main() -> None:
    """Exits 1 where the daemon refuses or does not answer, 2 for a wrong command line."""
    privileges.drop()
    try:
        _obey(sys.argv[1:])
    except RefusedError as error:
        print(error, file=sys.stderr)
        raise SystemExit(1) from None
