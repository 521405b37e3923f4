"""The tables of docs/benchmarks.md."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.aims import AIMS, LABELS, Aim
from benchmarks.contenders import BARE, BEFORE, BUNDLE, BUNDLE_BEFORE, INIT

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from benchmarks.figures import Samples, Spread
    from benchmarks.schedule import Cast

DOCUMENT = Path(__file__).resolve().parents[1] / "docs/benchmarks.md"
BEGIN = "<!-- what follows is written by `make bench` -->"
END = "<!-- what `make bench` writes ends here -->"

MEDIANS = "Medians, with the quartiles in brackets; ratios are taken round by round, and summed up then.\n"

SINGLE = (
    "bare.run_ms",
    "one.start_ms",
    "one.stop_ms",
    "signal.p50_us",
    "signal.p99_us",
    "orphans.per_s",
    "orphans.cpu_us",
)
SEVERAL = (
    *("bare.run_ms", "bare.pss_mb", "4.start_ms", "uncompiled.start_ms", "4.stop_ms", "4.pss_mb"),
    "idle.wakeups_per_min",
    *("lines1.per_s", "lines1.lost", "lines4.per_s", "lines4.lost", "100.start_ms", "100.stop_ms", "100.pss_mb"),
)
ALONE = (
    *("health.run_ms", "stall.quiet_ms", "stall.stalled_ms", "25.start_ms", "50.start_ms", "25.stop_ms", "50.stop_ms"),
    *("25.pss_mb", "50.pss_mb", "simulated.per_min"),
)


def figure(value: float) -> str:
    """A number as people read it: three digits that mean something."""
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def cell(spread: Spread | None) -> str:
    """Median and quartiles."""
    if spread is None:
        return "-"
    if spread.low == spread.high:
        return figure(spread.median)
    return f"{figure(spread.median)} [{figure(spread.low)} to {figure(spread.high)}]"


def rows(header: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def of_aims(samples: Samples, aims: Sequence[Aim] = AIMS, whose: str = INIT) -> str:
    """Each aim, and what came of it."""
    return rows(("work", whose, "reference", "ratio", "aim", "met"), (_aim(aim, samples) for aim in aims))


def _aim(aim: Aim, samples: Samples) -> list[str]:
    own = cell(samples.spread(aim.metric, aim.contender))
    judged = aim.judged(samples)
    if not aim.other_metric:
        return [aim.work, own, "", "", aim.words, _met(aim, judged)]
    who = aim.reference(samples)
    other = f"{who}: {cell(samples.spread(aim.other_metric, who))}" if who else f"{aim.others[0]} is not here"
    return [aim.work, own, other, cell(judged), aim.words, _met(aim, judged)]


def _met(aim: Aim, judged: Spread | None) -> str:
    if judged is None:
        return "not measured"
    return "yes" if aim.met(judged.median) else "**no**"


def of_figures(samples: Samples, metrics: Sequence[str], names: Sequence[str]) -> str:
    """All figures of these contenders, as far as there are any."""
    measured = [metric for metric in metrics if set(samples.peers(metric)) & set(names)]
    here = [name for name in names if any(samples.spread(metric, name) for metric in measured)]
    body = ([LABELS[metric], *(cell(samples.spread(metric, name)) for name in here)] for metric in measured)
    return rows(("", *here), body)


def of_versions(cast: Cast) -> str:
    """Who was here, and who was not, and why."""
    body = [[peer.name, peer.version if peer.program else f"skipped: {peer.version}"] for peer in cast.peers]
    before = [[one.name, one.version] for one in cast.before[:1]]
    own = [[INIT, cast.init.version], *before, [BARE, cast.init.interpreter.version]]
    return rows(("peer", "version"), [*own, *body])


def report(samples: Samples, cast: Cast, facts: Sequence[str], problems: dict[str, str]) -> str:
    """Everything that was measured, as Markdown."""
    peers = [peer.name for peer in cast.peers]
    return page(
        facts,
        of_versions(cast),
        MEDIANS,
        "## Aims\n\n" + of_aims(samples),
        "## One command\n\n" + of_figures(samples, SINGLE, [BARE, INIT, BUNDLE, BEFORE, BUNDLE_BEFORE, *peers]),
        "## Several\n\n" + of_figures(samples, SEVERAL, [BARE, INIT, BEFORE, *peers]),
        "## The init alone\n\n" + of_figures(samples, ALONE, [INIT]),
        problems=problems,
    )


def page(facts: Sequence[str], *parts: str, problems: Mapping[str, str] | None = None) -> str:
    """What a run writes: the facts of it, then the parts, and at last what went wrong, if anything did."""
    told = ["".join(f"- {fact}\n" for fact in facts), *parts]
    if problems:
        told.append("## What went wrong\n\n" + "".join(f"- {where}: {what}\n" for where, what in problems.items()))
    return "\n".join(told)


def publish(text: str, document: Path | None) -> None:
    """To stdout, and between the marks of a document, if there is one."""
    print(text)
    if document:
        document.write_text(insert(text, document.read_text() if document.exists() else ""))


def insert(text: str, into: str) -> str:
    """A document with this text between its two marks, appended where it has none."""
    before, begin, rest = into.partition(BEGIN)
    after = rest.partition(END)[2] if begin else ""
    return f"{before}{BEGIN}\n\n{text}\n{END}{after}" if begin else f"{into}\n{BEGIN}\n\n{text}\n{END}\n"
