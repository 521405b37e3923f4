"""`explain --svg`: the timeline of a bundle's life as a picture, one row for the init and one for each child."""

from __future__ import annotations

from html import escape

from bottle_init.cli import explain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Final

    from bottle_init.cli.explain import Event, Life

WIDTH: Final = 960
ROW: Final = 34
TOP: Final = 54
RIGHT: Final = 40
LETTER: Final = 7.4
"""Width of a letter of a label."""
SHORTEST: Final = 3.0
"""Pixels of a bar that stands for hardly any time."""

STYLE: Final = """
text { font: 12px ui-monospace, monospace; fill: #24292f } .small { font-size: 11px; fill: #57606a }
.head { font: 14px ui-sans-serif, sans-serif } .row { stroke: #d0d7de } .stop { stroke: #9a6700; stroke-dasharray: 4 3 }
.starting { fill: #b6d7ff } .running { fill: #2da44e } .unhealthy { fill: #d4a72c } .stopping { fill: #8c959f }
.mark { stroke: #24292f; stroke-width: 1.5; fill: none } .bad { stroke: #cf222e; stroke-width: 2.5; fill: none }
.paper { fill: #ffffff }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3 } .small { fill: #9198a1 } .row { stroke: #3d444d } .mark { stroke: #e6edf3 }
.paper { fill: #0d1117 } .starting { fill: #1f4f8f } .bad { stroke: #ff7b72 } }
"""

LEGEND: Final = (
    ("starting", "starting"),
    ("running", "ready"),
    ("unhealthy", "unhealthy"),
    ("stopping", "stopping"),
)

_PHASES: Final = {
    "child_started": "starting",
    "child_ready": "running",
    "child_unhealthy": "unhealthy",
    "child_healthy": "running",
    "child_says_stopping": "stopping",
}
"""What a child does from an event on."""

_ENDS: Final = ("child_exited", "gave_up", "fork_failed")
_GOOD: Final = ("clean", "")


class Scale:
    """Seconds since the beginning -> pixels.

    The longest pause between two events is drawn no longer than all others together: what happened at the start and at
    the end of a long life is seen.
    """

    def __init__(self, times: Sequence[float], left: float) -> None:
        self.times = sorted(set(times)) or [0.0]
        gaps = [after - before for before, after in zip(self.times, self.times[1:], strict=False)]
        longest = max(gaps, default=0.0)
        rest = sum(gaps) - longest
        self.cut = longest if rest and longest > rest else 0.0
        drawn = [rest if gap == self.cut else gap for gap in gaps]
        total = sum(drawn) or 1.0
        self.at = [left]
        for gap in drawn:
            self.at.append(self.at[-1] + gap / total * (WIDTH - RIGHT - left))

    def x(self, time: float) -> float:
        """Where a time of the timeline is drawn."""
        return self.at[self.times.index(time)]

    def break_x(self) -> float | None:
        """Where the scale is broken, None where it is not."""
        for before, after in zip(range(len(self.times)), range(1, len(self.times)), strict=False):
            if self.cut and self.times[after] - self.times[before] == self.cut:
                return (self.at[before] + self.at[after]) / 2
        return None


def svg(life: Life) -> str:
    """The picture. Raises explain.Unreadable where nothing in it has a time."""
    events = [(at, event) for event in explain.told_events(life) if (at := explain.when(event)) is not None]
    if not events:
        raise explain.Unreadable("no event in it has a time, so there is nothing to draw")
    start = min(at for at, _ in events)
    timed = [(round(at - start, 6), event) for at, event in events]
    names = list(dict.fromkeys(name for _, event in timed if (name := explain.words(event, "child"))))
    left = LETTER * max(map(len, ("init", *names))) + 30
    scale = Scale([at for at, _ in timed], left)
    end = max(at for at, _ in timed)
    height = TOP + ROW * (len(names) + 1) + 76
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">',
        f"<title>{_text(explain.ending(life))}</title>",
        f"<style>{STYLE}</style>",
        f'<rect class="paper" width="{WIDTH}" height="{height}"/>',
        f'<text class="head" x="16" y="26">{_text(_headline(life))}</text>',
        *_init_row(timed, scale, left, height),
    ]
    for number, name in enumerate(names, 1):
        own = [(at, event) for at, event in timed if explain.words(event, "child") == name]
        parts += _row(name, own, scale, left, TOP + ROW * number, end)
    parts += [*_axis(scale, TOP + ROW * (len(names) + 1)), *_legend(height - 16), "</svg>"]
    return "\n".join(parts) + "\n"


def _headline(life: Life) -> str:
    first = explain.ending(life).partition(". ")[0].rstrip(".")
    return first if len(first) <= 120 else first[:117] + "..."


