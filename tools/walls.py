"""docs/walls.md, for those who read it: its rows, and the tests that each names."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

PAGE = Path(__file__).parents[1] / "docs/walls.md"


class Wall(NamedTuple):
    """One row, as it is written."""

    number: str
    promise: str
    defence: str
    tests: str

    def named(self) -> list[tuple[str, str]]:
        """The tests that it names, as `(module or package, test)`."""
        return [(module, test) for module, _, test in (name.partition("::") for name in self.names())]

    def names(self) -> list[str]:
        """The same as they are written, `module::test`."""
        return re.findall(r"`([^`]+)`", self.tests)


def rows() -> list[Wall]:
    """All rows, in the order of the page."""
    text = PAGE.read_text(encoding="utf-8")
    return [
        Wall(*cells) for cells in re.findall(r"^\| (W\d+[a-z]?) \| (.+) \| (.+) \| (.+) \|$", text, flags=re.MULTILINE)
    ]
