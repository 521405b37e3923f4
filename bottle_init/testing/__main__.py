"""`python3 -I -m bottle_init.testing bundle.toml`: try that bundle in the simulated kernel.

Exit codes: 0 nothing was broken, 1 a counter-example was found and is printed, 2 wrong usage,
78 the bundle file is not valid.
"""

from __future__ import annotations

import argparse
import runpy
import secrets
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from bottle_init.bundle import accepted, load
from bottle_init.bundle.source import BundleInvalid, read_text
from bottle_init.core.policies import POLICIES
from bottle_init.testing import design, real
from bottle_init.testing.diagram import state_machine
from bottle_init.testing.fuzz import fuzz, scenario_of
from bottle_init.testing.invariants import INVARIANTS, check
from bottle_init.testing.timeline import render
from bottle_init.testing.world import simulate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bottle_init.core.spec import Bundle
    from bottle_init.testing.design import Promise
    from bottle_init.testing.fuzz import Outcome

EX_BROKEN = 1
EX_INVALID = 78


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.diagram:
        sys.stdout.write(state_machine())
        return 0
    if options.bundle is None:
        parser.error("which bundle file? (or --diagram)")
    try:
        text = read_text(options.bundle)
        bundle = load.from_text(text, options.bundle, options.policy, here=False)
    except BundleInvalid as invalid:
        sys.stderr.write(f"{invalid}\n")
        return EX_INVALID
    seed = options.seed if options.seed is not None else secrets.token_hex(4)
    if options.show is not None:
        trace = simulate(scenario_of(seed, options.show, bundle))
        sys.stdout.write(f"{render(trace, check(trace), bundle=False)}\n")
        return 0
    if options.real is not None:
        return _play(bundle, seed, options.real)
    own = [] if options.promises is None else _promises_of(parser, options.promises)
    code = _print(fuzz(bundle, seed=seed, runs=options.runs, seconds=options.seconds))
    try:
        judgement = design.judge(bundle, accepted=accepted.lone_daemons(text), own=own, seed=seed)
    except LookupError as wrong:
        parser.error(f"{options.promises}: {wrong}")
    sys.stdout.write(f"{judgement}\n")
    return code if judgement.is_good else EX_BROKEN


def _promises_of(parser: argparse.ArgumentParser, path: str) -> list[Promise]:
    """The functions of a Python file that do not begin with an underscore, and that it has not imported."""
    try:
        found = runpy.run_path(path)
    except (OSError, SyntaxError) as problem:
        parser.error(f"{path}: {problem}")
    own = [
        each
        for name, each in found.items()
        if not name.startswith("_") and callable(each) and getattr(each, "__module__", "") == "<run_path>"
    ]
    if not own:
        parser.error(f"{path}: there is no function in it")
    return own


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python3 -I -m bottle_init.testing",
        description="Tries a bundle in a simulated kernel, with the core that runs as PID 1: deaths, signals, slow "
        "starts, hung probes, stalled logs, forks that fail, orders. "
        f"{len(INVARIANTS)} promises of the contract are checked in every run, and the smallest run that breaks one "
        "is printed. Then the design of the bundle is judged: whether its times, orders and budgets fit each other.",
        epilog="Exit codes: 0 nothing broken, 1 counter-example found or a promise that says nothing, 2 wrong usage, "
        "78 bundle file not valid.",
    )
    parser.add_argument("bundle", nargs="?", metavar="BUNDLE.TOML", help="the bundle file")
    parser.add_argument("--policy", choices=tuple(POLICIES), help="in place of the bundle's own")
    parser.add_argument("--runs", type=_count, help="how many runs (default: 1000)")
    parser.add_argument("--seconds", type=_seconds, help="for how long, in place of a number of runs")
    parser.add_argument("--seed", help="the same seed makes the same runs (default: a new one, which is printed)")
    parser.add_argument("--show", type=_count, metavar="RUN", help="print one run of a seed, whatever it did")
    parser.add_argument(
        "--real",
        type=_count,
        metavar="N",
        help="play N runs with scripted stand-ins on this machine as well, and compare with the simulation",
    )
    parser.add_argument(
        "--promises", metavar="FILE.PY", help="functions that are promises of this bundle (docs/testing.md)"
    )
    parser.add_argument("--diagram", action="store_true", help="print docs/state-machine.md, and nothing else")
    return parser


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f"must be a whole number, is {text!r}")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a number of seconds above 0, is {text!r}")
    return seconds


def _play(bundle: Bundle, seed: str, count: int) -> int:
    """The same runs in the simulated kernel and on Linux; those whose outcome hangs on a moment are passed over."""
    played = run = 0
    while played < count:
        scenario = real.draw_real(seed, run, bundle)
        run += 1
        with tempfile.TemporaryDirectory(prefix="bottle-") as directory:
            try:
                found = real.compare(scenario, Path(directory))
            except real.Undecided:
                continue
        played += 1
        if found:
            trace = simulate(scenario)
            sys.stdout.write(f"{render(trace, bundle=False)}\n\n")
            sys.stdout.write("\n".join((*found, f"Run {run - 1} of seed {seed} differs on Linux.\n")))
            return EX_BROKEN
    sys.stdout.write(f"{played} runs on Linux, each as simulated, seed {seed} ({run - played} hung on a moment)\n")
    return 0


def _print(outcome: Outcome) -> int:
    if outcome.counter_example is None:
        sys.stdout.write(f"{outcome}: nothing was broken\n")
        return 0
    sys.stdout.write(f"{outcome.counter_example}\n\n{outcome}\n")
    return EX_BROKEN


if __name__ == "__main__":
    sys.exit(main())
