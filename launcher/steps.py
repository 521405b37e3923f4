"""Steps: what a backend renders a plan to, and the hands that carry them out, independent ones side by side.

A step names the steps that it comes after, so the order is data that tests read and `plan --argv` prints.
"""

import gzip
import json
import os
import shlex
import shutil
import stat
import tarfile
import tempfile
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from launcher.docker import AT_ONCE, Command, Result, pipe, run
from launcher.interrupts import HeldSignals
from launcher.plan import File

LOOK_S = 0.2
"""How often the main thread looks for a signal while commands run."""


@dataclass(frozen=True, slots=True)
class Archive:
    """Standard input that is a tar archive of files, read when it is sent."""

    files: tuple[File, ...]

    def content(self) -> IO[bytes]:
        """The archive, as a file that has no name. Raises `OSError` for a file that cannot be read."""
        buffer = tempfile.TemporaryFile()  # noqa: SIM115 -- the caller closes it
        with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
            for file in self.files:
                _add(archive, file.source, file.target.lstrip("/"), file)
        buffer.seek(0)
        return buffer

    def __str__(self) -> str:
        return f"tar of {', '.join(file.target for file in self.files)}"


def _add(archive: tarfile.TarFile, source: Path, target: str, file: File) -> None:
    """A file, or a directory with the files, directories and links in it; what is none of these is left out."""
    status = source.lstat()
    kind = stat.S_IFMT(status.st_mode)
    if kind not in (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK):
        return
    member = tarfile.TarInfo(target)
    member.uid, member.gid = file.owner
    member.mtime = status.st_mtime
    member.mode = stat.S_IMODE(status.st_mode)
    if file.mode is not None:
        executable = member.mode & 0o111 if file.mode & 0o004 else 0
        member.mode = 0o755 if kind == stat.S_IFDIR else file.mode | executable
    if kind == stat.S_IFREG:
        member.size = status.st_size
        with source.open("rb") as content:
            archive.addfile(member, content)
        return
    member.type = tarfile.SYMTYPE if kind == stat.S_IFLNK else tarfile.DIRTYPE
    member.linkname = os.readlink(source) if kind == stat.S_IFLNK else ""
    archive.addfile(member)
    if kind == stat.S_IFDIR:
        for name in sorted(os.listdir(source)):
            _add(archive, source / name, f"{target}/{name}", file)


@dataclass(frozen=True, slots=True)
class Stored:
    """Standard input that is a compressed tar archive, as it was kept."""

    path: Path

    def content(self) -> IO[bytes]:
        """The archive, as a file that has no name. Raises `OSError` where it cannot be read."""
        buffer = tempfile.TemporaryFile()  # noqa: SIM115 -- the caller closes it
        with gzip.open(self.path, "rb") as source:
            shutil.copyfileobj(source, buffer)
        buffer.seek(0)
        return buffer

    def __str__(self) -> str:
        return str(self.path)


@dataclass(frozen=True, slots=True)
class Secrets:
    """Standard input that is one JSON object of secrets, each read from its file when it is sent."""

    files: tuple[tuple[str, Path], ...]

    def content(self) -> bytes:
        """The object. Raises `OSError` for a file that cannot be read."""
        return json.dumps({name: path.read_text() for name, path in self.files}).encode()

    def __str__(self) -> str:
        return f"the values of {', '.join(name for name, _ in self.files)}"


@dataclass(frozen=True, slots=True)
class Bytes:
    """Standard input that is files one after the other, read when they are sent."""

    files: tuple[Path, ...]

    def content(self) -> bytes:
        """What is in them. Raises `OSError` for one that cannot be read."""
        return b"".join(path.read_bytes() for path in self.files)

    def __str__(self) -> str:
        return ", ".join(map(str, self.files))


@dataclass(frozen=True, slots=True)
class Text:
    """Standard input that is this text."""

    text: str

    def content(self) -> bytes:
        """The text in UTF-8."""
        return self.text.encode()

    def __str__(self) -> str:
        return f"{len(self.text.splitlines())} lines"


