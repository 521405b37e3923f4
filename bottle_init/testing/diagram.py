"""`docs/state-machine.md`, drawn from the table that the core runs on: `make docs`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bottle_init.core.transitions import TABLE, Ignore, Row
from bottle_init.core.words import STATUSES

if TYPE_CHECKING:
    from bottle_init.core.events import Event
    from bottle_init.core.transitions import Cell

HEADER = """\
# The state machine of a child

Drawn from `bottle_init/core/transitions.py` by `make docs`; a test compares. Every event
of a child passes through this one table, and `step` refuses, in production too, a move that is not declared here.
"""

MEANINGS = {
    "waiting": "has no process, and starts when all that it is after are ready",
    "spawning": "the fork has been ordered; its answer comes before anything else",
    "starting": "has a process, and is not ready yet",
    "running": "is ready, or is a oneshot at work",
    "draining": "is to be stopped, and its `stop_delay` passes",
    "stopping": "has its stop signal",
    "killing": "has been sent SIGKILL",
    "dead": "has died in this very step, and is judged with the whole sweep",
    "clearing": "what it left in its session is being ended",
    "backoff": "the pause before a restart passes",
    "stopped": "was stopped by request, or stood down; nobody starts it but an operator",
    "ended": "has ended for good",
}


def state_machine() -> str:
    """The whole page."""
    return "\n".join([HEADER, *_statuses(), *_diagram(), *_moves(), *_matrix()]) + "\n"


def _statuses() -> list[str]:
    rows = [f"| `{status}` | {MEANINGS[status]} |" for status in STATUSES]
    return ["| status | the child |", "| --- | --- |", *rows, ""]


def _diagram() -> list[str]:
    lines = ["```mermaid", "stateDiagram-v2", "    [*] --> waiting"]
    for status in STATUSES:
        targets: dict[str, list[str]] = {}
        for event, cell in TABLE[status].items():
            for target in cell.to if isinstance(cell, Row) else ():
                targets.setdefault(target, []).append(event.__name__)
        lines += [f"    {status} --> {target}: {', '.join(sorted(targets[target]))}" for target in sorted(targets)]
    return [*lines, "```", ""]


def _moves() -> list[str]:
    """Every row: what is done, and where that may lead."""
    lines = ["## What is done", "", "| in | on | rule | leads to |", "| --- | --- | --- | --- |"]
    for status in STATUSES:
        for event, cell in _sorted(status):
            if isinstance(cell, Row):
                rule = f"{cell.rule.__module__.rpartition('.')[2]}.{cell.rule.__name__}"
                leads = ", ".join(f"`{target}`" for target in cell.to) or "stays"
                lines.append(f"| `{status}` | {event.__name__} | `{rule}` | {leads} |")
    return [*lines, ""]


def _matrix() -> list[str]:
    """Every other cell: why nothing is done."""
    lines = ["## What is not done, and why", "", "| in | on | | why |", "| --- | --- | --- | --- |"]
    for status in STATUSES:
        reasons: dict[tuple[str, str], list[str]] = {}
        for event, cell in _sorted(status):
            if not isinstance(cell, Row):
                kind = "ignored" if isinstance(cell, Ignore) else "impossible"
                reasons.setdefault((kind, cell.why), []).append(event.__name__)
        lines += [f"| `{status}` | {', '.join(events)} | {kind} | {why} |" for (kind, why), events in reasons.items()]
    return lines


def _sorted(status: str) -> list[tuple[type[Event], Cell]]:
    return sorted(TABLE[status].items(), key=_by_name)


def _by_name(entry: tuple[type[Event], Cell]) -> str:
    return entry[0].__name__
