"""What `check` notes: what is valid in a bundle file, and perhaps not what was meant."""

from __future__ import annotations

import os
import posixpath

from bottle_init.bundle import accounts, secrets, variables
from bottle_init.bundle.source import path_of
from bottle_init.bundle.table import join, listed, nearest, quoted
from bottle_init.core.words import JOB
from bottle_init.linux import starts
from bottle_init.linux.spawn import DEFAULT_PATH
from bottle_init.words import durations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from bottle_init.bundle.document import Reading
    from bottle_init.core.spec import Bundle, Spec

_DOCKER_STOP_MS = 10_000
_SHELLS = ("sh", "ash", "bash", "dash", "ksh", "mksh", "zsh", "busybox", "fish", "envsubst")


def of(reading: Reading, bundle: Bundle) -> Iterator[str]:
    """All notes of a valid file; `bundle` is the part of it that would run."""
    for path, note in (*_of_file(reading), *_of_bundle(bundle), *_of_machine(bundle)):
        yield f"{reading.whole.named(path)}: {secrets.unsaid(note, reading.hidden.get(path, ()))}"


def _of_file(reading: Reading) -> Iterator[tuple[str, str]]:
    """Variables and includes."""
    for name in reading.unset:
        yield f"variables.{name}", f"is required: a start needs {name} in its environment"
    for pattern in reading.whole.unmatched:
        yield "include", f"no file matches {quoted(pattern)}"
    for path in reading.whole.idle:
        yield path, "has override = true, and there is nothing before it to override"
    declared = [name for name, _ in reading.declared]
    for path, name, program in _undeclared(reading.whole.content, declared):
        close = nearest(name, declared)
        if close or program not in _SHELLS:
            yield path, f"${{{name}}} stays as it is written: [variables] does not declare {name}{close}"


def _undeclared(content: dict[str, Any], declared: list[str]) -> Iterator[tuple[str, str, str]]:
    """`(path, name, program)` of each undeclared `${NAME}`; the program is that of the command that it is part of."""
    for table, children in content.items():
        if table not in ("variables", "include"):
            yield from _in_value(join("", table), children, "", declared)


def _in_value(path: str, value: Any, program: str, declared: list[str]) -> Iterator[tuple[str, str, str]]:
    if isinstance(value, str):
        for name in dict.fromkeys(variables.names_in(value)):
            if name not in declared and name.isascii() and name.isidentifier():
                yield path, name, program
    elif isinstance(value, list):
        is_command = path.endswith((".command", ".exec")) and value and isinstance(value[0], str)
        own = posixpath.basename(value[0]) if is_command else program
        for position, each in enumerate(value):
            yield from _in_value(f"{path}[{position}]", each, own, declared)
    elif isinstance(value, dict):
        for key, each in value.items():
            yield from _in_value(join(path, key), each, program, declared)


def _of_bundle(bundle: Bundle) -> Iterator[tuple[str, str]]:
    """What the keys say together."""
    if bundle.stop_timeout_ms >= _DOCKER_STOP_MS:
        hint = "`docker stop` kills after 10 s unless told otherwise (--timeout, stop_grace_period)"
        yield "bundle.stop_timeout", hint
    jobs = [spec.name for spec in bundle.children if spec.kind == JOB]
    if len(jobs) > 1:
        yield "jobs", f"the bundle ends with the first of {listed(jobs)} that ends, and stops the others"
    for spec in bundle.children:
        path = path_of(spec)
        own_ms = spec.stop_delay_ms + spec.stop_timeout_ms
        if own_ms > bundle.stop_timeout_ms:
            yield path, f"its stop may take {durations.spell(own_ms)}, but the bundle's ends earlier"
        if spec.backoff.initial_ms > spec.backoff.limit_ms:
            pause = durations.spell(spec.backoff.limit_ms)
            yield f"{path}.backoff", f"initial is above limit, so that every pause is {pause}"
        is_watched = spec.health is not None or (spec.ready is not None and spec.ready.probe.kind == "notify")
        if spec.on_unhealthy != "ignore" and not is_watched:
            yield f"{path}.on_unhealthy", "nothing checks this daemon's health"


def _of_machine(bundle: Bundle) -> Iterator[tuple[str, str]]:
    """What the children need, and is not here."""
    for spec in bundle.children:
        path = path_of(spec)
        made = ", unless a oneshot makes it" if accounts.runs_after_a_oneshot(spec, bundle.children) else ""
        settings = spec.settings
        for key, message in accounts.unknown(settings):
            yield f"{path}.{key}", f"{message}{made}"
        if settings.cwd is not None and not os.path.isdir(settings.cwd):
            yield f"{path}.cwd", f"there is no directory {quoted(settings.cwd)} here{made}"
        for position, file in enumerate(settings.env_files):
            if not os.path.exists(file):
                yield f"{path}.env_files[{position}]", f"there is no file {quoted(file)} here{made}"
        for key, command in _commands(spec):
            if command and not _is_there(command[0], spec):
                yield f"{path}.{key}[0]", f"there is no program {quoted(command[0])} here{made}"
        why = starts.barred(settings)
        if why:
            yield f"{path}.user", f"{why}, so it could not signal a process of another user"


def _commands(spec: Spec) -> Iterator[tuple[str, tuple[str, ...]]]:
    yield "command", spec.command
    for key, checked in (("ready", spec.ready), ("health", spec.health)):
        if checked is not None and checked.probe.kind == "exec":
            yield f"{key}.exec", checked.probe.command


def _is_there(program: str, spec: Spec) -> bool:
    """Whether the child would find the program: on its own PATH, and from its own directory."""
    place = spec.settings.cwd or ""
    if "/" in program:
        return os.path.exists(os.path.join(place, program))
    path = dict(spec.settings.env).get("PATH", os.environ.get("PATH", DEFAULT_PATH.decode()))
    return any(os.path.exists(os.path.join(place, directory, program)) for directory in path.split(":"))
