"""`bottle-init check`: is this bundle file valid, and what will start when?"""

from __future__ import annotations

import os

from bottle_init.bundle import compiled, graph, load
from bottle_init.bundle.source import path_of, read_text
from bottle_init.cli import chosen, console
from bottle_init.cli.options import UsageError
from bottle_init.words import durations
from bottle_init.words.exits import EX_NO, EX_OK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from bottle_init.cli.options import Options
    from bottle_init.core.spec import Bundle, Probe, Spec

SCHEMA = os.path.join(os.path.dirname(load.__file__), "schema.json")
_DOCKER_STOP_MS = 10_000


def run(options: Options) -> int:
    """Check a bundle file, print its start order or the schema; 0, or 1 where `--compile` could not write.

    Raises BundleInvalid, UsageError.
    """
    if options.schema:
        with open(SCHEMA, encoding="utf-8") as file:
            console.print(file.read())
        return EX_OK
    if options.compile:
        return _compile(options)
    source = "standard input" if options.config == "-" else options.config
    text = read_text("/dev/stdin" if options.config == "-" else options.config)
    bundle = chosen.narrow(load.from_text(text, source, options.policy), options, source)
    console.print(report(bundle, source))
    return EX_OK


def _compile(options: Options) -> int:
    if options.config == "-":
        raise UsageError("--compile writes beside a file: name one")
    if options.policy is not None or (options.only is not None and options.only_source == "--only"):
        raise UsageError("--compile takes the file as it is: --policy and --only are for its start")
    try:
        written = compiled.write(options.config)
    except OSError as problem:
        console.complain(f"bottle-init: {problem.filename2 or problem.filename}: cannot be written: {problem.strerror}")
        return EX_NO
    console.print(f"{written}\n")
    return EX_OK


def report(bundle: Bundle, source: str) -> str:
    """What `check` prints of a valid bundle."""
    kinds = [spec.kind for spec in bundle.children]
    counts = ", ".join(
        f"{kinds.count(kind)} {kind}{'s' if kinds.count(kind) > 1 else ''}"
        for kind in ("oneshot", "daemon", "job")
        if kind in kinds
    )
    lines = [f"{source}: valid: {counts}; policy {bundle.policy}", "", "start order:"]
    lines.extend(_start_order(bundle))
    lines.append(f"stop order: the reverse, all within {durations.spell(bundle.stop_timeout_ms)}")
    lines.extend(f"note: {note}" for note in _notes(bundle))
    return "\n".join(lines) + "\n"


def _notes(bundle: Bundle) -> Iterator[str]:
    """What is valid, and perhaps not what was meant."""
    if bundle.stop_timeout_ms >= _DOCKER_STOP_MS:
        yield "bundle.stop_timeout: `docker stop` kills after 10 s unless told otherwise (--timeout, stop_grace_period)"
    for spec in bundle.children:
        path = path_of(spec)
        own_ms = spec.stop_delay_ms + spec.stop_timeout_ms
        if own_ms > bundle.stop_timeout_ms:
            yield f"{path}: its stop may take {durations.spell(own_ms)}, but the bundle's ends earlier"
        if spec.backoff.initial_ms > spec.backoff.limit_ms:
            pause = durations.spell(spec.backoff.limit_ms)
            yield f"{path}.backoff: initial is above limit, so that every pause is {pause}"
        is_watched = spec.health is not None or (spec.ready is not None and spec.ready.probe.kind == "notify")
        if spec.on_unhealthy != "ignore" and not is_watched:
            yield f"{path}.on_unhealthy: nothing checks this daemon's health"


def _start_order(bundle: Bundle) -> list[str]:
    specs = {spec.name: spec for spec in bundle.children}
    rows = [
        (f"{number}." if first else "", name, specs[name].kind, _waits_for(specs[name]), _is_ready(specs[name]))
        for number, level in enumerate(graph.levels(bundle), 1)
        for first, name in ((name == level[0], name) for name in level)
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    return ["  " + "  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def _waits_for(spec: Spec) -> str:
    if not spec.enabled:
        return "by ctl start"
    return f"after {', '.join(spec.after)}" if spec.after else "at once"


def _is_ready(spec: Spec) -> str:
    """When those that are after it may start."""
    if not spec.enabled:
        return "ready without being started"
    if spec.kind == "oneshot":
        return "ready once it has succeeded" + (
            f", within {durations.spell(spec.timeout_ms)}" if spec.timeout_ms else ""
        )
    if spec.ready is None:
        return "ready once executed"
    return f"ready by {_probe(spec.ready.probe)}, within {durations.spell(spec.ready.timeout_ms)}"


def _probe(probe: Probe) -> str:
    if probe.kind == "after":
        return f"having run for {durations.spell(probe.after_ms)}"
    if probe.socket:
        return f"{probe.kind} unix:{probe.socket}{f':{probe.path}' if probe.path else ''}"
    host = f"[{probe.host}]" if ":" in probe.host else probe.host
    if probe.kind == "tcp":
        return f"tcp {host}:{probe.port}"
    if probe.kind == "http":
        return f"http://{host}:{probe.port}{probe.path}"
    return f"exec {probe.command[0]}" if probe.kind == "exec" else "NOTIFY_SOCKET"
