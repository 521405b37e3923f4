"""The manual page bottle-init(1), from the rows of `cli/options.py`: `python -m tools.man_page` writes it."""

from __future__ import annotations

import sys
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING

from bottle_init import __version__
from bottle_init.cli.options import COMMANDS, CTL, DEFAULT_CONFIG, ONE, OPTIONS, RUN, VERBS
from bottle_init.cli.usage import called, plain, shared_options

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = Path(__file__).parents[1] / "share/man/man1/bottle-init.1"

WIDTH = 76

EXIT_CODES = (
    ("0", "What was asked for has happened; of a bundle, see docs/contract.md."),
    ("1", "A subcommand says no: not healthy, no running init, an order that was refused."),
    ("2", "The command line cannot be understood."),
    ("69", "The bundle has ended, and no death is to blame."),
    ("70", "An error of the init itself."),
    ("78", "The bundle file is invalid; nothing was started."),
    ("126, 127", "The command to blame could not be executed, or was not found."),
    ("137", "The child to blame had to be killed."),
    ("other", "The exit code of the child to blame, or of the one program; 128 plus the signal that killed it."),
)

DESCRIPTION = """\
Runs the daemons, jobs and set-up steps of a bundle file as PID 1 of a container, or one program. Where an option is
given several times, the last one counts, unless it is repeatable."""

SIGNALS = """\
TERM, INT and QUIT ask a bundle to stop; a second one kills what is left. A child of a bundle gets the others if its
file says so. One program gets every signal that a process can catch."""


def page() -> str:
    """The page in roff, with the macros of man(7)."""
    return "\n".join(_page()) + "\n"


def _page() -> Iterator[str]:
    yield '.\\" Made by `make docs` from bottle_init/cli/options.py.'
    yield f'.TH BOTTLE-INIT 1 "" "bottle-init {__version__}"'
    yield from (".SH NAME", "bottle-init \\- an init for containers that run several daemons")
    yield ".SH SYNOPSIS"
    yield ".nf"
    for typed in ("[OPTIONS]", "[OPTIONS] -- COMMAND [ARGUMENT...]", *(_typed(name) for name in COMMANDS)):
        yield f"\\fBbottle\\-init\\fR {roff(typed)}"
    yield ".fi"
    yield ".SH DESCRIPTION"
    yield _sentence(DESCRIPTION)
    yield ".SH OPTIONS OF A BUNDLE"
    yield from _options(RUN)
    yield ".SH OPTIONS OF ONE PROGRAM"
    yield f"Besides {roff(', '.join(shared_options()))}:"
    yield from _options(ONE, but=RUN)
    yield ".SH COMMANDS"
    for name, row in COMMANDS.items():
        heads = {f"ctl {verb}": each for verb, each in VERBS.items()} if name == CTL else {name: row}
        for head, each in heads.items():
            yield from _item(f"{head} {each.words}".rstrip(), each.sentence)
        if any(name in option.commands and RUN not in option.commands for option in OPTIONS.values()):
            yield from (".RS", *_options(name, but=RUN), ".RE")
    yield ".SH SIGNALS"
    yield _sentence(SIGNALS)
    yield ".SH EXIT STATUS"
    for code, sentence in EXIT_CODES:
        yield from _item(code, sentence)
    yield ".SH ENVIRONMENT"
    for name, option in OPTIONS.items():
        if option.variable[0]:
            yield from _item(option.variable[0], f"stands for {name} where that is not given")
    yield from _item("BOTTLE_INIT_TERMINATION_LOG", "the termination log, instead of /dev/termination-log")
    yield from _item("NO_COLOR", "if it is set, nothing is coloured")
    yield ".SH FILES"
    yield from _item(DEFAULT_CONFIG, "the bundle file where no other is named")
    yield ".SH SEE ALSO"
    yield ".BR docker-run (1),\n.BR sd_notify (3),\n.BR capabilities (7),\n.BR pid_namespaces (7)"


def _typed(name: str) -> str:
    options = " [OPTIONS]" if any(name in option.commands for option in OPTIONS.values()) else ""
    return f"{name}{options} {COMMANDS[name].words}".rstrip()


def _options(command: str, but: str = "") -> Iterator[str]:
    for name, option in OPTIONS.items():
        if command in option.commands and but not in option.commands:
            more = [f"; else ${option.variable[0]}"] if option.variable[0] else []
            more += [f", else {option.otherwise}"] if option.otherwise else []
            more += ["; repeatable"] if option.repeats else []
            yield from _item(called(name), option.sentence + "".join(more))


def _item(head: str, markdown: str) -> Iterator[str]:
    yield from (".TP", f".B {roff(head)}", _sentence(markdown))


def _sentence(markdown: str) -> str:
    """A sentence of the tables, which begin small and end with no stop, as a sentence of a page."""
    text = plain(markdown)
    text = text[:1].upper() + text[1:]
    return roff(fill(text if text.endswith(".") else f"{text}.", WIDTH, break_on_hyphens=False))


def roff(text: str) -> str:
    """Text with nothing in it that roff would take for a request."""
    lines = text.replace("\\", "\\e").replace("-", "\\-").splitlines()
    return "\n".join(f"\\&{line}" if line.startswith((".", "'")) else line for line in lines)


if __name__ == "__main__":
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(page(), encoding="utf-8")
    sys.exit(0)
