"""`ctl events --follow` on a terminal: one line for each event, in the words of `explain`."""

from __future__ import annotations

import json
from datetime import datetime

from bottle_init.cli import explain, figures
from bottle_init.words.text import plain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

LEVELS: Final = {"warning": 33, "error": 31, "critical": 31}
"""Colours of SGR (ECMA-48); what is as it should be has none."""

_LONGEST = 1_000


def line_of(line: bytes, *, colour: bool, width: int | None = None) -> str:
    """An event's line for people, with its newline: the local time, the child, what happened.

    The first event is the present status, the last one the report: they are told whole. What is no event of the init's
    stays as it is, with nothing in it that could move the cursor.
    """
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        event = None
    if not isinstance(event, dict):
        return plain(line, _LONGEST) + "\n"
    name = explain.words(event, "event")
    if name == explain.REPORT:
        return explain.story_of(line)
    if name == "following" and isinstance(event.get("status"), dict):
        children = event["status"]["children"]
        for child in children:
            child.update({"rss_bytes": None, "cpu_percent": None, "open_files": None})
        return figures.table(event["status"], width)
    told = explain.phrase(event) if name in explain.PHRASES else plain(line, _LONGEST)
    text = f"{_time(event)}  {explain.words(event, 'child')}  {told}".replace("    ", "  ")
    code = LEVELS.get(explain.words(event, "level"))
    return f"\x1b[{code}m{text}\x1b[0m\n" if colour and code else f"{text}\n"


def _time(event: explain.Event) -> str:
    at = explain.when(event)
    return "--:--:--.---" if at is None else f"{datetime.fromtimestamp(at):%H:%M:%S.%f}"[:-3]  # noqa: DTZ006 - local.
