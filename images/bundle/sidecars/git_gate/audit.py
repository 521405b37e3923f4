"""The log of what was pushed. What a hook writes goes to the pusher, so the bundle's log is one more descriptor."""

from __future__ import annotations

import contextlib
import json
import os

VARIABLE = "BOTTLE_AUDIT_FD"
DESCRIPTOR = 3


def hand_down() -> None:
    """Makes this process's stdout the audit log of all that is executed from here on."""
    os.dup2(1, DESCRIPTOR, inheritable=True)


def record(event: str, **fields: object) -> None:
    """One JSON object on one line of the audit log. A log that can't be written is no reason to refuse a push."""
    line = json.dumps({"event": event, **fields}).encode() + b"\n"
    with contextlib.suppress(OSError, ValueError, KeyError):
        os.write(int(os.environ[VARIABLE]), line)
