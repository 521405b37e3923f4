"""The only place that runs a subprocess: `docker`, and what it takes to get an engine."""

import json
import os
import shutil
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launcher.errors import LauncherError

ENDED_WITHIN_S = 1.0


@dataclass(frozen=True, slots=True)
class Command:
    """One command line, as a value that tests compare and `plan` prints."""

    argv: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Result:
    """What a command said. `code` is its exit code; negative is the signal that killed it."""

    code: int
    stdout: str
    stderr: str


class CommandError(LauncherError):
    """A command that failed, in its own words."""

    def __init__(self, argv: Sequence[str], result: Result) -> None:
        words = (result.stderr or result.stdout).strip() or f"exit code {result.code}"
        super().__init__(f"{' '.join(argv[:3])}: {words}")
        self.result = result


def run(command: Command, *, check: bool = True, extra_env: Mapping[str, str] | None = None) -> Result:
    """Run a command to its end and collect its output.

    It gets a session of its own, so that a Ctrl-C on the terminal reaches the launcher alone.

    Raises `CommandError` where `check` is set and the command failed, `LauncherError` where it is not installed.
    """
    env = {**os.environ, **extra_env} if extra_env else None
    try:
        done = subprocess.run(
            command.argv, capture_output=True, check=False, env=env, stdin=subprocess.DEVNULL, start_new_session=True
        )
    except FileNotFoundError:
        raise LauncherError(
            f"{command.argv[0]} is not installed", hint="`python -m launcher engine` says more"
        ) from None
    result = Result(done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))
    if check and result.code != 0:
        raise CommandError(command.argv, result)
    return result


def docker(*args: str, check: bool = True) -> Result:
    """`docker ARGS…`; raises as `run` does."""
    return run(Command(("docker", *args)), check=check)


def docker_json(*args: str) -> Any:
    """`docker ARGS…`, whose output is one JSON document."""
    return json.loads(docker(*args).stdout)


def find_image(name: str) -> dict[str, Any]:
    """What the engine knows of an image. The launcher never pulls: what runs is what somebody built or pulled."""
    try:
        image: dict[str, Any] = docker_json("image", "inspect", "--", name)[0]
    except CommandError as error:
        if "no such image" not in str(error).lower():
            raise
        raise LauncherError(f"the image {name} is not on this engine", hint="`make image` builds both images") from None
    return image


def foreground(command: Command, sleep: Callable[[float], None]) -> int:
    """Run a command on the launcher's own terminal, in its process group, and return its exit code.

    `sleep` is called between two looks at it; where it raises, the command is ended before the exception goes on.
    """
    with _terminal_kept(), subprocess.Popen(command.argv) as process:
        try:
            while process.poll() is None:
                sleep(0.1)
        except BaseException:
            _end(process)
            raise
    return process.returncode


def _end(process: "subprocess.Popen[bytes]") -> None:
    """A `docker attach` to a terminal does not end by a TERM."""
    process.terminate()
    try:
        process.wait(ENDED_WITHIN_S)
    except subprocess.TimeoutExpired:
        process.kill()


@contextmanager
def _terminal_kept() -> Iterator[None]:
    """The settings of the launcher's terminal, if it has one, are afterwards what they were before the block."""
    try:
        before = termios.tcgetattr(sys.stdin)
    except (termios.error, ValueError):
        yield
        return
    try:
        yield
    finally:
        with suppress(termios.error):
            termios.tcsetattr(sys.stdin, termios.TCSANOW, before)


@contextmanager
def beside(command: Command) -> Iterator[Callable[[], bool]]:
    """Run a command beside what the block does, its output unread; the value tells whether it has ended by itself."""
    with subprocess.Popen(
        command.argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        try:
            yield lambda: process.poll() is not None
        finally:
            process.terminate()


def start_daemon(command: Command, log: Path) -> "subprocess.Popen[bytes]":
    """Start a process that outlives the launcher, with its output appended to `log`."""
    with log.open("ab") as output:
        return subprocess.Popen(
            command.argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True, cwd="/"
        )


def installed(program: str) -> bool:
    """Whether PATH has the program."""
    return shutil.which(program) is not None
