"""An init with a bundle of the test's own, as PID 1 of a PID namespace or as a subreaper."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bottle_init.bundle.written import toml_of

PATIENCE_S = 300.0
"""How long a test waits for what must come. It is for machines that hang: no test asserts how soon anything comes."""

ROOT = Path(__file__).resolve().parents[3]
PYTHON = [sys.executable, "-m", "bottle_init"]
NAMESPACE = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]

MAIN = "from bottle_init.cli.main import main; sys.exit(main(sys.argv[1:]))"
LEAPS = "LEAPS"
LEAPING = f"""
import os, sys
from bottle_init.linux.sys import clock
kernels_ms, leaps = clock.monotonic_ms, os.open(os.environ["{LEAPS}"], os.O_RDONLY | os.O_CLOEXEC)

def monotonic_ms():
    held, ahead = os.pread(leaps, 64, 0).split()
    return int(ahead) + (int(held) or kernels_ms())

clock.monotonic_ms = monotonic_ms
"""
"""An init whose clock a file may hold at a time, or put ahead: a time limit passes when the test wants it to."""


def clock_file(held_ms: int, ahead_ms: int) -> str:
    """The file of an init that leaps. Always of one length, so that it is replaced as a whole."""
    return f"{held_ms:<31} {ahead_ms:<31}\n"


# Says which of TERM and CONT it gets, in their order: handlers would run in the order of the signals' numbers.
HEARS = """
import os, signal
both = {signal.SIGTERM, signal.SIGCONT}
signal.pthread_sigmask(signal.SIG_BLOCK, both)
os.write(1, b"up\\n")
os.write(1, b"heard %d\\n" % signal.sigwait({signal.SIGTERM}))
if signal.sigtimedwait({signal.SIGCONT}, 1):
    os.write(1, b"heard %d\\n" % signal.SIGCONT)
"""


def sh(kind: str, name: str, script: str, more: str = "") -> str:
    """One child that runs a shell script."""
    return f"[{kind}s.{name}]\ncommand = ['/bin/sh', '-c', '''{script}''']\n{more}\n"


def patient(bundle: str) -> str:
    """The bundle file with every time limit that it leaves out at `PATIENCE_S`.

    The defaults are for a machine that keeps up: on one that does not, an orderly child is killed after five seconds.
    So a limit in a test is either written there and passes, or is never reached. A file with faults stays as it is.
    """
    try:
        document = tomllib.loads(bundle)
        children = [child for kind in ("oneshots", "daemons", "jobs") for child in document.get(kind, {}).values()]
        document.setdefault("bundle", {}).setdefault("stop_timeout", PATIENCE_S)
        for child in children:
            child.setdefault("stop_timeout", PATIENCE_S)
            for probe in ("ready", "health"):
                if probe in child:
                    child[probe].setdefault("timeout", PATIENCE_S)
        return toml_of(document)
    except (AttributeError, TypeError, tomllib.TOMLDecodeError):
        return bundle


def eventually(condition: Callable[[], Any], what: str = "the condition") -> Any:
    """Wait until `condition()` is true, and return what it gave."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(0.01)
    raise AssertionError(f"{what} did not come about within {PATIENCE_S} s")


