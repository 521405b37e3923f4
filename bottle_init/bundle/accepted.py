"""What a bundle file says although it is the default: that somebody has thought of it."""

from __future__ import annotations

from bottle_init.bundle import toml


def lone_daemons(text: bytes | str) -> tuple[str, ...]:
    """The daemons in whose tables `restart_dependents = false` is written: those that are after them run on."""
    content, _ = toml.read(text)
    daemons = (content or {}).get("daemons")
    if not isinstance(daemons, dict):
        return ()
    return tuple(
        name for name, table in daemons.items() if isinstance(table, dict) and table.get("restart_dependents") is False
    )
