"""The tags before children's lines, as a terminal shows them: all of one width, each child's in its colour."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Final

COLOURS: Final = (36, 33, 32, 35, 34, 96, 93, 92, 95, 94)
"""Of SGR (ECMA-48): no red, which says that something is wrong."""


def has_colour(environ: Mapping[str, str]) -> bool:
    """Whether a terminal is to be coloured (no-color.org, and terminals that have none)."""
    return not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"


def for_terminal(names: Sequence[str], *, colour: bool) -> list[bytes]:
    """The tag of each child, with the spaces that follow it."""
    width = max(map(len, names), default=0)
    found = []
    for index, name in enumerate(names):
        tag = f"[{name}]"
        if colour:
            tag = f"\x1b[{COLOURS[index % len(COLOURS)]}m{tag}\x1b[0m"
        found.append(f"{tag}{' ' * (width - len(name) + 1)}".encode())
    return found
