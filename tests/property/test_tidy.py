"""The repository's own rules: who may import whom, what the core may touch, and what must not lie about."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]

ASSEMBLIES = ("emergency", "init", "leaves", "one", "remote")
"""The files of `linux/` that put leaves together."""


def modules(*packages: str) -> list[Path]:
    return sorted(path for package in packages for path in (ROOT / package).rglob("*.py"))


def names(paths: list[Path]) -> list[str]:
    return [str(path.relative_to(ROOT)) for path in paths]


def imports(path: Path, *, typing_too: bool = False) -> set[str]:
    """Every module that a file names in an import, full names; those under TYPE_CHECKING only on demand."""
    found: set[str] = set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree) if typing_too else _runtime(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            found.update({f"{node.module}.{alias.name}" for alias in node.names})
    return found


def _runtime(node: ast.AST) -> Iterator[ast.AST]:
    yield node
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and isinstance(child.test, ast.Name) and child.test.id == "TYPE_CHECKING":
            for otherwise in child.orelse:
                yield from _runtime(otherwise)
        else:
            yield from _runtime(child)


def starts(module: str, *packages: str) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)


# Who may import whom.


@pytest.mark.parametrize("name", names(modules("bottle_init/core")))
def test_the_core_imports_nothing_but_itself(name: str) -> None:
    allowed = ("bottle_init.core", "_operator", "types", "__future__")
    assert [module for module in imports(ROOT / name) if not starts(module, *allowed)] == []


@pytest.mark.parametrize("name", names(modules("bottle_init/linux")))
def test_the_leaves_of_linux_do_not_import_each_other(name: str) -> None:
    found = [module for module in imports(ROOT / name) if starts(module, "bottle_init.linux")]
    if Path(name).stem not in ASSEMBLIES:
        assert [module for module in found if not starts(module, "bottle_init.linux.sys")] == []


@pytest.mark.parametrize("name", names(modules("bottle_init/linux/sys")))
def test_the_words_for_system_calls_stand_on_nothing_but_each_other(name: str) -> None:
    allowed = ("bottle_init.linux.sys", "bottle_init.core.flow")
    own = [module for module in imports(ROOT / name, typing_too=True) if starts(module, "bottle_init")]
    assert [module for module in own if not starts(module, *allowed)] == []


@pytest.mark.parametrize("name", names(modules("bottle_init/words")))
def test_the_words_know_nothing_of_the_init(name: str) -> None:
    own = [module for module in imports(ROOT / name, typing_too=True) if starts(module, "bottle_init")]
    assert [module for module in own if not starts(module, "bottle_init.words")] == []


@pytest.mark.parametrize("name", names(modules("bottle_init/linux")))
def test_linux_knows_neither_the_command_line_nor_the_file(name: str) -> None:
    above = ("bottle_init.cli", "bottle_init.bundle", "bottle_init.client")
    assert [module for module in imports(ROOT / name) if starts(module, *above)] == []


@pytest.mark.parametrize("name", names(modules("bottle_init/bundle")))
def test_the_bundle_file_knows_only_the_core(name: str) -> None:
    above = ("bottle_init.cli", "bottle_init.linux", "bottle_init.testing")
    assert [module for module in imports(ROOT / name) if starts(module, *above)] == []


@pytest.mark.parametrize("name", names(modules("bottle_init/testing")))
def test_the_harness_stands_on_the_core(name: str) -> None:
    """Its two entry points also read bundle files."""
    allowed = ["bottle_init.core", "bottle_init.testing"]
    if Path(name).stem in ("__main__", "plugin"):
        allowed.append("bottle_init.bundle")
    own = [module for module in imports(ROOT / name, typing_too=True) if starts(module, "bottle_init")]
    assert [module for module in own if not starts(module, *allowed)] == []


def test_the_init_runs_without_its_harness() -> None:
    for path in modules("bottle_init"):
        if "testing" not in path.parts:
            assert not [module for module in imports(path) if starts(module, "bottle_init.testing")], path


def test_launcher_and_init_never_import_each_other() -> None:
    for path in modules("launcher"):
        assert not [module for module in imports(path, typing_too=True) if starts(module, "bottle_init")], path
    for path in modules("bottle_init"):
        assert not [module for module in imports(path, typing_too=True) if starts(module, "launcher")], path


def test_the_arrows_are_seen_where_they_are(tmp_path: Path) -> None:
    """The check itself: it sees an import inside a function, and does not mistake one that is for types."""
    text = "TYPE_CHECKING = False\nif TYPE_CHECKING:\n    import typing\ndef f():\n    from os import path\n"
    (tmp_path / "x.py").write_text(text)
    assert imports(tmp_path / "x.py") == {"os.path"}
    assert imports(tmp_path / "x.py", typing_too=True) == {"os.path", "typing"}


# What the core may touch.

BANNED_CALLS = ("open", "print", "input", "eval", "exec", "compile", "__import__", "id", "set", "frozenset", "globals")
EXEMPT = (("bottle_init/core/values.py", "set"),)
"""It compares the names of fields, and sorts them before it speaks."""


@pytest.mark.parametrize("name", names(modules("bottle_init/core")))
def test_the_core_has_no_clock_no_input_no_output_and_no_unordered_set(name: str) -> None:
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


def anchors(path: Path) -> set[str]:
    """The anchors that headings make, as forges do it."""
    text = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", ["README.md", *names(sorted((ROOT / "docs").rglob("*.md")))])
def test_links_lead_somewhere(name: str) -> None:
    text = re.sub(r"```.*?```", "", (ROOT / name).read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        path = (ROOT / name).parent / file if file else ROOT / name
        assert path.exists(), target
        assert not anchor or anchor in anchors(path), target
