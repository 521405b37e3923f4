"""The interpreter and the init as the image has them, without touching this machine's own.

As root, the benchmark runs in a new mount namespace, in which a copy of the package, compiled as
the Dockerfile compiles it, lies where Debian's interpreter looks for it, and nothing else does. Else a
virtual environment has to do.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DOCKERFILE = ROOT / "images/bundle/Dockerfile"
INSIDE = "BENCHMARKS_MOUNT_NAMESPACE"
BEFORE_COMMIT = "50dedf2"
"""An earlier build that takes part as a peer."""
PACKAGE, PACKAGE_BEFORE = "bottle_init", "bottle_init_before"
WAITING = "import _signal; _signal.pause()"


def enter_namespace(measured: str, cache: Path) -> None:
    """Run this very command again in a new mount namespace, if one can be made.

    Where it is the measured interpreter that runs this, a copy of it does from then on: processes of the same program
    share its pages, and so half of its memory would be the benchmark's.
    """
    if os.geteuid() or INSIDE in os.environ or not can_unshare():
        return
    driver = sys.executable
    if Path(driver).samefile(measured):
        driver = str(cache / "driver")
        shutil.copy2(Path(measured).resolve(), driver)
    argv = ["unshare", "--mount", "--propagation", "private", driver, *sys.orig_argv[1:]]
    os.execvpe(argv[0], argv, {**os.environ, INSIDE: "1"})  # noqa: S606 - There is no need for a shell.


def can_unshare() -> bool:
    """Whether a mount namespace can be made here."""
    if not shutil.which("unshare"):
        return False
    return subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode == 0


class Interpreter:
    """An interpreter at an absolute path, with the flags of the image's ENTRYPOINT, that finds the init."""

    def __init__(self, program: str, cache: Path) -> None:
        self.program = program
        self.flags = entrypoint_flags()
        site = cache / f"site-{self.ask('import sys; print(sys.implementation.cache_tag)')}"
        shutil.rmtree(site, ignore_errors=True)
        shutil.copytree(ROOT / PACKAGE, site / PACKAGE, ignore=shutil.ignore_patterns("__pycache__"))
        self.has_before = (cache / PACKAGE_BEFORE).exists()
        if self.has_before:
            shutil.copytree(cache / PACKAGE_BEFORE, site / PACKAGE_BEFORE)
        self.run("-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash", str(site))
        if INSIDE in os.environ:
            self.how = "in a mount namespace, as the image has it"
            self._mount(site, cache)
        else:
            self.how = "in a virtual environment (no root, or no unshare)"
            self._make_venv(site, cache)

    def _mount(self, site: Path, cache: Path) -> None:
        """The package, and nothing else that the machine may have installed: each .pth file costs a start."""
        known = self.ask("import os, site; print(*filter(os.path.isdir, site.getsitepackages()), sep='\\n')").split(
            "\n"
        )
        if not known[0]:
            raise FileNotFoundError(f"{self.program} has no directory for packages")
        nothing = cache / "nothing"
        nothing.mkdir(exist_ok=True)
        mounts = [(str(nothing), other) for other in known[1:]]
        for source, target in [(str(site), known[0]), *mounts]:
            subprocess.run(["mount", "--bind", source, target], check=True)

    def _make_venv(self, packages: Path, cache: Path) -> None:
        venv = cache / "interpreter"
        self.run("-m", "venv", "--clear", "--without-pip", str(venv))
        self.program = str(venv / "bin/python")
        site = self.ask("import site; print(site.getsitepackages()[0])")
        shutil.copytree(packages, site, dirs_exist_ok=True)

    def run(self, *argv: str) -> str:
        """Run it, not isolated; returns what it prints. Raises CalledProcessError."""
        return subprocess.run([self.program, *argv], check=True, stdout=subprocess.PIPE, text=True).stdout

    def ask(self, code: str) -> str:
        """What a piece of code prints."""
        return self.run("-I", "-c", code).strip()

    @property
    def version(self) -> str:
        """Its own words, with where it came from."""
        words = self.run("--version").strip()
        return f"{words} ({self.program}, {' '.join(self.flags)}; {self.how})"

    def bare(self) -> list[str]:
        """Nothing but the interpreter's start and end."""
        return [self.program, *self.flags, "-c", "pass"]

    def waiting(self) -> list[str]:
        """The interpreter, asleep; `_signal` is built into it."""
        return [self.program, *self.flags, "-c", WAITING]

    def init(self, *arguments: str, package: str = PACKAGE) -> list[str]:
        """The init."""
        return [self.program, *self.flags, "-m", package, *arguments]


def keep_before(cache: Path) -> None:
    """Put the earlier build's package into the cache, under a name of its own, if this clone's history has it."""
    shutil.rmtree(cache / PACKAGE_BEFORE, ignore_errors=True)
    command = ["git", "-C", str(ROOT), "archive", BEFORE_COMMIT, PACKAGE]
    archive = subprocess.run(command, capture_output=True, check=False)
    if archive.returncode:
        return
    subprocess.run(["tar", "-xC", str(cache)], input=archive.stdout, check=True)
    (cache / PACKAGE).rename(cache / PACKAGE_BEFORE)
    for path in (cache / PACKAGE_BEFORE).rglob("*.py"):
        path.write_text(re.sub(rf"\b{PACKAGE}\b", PACKAGE_BEFORE, path.read_text()))


def entrypoint_flags() -> list[str]:
    """The interpreter's flags in the image's Dockerfile. Raises ValueError where they cannot be found."""
    found = re.search(r"^ENTRYPOINT (\[.*\])$", DOCKERFILE.read_text(), re.MULTILINE)
    words = json.loads(found[1]) if found else []
    if "-m" not in words:
        raise ValueError(f"{DOCKERFILE}: no ENTRYPOINT that runs python3 -m bottle_init")
    flags: list[str] = words[1 : words.index("-m")]
    return flags


def debians() -> str:
    """The interpreter to measure: Debian's own, or else the one that runs this."""
    return "/usr/bin/python3" if Path("/usr/bin/python3").exists() else f"{sys.base_prefix}/bin/python3"
