"""The repository's own rules: who may import whom, what the core may touch, and what must not lie about."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tools import arrows

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]

MAY_IMPORT: dict[str, tuple[str, ...]] = {
    "isolation": (),
    "__init__": ("isolation",),
    "words": (),
    "core": (),
    "linux/sys": ("core",),
    "bundle": ("core", "words", "__init__"),
    "linux": ("linux/sys", "core", "words"),
    "client": ("linux/sys",),
    "convert": ("bundle", "core", "words"),
    "cli": ("convert", "bundle", "client", "linux", "core", "words", "__init__"),
    "__main__": ("cli",),
    "testing": ("bundle", "core"),
}
"""Folders (and files of the top) of `bottle_init/`, each with all that it may stand on. `docs/design.md` says why."""

ASSEMBLIES = ("children", "emergency", "init", "journal", "one", "remote", "starts", "web")
"""The files of `linux/` that bring others of them together; all others are leaves."""

ENTRANCES = ("bottle_init.testing.__main__", "bottle_init.testing.plugin", "bottle_init.testing.real")
"""What of the harness reads or writes bundle files; the rest of it stands on the core alone."""

GRAPH = arrows.arrows(ROOT)


def modules(*packages: str) -> list[Path]:
    return sorted(path for package in packages for path in (ROOT / package).rglob("*.py"))


def names(paths: list[Path]) -> list[str]:
    return [str(path.relative_to(ROOT)) for path in paths]


def imports(path: Path) -> set[str]:
    """Every module that a file names in an import that is more than a type checker's, by its full name."""
    found = arrows.imports(ast.parse(path.read_text(encoding="utf-8")))
    return {module for module, run_time in found if run_time}


def starts(module: str, *packages: str) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)


# Who may import whom. What only a type checker follows counts as well.


@pytest.mark.parametrize("module", GRAPH)
def test_arrows_fall(module: str) -> None:
    own = arrows.folder(module)
    found = {arrows.folder(target) for target in GRAPH[module]} - {own}
    assert found <= set(MAY_IMPORT[own])


def test_no_circles() -> None:
    assert arrows.circles(GRAPH) == []


def test_the_folders_have_an_order() -> None:
    """Else the rule above would let a circle through that no file closes yet."""
    assert arrows.circles({folder: dict.fromkeys(below, True) for folder, below in MAY_IMPORT.items()}) == []


def test_the_leaves_of_linux_do_not_import_each_other() -> None:
    inside = {module: targets for module, targets in GRAPH.items() if arrows.folder(module) == "linux"}
    brought_together = {module for module, targets in inside.items() if set(targets) & set(inside)}
    assert brought_together == {f"bottle_init.linux.{name}" for name in ASSEMBLIES}


def test_the_harness_stands_on_the_core() -> None:
    found = {module for module, targets in GRAPH.items() if any(arrows.folder(each) == "bundle" for each in targets)}
    assert {module for module in found if starts(module, "bottle_init.testing")} == set(ENTRANCES)


@pytest.mark.parametrize("name", names(modules("bottle_init/core")))
def test_the_core_imports_nothing_but_itself(name: str) -> None:
    allowed = ("bottle_init.core", "_operator", "types", "__future__")
    assert [module for module in imports(ROOT / name) if not starts(module, *allowed)] == []


def test_launcher_and_init_never_import_each_other() -> None:
    for own, other in (("launcher", "bottle_init"), ("bottle_init", "launcher")):
        for path in modules(own):
            found = arrows.imports(ast.parse(path.read_text(encoding="utf-8")))
            assert not [module for module, _ in found if starts(module, other)], path


def test_the_picture_is_of_these_arrows() -> None:
    drawn = (ROOT / "docs/imports.md").read_text(encoding="utf-8")
    assert drawn == arrows.page(ROOT), "python -m tools.arrows > docs/imports.md"


def package(root: Path, **files: str) -> Path:
    """A package of a few files, for the checks themselves."""
    (root / "bottle_init").mkdir()
    for name, text in files.items():
        (root / "bottle_init" / f"{name}.py").write_text(text)
    return root


def test_the_arrows_are_seen_where_they_are(tmp_path: Path) -> None:
    """The check itself: an import inside of a function is seen, and one that is for types is told from the others."""
    found = arrows.arrows(
        package(
            tmp_path,
            a="TYPE_CHECKING = False\nif TYPE_CHECKING:\n    from bottle_init import b\nelse:\n    import os\n",
            b="def f():\n    from bottle_init.c import g\n",
            c="import bottle_init.a\n",
        )
    )
    assert found["bottle_init.a"] == {"bottle_init.b": False}
    assert found["bottle_init.b"] == {"bottle_init.c": True}
    assert arrows.circles(found) == [["bottle_init.a", "bottle_init.b", "bottle_init.c"]]


