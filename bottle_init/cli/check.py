"""`bottle-init check`: is this bundle file valid, and what will start when?"""

from __future__ import annotations

import os

from bottle_init.bundle import compiled, document, graph, load
from bottle_init.bundle.source import STANDARD_INPUT, BundleInvalid, read_standard_input, read_text
from bottle_init.cli import chosen, console, notes
from bottle_init.cli.options import UsageError
from bottle_init.words import durations
from bottle_init.words.exits import EX_NO, EX_OK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bottle_init.bundle.document import Reading
    from bottle_init.cli.options import Options
    from bottle_init.core.spec import Bundle, Probe, Spec

SCHEMA = os.path.join(os.path.dirname(load.__file__), "schema.json")


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
    is_stdin = options.config == "-"
    source = STANDARD_INPUT if is_stdin else options.config
    text = read_standard_input() if is_stdin else read_text(source)
    reading = document.parse(text, source, os.environ, starts=False)
    if reading.bundle is None:
        raise BundleInvalid(source, reading.faults)
    bundle = chosen.narrow(load.settle(reading.bundle, options.policy), options, source)
    console.print(report(bundle, source) + noted(reading, bundle))
    return EX_OK


def _compile(options: Options) -> int:
    if options.config == "-":
        raise UsageError("--compile writes beside a file: name one")
    of_a_start = [name for name in options.given if name in ("--policy", "--only", "--stop-timeout")]
    if of_a_start:
        raise UsageError(f"--compile takes the file as it is: {of_a_start[0]} is for its start")
    try:
        written, reading = compiled.write(options.config)
    except OSError as problem:
        console.complain(f"bottle-init: {problem.filename2 or problem.filename}: cannot be written: {problem.strerror}")
        return EX_NO
    console.print(f"{written}\n" + (noted(reading, load.settle(reading.bundle, None)) if reading.bundle else ""))
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
    return "\n".join(lines) + "\n"


def noted(reading: Reading, bundle: Bundle) -> str:
    """A line for each note."""
    return "".join(f"note: {note}\n" for note in notes.of(reading, bundle))


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
    if not probe.kind:
        return "a probe of a variable"
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