def _init_row(timed: Iterable[tuple[float, Event]], scale: Scale, left: float, height: float) -> list[str]:
    """What reached the init or was decided by it: a mark each, and a line across where the stop begins."""
    y = TOP + ROW / 2
    parts = [_label("init", y), f'<line class="row" x1="{left:.1f}" y1="{y}" x2="{WIDTH - RIGHT}" y2="{y}"/>']
    for at, event in timed:
        if explain.words(event, "child"):
            continue
        x = scale.x(at)
        if event["event"] == "stopping":
            parts.append(f'<line class="stop" x1="{x:.1f}" y1="{TOP}" x2="{x:.1f}" y2="{height - 78}"/>')
        signal = explain.signal_of(event) if event["event"] == "signal_received" else ""
        if signal:
            parts.append(f'<text class="small" x="{x:.1f}" y="{y - 9}" text-anchor="end">{_text(signal)}</text>')
        parts.append(_mark(x, y, _told(at, event)))
    return parts


def _row(name: str, own: Sequence[tuple[float, Event]], scale: Scale, left: float, top: float, end: float) -> list[str]:
    """One child: a bar for each process, in pieces, and a mark for each other event."""
    y = top + ROW / 2
    parts = [_label(name, y), f'<line class="row" x1="{left:.1f}" y1="{y}" x2="{WIDTH - RIGHT}" y2="{y}"/>']
    marks: list[str] = []
    phase, since = "", 0.0
    for at, event in own:
        kind = event["event"]
        if phase and (kind in _PHASES or kind in _ENDS):
            parts.append(_bar(phase, scale.x(since), scale.x(at), y, name))
        if kind in _PHASES:
            phase, since = _PHASES[kind], at
        elif kind in _ENDS:
            phase = ""
            is_good = explain.words(event, "severity") in _GOOD and kind == "child_exited"
            marks.append(_cross(scale.x(at), y, _told(at, event), is_bad=not is_good))
        if kind not in _ENDS:
            marks.append(_mark(scale.x(at), y, _told(at, event)))
    if phase:
        parts.append(_bar(phase, scale.x(since), scale.x(end), y, name))
    return parts + marks


def _told(at: float, event: Event) -> str:
    return f"+{at:.3f}s {explain.words(event, 'child')} {explain.phrase(event)}"


def _label(name: str, y: float) -> str:
    return f'<text x="16" y="{y + 4}">{_text(name)}</text>'


def _bar(phase: str, start: float, end: float, y: float, name: str) -> str:
    width = max(SHORTEST, end - start)
    return (
        f'<rect class="{phase}" x="{start:.1f}" y="{y - 7}" width="{width:.1f}" height="14" rx="2">'
        f"<title>{_text(f'{name}: {phase}')}</title></rect>"
    )


def _mark(x: float, y: float, told: str) -> str:
    return f'<path class="mark" d="M{x:.1f} {y - 7}v14"><title>{_text(told)}</title></path>'


def _cross(x: float, y: float, told: str, *, is_bad: bool) -> str:
    kind = "bad" if is_bad else "mark"
    return f'<path class="{kind}" d="M{x - 5:.1f} {y - 5}l10 10m0 -10l-10 10"><title>{_text(told)}</title></path>'


def _axis(scale: Scale, y: float) -> list[str]:
    """Times below the rows, as many as there is room for, and a sign where the scale is broken."""
    first, last = scale.times[0], scale.times[-1]
    parts = [_time(scale.x(first), y, first, "start")]
    free = scale.x(first) + LETTER * 9
    if last > first:
        parts.append(_time(scale.x(last), y, last, "end"))
    taken = scale.x(last) - LETTER * 11
    where = scale.break_x()
    if where is not None:
        told = f"// {scale.cut:.1f} s, drawn shorter //"
        parts.append(f'<text class="small" x="{where:.1f}" y="{y + 34}" text-anchor="middle">{told}</text>')
    for time in scale.times[1:-1]:
        x = scale.x(time)
        half = LETTER * 5
        if x - half > free and x + half < taken:
            parts.append(_time(x, y, time, "middle"))
            free = x + half
    return parts


def _time(x: float, y: float, time: float, anchor: str) -> str:
    return f'<text class="small" x="{x:.1f}" y="{y + 16}" text-anchor="{anchor}">+{time:.3f}s</text>'


def _legend(y: float) -> list[str]:
    parts, x = [], 16.0
    for kind, label in LEGEND:
        parts.append(f'<rect class="{kind}" x="{x:.1f}" y="{y - 10}" width="16" height="10" rx="2"/>')
        parts.append(f'<text class="small" x="{x + 22:.1f}" y="{y}">{label}</text>')
        x += 40 + LETTER * len(label)
    parts.append(f'<path class="bad" d="M{x:.1f} {y - 9}l8 8m0 -8l-8 8"/>')
    parts.append(f'<text class="small" x="{x + 16:.1f}" y="{y}">ended, not cleanly</text>')
    return parts


def _text(text: str) -> str:
    """Text that XML can hold: what it cannot is shown as a blank."""
    return escape("".join(each if each.isprintable() else " " for each in text))
