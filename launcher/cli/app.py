"""The whole command line, with all of its commands."""

import sys

from rich.text import Text

from launcher.cli import answers, lifecycle, look, setup, work
from launcher.cli.console import errors, show_error
from launcher.cli.root import app
from launcher.errors import LauncherError

COMMANDS = (lifecycle, look, answers, work, setup)
"""The modules whose commands the application has, in the order of its help."""


def run() -> None:
    """Run the command that the arguments say."""
    try:
        app()
    except LauncherError as error:
        show_error(error)
        sys.exit(error.exit_code)
    except OSError as error:  # A disk that is full, a home that is not there: where, and what.
        errors.print(Text(f"{error.filename}: {error.strerror}" if error.filename else str(error), style="bold red"))
        sys.exit(1)
