"""docs/timeline.svg: the life that docs/report.md tells, as `explain --svg` draws it; `python -m tools.timeline`."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from bottle_init.cli import drawing, explain

PICTURE = Path(__file__).parents[1] / "docs/timeline.svg"


def _at(seconds: float, event: str, child: str | None = None, **facts: Any) -> bytes:
    moment = datetime(2026, 1, 31, 8, 15, tzinfo=UTC) + timedelta(seconds=seconds)
    stamp = moment.isoformat(timespec="microseconds").replace("+00:00", "Z")
    named = {"child": child} if child else {}
    return json.dumps({"event": event, "level": "info", **named, **facts, "timestamp": stamp}).encode() + b"\n"


def log() -> list[bytes]:
    """The init's own lines of that life."""
    cause = "egress was killed by signal 11"
    deaths = [
        {"name": "git-gate", "code": 143, "signal": "TERM", "severity": "clean"},
        {
            "name": "egress",
            "code": 139,
            "signal": "SEGV",
            "severity": "crash",
            "last_lines": ["listening on 9099", "fatal: corrupted rule table"],
        },
        {"name": "pipelock", "code": 137, "signal": "KILL", "severity": "forced", "forced": True, "stop_ms": 2_004},
    ]
    report: dict[str, Any] = {"kind": "policy", "cause": cause, "culprit": "egress", "stop_ms": 2_007, "deaths": deaths}
    return [
        _at(0, "child_started", "git-gate", pid=7),
        _at(0.004, "child_started", "egress", pid=8),
        _at(0.310, "child_ready", "egress", after_ms=306),
        _at(0.312, "child_started", "pipelock", pid=9),
        _at(0.498, "child_ready", "pipelock", after_ms=186),
        _at(9.204, "signal_received", signal=1, sender_pid=31, sender_name="kill", sent_to=["egress", "pipelock"]),
        _at(61.5, "child_exited", "egress", code=139, signal=11, severity="crash"),
        _at(61.5, "stopping", kind="policy", cause=cause),
        _at(61.503, "child_exited", "git-gate", code=143, signal=15, severity="clean"),
        _at(63.502, "child_killed", "pipelock", after_ms=2_000),
        _at(63.504, "child_exited", "pipelock", code=137, signal=9, severity="forced"),
        _at(63.507, "exit_report", code=139, **report),
    ]


def picture() -> str:
    """The picture of it."""
    return drawing.svg(explain.life_of(log()))


if __name__ == "__main__":
    PICTURE.write_text(picture(), encoding="utf-8")
    sys.exit(0)
