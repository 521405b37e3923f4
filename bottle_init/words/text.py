"""Foreign bytes as text for people: one line, printable, of a bounded length."""

from __future__ import annotations


def plain(raw: bytes | str, limit: int) -> str:
    """At most `limit` characters of `raw` on one line, with everything that could move a cursor replaced."""
    text = raw.decode("utf-8", "replace") if isinstance(raw, bytes) else raw
    text = text.strip()
    if len(text) > limit:
        text = text[: limit - 3] + "..."
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else " " for character in text)


def span(ms: int) -> str:
    """A time of so many milliseconds in its two largest units: `0.4s`, `42s`, `3m12s`, `5h03m`, `2d04h`."""
    seconds = ms // 1_000
    if seconds < 10:
        return f"{max(ms, 0) / 1_000:.1f}s"
    if seconds < 60:
        return f"{seconds}s"
    if seconds < 3_600:
        return f"{seconds // 60}m{seconds % 60:02}s"
    if seconds < 86_400:
        return f"{seconds // 3_600}h{seconds // 60 % 60:02}m"
    return f"{seconds // 86_400}d{seconds // 3_600 % 24:02}h"
