"""docs/defences.md: what is noticed when a defence of docs/walls.md is taken away.

`python -m tools.defences [WALL…]` takes the defences of tests/defences.toml away one after the other, in a copy of the
tree, runs the tests that docs/walls.md names for that wall, and writes down which of them failed; with `--new` only
those of which the page says nothing. For the proxies, git-gate and supervise these are the Go tests, for the launcher
those of tests/property. A defence that nothing notices is a fault of the tests: the exit code is 1. It needs Go.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from dataclasses import dataclass
from pathlib import Path

from tools import walls

ROOT = Path(__file__).parents[1]
GO = "images/bundle/proxy"
TABLE = ROOT / "tests/defences.toml"
PAGE = ROOT / "docs/defences.md"

# A test that waits for what no longer happens fails by this limit.
TIMEOUT_S = 40
# The launcher's tests wait for nothing.
PYTHON_TIMEOUT_S = 600
LEFT_OUT = shutil.ignore_patterns(".*", "__pycache__")

INTRODUCTION = """\
# Defences taken away

A test that passes because another wall stands before the one it means proves nothing. So each defence of
`tests/defences.toml` was taken away in the source of the daemons or the launcher, the tests that [walls.md](walls.md)
names for that wall were run, and these failed. `python -m tools.defences` does it again; `tests/property/test_walls.py`
holds that each edit still fits the source.

The kernel rules are not here: `image/test_kernel_rules::test_each_rule_is_what_its_promise_stands_on` takes them away
itself, each time it runs.

"""


@dataclass(frozen=True, slots=True)
class Defence:
    """One edit that takes a defence away.

    Attributes:
        wall: The number of the promise in docs/walls.md.
        without: What holds when the defence is gone, as half a sentence.
        file: The file, below images/bundle/proxy or, for the launcher, below the root.
        old: The text that makes the defence; it stands in the file once.
        new: What replaces it.
    """

    wall: str
    without: str
    file: str
    old: str
    new: str

    @property
    def key(self) -> tuple[str, str]:
        """What it is told apart by, on the page."""
        return self.wall, self.without

    @property
    def path(self) -> Path:
        """The file's path below the root."""
        return Path(self.file) if self.is_launchers else Path(GO, self.file)

    @property
    def is_launchers(self) -> bool:
        """Whether it is made in Python."""
        return self.file.startswith("launcher/")

    def taken(self, source: str) -> str:
        """The source without the defence.

        Raises:
            ValueError: The source does not have the text exactly once.
        """
        if source.count(self.old) != 1:
            msg = f"{self.wall}, {self.without}: {self.file} has {self.old!r} {source.count(self.old)} times, not once"
            raise ValueError(msg)
        return source.replace(self.old, self.new)


def defences() -> list[Defence]:
    """The table."""
    return [Defence(**entry) for entry in tomllib.loads(TABLE.read_text(encoding="utf-8"))["defences"]]


def tests_of(defence: Defence) -> dict[str, list[str]]:
    """The tests that docs/walls.md names for its wall and that are of its language, by package or module."""
    named: dict[str, list[str]] = {}
    for row in walls.rows():
        for place, test in row.named() if row.number == defence.wall else ():
            if defence.is_launchers == (ROOT / f"tests/property/{place}.py").exists():
                named.setdefault(place, []).append(test)
    return {place: tests for place, tests in named.items() if defence.is_launchers or tests[0].startswith("Test")}


def noticed(tree: Path, defence: Defence) -> list[str]:
    """The tests of the wall that fail in this copy of the tree, as package::test.

    Raises:
        RuntimeError: The source without the defence does not compile.
    """
    failed = []
    for place, tests in tests_of(defence).items():
        said = _pytest(tree, place, tests) if defence.is_launchers else _go_test(tree, place, tests)
        if not said:
            continue
        # A timeout of Go's names the test that was running, in the panic's second line.
        pattern = r"^(?:--- FAIL: |\trunning tests:\n\t\t|FAILED tests/property/\w+\.py::)(\w+)"
        names = re.findall(pattern, said, flags=re.MULTILINE)
        if not names:
            raise RuntimeError(f"{defence.wall}, {defence.without}: {said}")
        failed += [f"{place}::{name}" for name in dict.fromkeys(names) if name in tests]
    return failed


def _go_test(tree: Path, package: str, tests: list[str]) -> str:
    """What a run says of them that fails; "" where all pass."""
    command = ["go", "test", f"-timeout={TIMEOUT_S}s", f"-run=^({'|'.join(tests)})$", f"./internal/{package}"]
    run = subprocess.run(command, cwd=tree / GO, capture_output=True, text=True, check=False)
    return run.stdout + run.stderr if run.returncode else ""


def _pytest(tree: Path, module: str, tests: list[str]) -> str:
    """The same. The copy's own modules are found first, since Python looks into the directory that it is run in."""
    names = [f"tests/property/{module}.py::{test}" for test in tests]
    command = [sys.executable, "-m", "pytest", "-q", "-n0", "-rf", "-p", "no:cacheprovider", *names]
    run = subprocess.run(command, cwd=tree, capture_output=True, text=True, check=False, timeout=PYTHON_TIMEOUT_S)
    return run.stdout + run.stderr if run.returncode else ""


def read() -> dict[tuple[str, str], str]:
    """What the page says: the tests that failed, by wall and what was taken away."""
    if not PAGE.exists():
        return {}
    rows = re.findall(r"^\| (W\d+[a-z]?) \| (.+) \| (.+) \|$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {(wall, without): tests for wall, without, tests in rows}


def write(seen: dict[tuple[str, str], str]) -> None:
    """The page, in the order of the table."""
    rows = [
        f"| {defence.wall} | {defence.without} | {seen[defence.key]} |" for defence in defences() if defence.key in seen
    ]
    table = ["| wall | without its defence | tests that failed |", "| --- | --- | --- |", *rows]
    PAGE.write_text(INTRODUCTION + "\n".join(table) + "\n", encoding="utf-8")


def main(arguments: list[str]) -> int:
    """Takes the defences of these walls away, or all of them. Returns the exit code."""
    new, chosen = "--new" in arguments, [each for each in arguments if each != "--new"]
    told = read()
    seen = {each.key: told[each.key] for each in defences() if each.key in told}
    unnoticed = 0
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(shutil.copytree(ROOT, Path(folder) / "tree", ignore=LEFT_OUT))
        for defence in defences():
            if (chosen and defence.wall not in chosen) or (new and defence.key in seen):
                continue
            source = ROOT / defence.path
            (tree / defence.path).write_text(defence.taken(source.read_text(encoding="utf-8")), encoding="utf-8")
            try:
                failed = noticed(tree, defence)
            except RuntimeError as error:
                failed = []
                print(error, file=sys.stderr)
            shutil.copy(source, tree / defence.path)
            print(f"{defence.wall}: {defence.without}: {', '.join(failed) or 'NOTICED BY NOTHING'}", flush=True)
            unnoticed += not failed
            seen.pop(defence.key, None)
            if failed:
                seen[defence.key] = ", ".join(f"`{test}`" for test in failed)
            write(seen)
    write(seen)
    return bool(unnoticed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
