"""The command line `bottle`."""

import io
import os
import signal
import sys
from typing import NoReturn

INTERRUPTED = 130
"""128 + SIGINT, as a shell says it."""


def main() -> None:
    """Run the command line; what goes wrong is shown as what it says, and never as a traceback.

    A reader that goes (`bottle logs | head -1`) ends it with 141, and Ctrl-C with 130, as a shell says it.
    """
    try:
        _any_text_may_be_shown()
        try:
            _run()
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()
    except BrokenPipeError:
        _print_no_more()
        sys.exit(141)
    except OSError as error:  # A disk that is full, a home that is not there: where, and what.
        _print_no_more()
        words = error.strerror or str(error)
        print(f"{error.filename}: {words}" if error.filename else words, file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        _leave_interrupted()
    except SystemExit as end:
        if end.code == INTERRUPTED:  # typer makes one of the other.
            _leave_interrupted()
        raise


def _leave_interrupted() -> NoReturn:
    """End at once, whatever else is pressed: Python would wait for commands of the engine's client that only look."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os._exit(INTERRUPTED)


def _run() -> None:
    """`status` is asked for often, by people and by scripts: it does without the libraries of the other commands, which
    take longer to load than its answer takes.
    """
    docker = os.environ.get("CLAUDE_BOTTLE_BACKEND", "docker") == "docker"
    if docker and sys.argv[1:] in ([name, *form] for name in ("status", "ps") for form in ([], ["--json"])):
        from launcher.cli.quick import show_status

        show_status(as_json="--json" in sys.argv)
    else:
        from launcher.cli.app import run

        run()


def _any_text_may_be_shown() -> None:
    """Names that are no UTF-8 and letters that a terminal has not are shown by their numbers."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _print_no_more() -> None:
    """What could not be written is not tried again when Python ends."""
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
