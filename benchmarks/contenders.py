"""The init, in its two modes, and the bare interpreter, in the shape that the peers have."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from benchmarks.interpreter import BEFORE_COMMIT, PACKAGE, PACKAGE_BEFORE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from benchmarks.interpreter import Interpreter

INIT = "bottle_init"
BUNDLE = "bottle_init, bundle of one"
BARE = "bare interpreter"
BEFORE = f"bottle_init of {BEFORE_COMMIT}"
BUNDLE_BEFORE = f"{BEFORE}, bundle of one"
SIMULATE = """
import sys
from bottle_init.testing.fuzz import fuzz
outcome = fuzz(seed=sys.argv[1], seconds=float(sys.argv[2]))
print(outcome.events, outcome.seconds, int(outcome.counter_example is not None))
"""


class Contender(Protocol):
    """Something that runs commands.

    `stop` is the signal that ends it in order; `settles_s`: so long after a start it treats a stop in another way.
    """

    name: str
    stop: int
    slow: bool
    settles_s: float
    environ: dict[str, str]

    def one(self, command: Sequence[str]) -> list[str]: ...
    def many(self, directory: Path, commands: Mapping[str, Sequence[str]]) -> list[str]: ...


class Init:
    """The init as the image runs it, its bundle file compiled; or that of an earlier build."""

    slow = False
    settles_s = 0.0
    stop: int = signal.SIGTERM

    def __init__(self, interpreter: Interpreter, *, before: bool = False) -> None:
        self.name = BEFORE if before else INIT
        self.package = PACKAGE_BEFORE if before else PACKAGE
        self.interpreter = interpreter
        self.control = f"@bottle-bench-{os.getpid()}"
        self.environ: dict[str, str] = {}

    @property
    def version(self) -> str:
        """Its own word."""
        return subprocess.run(self._run("--version"), check=True, capture_output=True, text=True).stdout.strip()

    def _run(self, *arguments: str) -> list[str]:
        return self.interpreter.init(*arguments, package=self.package)

    def one(self, command: Sequence[str]) -> list[str]:
        """One command."""
        return self._run("--", *command)

    def many(self, directory: Path, commands: Mapping[str, Sequence[str]]) -> list[str]:
        """A bundle of daemons without probes, which are executed at once, and get the signal that is measured."""
        argv = self.uncompiled(directory, commands)
        compile_it = self._run("check", "--compile", str(directory / "bundle.toml"))
        subprocess.run(compile_it, check=True, stdout=subprocess.PIPE)
        return argv

    def uncompiled(self, directory: Path, commands: Mapping[str, Sequence[str]]) -> list[str]:
        """The same with its bundle file as it was written."""
        file = directory / "bundle.toml"
        text = f"[bundle]\ncontrol = {json.dumps(self.control)}\n"
        for name, command in commands.items():
            text += f"[daemons.{name}]\ncommand = {json.dumps(list(command))}\nsignals = {{ USR1 = 'USR1' }}\n"
        file.write_text(text)
        return self._run("--policy=exit-on-child-death", f"--config={file}")

    def simulate(self, seed: str, seconds: float) -> list[str]:
        """What fuzzes random bundles for so long, and prints how many events and seconds it took, and what broke."""
        return [self.interpreter.program, *self.interpreter.flags, "-c", SIMULATE, seed, str(seconds)]

    def health(self) -> list[str]:
        """What asks it for its health."""
        return self._run("health", f"--control={self.control}")


class BundleOfOne(Init):
    """One command as a bundle with a single daemon."""

    def __init__(self, interpreter: Interpreter, directory: Path, *, before: bool = False) -> None:
        super().__init__(interpreter, before=before)
        self.name = BUNDLE_BEFORE if before else BUNDLE
        self.directory = directory

    def one(self, command: Sequence[str]) -> list[str]:
        """A bundle file for it."""
        return self.many(Path(tempfile.mkdtemp(dir=self.directory)), {"one": command})


class Bare:
    """The same interpreter with the same flags, which runs nothing: `one` ends at once, `many` sleeps."""

    name = BARE
    slow = False
    settles_s = 0.0
    stop: int = signal.SIGTERM

    def __init__(self, interpreter: Interpreter) -> None:
        self.interpreter = interpreter
        self.environ: dict[str, str] = {}

    def one(self, _command: Sequence[str]) -> list[str]:
        """`-c pass`."""
        return self.interpreter.bare()

    def many(self, _directory: Path, _commands: Mapping[str, Sequence[str]]) -> list[str]:
        """Asleep."""
        return self.interpreter.waiting()
