"""What containers use, read from /proc: their processes, the engine's, and the shims between."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from benchmarks.processes import pss_mb

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

ENGINE = ("dockerd", "containerd", "containerd-shim")
"""Names of processes as proc(5)'s `stat` cuts them, at 15 bytes."""
TICKS = os.sysconf("SC_CLK_TCK")


class Process(NamedTuple):
    """One line of proc(5)'s `stat`; the CPU time contains that of the children it has reaped."""

    parent: int
    name: str
    cpu_s: float


def everything() -> dict[int, Process]:
    """All processes of this machine, by pid."""
    found: dict[int, Process] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            head, _, rest = path.read_text().rpartition(") ")
        except OSError:
            continue
        fields = rest.split()
        cpu_s = sum(map(int, fields[11:15])) / TICKS
        found[int(path.parent.name)] = Process(int(fields[1]), head.partition("(")[2][:15], cpu_s)
    return found


def below(roots: Collection[int], processes: dict[int, Process]) -> set[int]:
    """These processes and all that descend from them."""
    return {pid for pid in processes if _descends(pid, roots, processes)}


def _descends(pid: int, roots: Collection[int], processes: dict[int, Process]) -> bool:
    while pid in processes and pid not in roots:
        pid = processes[pid].parent
    return pid in roots


def cpu_s(roots: Collection[int]) -> float:
    """CPU seconds of these processes and of all below them so far."""
    processes = everything()
    return sum(processes[pid].cpu_s for pid in below(roots, processes))


def used() -> dict[str, float]:
    """CPU seconds of the engine and of all containers so far, and the PSS of shims and containers in MB.

    A health check is what it costs the engine as well. Engines inside of containers count for nothing of their own.
    """
    processes = everything()
    here = _pid_namespace("self")
    engine = {pid for pid, each in processes.items() if each.name in ENGINE and _pid_namespace(pid) == here}
    shims = {pid for pid in engine if processes[pid].name == "containerd-shim"}
    inside = below(shims, processes)
    return {"cpu_s": sum(processes[pid].cpu_s for pid in engine | inside), "pss_mb": held_mb(shims | inside)}


def _pid_namespace(pid: int | str) -> str:
    try:
        return os.readlink(f"/proc/{pid}/ns/pid")
    except OSError:
        return ""


def held_mb(pids: Iterable[int]) -> float:
    """The PSS of processes, of which some may have ended meanwhile."""
    total = 0.0
    for pid in pids:
        try:
            total += pss_mb([pid])
        except OSError:
            continue
    return total
