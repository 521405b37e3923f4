"""`python -m benchmarks`: run every contender, write docs/benchmarks.md and its picture."""

from __future__ import annotations

import argparse
import os
import platform
import shlex
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import image, install, interpreter, plot, processes, schedule, table, wire
from benchmarks.contenders import INIT, Bare, BundleOfOne, Init
from benchmarks.interpreter import Interpreter
from benchmarks.peers import ELSEWHERE, all_peers, said_by
from benchmarks.scenarios import Bench


def options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--short", action="store_true", help="each piece of work twice, in under a minute; to see that all of it runs"
    )
    parser.add_argument(
        "--install", action="store_true", help="install the peers that packages can bring (Debian's as root)"
    )
    parser.add_argument("--image", action="store_true", help="in the bundle's image, with its interpreter")
    parser.add_argument("--no-compiler", action="store_true", help="measured children in Python, as without one")
    parser.add_argument("--only", metavar="GROUPS", help="these groups alone, separated by commas")
    parser.add_argument("--peers", metavar="NAMES", help="these peers alone, separated by commas")
    parser.add_argument("--python", default=interpreter.debians(), help="the interpreter to measure (%(default)s)")
    parser.add_argument(
        "--out", type=Path, help="the document to write into (docs/benchmarks.md; with --short none, but stdout)"
    )
    return parser.parse_args()


def cache() -> Path:
    """Where the benchmark keeps what it has built and installed."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    path = Path(base) / "bottle-benchmarks"
    path.mkdir(parents=True, exist_ok=True)
    return path


def main() -> int:
    """Returns 0 if the init got through all of it."""
    chosen = options()
    if chosen.image:
        lent = [peer for peer in all_peers() if peer.source == ELSEWHERE]
        for peer in lent:
            peer.find(cache())
        return image.run(cache(), lent, [word for word in sys.argv[1:] if word != "--image"], commit())
    if image.COMMAND not in os.environ and interpreter.INSIDE not in os.environ:
        interpreter.keep_before(cache())
    venv = cache() / "peers"
    if chosen.install:
        install.install(venv, chosen.python)
    interpreter.enter_namespace(chosen.python, cache())
    processes.become_subreaper()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="bottle-bench-") as directory:
        scratch = Path(directory)
        probe = wire.Probe(cache(), wire.Wire(scratch), compiler=None if chosen.no_compiler else wire.compiler())
        python = Interpreter(chosen.python, cache())
        peers = all_peers()
        for peer in peers:
            peer.find(venv)
        present = [
            peer for peer in peers if peer.program and (not chosen.peers or peer.name in chosen.peers.split(","))
        ]
        before = [Init(python, before=True), BundleOfOne(python, scratch, before=True)] if python.has_before else []
        cast = schedule.Cast(Init(python), BundleOfOne(python, scratch), Bare(python), present, before)
        programme = schedule.groups(cast, short=chosen.short)
        if chosen.only:
            programme = [group for group in programme if group.name in chosen.only.split(",")]
        bench = Bench(probe, scratch, short=chosen.short)
        samples, problems = schedule.run(bench, cast, programme)
    facts = about(probe.kind, time.monotonic() - began)
    write(chosen, table.report(samples, cast._replace(peers=peers), facts, problems), plot.draw(samples))
    print(file=sys.stderr)
    for where, what in problems.items():
        print(f"{where}: {what}", file=sys.stderr)
    return 1 if any(where.startswith(INIT) for where in problems) else 0


def about(probe: str, seconds: float) -> list[str]:
    """What a reader must know of this run."""
    command = os.environ.get(image.COMMAND) or shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]])
    when = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    return [
        f"Made by `{command}` at {when} in {seconds / 60:.1f} minutes, at {commit()}.",
        f"Linux {platform.release()}, {os.cpu_count()} CPUs ({cpu()}), load {os.getloadavg()[0]:.1f} at the end.",
        f"The measured children: {probe}.",
    ]


def commit() -> str:
    """What of the init was measured."""
    if told := os.environ.get(image.COMMIT):
        return told
    git = ("git", "-C", str(interpreter.ROOT))
    changed = said_by(*git, "status", "--porcelain", "--", "bottle_init")
    return f"commit {said_by(*git, 'rev-parse', '--short', 'HEAD')}{' and changes to it' if changed else ''}"


def cpu() -> str:
    """What kind of CPU."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def write(chosen: argparse.Namespace, text: str, picture: str) -> None:
    """Into the document and beside it, or to stdout."""
    document: Path | None = chosen.out or (None if chosen.short else table.DOCUMENT)
    table.publish(text, document)
    if document:
        document.with_suffix(".svg").write_text(picture)


if __name__ == "__main__":
    sys.exit(main())
