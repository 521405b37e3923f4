"""`python -m benchmarks.bottles`: what it takes to start bottles, to look at them and to take them down.

Writes docs/benchmarks-bottles.md. Beside this tree's launcher and image the ones of an earlier commit are measured, in
the same run. It needs an engine on this machine and root, which may read the memory of what others run.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import NamedTuple

from benchmarks import compose, table
from benchmarks.aims import Aim
from benchmarks.containers import used
from benchmarks.data_path import REPOSITORY, ROOT, Fault, docker, made_by, make_before, write_before
from benchmarks.figures import Samples, spread
from benchmarks.interpreter import BEFORE_COMMIT
from benchmarks.schedule import rotated, say

DOCUMENT = ROOT / "docs/benchmarks-bottles.md"
BEFORE, OURS = f"launcher of {BEFORE_COMMIT}", "launcher"
ROUNDS, MANY, OTHERS, IDLE_S = 5, 50, 3, 60.0
TOGETHER = 4
"""Launchers that work at the same time where many bottles are started."""
MANIFEST = """\
name = "bench"
image = "{image}"

[agent]
command = ["sleep", "infinity"]
"""
RECORDER = """\
#!/bin/sh
echo "$1 $2" >>"$BOTTLE_CALLS"
exec {docker} "$@"
"""
COMMANDS = ("up", "status", "down")
WORDS = {"up": "`up --detach`", "status": "`status`", "down": "`down`"}

AIMS = (
    *(
        Aim(f"{WORDS[command]}, ms", f"{command}.ms", limit, f"{command}.ms", (BEFORE,), contender=OURS)
        for command, limit in (("up", 0.6), ("status", 0.2), ("down", 0.35))
    ),
    *(
        Aim(f"{WORDS[verb]} beside compose's, ms", f"{verb}.ms", 1, f"{verb}.ms", (compose.NAME,), contender=OURS)
        for verb in compose.COMMANDS
    ),
    *(
        Aim(
            f"calls of {WORDS[command]} beside bottles of others",
            f"{command}.others",
            1,
            f"{command}.calls",
            (OURS,),
            contender=OURS,
        )
        for command in COMMANDS
    ),
    Aim("many bottles: MB of each", "many.pss_mb", 100, contender=OURS),
    Aim("many bottles: % of a core of each, idle", "many.idle_percent", 1, contender=OURS),
    Aim("many bottles: the last fifth, ms of a start", "many.last_ms", 1.5, "many.first_ms", (OURS,), contender=OURS),
)


def measured(argv: list[str], directory: Path, env: dict[str, str] | None = None) -> dict[str, float]:
    """The time of a command, and the CPU time of it and of all that it ran. Raises `Fault` where it fails."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run(
        argv, cwd=directory, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    ms, after = (time.monotonic() - began) * 1e3, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise Fault(f"{shlex.join(argv)}: {done.stdout}{done.stderr}")
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"ms": ms, "cpu_ms": cpu_s * 1e3}


class Launcher(NamedTuple):
    """One that is measured: a source tree, an operator's home, a manifest."""

    name: str
    tree: Path
    home: Path
    programs: Path

    def run(self, *arguments: str) -> dict[str, float]:
        """One command: its time, the CPU time of it and of all that it ran, and how often it ran the engine's client.

        Raises `Fault` where it fails.
        """
        record = self.home / "calls"
        record.write_text("")
        path = f"{self.programs}:{os.environ['PATH']}"
        env = {**os.environ, "HOME": str(self.home), "PATH": path, "BOTTLE_CALLS": str(record)}
        found = measured([sys.executable, "-m", "launcher", *arguments], self.tree, env)
        return found | {"calls": float(len(record.read_text().splitlines()))}

    def up(self, *options: str) -> dict[str, float]:
        """Start one more bottle."""
        return self.run("up", "--detach", *options, str(self.home / "bench.toml"))

    @property
    def slugs(self) -> list[str]:
        """Its bottles."""
        root = self.home / ".claude-bottle/state"
        return sorted(path.name for path in root.iterdir()) if root.exists() else []


def launchers(stack: ExitStack, stage: Path, image: str, *, alone: bool) -> list[Launcher]:
    """Those that are measured; all of their bottles are down when the stack ends."""
    programs = stage / "bin"
    programs.mkdir()
    (programs / "docker").write_text(RECORDER.format(docker=shutil.which("docker")))
    (programs / "docker").chmod(0o755)
    trees = [(OURS, ROOT, image)]
    if not alone:
        tree = stage / BEFORE_COMMIT
        tree.mkdir()
        write_before(tree)
        trees.insert(0, (BEFORE, tree, make_before()))
    found = []
    for number, (name, tree, of) in enumerate(trees):
        home = stage / f"home-{number}"
        home.mkdir()
        (home / "bench.toml").write_text(MANIFEST.format(image=of))
        found.append(Launcher(name, tree, home, programs))
        stack.callback(found[-1].run, "down", "--all")
    return found


def one_by_one(launcher: Launcher) -> dict[str, float]:
    """A bottle comes, is looked at, and goes."""
    found: dict[str, float] = {}
    for command in COMMANDS:
        if command == "up":
            told = launcher.up()
        else:
            told = launcher.run(command, *([launcher.slugs[0]] if command == "down" else []))
        found |= {f"{command}.{figure}": value for figure, value in told.items()}
    return found


def by_compose(peer: compose.Compose) -> dict[str, float]:
    """The same two containers come and go; compose has no command like `status`."""
    told = {verb: measured(peer.argv(verb), peer.file.parent) for verb in compose.COMMANDS}
    return {f"{verb}.{figure}": value for verb, figures in told.items() for figure, value in figures.items()}


