"""Tables of a page in markdown, found by the headings that they stand under."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def replaced(text: str, tables: Mapping[str, Sequence[str]]) -> str:
    """The page with the first table under each heading in the place of the old one.

    Raises ValueError where a heading or its table is missing.
    """
    for heading, rows in tables.items():
        start = text.find(f"\n## {heading}\n")
        section = text[start + 1 :].partition("\n## ")[0] if start >= 0 else ""
        table = re.search(r"^(?:\|.*\n)+", section, flags=re.MULTILINE)
        if table is None:
            raise ValueError(f"there is no table under {heading}")
        at = start + 1 + table.start()
        text = text[:at] + "\n".join(rows) + "\n" + text[at + len(table[0]) :]
    return text
