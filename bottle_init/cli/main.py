"""The command line: what was asked for, and who does it.

Help, checks and the words of a usage error are imported when somebody asks for them.
"""

from __future__ import annotations

import gc
from _signal import SIG_BLOCK, pthread_sigmask, valid_signals

from bottle_init.cli.options import CHECK, CONVERT, CTL, EXPLAIN, HEALTH, HELP, ONE, RUN, STATUS, VERSION, parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Final

    from bottle_init.cli.options import Options


def main(argv: Sequence[str]) -> int:
    """Do what a command line (without its first word) asks for; returns the exit code. Never raises."""
    import os

    gc.disable()  # Imports make no garbage, and looking for it between them takes long; who runs on enables it again.
    try:
        options = parse(argv, os.environ)
        return COMMANDS[options.command](options)
    except BaseException as problem:  # noqa: BLE001 - Whatever it was, an exit code of the contract has to come of it.
        from bottle_init.cli import mishap

        return mishap.exit_code(problem)


def _run(options: Options) -> int:
    pthread_sigmask(SIG_BLOCK, valid_signals())  # From here on no request to stop is lost, or ends PID 1 half-way.
    from bottle_init.bundle.source import BundleInvalid
    from bottle_init.cli import chosen
    from bottle_init.linux import init

    try:
        bundle = chosen.find_bundle(options)
    except BundleInvalid as problem:
        from bottle_init.cli import mishap

        return mishap.not_started(problem, options.report)
    return init.run(bundle, options.report, _story)


def _story(report: bytes) -> str:
    from bottle_init.cli import explain

    return explain.story_of(report)


def _one(options: Options) -> int:
    inherited = pthread_sigmask(SIG_BLOCK, valid_signals())  # As for a bundle; the command gets back what it was.
    from bottle_init.core.command import Rules
    from bottle_init.linux import one

    rules = Rules(options.rewrite, options.map_exit, options.single_child, options.parent_death_signal)
    if options.stop_timeout is not None:
        rules = rules.replace(stop_timeout_ms=options.stop_timeout)
    return one.run(options.argv, rules, inherited, options.report or "", options.control or "", options.lease)


def _check(options: Options) -> int:
    from bottle_init.cli import check

    return check.run(options)


def _health(options: Options) -> int:
    from bottle_init.cli import asking, chosen

    chosen.find_control(options)
    return asking.health(options)


def _status(options: Options) -> int:
    gc.enable()
    from bottle_init.cli import asking, chosen

    chosen.find_control(options)
    return asking.status(options)


def _ctl(options: Options) -> int:
    gc.enable()
    from bottle_init.cli import asking, chosen

    chosen.find_control(options)
    return asking.ctl(options)


def _explain(options: Options) -> int:
    gc.enable()
    from bottle_init.cli import explain

    if options.svg:
        from bottle_init.cli import drawing

        return explain.run(options, drawing.svg)
    return explain.run(options, explain.render)


def _convert(options: Options) -> int:
    gc.enable()
    from bottle_init.cli import convert

    return convert.run(options)


def _help(_options: Options) -> int:
    from bottle_init.cli import console, usage

    console.print(usage.text())
    return 0


def _version(_options: Options) -> int:
    from bottle_init import __version__
    from bottle_init.cli import console

    console.print(f"bottle-init {__version__}\n")
    return 0


COMMANDS: Final[dict[str, Callable[[Options], int]]] = {
    RUN: _run,
    ONE: _one,
    CHECK: _check,
    HEALTH: _health,
    STATUS: _status,
    CTL: _ctl,
    EXPLAIN: _explain,
    CONVERT: _convert,
    HELP: _help,
    VERSION: _version,
}