def side_by_side(
    stack: ExitStack, launchers: list[Launcher], peer: compose.Compose | None, rounds: int, samples: Samples
) -> None:
    """Everybody in turn, in an order that rotates from round to round."""
    turns = {each.name: partial(one_by_one, each) for each in launchers}
    if peer is not None:
        turns[compose.NAME] = partial(by_compose, peer)
        stack.callback(measured, peer.argv("down"), peer.file.parent)
    for number in range(rounds):
        say(f"round {number + 1} of {rounds}")
        for name in rotated(list(turns), number):
            samples.add(str(number), name, turns[name]())


def beside_others(stack: ExitStack, chosen: list[Launcher], others: int, samples: Samples) -> None:
    """The calls of each command once more, while another operator has bottles up."""
    ours = chosen[-1]
    other = ours._replace(home=ours.home.with_name("home-other"))
    other.home.mkdir()
    shutil.copy(ours.home / "bench.toml", other.home)
    stack.callback(other.run, "down", "--all")
    for _ in range(others):
        other.up("--new")
    for launcher in chosen:
        told = one_by_one(launcher)
        samples.add("0", launcher.name, {f"{command}.others": told[f"{command}.calls"] for command in COMMANDS})
    other.run("down", "--all")


def many(launcher: Launcher, count: int, idle_s: float, samples: Samples) -> None:
    """Many bottles at the same time, what each of them holds and, with nothing to do, uses."""
    with ThreadPoolExecutor(TOGETHER) as pool:
        took = list(pool.map(lambda _: launcher.up("--new")["ms"], range(count)))
    states = _states(launcher)
    if len(states) != count or set(states) - {"healthy"}:
        raise Fault(f"of {count} bottles: {', '.join(states)}")
    ends = max(1, count // 5)
    found = {"first_ms": spread(took[:ends]).median, "last_ms": spread(took[-ends:]).median}
    before, began = used(), time.monotonic()
    time.sleep(idle_s)
    cpu_s = used()["cpu_s"] - before["cpu_s"]
    found["idle_percent"] = 100 * cpu_s / (time.monotonic() - began) / count
    found["pss_mb"] = before["pss_mb"] / count
    found["down_ms"] = launcher.run("down", "--all")["ms"] / count
    samples.add("0", launcher.name, {f"many.{figure}": value for figure, value in found.items()})


def _states(launcher: Launcher) -> list[str]:
    env = {**os.environ, "HOME": str(launcher.home)}
    command = [sys.executable, "-m", "launcher", "status", "--json"]
    done = subprocess.run(command, cwd=launcher.tree, env=env, capture_output=True, text=True, check=False)
    return [each["state"] for each in json.loads(done.stdout)]


def report(samples: Samples, names: list[str], facts: list[str]) -> str:
    """Everything that was measured, as Markdown."""
    body = [
        [f"{WORDS[command]}, {words}", *(table.cell(samples.spread(f"{command}.{figure}", name)) for name in names)]
        for command in COMMANDS
        for figure, words in (("ms", "ms"), ("cpu_ms", "CPU of the launcher and its calls, ms"), ("calls", "calls"),
                              ("others", "calls beside bottles of others"))
    ]  # fmt: skip
    return table.page(
        facts,
        table.MEDIANS,
        "## Aims\n\n" + table.of_aims(samples, AIMS, OURS),
        "## One bottle\n\n" + table.rows(("", *names), body),
    )


def main() -> int:
    """Returns 0 if this tree's launcher got through all of it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bottles", description=__doc__)
    parser.add_argument("--short", action="store_true", help="once, with few bottles, to see that all of it runs")
    parser.add_argument("--alone", action="store_true", help="without the build that came before")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="(%(default)s)")
    parser.add_argument("--many", type=int, default=MANY, help="bottles at the same time (%(default)s)")
    parser.add_argument("--image", default=REPOSITORY, help="the bundle's image (%(default)s)")
    parser.add_argument("--out", type=Path, help="the document to write into")
    chosen = parser.parse_args()
    rounds, count, others, idle_s = (1, 2, 1, 1.0) if chosen.short else (chosen.rounds, chosen.many, OTHERS, IDLE_S)
    began, samples, problem = time.monotonic(), Samples(), ""
    try:
        docker("image", "inspect", chosen.image)
        with ExitStack() as stack:
            stage = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bottle-bench-")))
            found = launchers(stack, stage, chosen.image, alone=chosen.alone)
            peer = compose.made(stage / "compose", chosen.image)
            side_by_side(stack, found, peer, rounds, samples)
            say(f"beside {others} bottles of others")
            beside_others(stack, found, others, samples)
            try:
                if count:
                    say(f"{count} bottles")
                    many(found[-1], count, idle_s, samples)
            except Fault as fault:
                problem = str(fault)
    except Fault as fault:
        print(f"benchmarks.bottles: {fault}", file=sys.stderr)
        return 1
    here = f"{' '.join(peer.command)} {peer.version}" if peer else f"not measured: {compose.NOT_HERE}"
    facts = [*made_by("benchmarks.bottles", began), f"{rounds} rounds; {count} bottles at once.", f"Compose: {here}."]
    text = report(samples, [each.name for each in found] + ([compose.NAME] if peer else []), facts)
    if problem:
        text += f"\n## What went wrong\n\n- {problem}\n"
        print(problem, file=sys.stderr)
    table.publish(text, chosen.out or (None if chosen.short else DOCUMENT))
    return 1 if problem else 0


if __name__ == "__main__":
    sys.exit(main())