@dataclass(frozen=True, slots=True)
class Step:
    """One command of a plan, and what has to be done before it."""

    name: str
    command: Command
    after: tuple[str, ...] = ()
    stdin: Archive | Bytes | Stored | Secrets | Text | None = None
    source: Command | None = None
    """A command whose output is the standard input of this one, in the place of `stdin`."""

    def carry_out(self) -> Result:
        """Run it to its end; raises as `docker.run` does."""
        if self.source is not None:
            return pipe(self.source, self.command)
        if isinstance(self.stdin, Archive | Stored):
            with self.stdin.content() as content:
                return run(self.command, stdin=content)
        return run(self.command, stdin=None if self.stdin is None else self.stdin.content())

    def __str__(self) -> str:
        words = shlex.join(self.command.argv)
        if self.source is not None:
            return f"{shlex.join(self.source.argv)} | {words}"
        return f"{words}  < {self.stdin}" if self.stdin is not None else words


def in_order(steps: Sequence[Step]) -> tuple[Step, ...]:
    """The steps, each after those that it comes after, and else as they stand.

    Raises `ValueError` where a step comes after itself or after one that there is not.
    """
    done: dict[str, Step] = {}
    left = list(steps)
    while left:
        ready = [step for step in left if all(name in done for name in step.after)]
        if not ready:
            raise ValueError(f"these steps wait for each other or for none: {', '.join(step.name for step in left)}")
        done |= {step.name: step for step in ready}
        left = [step for step in left if step.name not in done]
    return tuple(done.values())


def in_turn(steps: Iterable[Step], check: Callable[[], None]) -> None:
    """Carry out steps one after the other, with `check` before each; what either raises goes on."""
    for step in steps:
        check()
        step.carry_out()


class Hands:
    """Carries steps out, `AT_ONCE` at a time. Once one has failed, or a signal has come, no other begins.

    A command that runs is never cut: `finish` and the end of the block wait for it.
    """

    def __init__(self, held: HeldSignals, tell: Callable[[str], None] = lambda _name: None) -> None:
        self._held, self._tell = held, tell
        self._pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="step")
        self._changed = threading.Condition()
        self._waiting: list[Step] = []
        self._running: set[str] = set()
        self._results: dict[str, Result] = {}
        self._failure: BaseException | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._changed:
            self._waiting.clear()
        self._pool.shutdown()

    def begin(self, steps: Iterable[Step]) -> None:
        """Start the steps as their turn comes; those of a name that has begun already are left out."""
        with self._changed:
            known = {*self._results, *self._running, *(step.name for step in self._waiting)}
            self._waiting += [step for step in steps if step.name not in known]
            self._start_ready()

    def finish(self, *names: str, look: Callable[[], None] = lambda: None) -> dict[str, Result]:
        """Wait for these steps, or for all, and return what they said by their names. `look` is called while waiting.

        Raises what the first failed step raised, once no other runs any more; `Interrupted` after a signal.
        """
        with self._changed:
            while not self._settled(names):
                self._changed.wait(LOOK_S)
                look()
                if self._held.came:
                    self._waiting.clear()
            if self._failure is not None:
                raise self._failure
            self._held.check()
            return {name: self._results[name] for name in names or self._results}

    def _settled(self, names: tuple[str, ...]) -> bool:
        if self._failure is not None or self._held.came:
            return not self._running
        if names:
            return all(name in self._results for name in names)
        return not (self._running or self._waiting)

    def _start_ready(self) -> None:
        if self._failure is not None or self._held.came:
            self._waiting.clear()
        ready = [step for step in self._waiting if all(name in self._results for name in step.after)]
        for step in ready:
            self._waiting.remove(step)
            self._running.add(step.name)
            self._pool.submit(step.carry_out).add_done_callback(partial(self._ended, step))

    def _ended(self, step: Step, future: "Future[Result]") -> None:
        with self._changed:
            self._running.discard(step.name)
            error = future.exception()
            if error is None:
                self._results[step.name] = future.result()
                self._tell(step.name)
            elif self._failure is None:
                self._failure = error
            self._start_ready()
            self._changed.notify_all()
