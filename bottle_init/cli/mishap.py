"""What becomes of an exception that reaches the command line: one message, one exit code."""

from __future__ import annotations

from bottle_init.bundle.source import BundleInvalid
from bottle_init.cli.console import OutputLost, say
from bottle_init.cli.options import UsageError
from bottle_init.words.exits import EX_CONFIG, EX_NO, EX_SOFTWARE, EX_USAGE

_SIGPIPE = 128 + 13
_SIGINT = 128 + 2


def exit_code(problem: BaseException) -> int:
    """Says what happened on stderr, as far as that is still open, and returns the code for it."""
    if isinstance(problem, UsageError):
        _tell(f"bottle-init: {problem}\n{problem.hint}\n")
        return EX_USAGE
    if isinstance(problem, OutputLost):
        _tell(f"bottle-init: {problem}\n")
        return EX_NO
    if isinstance(problem, BundleInvalid):
        _tell(f"bottle-init: {problem}\n")
        return EX_CONFIG
    if isinstance(problem, BrokenPipeError):
        return _SIGPIPE  # The reader has seen enough: `bottle-init check | head -1`.
    if isinstance(problem, KeyboardInterrupt):
        return _SIGINT
    if isinstance(problem, SystemExit) and isinstance(problem.code, int | None):
        return problem.code or 0
    import traceback

    trace = "".join(traceback.format_exception(problem))
    _tell(f"{trace}bottle-init: internal error; please report it with the lines above.\n")
    return EX_SOFTWARE


def _tell(text: str) -> None:
    try:
        say(2, text)
    except (OutputLost, BrokenPipeError):
        pass  # Nobody listens; the code says it too.
