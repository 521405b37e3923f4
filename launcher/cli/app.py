"""The whole command line, with all of its commands."""

import sys

from launcher.cli import answers, lifecycle, look, setup, work
from launcher.cli.console import screen, show_error
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
    except SystemExit as end:
        if screen.fault is not None and not end.code:
            raise screen.fault from None
        raise
