"""The tables of docs/cli.md, from the rows of `cli/options.py`: `python -m tools.cli_page` writes them."""

from __future__ import annotations

import sys
from pathlib import Path

from bottle_init.cli.options import ONE, OPTIONS, RUN
from bottle_init.cli.usage import called, command_lines, shared_options
from tools import tables

SHARED = "as for a bundle; no report, socket or lease unless asked for"
PAGE = Path(__file__).parents[1] / "docs/cli.md"


def drawn() -> dict[str, list[str]]:
    """The tables by their headings."""
    return {
        "A bundle": [
            *("| option | variable | |", "| --- | --- | --- |"),
            *(
                f"| `{called(name)}` | {f'`{option.variable[0]}`' if option.variable[0] else ''} | {option.sentence}"
                f"{f'; default {option.otherwise}' if option.otherwise else ''} |".replace("|  |", "| |")
                for name, option in OPTIONS.items()
                if RUN in option.commands
            ),
        ],
        "One program": [
            *("| option | |", "| --- | --- |"),
            *(
                f"| `{called(name)}` | {option.sentence}{'. Repeatable' if option.repeats else ''} |"
                for name, option in OPTIONS.items()
                if ONE in option.commands and RUN not in option.commands
            ),
            f"| {', '.join(map('`{}`'.format, shared_options()))} | {SHARED} |",
        ],
        "Asking a running init": _commands(asking=True),
        "Looking at files": _commands(asking=False),
    }


def _commands(*, asking: bool) -> list[str]:
    rows = [f"| `{typed}` | {sentence} |" for typed, sentence, asks in command_lines() if asks == asking]
    return ["| command | |", "| --- | --- |", *rows]


def page() -> str:
    """The page with every table drawn anew."""
    return tables.replaced(PAGE.read_text(encoding="utf-8"), drawn())


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    sys.exit(0)
