"""docs/defences.md: what is noticed when a defence of docs/walls.md is taken away.

`python -m tools.defences [WALL…]` takes the defences of tests/defences.toml away one after the other, in a copy of the
tree, runs the tests that docs/walls.md names for that wall, and writes down which of them failed; with `--new` only
those of which the page says nothing. For the proxies, git-gate and supervise these are the Go tests, for the launcher
those of tests/property. Where a defence is marked `containers`, or stands in a file of the image, they are those of
tests/integration: what was changed is mounted over the image's own, and the launcher's comes from the copy. A defence
that nothing notices is a fault of the tests: the exit code is 1. It needs Go, and for containers Docker.
"""

from __future__ import annotations

import functools
import os
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
# The launcher's tests wait for nothing, and those of containers for events.
PYTHON_TIMEOUT_S = 1800
# Where the image has the files that can be changed: a file's or its directory's place in the tree, and in the image.
IN_IMAGE = {
    "images/bundle/sidecars": "/usr/local/lib/python3.13/dist-packages/sidecars",
    "images/bundle/bundle.toml": "/etc/bottle/bundle.toml",
}
BINARIES = "/usr/local/bin"
LEFT_OUT = shutil.ignore_patterns(".*", "__pycache__")

INTRODUCTION = """\
# Defences taken away

A test that passes because another wall stands before the one it means proves nothing. So each defence of
`tests/defences.toml` was taken away in the source of the daemons, the image or the launcher, the tests that
[walls.md](walls.md) names for that wall were run, and these failed. `python -m tools.defences` does it again;
`tests/property/test_walls.py` holds that each edit still fits the source.

The kernel rules are not here: `image/test_kernel_rules::test_each_rule_is_what_its_promise_stands_on` takes them away
itself, each time it runs.

"""


@dataclass(frozen=True, slots=True)
class Defence:
    """One edit that takes a defence away.

    Attributes:
        wall: The number of the promise in docs/walls.md.
        without: What holds when the defence is gone, as half a sentence.
        file: The file, below images/bundle/proxy or, for the launcher and the image, below the root.
        old: The text that makes the defence; it stands in the file once.
        new: What replaces it.
        containers: Whether the wall's tests of real containers are run, and not those of the source alone.
    """

    wall: str
    without: str
    file: str
    old: str
    new: str
    containers: bool = False

    @property
    def key(self) -> tuple[str, str]:
        """What it is told apart by, on the page."""
        return self.wall, self.without

    @property
    def path(self) -> Path:
        """The file's path below the root."""
        return Path(GO, self.file) if self.is_go else Path(self.file)

    @property
    def is_go(self) -> bool:
        """Whether it is made in Go."""
        return self.file.startswith("internal/")

    @property
    def runs(self) -> str:
        """Whose tests are run: "go", or the directory of tests/ that has them."""
        if self.containers or self.file.startswith("images/"):
            return "integration"
        return "go" if self.is_go else "property"

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
    """The tests that docs/walls.md names for its wall and that are run for it, by package or module."""
    named: dict[str, list[str]] = {}
    for row in walls.rows():
        for place, test in row.named() if row.number == defence.wall else ():
            if defence.runs == _kind(place, test):
                named.setdefault(place, []).append(test)
    return named


def _kind(place: str, test: str) -> str:
    """Where a test that docs/walls.md names is: "go", or the directory of tests/."""
    if test.startswith("Test"):
        return "go"
    return "integration" if "/" in place else "property"


def noticed(tree: Path, defence: Defence) -> list[str]:
    """The tests of the wall that fail in this copy of the tree, as package::test.

    Raises:
        RuntimeError: The source without the defence does not compile.
    """
    failed = []
    mounts = _mounts(tree, defence) if defence.runs == "integration" else ""
    for place, tests in tests_of(defence).items():
        said = _go_test(tree, place, tests) if defence.runs == "go" else _pytest(tree, defence, place, tests, mounts)
        if not said:
            continue
        # A timeout of Go's names the test that was running, in the panic's second line.
        pattern = r"^(?:--- FAIL: |\trunning tests:\n\t\t|FAILED tests/[\w/]+\.py::)(\w+)"
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


def _pytest(tree: Path, defence: Defence, module: str, tests: list[str], mounts: str) -> str:
    """The same. The copy's own modules are found first, since Python looks into the directory that it is run in."""
    names = [f"tests/{defence.runs}/{module}.py::{test}" for test in tests]
    command = [sys.executable, "-m", "pytest", "-q", "-n0", "-rf", "-p", "no:cacheprovider", *names]
    environment = {**os.environ, "BOTTLE_TEST_MOUNTS": mounts, "BOTTLE_TEST_AS_BUILT": "1"}
    run = subprocess.run(
        command, cwd=tree, capture_output=True, text=True, check=False, timeout=PYTHON_TIMEOUT_S, env=environment
    )
    return run.stdout + run.stderr if run.returncode else ""


def _mounts(tree: Path, defence: Defence) -> str:
    """What lies over the image's own files, as tests/integration/support/image.py reads it: PATH:PLACE,…

    Raises:
        RuntimeError: The source without the defence does not compile.
    """
    _build_image()
    if defence.is_go:
        binaries = tree / "binaries"
        build = ["go", "build", "-trimpath", "-o", f"{binaries}/", "./cmd/..."]
        environment = {**os.environ, "CGO_ENABLED": "0"}
        done = subprocess.run(build, cwd=tree / GO, capture_output=True, text=True, check=False, env=environment)
        if done.returncode:
            raise RuntimeError(f"{defence.wall}, {defence.without}: {done.stderr}")
        return ",".join(f"{file}:{BINARIES}/{file.name}" for file in sorted(binaries.iterdir()))
    return ",".join(f"{tree / own}:{place}" for own, place in IN_IMAGE.items() if defence.path.is_relative_to(own))


@functools.cache
def _build_image() -> None:
    """The image that the changed files are laid over has to be the tree's own."""
    subprocess.run([ROOT / "images/bundle/build"], check=True)


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
