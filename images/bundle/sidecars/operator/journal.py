"""The operator's own audit: what was approved and revoked, one JSON line each, in a file that is root's alone."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime

from sidecars import layout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

FILE: Final = layout.OPERATOR / "audit.jsonl"
_FILE_MAX_BYTES: Final = 16 << 20
_FILES: Final = 4


def record(event: str, **fields: object) -> None:
    """Appends a line. Raises `OSError`: what can't be recorded is not done."""
    _rotate()
    line = json.dumps({"timestamp": now(), "daemon": "operator", "event": event, **fields})
    descriptor = os.open(FILE, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with open(descriptor, "w", encoding="utf-8") as file:
        file.write(line + "\n")


def now() -> str:
    """RFC 3339, UTC, milliseconds: as every daemon writes its audit."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _rotate() -> None:
    if not FILE.exists() or FILE.stat().st_size < _FILE_MAX_BYTES:
        return
    oldest, *others = (FILE.with_name(f"{FILE.name}.{number}") for number in range(_FILES - 1, 0, -1))
    dropped = oldest.exists()
    for older, newer in zip((oldest, *others), (*others, FILE), strict=True):
        if newer.exists():
            newer.replace(older)
    if dropped:
        record("audit_dropped", reason=f"the oldest of {_FILES} files was dropped")
