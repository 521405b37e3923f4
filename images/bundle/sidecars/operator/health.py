"""What a daemon says of itself at its /health, for the operator's commands."""

from __future__ import annotations

import http.client
import json

from sidecars import layout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final

DAEMONS: Final = {
    "egress": layout.EGRESS_PORT,
    "pipelock": layout.PIPELOCK_PORT,
    "git-gate": layout.GIT_GATE_PORT,
}
"""Who obeys the policy and the kill switch, and where each says so."""

_PATIENCE_S: Final = 3
_MAX_BYTES: Final = 65_536


def _engine() -> str:
    """pipelock's engine; "" where setup has not chosen one yet."""
    try:
        return layout.ENGINE.read_text("ascii").strip()
    except OSError:
        return ""


class SilentError(Exception):
    """A daemon listens and does not answer."""


def health(port: int) -> dict[str, Any] | None:
    """The JSON object; `None` where nothing listens, or something that has no such thing. Raises `SilentError`.

    The real pipelock does not say which policy it obeys. Its parent does, at a port of its own.
    """
    if port == layout.PIPELOCK_PORT and _engine() == "pipelock":
        port = layout.REAL_STATE_PORT
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_PATIENCE_S)
    try:
        connection.request("GET", "/health")
        said = json.loads(connection.getresponse().read(_MAX_BYTES))
    except TimeoutError as error:
        raise SilentError from error
    except (OSError, ValueError, http.client.HTTPException):
        return None
    finally:
        connection.close()
    return said if isinstance(said, dict) else None
