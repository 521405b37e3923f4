"""Samples, and how they are summed up: medians, quartiles, ratios round by round."""

from __future__ import annotations

from statistics import median, quantiles
from typing import NamedTuple


class Spread(NamedTuple):
    """Median and quartiles of so many samples."""

    median: float
    low: float
    high: float
    samples: int


def spread(samples: list[float]) -> Spread:
    """Raises ValueError without samples."""
    if not samples:
        raise ValueError("no samples")
    if len(samples) == 1:
        return Spread(samples[0], samples[0], samples[0], 1)
    low, _, high = quantiles(samples, n=4, method="inclusive")
    return Spread(median(samples), low, high, len(samples))


def percentile(samples: list[float], share: float) -> float:
    """The smallest sample that at least this share of them does not exceed."""
    ordered = sorted(samples)
    return ordered[max(0, -(-int(share * 1_000) * len(ordered) // 1_000) - 1)]


class Samples:
    """What was measured: by metric, peer and round."""

    def __init__(self) -> None:
        self._of: dict[str, dict[str, dict[str, float]]] = {}

    def add(self, round_name: str, peer: str, metrics: dict[str, float]) -> None:
        """The metrics of one peer in one round."""
        for metric, value in metrics.items():
            self._of.setdefault(metric, {}).setdefault(peer, {})[round_name] = value

    def peers(self, metric: str) -> list[str]:
        """Who has been measured."""
        return list(self._of.get(metric, {}))

    def spread(self, metric: str, peer: str) -> Spread | None:
        """None where that was not measured."""
        samples = self._of.get(metric, {}).get(peer)
        return spread(list(samples.values())) if samples else None

    def ratio(self, metric: str, peer: str, other_metric: str, other: str) -> Spread | None:
        """The ratio of two measurements in the same round, over all rounds that have both."""
        ours = self._of.get(metric, {}).get(peer, {})
        theirs = self._of.get(other_metric, {}).get(other, {})
        ratios = [value / theirs[name] for name, value in ours.items() if theirs.get(name)]
        return spread(ratios) if ratios else None
