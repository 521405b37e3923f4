"""The tables of docs/engines.md: `python -m tools.engines_page` writes them.

What cannot stand is what each backend itself says (`lost`, shown by `plan` and `doctor`); which test of the walls runs
on which engine is in the marks `not_on` of the tests.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from launcher.backend import get_bottle_backend
from tools import tables, walls

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/engines.md"
SUITE = "launcher/test_walls"
COLUMNS = {
    "Docker": ("docker",),
    "remote": ("remote", "ssh", "context"),
    "Docker 29": ("docker29",),
    "Podman": ("podman",),
    "Swarm": ("swarm",),
    "Kubernetes": ("kubernetes",),
}
"""The columns of the table, and the engines of the tests that each stands for."""
BACKENDS = {name: name.lower() for name in ("Docker", "Podman", "Swarm", "Kubernetes", "smolmachines")}


def suite() -> dict[str, Any]:
    """The tests of the walls by their names, in their order."""
    module = importlib.import_module(f"tests.integration.{SUITE.replace('/', '.')}")
    return {name: each for name, each in vars(module).items() if name.startswith("test_")}


def marks(test: Any) -> Iterator[tuple[tuple[str, ...], str, str]]:
    """The engines that a test is not for, the wall that cannot stand there (or ""), and why."""
    for mark in getattr(test, "pytestmark", ()):
        if mark.name == "not_on":
            yield mark.args, mark.kwargs.get("wall", ""), mark.kwargs["why"]


def promises() -> dict[str, str]:
    """For each test of the suite the rows of docs/walls.md that name it."""
    found: dict[str, list[str]] = {}
    for wall in walls.rows():
        for module, test in wall.named():
            if module == SUITE:
                found.setdefault(test, []).append(wall.number)
    return {name: ", ".join(rows) for name, rows in found.items()}


def drawn() -> dict[str, list[str]]:
    """The tables by their headings."""
    return {"What cannot stand": _lost(), "Which test runs where": _tests()}


def _lost() -> list[str]:
    rows = ["| engine | wall | |", "| --- | --- | --- |"]
    for name, backend in BACKENDS.items():
        lost = get_bottle_backend(backend).lost if backend != "docker" else ()
        rows += [f"| {name} | {wall} | {why} |" for wall, why in lost] or [f"| {name} | | all of them stand |"]
    return rows


def _tests() -> list[str]:
    promised = promises()
    rows = [
        f"| row of walls.md | test | {' | '.join(COLUMNS)} |",
        f"| --- | --- | {' | '.join('---' for _ in COLUMNS)} |",
    ]
    for name, test in suite().items():
        excepted = {engine: (wall, why) for engines, wall, why in marks(test) for engine in engines}
        cells = []
        for engines in COLUMNS.values():
            wall, why = excepted.get(engines[0], ("", ""))
            cells.append(f"{wall}: {why}" if wall else why or "runs")
        rows.append(
            f"| {promised.get(name, '')} | {name.removeprefix('test_').replace('_', ' ')} | {' | '.join(cells)} |"
        )
    return rows


def page() -> str:
    """The page with every table drawn anew."""
    return tables.replaced(PAGE.read_text(encoding="utf-8"), drawn())


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    sys.exit(0)
