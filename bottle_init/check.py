"""`bottle-init check`: is this bundle file valid, and what will start when?"""

from __future__ import annotations

import os
import sys

from bottle_init import cli, compiled, config
from bottle_init.bundlefile import graph

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bottle_init.cli import Options
    from bottle_init.core.model import Bundle, Probe, Spec

SCHEMA = os.path.join(os.path.dirname(__file__), "schema.json")
_CANNOT_WRITE = 1


def run(options: Options) -> int:
    """Check a bundle file, print its start order or the schema; 0, or 1 where `--compile` could not write.

    Raises BundleInvalid, UsageError.
    """
    if options.schema:
        with open(SCHEMA, encoding="utf-8") as file:
            cli.say(1, file.read())
        return cli.EX_OK
    if options.compile:
        return _compile(options)
    cli.say(1, report(find_bundle(options), options.config))
    return cli.EX_OK


def find_bundle(options: Options) -> Bundle:
    """The bundle as a run with these options would have it, always from the text itself. Raises BundleInvalid."""
    source = "standard input" if options.config == "-" else options.config
    text = sys.stdin.buffer.read() if options.config == "-" else config.read_text(options.config)
    bundle = config.load(text, source, options.policy)
    return cli.narrow(bundle, options, source)


def _compile(options: Options) -> int:
    if options.config == "-":
        raise cli.UsageError("--compile writes beside a file: name one")
    try:
        written = compiled.write(options.config)
    except OSError as problem:
        cli.say(2, f"bottle-init: {problem.filename}: cannot be written: {problem.strerror}\n")
        return _CANNOT_WRITE
    cli.say(1, f"{written}\n")
    return cli.EX_OK


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
    lines.append(f"stop order: the reverse, all within {duration(bundle.stop_timeout_ms)}")
    return "\n".join(lines) + "\n"


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
    return f"after {', '.join(spec.after)}" if spec.after else "at once"


def _is_ready(spec: Spec) -> str:
    """When those that are after it may start."""
    if spec.kind == "oneshot":
        return "ready once it has succeeded" + (f", within {duration(spec.timeout_ms)}" if spec.timeout_ms else "")
    if spec.ready is None:
        return "ready once executed"
    return f"ready by {_probe(spec.ready.probe)}, within {duration(spec.ready.timeout_ms)}"


def _probe(probe: Probe) -> str:
    host = f"[{probe.host}]" if ":" in probe.host else probe.host
    if probe.kind == "tcp":
        return f"tcp {host}:{probe.port}"
    if probe.kind == "http":
        return f"http://{host}:{probe.port}{probe.path}"
    return f"exec {probe.command[0]}" if probe.kind == "exec" else "NOTIFY_SOCKET"


def duration(ms: int) -> str:
    """`1m30s` for 90 000: as a bundle file spells it."""
    parts = []
    for unit, size_ms in (("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)):
        count, ms = divmod(ms, size_ms)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"
