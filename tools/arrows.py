"""Who imports whom in `bottle_init/`: the arrows, the circles, and `docs/imports.md`, which is drawn from them.

`python -m tools.arrows` prints the page, `python -m tools.arrows --count [DIRECTORY]` the numbers of a working tree.
Every import counts, wherever it stands in a file; one that is for type checkers alone is drawn as a dotted line.
"""

from __future__ import annotations

import argparse
import ast
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    Arrows = dict[str, dict[str, bool]]
    """Importing module -> imported module -> whether the import is more than a type checker's."""

ROOT = Path(__file__).parents[1]
PACKAGE = "bottle_init"
HEADER = """\
# Who imports whom

Drawn from the imports by `python -m tools.arrows`; a test compares. An arrow goes from the one that imports to what it
imports, a dotted one where only a type checker follows it. Arrows fall: nothing imports what stands above it, and
there is no circle, type checkers' imports included. Why the folders are these, and what may be imported where:
[design.md](design.md).
"""


def imports(tree: ast.Module) -> Iterator[tuple[str, bool]]:
    """`(full name, whether it is needed at run time)` of everything that a file imports."""
    yield from _imports(tree, run_time=True)


def _imports(node: ast.AST, *, run_time: bool) -> Iterator[tuple[str, bool]]:
    if isinstance(node, ast.Import):
        yield from ((alias.name, run_time) for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        if node.level:
            raise ValueError(f"line {node.lineno}: imports are absolute here")
        yield from ((f"{node.module}.{alias.name}", run_time) for alias in node.names)
    elif isinstance(node, ast.If) and _is_for_type_checkers(node.test):
        for statement in node.body:
            yield from _imports(statement, run_time=False)
        for statement in node.orelse:
            yield from _imports(statement, run_time=run_time)
    else:
        for child in ast.iter_child_nodes(node):
            yield from _imports(child, run_time=run_time)


def _is_for_type_checkers(test: ast.expr) -> bool:
    return isinstance(test, ast.Name) and test.id == "TYPE_CHECKING"


def modules(root: Path, package: str = PACKAGE) -> dict[str, Path]:
    """The modules of a package by their full names, those of the folders' own files with an `__init__` at the end."""
    paths = sorted((root / package).rglob("*.py"))
    return {".".join(path.relative_to(root).with_suffix("").parts): path for path in paths}


def arrows(root: Path, package: str = PACKAGE) -> Arrows:
    """All imports between the modules of one package."""
    known = modules(root, package)
    found: Arrows = {name: {} for name in known}
    for name, path in known.items():
        for target, run_time in imports(ast.parse(path.read_text(encoding="utf-8"))):
            above = target.rpartition(".")[0]
            for module in (target, f"{target}.__init__", above, f"{above}.__init__"):
                if module in known and module != name:
                    found[name][module] = found[name].get(module, False) or run_time
                    break
    return found


def circles(graph: Arrows) -> list[list[str]]:
    """The groups of modules that can each be reached from all others of the group (Tarjan, 1972)."""
    number: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(name: str) -> None:
        number[name] = low[name] = len(number)
        stack.append(name)
        for target in graph[name]:
            if target not in number:
                visit(target)
                low[name] = min(low[name], low[target])
            elif target in stack:
                low[name] = min(low[name], number[target])
        if low[name] == number[name]:
            group = stack[stack.index(name) :]
            del stack[stack.index(name) :]
            if len(group) > 1:
                found.append(sorted(group))

    for name in graph:
        if name not in number:
            visit(name)
    return sorted(found)


def folder(module: str) -> str:
    """The folder of a module, as the documentation writes it (`linux/sys`); a file of the top stands for itself."""
    return "/".join(module.split(".")[1:-1]) or module.rpartition(".")[2]


def between_folders(graph: Arrows) -> Arrows:
    """The same arrows, from folder to folder; those inside of one are left out."""
    found: Arrows = {}
    for name, targets in graph.items():
        own = found.setdefault(folder(name), {})
        for target, run_time in targets.items():
            if folder(target) != folder(name):
                own[folder(target)] = own.get(folder(target), False) or run_time
    return found


def count(root: Path) -> str:
    """The numbers of a working tree, for people."""
    graph = arrows(root)
    found = circles(graph)
    every = [run_time for targets in graph.values() for run_time in targets.values()]
    lines = [
        f"{len(graph)} modules, {len(every)} arrows ({every.count(False)} of them for type checkers alone)",
        f"{len(found)} circles, of {sum(map(len, found))} modules",
        *(f"  {', '.join(name.removeprefix(PACKAGE + '.') for name in group)}" for group in found),
    ]
    return "\n".join(lines) + "\n"


def page(root: Path = ROOT) -> str:
    """`docs/imports.md`."""
    graph = arrows(root)
    parts = [HEADER, "## Folders", "", *_picture(between_folders(graph))]
    for name in sorted({folder(module) for module in graph}):
        inside = {
            module: [target for target in targets if folder(target) == name]
            for module, targets in graph.items()
            if folder(module) == name
        }
        if any(inside.values()):
            parts += ["", f"## Inside of `{name}/`", "", *_table(inside)]
    return "\n".join(parts) + "\n"


def _picture(graph: Arrows) -> Iterator[str]:
    yield from ("```mermaid", "flowchart TD")
    for name in sorted(graph):
        for target in sorted(graph[name]):
            yield f"    {_node(name)} {'-->' if graph[name][target] else '-.->'} {_node(target)}"
    yield "```"


def _node(name: str) -> str:
    return f'{name.replace("/", "_").strip("_")}["{name}"]'


def _table(inside: dict[str, list[str]]) -> Iterator[str]:
    """The modules of one folder, each above all that it imports."""
    yield from ("| module | imports |", "| --- | --- |")
    for module in sorted(inside, key=lambda module: (-_height(module, inside), module)):
        yield f"| {_short(module)} | {', '.join(map(_short, sorted(inside[module])))} |".replace("|  |", "| |")


def _height(module: str, inside: dict[str, list[str]]) -> int:
    """How many modules stand below this one, at the most; there is no circle, or it would never end."""
    return max((_height(target, inside) + 1 for target in inside[module]), default=0)


def _short(module: str) -> str:
    return f"`{module.rpartition('.')[2]}`"


def main() -> int:
    """Print the page, or the numbers."""
    parser = argparse.ArgumentParser(prog="python -m tools.arrows", description="Who imports whom in bottle_init.")
    parser.add_argument("--count", nargs="?", const=ROOT, type=Path, metavar="DIRECTORY", help="print numbers only")
    options = parser.parse_args()
    sys.stdout.write(page() if options.count is None else count(options.count))
    return 0


if __name__ == "__main__":
    sys.exit(main())
