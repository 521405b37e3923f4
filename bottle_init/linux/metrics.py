"""The metrics of a bundle as text: OpenMetrics 1.0, which Prometheus reads."""

from __future__ import annotations

from bottle_init.core import status
from bottle_init.core.words import ALIVE, NATURAL, POLICY, REQUESTED, STATUSES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Final

    from bottle_init.core.state import State

    Samples = list[tuple[str, int]] | list[tuple[str, float]]
    """`(labels with their braces, value)`."""

    Family = tuple[str, str, str, Samples]
    """`(name, type, sentence, samples)`; a name that ends with a unit says so."""

CONTENT_TYPE: Final = "application/openmetrics-text; version=1.0.0; charset=utf-8"

PREFIX: Final = "bottle_init"
STOPS: Final = (REQUESTED, POLICY, NATURAL)


class Extra:
    """What the core does not know.

    `figures` and `own` are `(bytes of resident memory, seconds of CPU)`, by the pids of the children and of the init;
    `dropped` are log lines, of each child by its index and of the init itself last.
    """

    __slots__ = ("dropped", "figures", "own", "refused_signals")

    def __init__(
        self, figures: dict[int, tuple[int, float]], own: tuple[int, float], dropped: list[int], refused_signals: int
    ) -> None:
        self.figures = figures
        self.own = own
        self.dropped = dropped
        self.refused_signals = refused_signals


def text(state: State, now_ms: int, extra: Extra) -> str:
    """All metrics, in the order of the documentation."""
    lines: list[str] = []
    for name, kind, sentence, samples in (*_of_children(state, now_ms, extra), *_of_the_bundle(state, extra)):
        lines.append(f"# TYPE {PREFIX}_{name} {kind}")
        unit = name.rpartition("_")[2]
        if unit in ("seconds", "bytes"):
            lines.append(f"# UNIT {PREFIX}_{name} {unit}")
        lines.append(f"# HELP {PREFIX}_{name} {sentence}")
        suffix = "_total" if kind == "counter" else ""
        lines.extend(f"{PREFIX}_{name}{suffix}{labels} {value}" for labels, value in samples)
    lines.append("# EOF\n")
    return "\n".join(lines)


def _of_children(state: State, now_ms: int, extra: Extra) -> Iterator[Family]:
    children = state.children
    names = [f'child="{child.spec.name}",kind="{child.spec.kind}"' for child in children]
    every = [(f"{{{name}}}", child) for name, child in zip(names, children, strict=True)]
    alive = [(labels, child) for labels, child in every if child.status in ALIVE and child.pid > 0]
    measured = [(labels, *extra.figures[child.pid]) for labels, child in alive if child.pid in extra.figures]
    states = [
        (f'{{{name},{PREFIX}_child_state="{each}"}}', int(child.status == each))
        for name, child in zip(names, children, strict=True)
        for each in STATUSES
    ]
    codes = [(labels, child.last_death.code) for labels, child in every if child.last_death is not None]
    restarts = [(labels, max(0, child.generation - 1)) for labels, child in every]
    uptimes = [(labels, (now_ms - child.started_at_ms) / 1_000) for labels, child in alive]
    memory = [(labels, used) for labels, used, _ in measured]
    cpu = [(labels, used) for labels, _, used in measured]
    dropped = [(labels, extra.dropped[child.index]) for labels, child in every]
    yield "child_state", "stateset", "What each child is doing.", states
    yield "child_restarts", "counter", "How often each child has been started again.", restarts
    yield "child_last_exit_code", "gauge", "The code of each child's last death: 128 plus the signal for a kill.", codes
    yield "child_uptime_seconds", "gauge", "How long each child's present process has run.", uptimes
    yield "child_resident_memory_bytes", "gauge", "Resident memory of each child with all of its session.", memory
    yield "child_cpu_seconds", "counter", "CPU time of each child with all of its session.", cpu
    yield "child_log_lines_dropped", "counter", "Lines of each child that were dropped.", dropped


def _of_the_bundle(state: State, extra: Extra) -> Iterator[Family]:
    verdict = status.health(state).health
    health = [(f'{{{PREFIX}_health="{each}"}}', int(each == verdict)) for each in status.WORST_FIRST]
    begun = state.stop.kind if state.stop is not None else None
    stops: Samples = [(f'{{kind="{each}"}}', int(each == begun)) for each in STOPS]
    memory, cpu = extra.own
    yield "health", "stateset", "The one verdict for the bundle.", health
    yield "stops", "counter", "Stops of the bundle that have begun.", stops
    yield (
        "signals_refused",
        "counter",
        "Signals that the kernel did not let the init send.",
        [("", extra.refused_signals)],
    )
    yield (
        "log_lines_dropped",
        "counter",
        "Lines of all children and of the init that were dropped.",
        [("", sum(extra.dropped))],
    )
    yield "resident_memory_bytes", "gauge", "Resident memory of the init itself.", [("", memory)]
    yield "cpu_seconds", "counter", "CPU time of the init itself.", [("", cpu)]
