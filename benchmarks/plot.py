"""The picture of docs/benchmarks.md: for each figure a scale, and on it every contender, with quartiles."""

from __future__ import annotations

from html import escape
from math import log10
from typing import TYPE_CHECKING

from benchmarks.aims import LABELS
from benchmarks.contenders import BARE, BUNDLE, INIT
from benchmarks.table import figure

if TYPE_CHECKING:
    from benchmarks.figures import Samples, Spread

METRICS = (
    *("one.start_ms", "one.stop_ms", "signal.p50_us", "orphans.per_s"),
    *("4.start_ms", "4.stop_ms", "4.pss_mb", "lines4.per_s"),
    *("100.start_ms", "100.stop_ms", "100.pss_mb", "idle.wakeups_per_min"),
)
BASES = {
    "one.start_ms": "bare.run_ms",
    "one.stop_ms": "bare.stop_ms",
    "4.start_ms": "bare.run_ms",
    "4.pss_mb": "bare.pss_mb",
}
"""Where the bare interpreter belongs into the picture, and with what."""

COLUMNS = 2
WIDTH, LEFT, RIGHT, TOP, ROW = 500, 200, 80, 34, 17
STYLE = """
  text { font: 12px system-ui, sans-serif; fill: #24292f }
  .title { font-weight: 600 } .value { font-size: 11px; fill: #57606a }
  .axis { stroke: #d0d7de } .peer { fill: #8c959f; stroke: #8c959f } .bare { fill: #57606a; stroke: #57606a }
  .init { fill: #0969da; stroke: #0969da }
  text.init, text.peer, text.bare { stroke: none } text.init { font-weight: 600 }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 } .value { fill: #9198a1 } .axis { stroke: #3d444d } .init { fill: #4493f8; stroke: #4493f8 }
  }
"""


def draw(samples: Samples) -> str:
    """All of it, as SVG."""
    panels = [panel for metric in METRICS if (panel := everybody(samples, metric))]
    bodies: list[str] = []
    y = 0
    for start in range(0, len(panels), COLUMNS):
        row = panels[start : start + COLUMNS]
        bodies.extend(_panel(panel, column * WIDTH, y) for column, panel in enumerate(row))
        y += TOP + ROW * max(len(spreads) for _, spreads in row) + 16
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH * COLUMNS} {y}" width="{WIDTH * COLUMNS}">'
    return f"{head}\n<style>{STYLE}</style>\n{''.join(bodies)}</svg>\n"


def everybody(samples: Samples, metric: str) -> tuple[str, list[tuple[str, Spread]]] | None:
    """One figure of all that have it, the smallest first; None if there are none."""
    found = [(name, spread) for name in samples.peers(metric) if (spread := samples.spread(metric, name))]
    base = samples.spread(BASES[metric], BARE) if metric in BASES else None
    if found and base:
        found.append((BARE, base))
    return (LABELS[metric], sorted(found, key=lambda item: item[1].median)) if found else None


def _panel(panel: tuple[str, list[tuple[str, Spread]]], x: int, y: int) -> str:
    title, spreads = panel
    values = [value for _, spread in spreads for value in (spread.low, spread.high) if value > 0] or [1.0]
    low, high = log10(min(values)), log10(max(values))
    room = WIDTH - LEFT - RIGHT

    def at(value: float) -> float:
        """Where a value is on the logarithmic scale; zero is at its beginning."""
        share = (log10(value) - low) / (high - low) if value > 0 and high > low else 0.0
        return round(x + LEFT + share * room, 1)

    lines = [f'<text class="title" x="{x + 8}" y="{y + 20}">{escape(title)}</text>\n']
    for index, (name, spread) in enumerate(spreads):
        middle = y + TOP + ROW * index + 6
        kind = "init" if name in (INIT, BUNDLE) else "bare" if name == BARE else "peer"
        level = f'y1="{middle}" y2="{middle}"'
        lines.append(
            f'<line class="axis" x1="{x + LEFT}" x2="{x + LEFT + room}" {level}/>'
            f'<text class="{kind}" x="{x + LEFT - 10}" y="{middle + 4}" text-anchor="end">{escape(name)}</text>'
            f'<line class="{kind}" stroke-width="3" x1="{at(spread.low)}" x2="{at(spread.high)}" {level}/>'
            f'<circle class="{kind}" cx="{at(spread.median)}" cy="{middle}" r="4"/>'
            f'<text class="value" x="{x + LEFT + room + 10}" y="{middle + 4}">{figure(spread.median)}</text>\n'
        )
    return "".join(lines)
