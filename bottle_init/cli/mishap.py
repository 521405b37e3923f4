"""What becomes of an exception that reaches the command line: one message, one exit code.

Where the command is PID 1 of a container, that ends with it, and the message is in its termination log, too.
"""

from __future__ import annotations

import posix

from bottle_init.bundle.source import BundleInvalid
from bottle_init.cli.console import OutputLost, complain
from bottle_init.cli.options import DEFAULT_CONFIG, UsageError
from bottle_init.words.exits import EX_CONFIG, EX_NO, EX_SOFTWARE, EX_USAGE

_SIGPIPE = 128 + 13
_SIGINT = 128 + 2


def exit_code(problem: BaseException) -> int:
    """Says what happened on stderr, as far as that is still open, and returns the code for it."""
    if isinstance(problem, UsageError):
        complain(f"bottle-init: {problem}\n{problem.hint}")
        _note_end(EX_USAGE, f"{problem}\n{problem.hint}")
        return EX_USAGE
    if isinstance(problem, OutputLost):
        complain(f"bottle-init: {problem}")
        return EX_NO
    if isinstance(problem, BundleInvalid):
        complain(f"bottle-init: {problem}{_elsewhere(problem.source)}")
        return EX_CONFIG
    if isinstance(problem, BrokenPipeError):
        return _SIGPIPE  # The reader has seen enough: `bottle-init check | head -1`.
    if isinstance(problem, KeyboardInterrupt):
        return _SIGINT
    if isinstance(problem, SystemExit) and isinstance(problem.code, int | None):
        return problem.code or 0
    import traceback

    trace = "".join(traceback.format_exception(problem))
    complain(f"{trace}bottle-init: internal error; please report it with the lines above.")
    _note_end(EX_SOFTWARE, f"internal error: {type(problem).__name__}: {problem}")
    return EX_SOFTWARE


def not_started(problem: BundleInvalid, path: str | None) -> int:
    """A bundle that cannot be run is reported on as any other end is (contract 7); `path` is the report's."""
    from bottle_init.linux import report

    for unwritten in report.write_invalid(problem.source, [str(fault) for fault in problem.faults], path):
        complain(f"bottle-init: {unwritten}")
    return exit_code(problem)


def _elsewhere(source: str) -> str:
    """What to do where there is no bundle file at the default place, as for a `bottle-init` without any words."""
    if source != DEFAULT_CONFIG or posix.access(source, posix.F_OK):
        return ""
    return "\nRun another file with --config FILE, or one program with -- COMMAND; --help shows the command line."


def _note_end(code: int, text: str) -> None:
    if posix.getpid() == 1:
        from bottle_init.linux import report

        report.write_text(report.cut(f"exit code {code}: {text}\n", report.TERMINATION_LOG_BYTES))
