"""What the commands print on, and how what goes wrong is shown."""

import errno
import os
import sys
from typing import Any

from rich.console import Console
from rich.text import Text

from launcher.engine import advice
from launcher.errors import LauncherError


class Screen(Console):
    """A console whose reader may go: `up | head -1`, a terminal that is closed. The command goes on.

    `fault` is why something that was said is lost: the file is on a disk that is full.
    """

    fault: OSError | None = None

    def print(self, *objects: Any, **options: Any) -> None:
        """As `Console.print`; raises no `OSError`."""
        try:
            super().print(*objects, **options)
        except OSError as error:
            if error.errno not in (errno.EPIPE, errno.EIO):
                self.fault = error
            self.on_broken_pipe()

    def on_broken_pipe(self) -> None:
        """Print no more."""
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), self.file.fileno())


screen = Screen(highlight=False, soft_wrap=True)
errors = Screen(stderr=True, highlight=False, soft_wrap=True)


def tell(line: str) -> None:
    """Say what is going on."""
    screen.print(Text(line, style="dim"))


def note(line: str) -> None:
    """Say what the operator should know, beside what was asked for."""
    errors.print(Text(printable(line), style="yellow"))


def show_error(error: LauncherError) -> None:
    """What went wrong, and what to do."""
    if str(error):
        errors.print(Text(printable(str(error)), style="bold red"))
    if words := advice(error):
        errors.print(Text(printable(words)))


def printable(text: str) -> str:
    """Text that an agent or a daemon wrote, for a terminal: no control sequences, no direction overrides."""
    return "".join(
        character if character.isprintable() or character in "\n\t" else "\N{REPLACEMENT CHARACTER}"
        for character in text
    )


def asks_a_person() -> bool:
    """Whether a person at a terminal can be asked."""
    return sys.stdin.isatty() and sys.stdout.isatty()
