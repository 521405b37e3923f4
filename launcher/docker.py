"""The only place that runs a subprocess: `docker`, and what it takes to get an engine."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import termios
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from launcher.errors import LauncherError

AT_ONCE = 4
"""How many commands run side by side: an engine gains nothing by more."""
_RUNNING = threading.BoundedSemaphore(AT_ONCE)
ENDED_WITHIN_S = 1.0
TELLS = 0.1
"""Seconds between two looks at a command on the terminal."""
LOG_LINE = re.compile(r"[IWEF]\d{4} \d\d:\d\d:\d\d\.\d+ ")
"""How a line of klog begins, the log of Kubernetes' programs."""
TO_INSTALL = {
    "docker": "`bottle engine` says more",
    "kubectl": "install it (Debian: kubernetes-client), or unset CLAUDE_BOTTLE_BACKEND for a bottle on Docker",
    "smolvm": "install it, or unset CLAUDE_BOTTLE_BACKEND for a bottle on Docker",
}


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
        lines = (result.stderr or result.stdout).strip().splitlines()
        # kubectl logs each of its attempts before it says in a sentence what was wrong.
        plain = [line for line in lines if not LOG_LINE.match(line)]
        words = "\n".join(plain or lines) or f"exit code {result.code}"
        super().__init__(f"{' '.join(argv[:3])}: {words}")
        self.result = result


def run(
    command: Command,
    *,
    check: bool = True,
    extra_env: Mapping[str, str] | None = None,
    stdin: bytes | IO[bytes] | None = None,
    cwd: Path | None = None,
) -> Result:
    """Run a command to its end and collect its output; `stdin` is its standard input, all of it or a file to read.

    It gets a session of its own, so that a Ctrl-C on the terminal reaches the launcher alone. It waits while `AT_ONCE`
    others of this process run.

    Raises `CommandError` where `check` is set and the command failed, `LauncherError` where it is not installed.
    """
    env = {**os.environ, **extra_env} if extra_env else None
    source: dict[str, Any] = {"input": stdin} if isinstance(stdin, bytes) else {"stdin": stdin or subprocess.DEVNULL}
    with _known(command), _RUNNING:
        done = subprocess.run(
            command.argv, capture_output=True, check=False, env=env, cwd=cwd, start_new_session=True, **source
        )
    return _judged(command, done.returncode, done.stdout, done.stderr, check=check)


def pipe(source: Command, sink: Command) -> Result:
    """Run `source | sink` to its end. A failure of the source is told before that of the sink, which it explains.

    Raises as `run` does.
    """
    with (
        _known(source),
        subprocess.Popen(
            source.argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        ) as first,
    ):
        last = subprocess.run(sink.argv, stdin=first.stdout, capture_output=True, check=False, start_new_session=True)
        _, words = first.communicate()
    _judged(source, first.returncode, b"", words, check=True)
    return _judged(sink, last.returncode, last.stdout, last.stderr, check=True)


@contextmanager
def _known(command: Command) -> Iterator[None]:
    """A program that is not there is told in words."""
    program = command.argv[0]
    try:
        yield
    except FileNotFoundError:
        raise LauncherError(f"{program} is not installed", hint=TO_INSTALL.get(program, "")) from None


def _judged(command: Command, code: int, stdout: bytes, stderr: bytes, *, check: bool) -> Result:
    result = Result(code, stdout.decode(errors="replace"), stderr.decode(errors="replace"))
    if check and code != 0:
        raise CommandError(command.argv, result)
    return result


def docker(*args: str, check: bool = True, stdin: bytes | None = None) -> Result:
    """`docker ARGS…`; raises as `run` does."""
    return run(Command(("docker", *args)), check=check, stdin=stdin)


def docker_json(*args: str) -> Any:
    """`docker ARGS…`, whose output is one JSON document."""
    return json.loads(docker(*args).stdout)


def docker_to_file(target: Path, *args: str) -> Result:
    """`docker ARGS…` with all its output in a file, as `to_file`; the two streams of `docker logs` are one there."""
    return to_file(target, Command(("docker", *args)), both=args[0] == "logs")


def to_file(target: Path, command: Command, *, both: bool = False) -> Result:
    """Run a command with all its output in a file of mode 0600; the result has what it complained of, and no more.

    With `both` its complaints are in the file too.
    """
    with os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        done = subprocess.run(
            command.argv,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT if both else subprocess.PIPE,
            check=False,
            start_new_session=True,
        )
    return Result(done.returncode, "", (done.stderr or b"").decode(errors="replace"))


def foreground(command: Command, sleep: Callable[[float], None]) -> int:
    """Run a command on the launcher's own terminal, in its process group, and return its exit code.

    `sleep` is called between two looks at it; where it raises, the command is ended before the exception goes on.
    """
    with _terminal_kept(), subprocess.Popen(command.argv) as process:
        try:
            while process.poll() is None:
                sleep(TELLS)
        except BaseException:
            _end(process)
            raise
    return process.returncode


def watched(command: Command, *, stdin: bytes, tell: Callable[[str], None], sleep: Callable[[float], None]) -> Result:
    """Run a command to its end, with its complaints among its output, each line of which is told as it comes.

    `sleep` is called meanwhile; where it raises, the command is ended before the exception goes on.

    Raises `LauncherError` where it is not installed.
    """
    with _known(command), tempfile.TemporaryFile() as source, ThreadPoolExecutor(1) as pool:
        source.write(stdin)
        source.seek(0)
        with subprocess.Popen(
            command.argv, stdin=source, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
        ) as process:
            reading = pool.submit(_told, process, tell)
            try:
                while not reading.done():
                    sleep(TELLS)
            except BaseException:
                _end(process)
                raise
    return Result(process.returncode, reading.result(), "")


def _told(process: "subprocess.Popen[bytes]", tell: Callable[[str], None]) -> str:
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line.decode(errors="replace"))
        tell(lines[-1].rstrip("\n"))
    return "".join(lines)


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
def beside(command: Command, *, stdin: bool = False) -> Iterator[Callable[[], bool]]:
    """Run a command beside what the block does, its output unread; the value tells whether it has ended by itself.

    With `stdin`, its standard input is a pipe that ends with the block, or with the launcher's own life.
    """
    with subprocess.Popen(
        command.argv,
        stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        try:
            yield lambda: process.poll() is not None
        finally:
            process.kill() if stdin else process.terminate()


@contextmanager
def lines_of(command: Command) -> Iterator[Iterator[str]]:
    """The lines of a command's standard output as they come; the command ends with the block."""
    with subprocess.Popen(
        command.argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        try:
            assert process.stdout is not None
            yield (line.decode(errors="replace").rstrip("\n") for line in process.stdout)
        finally:
            process.kill()


def start_daemon(command: Command, log: Path) -> "subprocess.Popen[bytes]":
    """Start a process that outlives the launcher, with its output appended to `log`."""
    with log.open("ab") as output:
        return subprocess.Popen(
            command.argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True, cwd="/"
        )


def replaced_by(command: Command) -> None:
    """Become another program, on the same terminal. Returns only by raising `LauncherError`."""
    with _known(command):
        os.execvp(command.argv[0], command.argv)  # noqa: S606 -- no shell is wanted


def installed(program: str) -> bool:
    """Whether PATH has the program."""
    return shutil.which(program) is not None