# What the core may touch.

BANNED_CALLS = ("open", "print", "input", "eval", "exec", "compile", "__import__", "id", "set", "frozenset", "globals")
EXEMPT = (("bottle_init/core/values.py", "set"),)
"""It compares the names of fields, and sorts them before it speaks."""


@pytest.mark.parametrize("name", names(modules("bottle_init/core")))
def test_the_core_is_pure(name: str) -> None:
    """The core has no clock, no input, no output and no unordered set."""
    for node in ast.walk(ast.parse((ROOT / name).read_text(encoding="utf-8"))):
        assert not isinstance(node, ast.Set | ast.SetComp), f"{name}:{node.lineno}: the order of a set is chance"
        assert not isinstance(node, ast.Global | ast.AsyncFunctionDef | ast.Await), name
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and (name, node.func.id) not in EXEMPT:
            assert node.func.id not in BANNED_CALLS, f"{name}:{node.lineno}: {node.func.id}()"


@pytest.mark.parametrize("name", names(modules("bottle_init/core")))
def test_no_assert_in_what_runs_in_production(name: str) -> None:
    """`python -O` strips them."""
    for node in ast.walk(ast.parse((ROOT / name).read_text(encoding="utf-8"))):
        assert not isinstance(node, ast.Assert), f"{name}:{node.lineno}"


@pytest.mark.parametrize("name", names(modules("bottle_init/core", "bottle_init/linux", "bottle_init/testing")))
def test_no_decision_hangs_on_the_name_of_an_event(name: str) -> None:
    """Names of events are for readers of the log. What something follows from is an action."""
    for node in ast.walk(ast.parse((ROOT / name).read_text(encoding="utf-8"))):
        compared: list[ast.expr] = []
        if isinstance(node, ast.Compare):
            compared = [node.left, *node.comparators]
        elif isinstance(node, ast.Match):
            compared = [node.subject]
        named = [each for each in compared if isinstance(each, ast.Attribute) and each.attr == "event"]
        assert not named, f"{name}: {ast.unparse(node)}"


EXPENSIVE = (
    "argparse",
    "asyncio",
    "collections",
    "contextlib",
    "dataclasses",
    "enum",
    "functools",
    "json",
    "logging",
    "psutil",
    "re",
    "selectors",
    "signal",
    "socket",
    "structlog",
    "subprocess",
    "threading",
    "tomllib",
    "typing",
)


def test_pid_1_imports_nothing_expensive() -> None:
    """What the init has loaded when its daemons start; the price list is in the documentation of the benchmarks."""
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import bottle_init.__main__, bottle_init.linux.init"
    command = [sys.executable, "-I", "-S", "-c", f"{code}; print(*sys.modules)"]
    loaded = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout.split()
    assert "bottle_init.core.supervisor" in loaded
    assert [module for module in EXPENSIVE if module in loaded] == []


# What must not lie about.

MARKS = (("FIX", "ME"), ("TO", "DO"), ("X", "XX"), ("HA", "CK"))
OWN_PATHS = (("", "work", "(main|shared)"), ("", "tmp", "scratch"), ("", "home", "[a-z]+", "(src|work)"))
"""In pieces, so that this file is not its own finding."""


def tracked() -> list[Path]:
    """The files of the repository, and those that are about to become its files."""
    command = ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    return [path for name in listed if (path := ROOT / name).is_file()]


def lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        yield from enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
    except UnicodeDecodeError:
        return


def test_nothing_is_left_to_be_fixed_later() -> None:
    marks = re.compile(rf"\b({'|'.join(map(''.join, MARKS))})\b")
    found = [f"{path}:{number}" for path in tracked() for number, line in lines(path) if marks.search(line)]
    assert found == []


def test_no_path_of_a_machine_that_it_was_written_on() -> None:
    own = re.compile(rf"({'|'.join(map('/'.join, OWN_PATHS))})\b")
    found = [f"{path}:{number}" for path in tracked() for number, line in lines(path) if own.search(line)]
    assert found == []


NAME_MAX = 50


def test_test_names_are_short() -> None:
    """A name is a handle of at most 50 characters. The sentence that it stands for is the test's docstring."""
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}: {node.name}"
        for path in modules("tests")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_") and len(node.name) > NAME_MAX
    ]
    assert found == []
