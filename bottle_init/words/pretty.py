"""The init's own events for people: rendered by structlog, where stderr is a terminal and structlog is there.

structlog takes 60 to 100 ms to import, and rich, where it is installed, as long again: no signal is to wait for
that. So it is imported one slice for each turn of the loop, once there is an event to show; signals, deaths and probes
are answered in between. Until then `Logs` holds the events back; if a stop comes first, they go out as the JSON lines
that they are.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

SLICES = (
    "re",
    "typing",
    "json",
    "dataclasses",
    "logging",
    "ssl",
    "asyncio",
    "rich.text",
    "rich.pretty",
    "rich.console",
    "rich.syntax",
    "rich.traceback",
    "structlog",
)
"""What structlog imports in the end, in an order that makes no slice much longer than the others."""


class Renderer:
    """structlog's ConsoleRenderer, as far as it is there already."""

    def __init__(self) -> None:
        self._left = list(SLICES)
        self._render: Callable[[Any, str, dict[str, Any]], str] | None = None

    def ready(self) -> bool:
        """Whether `render` makes anything of an event."""
        return self._render is not None

    def load(self) -> bool:
        """Import one slice more; False once nothing is left to import. Without structlog, events stay JSON."""
        if len(self._left) == len(SLICES) and not any(finder.find_spec("structlog", None) for finder in sys.meta_path):
            return False
        try:
            import_module(self._left.pop(0))
            if not self._left:
                from structlog.dev import ConsoleRenderer

                self._render = ConsoleRenderer(colors=not os.environ.get("NO_COLOR"))
        except ImportError:
            pass  # rich is optional.
        except Exception:  # noqa: BLE001 - nothing that is wrong with looks may end a bundle.
            return False
        return bool(self._left)

    def render(self, line: bytes) -> bytes:
        """A JSON line -> the lines for people, without the last newline. Anything else stays as it is."""
        if self._render is None:
            return line
        import json

        try:
            event = {key: _shown(value) for key, value in json.loads(line).items()}
            return self._render(None, "", event).encode("utf-8", "replace")
        except Exception:  # noqa: BLE001 - as above.
            return line


def _shown(value: Any) -> Any:
    """A fact with nothing in it that could move the cursor: what children say gets into events too.

    Lists and objects are shown by `repr`, which sees to that itself.
    """
    if isinstance(value, str) and not value.isprintable():
        return ascii(value)[1:-1]
    return value
