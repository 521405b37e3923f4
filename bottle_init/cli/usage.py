"""What `--help` says: the rows of `options.py` for a terminal."""

from __future__ import annotations

import re
from textwrap import fill
from typing import TYPE_CHECKING

from bottle_init.cli.options import COMMANDS, CTL, HEALTH, ONE, OPTIONS, RUN, STATUS, VERBS
from bottle_init.core.policies import POLICIES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bottle_init.cli.options import Option

WIDTH = 120

ASKING = (HEALTH, STATUS, CTL)
"""The commands that ask a running init; all others look at files."""

END = """\
Every --option VALUE can be written --option=VALUE; the last one counts. Exit codes: the bundle's or the program's own,
2 for a command line that cannot be understood, 78 for an invalid bundle file, 70 for an error of the init itself.
`python3 -I -m bottle_init` is the same as `bottle-init`.
"""


def text() -> str:
    """The whole help."""
    parts = (
        ["An init for containers that run several daemons."],
        ["Run the daemons of a bundle file:", "  bottle-init [OPTIONS]", *_options(RUN)],
        [
            "Run one program, and be invisible:",
            "  bottle-init [OPTIONS] -- COMMAND [ARGUMENT...]",
            *_options(ONE, but=RUN),
            _row(", ".join(shared_options()), "as above; no report, socket or lease unless asked for"),
        ],
        [f"Ask a running init (each takes {called('--control')}):", *_commands(asking=True)],
        ["Look at files:", *_commands(asking=False)],
        ["  bottle-init --help, --version"],
    )
    return "\n\n".join("\n".join(part) for part in parts) + "\n\n" + END


def called(name: str) -> str:
    """An option with its value: `--config FILE`."""
    option = OPTIONS[name]
    return f"{name}[={option.value}]" if option.bare else f"{name} {option.value}".rstrip()


def shared_options() -> list[str]:
    """The options that one command has in common with a bundle."""
    return [called(name) for name, option in OPTIONS.items() if {RUN, ONE} <= {*option.commands}]


def command_lines() -> Iterator[tuple[str, str, bool]]:
    """`(how it is typed, what it does in markdown, whether it asks a running init)` of each command and each verb."""
    for name, row in COMMANDS.items():
        if name == CTL:
            yield from ((f"ctl {verb} {each.words}".rstrip(), _of_verb(verb), True) for verb, each in VERBS.items())
            continue
        own = {option: each for option, each in OPTIONS.items() if name in each.commands and RUN not in each.commands}
        shared = [f"`{option}`" for option, each in OPTIONS.items() if {name, RUN} <= {*each.commands}]
        typed = " ".join((name, *(f"[{option}]" for option in own), row.words)).rstrip()
        told = [row.sentence, *(f"`{option}`: {each.sentence}" for option, each in own.items())]
        if shared and name not in ASKING:
            told.append(f"takes {', '.join(shared)} as a bundle does")
        yield typed, "; ".join(told), name in ASKING


def _of_verb(verb: str) -> str:
    """What a verb of `ctl` does, and what its own options add to that; those of several verbs are told of the first."""
    told = [VERBS[verb].sentence]
    for name, option in OPTIONS.items():
        if verb == next((each for each in VERBS if each in option.verbs), ""):
            told.append(f"`{name}`: {option.sentence}")
    return "; ".join(told)


def _options(command: str, but: str = "") -> Iterator[str]:
    for name, option in OPTIONS.items():
        if command in option.commands and but not in option.commands:
            yield _row(called(name), f"{option.sentence}{_more(name, option)}")


def _more(name: str, option: Option) -> str:
    if name == "--policy":
        return f": {', '.join(POLICIES)}"
    if option.repeats:
        return " (repeatable)"
    otherwise = [part for part in (option.variable[0] and f"${option.variable[0]}", option.otherwise) if part]
    return f" ({', '.join(f'else {part}' for part in otherwise)})" if otherwise else ""


def _commands(*, asking: bool) -> Iterator[str]:
    for typed, sentence, asks in command_lines():
        if asks == asking:
            yield _row(f"bottle-init {typed}", sentence, at=2, width=40)


def _row(left: str, markdown: str, *, at: int = 4, width: int = 17) -> str:
    """Two columns, the second wrapped; what is too long for the first gets a line of its own."""
    indent = " " * (at + width)
    head = " " * at + (left.ljust(width) if len(left) < width else f"{left}\n{indent}")
    first, newline, rest = head.rpartition("\n")
    body = fill(plain(markdown), WIDTH, initial_indent=rest, subsequent_indent=indent, break_on_hyphens=False)
    return f"{first}{newline}{body}"


def plain(markdown: str) -> str:
    """Markdown without its links and its quotes for code."""
    return re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", markdown).replace("`", "")
