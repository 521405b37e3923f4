"""What a converted bundle file says beside its tables."""

from __future__ import annotations

import re
from textwrap import wrap
from typing import TYPE_CHECKING, Final

from bottle_init.words.text import plain

if TYPE_CHECKING:
    from collections.abc import Iterator

NOT_CONVERTED: Final = "NOT CONVERTED"
"""How a comment begins that is about a difference in behaviour. All others begin with `note`."""

MARK: Final = re.compile("\ue000([A-Za-z_][A-Za-z0-9_]*)\ue002[0-9]+\ue001")
"""What stands in a value of a draft in place of a variable."""

_WIDTH: Final = 118
_LONGEST: Final = 600


def shown(text: str) -> str:
    """A marked text, for people."""
    return MARK.sub(r"${\1}", text)


def is_marked(text: str) -> bool:
    """Whether a variable stands in the text."""
    return MARK.search(text) is not None


class Comments:
    """What is said beside a table."""

    def __init__(self) -> None:
        self._said: dict[tuple[bool, str], None] = {}

    def lose(self, text: str) -> None:
        """Say that something that changes behaviour was not converted."""
        self._said[True, shown(text)] = None

    def note(self, text: str) -> None:
        """Say something else that is worth knowing."""
        self._said[False, shown(text)] = None

    def lost(self) -> list[str]:
        """All that changes behaviour."""
        return [text for changes, text in self._said if changes]

    def lines(self) -> Iterator[str]:
        """The comments, what changes behaviour first."""
        for changes, text in sorted(self._said, key=_changes_first):
            kind = NOT_CONVERTED if changes else "note"
            yield from wrap(
                f"# {kind}: {plain(text, _LONGEST)}", _WIDTH, subsequent_indent="#   ", break_on_hyphens=False
            )


def _changes_first(said: tuple[bool, str]) -> bool:
    return not said[0]