@dataclass
class Init:
    """A running init, and what it has written so far."""

    process: subprocess.Popen[bytes]
    is_pid_1: bool
    control: str
    out: list[str] = field(default_factory=list)
    err: list[str] = field(default_factory=list)
    readers: list[threading.Thread] = field(default_factory=list)
    leaps: Path | None = None

    @property
    def pid(self) -> int:
        """The init's pid as seen from here."""
        if not self.is_pid_1:
            return self.process.pid
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return int(eventually(lambda: children.read_text().split(), "the namespace's PID 1")[0])

    @property
    def events(self) -> list[dict[str, Any]]:
        """The init's own log."""
        return [json.loads(line) for line in list(self.err) if line.startswith("{")]

    def event(self, name: str, child: str | None = None, count: int = 1) -> dict[str, Any]:
        """Wait for the nth event of this name, of one child where given."""

        def found() -> dict[str, Any] | None:
            matches = [e for e in self.events if e["event"] == name and child in (None, e.get("child"))]
            return matches[count - 1] if len(matches) >= count else None

        event: dict[str, Any] = self.eventually(found, f"event {name} of {child}")
        return event

    def eventually(self, condition: Callable[[], Any], what: str) -> Any:
        """Wait like `eventually`; a failure says what the init has written until then."""
        try:
            return eventually(condition, what)
        except AssertionError as problem:
            raise AssertionError("\n".join([f"{problem}; stdout:", *self.out, "stderr:", *self.err])) from None

    def names(self) -> list[tuple[str, str]]:
        """All events so far as `(event, child)`."""
        return [(event["event"], event.get("child", "")) for event in self.events]

    def line(self, text: str) -> None:
        """Wait for a line on stdout."""
        self.eventually(lambda: text in self.out, f"the line {text!r}")

    def send(self, number: int) -> None:
        """Send a signal to the init."""
        os.kill(self.pid, number)

    def hold(self) -> None:
        """Stop the clock of an init that `leaps`: from now on only a leap moves it."""
        self._set_clock(time.monotonic_ns() // 1_000_000, 0)

    def leap(self, seconds: int) -> None:
        """Put the clock of an init that `leaps` ahead, and wake it. The init passes the CONT on, which does no harm."""
        assert self.leaps
        held_ms, ahead_ms = map(int, self.leaps.read_text().split())
        self._set_clock(held_ms, ahead_ms + seconds * 1_000)
        self.send(signal.SIGCONT)

    def _set_clock(self, held_ms: int, ahead_ms: int) -> None:
        assert self.leaps
        with self.leaps.open("r+") as file:
            file.write(clock_file(held_ms, ahead_ms))

    def wait(self) -> int:
        """The init's exit code, as a shell would give it."""
        code = self.process.wait(PATIENCE_S)
        for reader in self.readers:
            reader.join(PATIENCE_S)
        return code if code >= 0 else 128 - code

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Ask it to stop, and wait."""
        self.send(number)
        return self.wait()

    def report(self) -> dict[str, Any]:
        """The exit report, from its log."""
        return self.event("exit_report")


@contextmanager
def running(
    tmp_path: Path,
    bundle: str,
    *options: str,
    pid_1: bool = False,
    env: Mapping[str, str] | None = None,
    prefix: tuple[str, ...] = (),
    executable_code: tuple[str, ...] = (),
    leaps: bool = False,
    **popen: Any,
) -> Iterator[Init]:
    """Start an init on this bundle file, made `patient`; whatever is left of it is killed at the end.

    `executable_code` is run in place of `-m bottle_init`, with its own arguments before the options.
    With `leaps`, `Init.leap` and `Init.hold` work.
    """
    path = tmp_path / "bundle.toml"
    path.write_text(patient(bundle))
    if leaps:
        code, *arguments = executable_code or (MAIN,)
        executable_code = (LEAPING + code, *arguments)
        file = tmp_path / LEAPS
        file.write_text(clock_file(0, 0))
        env = {**(env or {}), LEAPS: str(file)}
    python = [sys.executable, "-c", *executable_code] if executable_code else PYTHON
    command = [*prefix, *(NAMESPACE if pid_1 else []), *python, f"--config={path}", *options]
    environ = {**os.environ, "PYTHONPATH": str(ROOT), **(env or {})}
    control = environ.setdefault("BOTTLE_INIT_CONTROL", f"@bottle-test-{os.getpid()}-{tmp_path.name}")
    popen.setdefault("stdin", subprocess.DEVNULL)
    popen.setdefault("stdout", subprocess.PIPE)
    popen.setdefault("stderr", subprocess.PIPE)
    process = subprocess.Popen(command, env=environ, **popen)
    init = Init(process, pid_1, control, leaps=tmp_path / LEAPS if leaps else None)
    for stream, lines in ((process.stdout, init.out), (process.stderr, init.err)):
        if stream is not None:
            reader = threading.Thread(target=_collect, args=(stream, lines), daemon=True)
            reader.start()
            init.readers.append(reader)
    try:
        yield init
    finally:
        if process.poll() is None:
            _kill_tree(init)
        process.wait(PATIENCE_S)
        for reader in init.readers:
            reader.join(PATIENCE_S)
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()


def _collect(stream: Any, lines: list[str]) -> None:
    while line := stream.readline():
        lines.append(line.decode("utf-8", "replace").rstrip("\n"))


def _kill_tree(init: Init) -> None:
    """End exactly what this test has started: the init and all below it."""
    below = descendants(init.process.pid)
    init.process.kill()
    for pid in below:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def descendants(root: int) -> list[int]:
    """The pids of all processes below `root`."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text()
            except OSError:
                continue
            parents[int(entry.name)] = int(stat.rpartition(")")[2].split()[1])
    found, todo = [], [root]
    while todo:
        parent = todo.pop()
        children = [pid for pid, of in parents.items() if of == parent]
        found.extend(children)
        todo.extend(children)
    return found
