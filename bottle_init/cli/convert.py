"""`bottle-init convert`: a bundle file from the file of another tool."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from bottle_init.bundle.source import BundleInvalid
from bottle_init.cli import console
from bottle_init.cli.options import UsageError
from bottle_init.convert import sources
from bottle_init.convert.comments import NOT_CONVERTED
from bottle_init.convert.draft import ExtraMissing, Unconvertible
from bottle_init.words.exits import EX_NO, EX_OK

if TYPE_CHECKING:
    from bottle_init.cli.options import Options

_EXTRA = "Install what reads it: pip install 'bottle-init[convert]'"


def run(options: Options) -> int:
    """Print or write the bundle file; 1 where something that changes behaviour could not be converted.

    Raises BundleInvalid for an input that is not what it should be, UsageError.
    """
    if options.kind is not None and options.kind not in sources.KINDS:
        raise UsageError(f"--kind {options.kind}: there is no such kind", f"There are {', '.join(sources.KINDS)}.")
    shown = "standard input" if options.file == "-" else options.file
    try:
        draft = sources.draft_of(options.file, options.kind)
        text = draft.text()
    except ExtraMissing as missing:
        raise UsageError(f"convert: {missing}", _EXTRA) from None
    except Unconvertible as problem:
        raise NotConvertible(shown, [("", str(problem))]) from None
    if options.output is None or options.output == "-":
        console.print(text)
    elif not _write(options.file, options.output, text):
        return EX_NO
    lost = draft.lost
    if not lost:
        return EX_OK
    what = (
        "one thing that changes behaviour was" if len(lost) == 1 else f"{len(lost)} things that change behaviour were"
    )
    said = "".join(f"\n  {line}" for line in lost)
    console.complain(f"bottle-init convert: {shown}: {what} not converted ({NOT_CONVERTED} in the file):{said}")
    return EX_NO


class NotConvertible(BundleInvalid):
    """The input is not what it should be."""

    def __str__(self) -> str:
        """One line."""
        return f"{self.source}: cannot be converted: {self.faults[0].message}"


def _write(source: str, path: str, text: str) -> bool:
    """Write the file at once and whole. Raises UsageError where it is the input itself."""
    try:
        if source != "-" and os.path.exists(path) and os.path.samefile(source, path):
            raise UsageError(f"convert: {path} is the input itself")
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
    except (OSError, ValueError) as problem:
        reason = getattr(problem, "strerror", None) or problem
        console.complain(f"bottle-init convert: {path}: cannot be written: {reason}")
        return False
    return True
