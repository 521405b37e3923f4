"""`health`, `status` and `ctl`: what asks the running init (contract 6).

`health` is an image's HEALTHCHECK and runs every few seconds for as long as a container lives, so
it imports nothing that it does not need: the init formats the answer, and the first word of it is
the verdict. What the other two need is imported when they run.
"""

from __future__ import annotations

from posix import isatty
from time import sleep

from bottle_init import client
from bottle_init.cli import console
from bottle_init.client import NoAnswer, ask, stream
from bottle_init.words.exits import EX_NO, EX_OK, EX_USAGE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from bottle_init.cli.options import Options

REFRESH_S = 2
"""Seconds between two tables of `status --watch`."""

_JSON_HEAD = '{"health": "'

# What the commands do; each returns its exit code.


def health(options: Options) -> int:
    """Print the answer; 0 for `healthy` and (unless strict) `degraded`, 1 for all else, no running init included."""
    try:
        answer = ask(options.control or "", "health json" if options.json else "health")
    except NoAnswer as problem:
        return _complain("health", str(problem), EX_NO)
    if answer.startswith("error "):
        return _complain("health", answer.strip().removeprefix("error "), EX_NO)
    verdict = answer.partition("\n")[0]
    if options.json:
        verdict = verdict.removeprefix(_JSON_HEAD).partition('"')[0]
    console.print_if_open(answer)
    return EX_OK if verdict == "healthy" or (verdict == "degraded" and not options.strict) else EX_NO


def status(options: Options) -> int:
    """Print what the children are doing: a table, or JSON; again and again with `--watch`, until Ctrl-C."""
    from bottle_init.cli import figures as tables

    figures = tables.Figures()
    try:
        while True:
            told = _status_once(options, figures)
            if options.watch and isatty(1):
                told = tables.CLEAR + told
            console.print_if_open(told)
            if not options.watch:
                break
            sleep(REFRESH_S)
    except NoAnswer as problem:
        return _complain("status", str(problem), EX_NO)
    except KeyboardInterrupt:
        return EX_OK
    if figures.missing and not options.json:
        console.complain(tables.HOW_TO_GET_FIGURES)
    return EX_OK


def _status_once(options: Options, figures: Any) -> str:
    from json import dumps

    from bottle_init.cli import figures as tables

    facts = client.status(options.control or "")
    figures.add(facts["children"])
    return dumps(facts) + "\n" if options.json else tables.table(facts, _width())


def _width() -> int | None:
    """Columns of the terminal that is read from, None where none is."""
    from os import get_terminal_size

    try:
        return get_terminal_size(1).columns or None
    except OSError:
        return None


def ctl(options: Options) -> int:
    """Give one order, and print what the init says to it: 0 done, 1 refused or no running init, 2 not understood."""
    if options.verb == "events":
        return _events(options)
    if options.all or options.wait is not None or len(options.names) > 1:
        from bottle_init.cli import ordering

        return ordering.run(options)
    words = ["ctl", options.verb, *options.names, str(options.signal or "")]
    try:
        kind, _, text = ask(options.control or "", " ".join(word for word in words if word)).strip().partition(" ")
    except NoAnswer as problem:
        return _complain("ctl", str(problem), EX_NO)
    if kind == "ok":
        console.print_if_open(text + "\n")
        return EX_OK
    return _complain("ctl", text, EX_USAGE if kind == "usage" else EX_NO)


def _events(options: Options) -> int:
    """Print the init's events as they happen, the present status first, until it ends or Ctrl-C.

    A terminal gets a line for people, everything else the JSON.
    """
    if not options.follow:
        hint = "the init keeps no past events (its log has them): ctl events --follow shows those to come"
        return _complain("ctl events", hint, EX_USAGE)
    show = _told if isatty(1) else _as_it_is
    try:
        for piece in stream(options.control or "", "events"):
            if piece.startswith(b"error "):
                return _complain("ctl events", piece.decode().strip().removeprefix("error "), EX_NO)
            console.print_if_open(show(piece))
    except NoAnswer as problem:
        return _complain("ctl events", str(problem), EX_NO)
    except KeyboardInterrupt:
        pass
    return EX_OK


def _as_it_is(line: bytes) -> str:
    return line.decode("utf-8", "replace")


def _told(line: bytes) -> str:
    from os import environ

    from bottle_init.cli import telling
    from bottle_init.words.tags import has_colour

    return telling.line_of(line, colour=has_colour(environ), width=_width())


def _complain(command: str, text: str, code: int) -> int:
    console.complain(f"bottle-init {command}: {text}")
    return code
