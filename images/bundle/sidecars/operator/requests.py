"""`bottle-requests`: what waits for the operator. What was shown is remembered, and only that is approved by its id.

supervise tells what waits, and supervise must not approve. So root keeps what it has shown, and `bottle-approve ID`
grants that, whatever supervise says later.
"""

from __future__ import annotations

import json
import os
import re
import sys

from sidecars import layout, privileges
from sidecars.operator.channel import RefusedError, ask, fail, follow, printable
from sidecars.staging import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any, Final

_USAGE: Final = "usage: bottle-requests [--json] [--follow]"
_ID: Final = re.compile(r"[0-9a-f]{16}")
_KEPT_MAX: Final = 1_024
EX_USAGE: Final = 2


def shown_file(request: str) -> Path:
    """Where what was shown under this id is remembered."""
    return layout.OPERATOR / "shown" / f"{request}.json"


def remember(question: dict[str, Any]) -> None:
    """Keeps what is shown. Only root can, and only root approves."""
    if os.geteuid() != 0 or not _ID.fullmatch(question["id"]):
        return
    directory = shown_file("").parent
    directory.mkdir(mode=0o700, exist_ok=True)
    replace(shown_file(question["id"]), json.dumps(question), 0o600)
    old = sorted(directory.glob("*.json"), key=lambda path: path.stat().st_mtime)
    for path in old[:-_KEPT_MAX]:
        path.unlink(missing_ok=True)


def remembered(request: str) -> dict[str, Any] | None:
    """What was shown under this id."""
    if not _ID.fullmatch(request):
        return None
    try:
        question: dict[str, Any] = json.loads(shown_file(request).read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return question


def line(question: dict[str, Any]) -> str:
    """One line for the operator: the id, what it is about, and the reason that the agent gave."""
    kind = "" if question["kind"] == "question" else f"[{question['kind']}] "
    reason = f" ({question['reason']})" if question.get("reason") else ""
    return printable(f"{question['id']}  {kind}{question['text']}{reason}")


def listed(*, as_json: bool) -> None:
    """Prints what waits now. Raises `RefusedError`."""
    answer = ask("list")
    for question in answer["questions"]:
        remember(question)
        if not as_json:
            print(line(question))
    if as_json:
        print(json.dumps(answer))


def followed() -> None:
    """Prints a JSON object for each thing that waits, and for each change of one. Raises `RefusedError`."""
    for question in follow():
        if question["state"] == "open":
            remember(question)
        print(json.dumps(question), flush=True)


def main() -> None:
    """Exits 1 where supervise does not answer, 2 for a wrong command line."""
    privileges.drop()
    arguments = set(sys.argv[1:])
    if not arguments <= {"--json", "--follow"}:
        print(_USAGE, file=sys.stderr)
        raise SystemExit(EX_USAGE)
    try:
        if "--follow" in arguments:
            followed()
        else:
            listed(as_json="--json" in arguments)
    except RefusedError as error:
        raise fail("bottle-requests", str(error)) from None
    except (KeyboardInterrupt, BrokenPipeError):
        os._exit(0)
