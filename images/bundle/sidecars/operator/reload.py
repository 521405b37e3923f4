"""`bottle-reload [FILE|-]`: has the daemons obey the policy as it is now, or another one, and says when they do.

What a daemon could not take is said before anything has changed. Afterwards each daemon is asked until it obeys: the
command ends with 0 when all do, and with 1 and the names of those that don't.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import sys
import time
from pathlib import Path

from bottle_init import client
from bottle_init.core.values import Value
from sidecars import layout, policy, privileges, staging
from sidecars.operator.channel import RefusedError, ask, fail
from sidecars.operator.health import DAEMONS, SilentError, health
from sidecars.policy import PolicyError, as_json, default_path
from sidecars.staging import StagingError, write_public

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, Final

    from sidecars.policy import Policy

_USAGE: Final = "usage: bottle-reload [FILE|-]"
EX_USAGE: Final = 2
EX_REFUSED: Final = 1
PATIENCE_S: Final = 30.0
_PAUSE_S: Final = 0.02
_CONTROL: Final = "@bottle_init"
_HANGUP: Final = 1
AT_THE_START: Final = ("walls", "transparent", "pipelock.engine", "git.directory", "limits")
"""Keys of the compiled policy whose change needs a new bundle."""


class ReloadError(Exception):
    """Who does not obey, and why, in words for the operator."""


class Obeyed(Value):
    """What a daemon says of itself."""

    generation: str
    reloads: int
    error: str


@contextlib.contextmanager
def locked() -> Iterator[None]:
    """One command at a time changes what the daemons obey."""
    with (layout.OPERATOR / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def apply(new: Policy, text: bytes | None = None) -> None:
    """Hands the policy to the daemons. Raises `StagingError` before anything has changed, `ReloadError` after."""
    staged = staging.read(new)
    staging.write(staged)
    if text is not None:
        write_public(layout.POLICIES[0], text.decode("utf-8"))
    write_public(layout.COMPILED_POLICY, as_json(new))
    announce(new.generation)


def announce(generation: str) -> None:
    """Tells every daemon to read anew, and waits until each obeys. Raises `ReloadError`."""
    problems: list[str] = []
    told: dict[str, Obeyed] = {}
    for name, port in DAEMONS.items():
        try:
            state = obeyed(port)
        except SilentError:
            problems.append(f"{name} does not answer")
            continue
        if state is not None:
            told[name] = state
    problems += [problem for name in told if (problem := _hang_up(name))]
    deadline_s = time.monotonic() + PATIENCE_S
    problems += [problem for name, state in told.items() if (problem := _await(name, state, generation, deadline_s))]
    try:
        ask("reload")
    except RefusedError as error:
        problems.append(f"supervise: {error}")
    if problems:
        raise ReloadError("; ".join(problems))


def _await(name: str, before: Obeyed, generation: str, deadline_s: float) -> str:
    """Why the daemon does not obey, "" if it does."""
    state: Obeyed | None = None
    while time.monotonic() < deadline_s:
        with contextlib.suppress(SilentError):
            state = obeyed(DAEMONS[name])
        if state is not None and state.reloads > before.reloads:
            if state.error:
                return f"{name} has refused: {state.error}"
            if state.generation == generation:
                return ""
        time.sleep(_PAUSE_S)
    return f"{name} has not said within {PATIENCE_S:g} s that it obeys"


def obeyed(port: int) -> Obeyed | None:
    """What the daemon at this port obeys; `None` where none that would say so answers. Raises `SilentError`."""
    said = health(port)
    if said is None or "generation" not in said or "reloads" not in said:
        return None
    return Obeyed(str(said["generation"]), int(said["reloads"]), str(said.get("reload_error") or ""))


def _hang_up(name: str) -> str:
    """Why the daemon could not be told, "" if it was."""
    try:
        answer = client.ask(os.environ.get("BOTTLE_INIT_CONTROL", _CONTROL), f"ctl signal {name} {_HANGUP}")
    except client.NoAnswer as problem:
        return f"{name}: {problem}"
    kind, _, words = answer.strip().partition(" ")
    return "" if kind == "ok" else f"{name}: {words}"


def waits_for_the_start(new: dict[str, Any]) -> list[str]:
    """The keys that differ from the policy that the bundle started with, and that only a start reads."""
    old = json.loads(layout.COMPILED_POLICY.read_text("utf-8"))

    def value(document: dict[str, Any], key: str) -> Any:
        for part in key.split("."):
            document = document[part]
        return document

    return [key for key in AT_THE_START if value(old, key) != value(new, key)]


def _text(arguments: list[str]) -> tuple[bytes | None, Path]:
    """The new policy's text, `None` where the file is to be read again, and where faults are said to be."""
    match arguments:
        case []:
            return None, default_path()
        case ["-"]:
            return sys.stdin.buffer.read(), Path("the policy on stdin")
        case [name] if not name.startswith("-"):
            try:
                return Path(name).read_bytes(), Path(name)
            except OSError as error:
                raise PolicyError(name, [error.strerror or str(error)]) from error
    print(_USAGE, file=sys.stderr)
    raise SystemExit(EX_USAGE)


def main() -> None:
    """Exits 78 where the policy has faults or a secret is missing, 1 where a daemon does not obey, 2 for a usage."""
    privileges.drop()
    try:
        text, path = _text(sys.argv[1:])
        with locked():
            new = policy.load(path) if text is None else policy.from_text(text, path)
            late = waits_for_the_start(json.loads(as_json(new)))
            apply(new, text)
    except PolicyError as error:
        print(error, file=sys.stderr)
        raise SystemExit(policy.EX_CONFIG) from None
    except StagingError as error:
        raise fail("bottle-reload", str(error), error.code) from None
    except ReloadError as error:
        raise fail("bottle-reload", str(error), EX_REFUSED) from None
    for key in late:
        print(f"bottle-reload: {key}: takes effect when the bundle starts anew", file=sys.stderr)
    print(f"every daemon obeys generation {new.generation}")
