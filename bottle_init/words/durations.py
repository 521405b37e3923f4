"""Durations as people write them: `500ms`, `1m30s`, `1.5h`."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

UNITS_MS: Final = {"h": 3_600_000, "m": 60_000, "s": 1_000, "ms": 1}
"""The units, in the order in which they may follow each other."""

LONGEST_MS: Final = 10 * 365 * 24 * 3_600_000
"""Ten years: what is longer is a slip of the pen."""

_DIGITS = "0123456789"


def parse_ms(text: str) -> float:
    """A duration in milliseconds, not rounded. Raises ValueError for what is none."""
    total, units = 0.0, list(UNITS_MS)
    rest = text
    while rest:
        tail = rest.lstrip(_DIGITS + ".")
        unit = next((unit for unit in ("ms", *units) if tail.startswith(unit)), "")
        number = rest[: len(rest) - len(tail)]
        if unit not in units or not _is_number(number):
            raise ValueError(text)
        total += float(number) * UNITS_MS[unit]
        del units[: units.index(unit) + 1]
        rest = tail[len(unit) :]
    if not text:
        raise ValueError(text)
    return total


def _is_number(text: str) -> bool:
    """Digits, with more of them after a point or without."""
    whole, point, fraction = text.partition(".")
    return bool(whole) and not whole.strip(_DIGITS) and not fraction.strip(_DIGITS) and bool(fraction) == bool(point)


def spell(ms: int) -> str:
    """`1m30s` for 90,000."""
    parts = []
    for unit, size_ms in UNITS_MS.items():
        count, ms = divmod(ms, size_ms)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"
