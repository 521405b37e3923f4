"""The table of `status`: what the init tells of its children, with psutil's figures where that is installed."""

from __future__ import annotations

from bottle_init.words.text import plain, span

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from psutil import Process

CLEAR = "\x1b[H\x1b[2J"
HOW_TO_GET_FIGURES = (
    "memory, CPU and open files are shown where psutil is installed: pip install 'bottle-init[figures]'"
)

FIRST_SAMPLE_S = 0.1
"""CPU is a rate: the first figure of it takes two looks, so many seconds apart."""

_HEAD = ("NAME", "KIND", "STATE", "HEALTH", "PID", "UPTIME", "RESTARTS", "RSS", "CPU", "FILES", "NOTE")
_NUMBERS = ("PID", "UPTIME", "RESTARTS", "RSS", "CPU", "FILES")
_NOTE = 60
_SHORTEST_NOTE = 12
_LEFT_OUT = ("FILES", "CPU", "RSS", "KIND", "RESTARTS", "PID", "NOTE", "UPTIME", "HEALTH")
"""What a narrow terminal does without, the least telling first."""


class Figures:
    """Adds `rss_bytes`, `cpu_percent` and `open_files` to the facts of children, each None where it cannot be had.

    A child's figures are those of its process and of all below it. The CPU rate is over the time
    since the last call.
    """

    def __init__(self) -> None:
        self._known: dict[Process, Process] = {}
        try:
            import psutil  # noqa: F401
        except ImportError:
            self.missing = True
        else:
            self.missing = False

    def add(self, children: list[dict[str, Any]]) -> None:
        """Fill in the figures of every child that has a process."""
        families = {} if self.missing else self._families([child["pid"] for child in children if child["pid"]])
        for child in children:
            family = families.get(child["pid"], [])
            child["rss_bytes"] = _sum(family, _rss)
            child["cpu_percent"] = _sum(family, _cpu)
            child["open_files"] = _sum(family, _files)

    def _families(self, leaders: list[int]) -> dict[int, list[Process]]:
        """Each leader with all that is below it, from one look at all processes."""
        import psutil

        below: dict[int, list[Process]] = {}
        by_pid: dict[int, Process] = {}
        for process in psutil.process_iter(["ppid"]):
            known = self._known.get(process, process)
            by_pid[process.pid] = known
            below.setdefault(process.info["ppid"] or 0, []).append(known)
        families = {pid: _tree(by_pid[pid], below) for pid in leaders if pid in by_pid}
        self._sample([process for family in families.values() for process in family])
        return families

    def _sample(self, processes: list[Process]) -> None:
        """See to it that each process has been looked at before, for its CPU rate."""
        from time import sleep

        fresh = [process for process in processes if process not in self._known]
        if fresh:
            for process in fresh:
                _sum([process], _cpu)
            sleep(FIRST_SAMPLE_S)
        self._known = {process: process for process in processes}


def _tree(root: Process, below: dict[int, list[Process]]) -> list[Process]:
    found = [root]
    for process in found:
        found.extend(child for child in below.get(process.pid, ()) if child not in found)
    return found


def _sum(processes: list[Process], figure: Any) -> Any:
    """The figure of all of them; None where there is none, or where one may not be looked at."""
    if not processes:
        return None
    import psutil

    total = None
    for process in processes:
        try:
            total = figure(process) + (total or 0)
        except psutil.NoSuchProcess:
            continue
        except (psutil.AccessDenied, OSError):
            return None
    return total


def _rss(process: Process) -> int:
    return int(process.memory_info().rss)


def _cpu(process: Process) -> float:
    return float(process.cpu_percent(None))


def _files(process: Process) -> int:
    return int(process.num_fds())


def table(facts: dict[str, Any], width: int | None = None) -> str:
    """The facts for people: one line for the bundle, one for each child.

    With a `width`, no line has more characters: first the note is cut, then columns are left out, the least telling
    first; names and states are cut last.
    """
    rows = [_HEAD, *(_row(child) for child in facts["children"])]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
    shown = list(range(len(_HEAD)))
    if width is not None:
        _fit(widths, shown, width)
    lines = [_headline(facts)]
    for row in rows:
        cells = []
        for column in shown:
            cell = row[column][: widths[column]]
            cells.append(cell.rjust(widths[column]) if _HEAD[column] in _NUMBERS else cell.ljust(widths[column]))
        lines.append("  ".join(cells).rstrip())
    return "\n".join(line if width is None else line[: max(width, 1)] for line in lines) + "\n"


def _fit(widths: list[int], shown: list[int], width: int) -> None:
    """Narrow the note, and leave columns out of `shown`, until the line fits."""
    note = _HEAD.index("NOTE")
    for name in ("", *_LEFT_OUT):
        if name:
            shown.remove(_HEAD.index(name))
        excess = sum(widths[column] for column in shown) + 2 * (len(shown) - 1) - width
        if excess > 0 and note in shown and widths[note] - excess >= _SHORTEST_NOTE:
            widths[note] -= excess
            return
        if excess <= 0:
            return


def _headline(facts: dict[str, Any]) -> str:
    line = f"bundle: {facts['health']}, policy {facts['policy']}, init {facts['pid']}"
    if facts["stop"]:
        line += f", stopping for {span(facts['stop']['ago_ms'])}: {facts['stop']['cause']}"
    if facts["lease_ms"] is not None:
        line += f", lease ends in {span(facts['lease_ms'])}"
    return line


def _row(child: dict[str, Any]) -> tuple[str, ...]:
    return (
        child["name"],
        child["kind"],
        child["state"],
        child.get("health", "-"),
        _or_dash(child["pid"]),
        "-" if child["uptime_ms"] is None else span(child["uptime_ms"]),
        str(child["restarts"]),
        "-" if child["rss_bytes"] is None else _size(child["rss_bytes"]),
        "-" if child["cpu_percent"] is None else f"{child['cpu_percent']:.1f}%",
        _or_dash(child["open_files"]),
        plain(_note(child), _NOTE),
    )


def _note(child: dict[str, Any]) -> str:
    """What a reader would ask next: why it is not well, else what it says of itself, else how it ended last."""
    if child.get("detail"):
        return str(child["detail"])
    if child["says"]:
        return str(child["says"])
    death = child["last_exit"]
    if death is None:
        return ""
    how = f"killed by signal {death['signal']}" if death["signal"] else f"exited with {death['code']}"
    return f"{how} {span(death['ago_ms'])} ago"


def _or_dash(value: object) -> str:
    return "-" if value is None else str(value)


def _size(count: int) -> str:
    """Bytes in the largest fitting unit of 1024: `812K`, `23.5M`, `1.2G`."""
    size = count / 1024
    for unit in "KMG":
        if size < 1000 or unit == "G":
            return f"{size:.0f}{unit}" if unit == "K" or size >= 100 else f"{size:.1f}{unit}"
        size /= 1024
    raise AssertionError("unreachable")
