"""The two clocks: one that only goes forward, and one for people."""

from __future__ import annotations

from time import clock_gettime, monotonic_ns

CLOCK_REALTIME = 0


def monotonic_ms() -> int:
    """Whole milliseconds of CLOCK_MONOTONIC. Every deadline is on this clock, so clock steps change nothing."""
    return monotonic_ns() // 1_000_000


def wall_s() -> float:
    """Seconds since the epoch, for timestamps in logs and for nothing else."""
    return clock_gettime(CLOCK_REALTIME)
