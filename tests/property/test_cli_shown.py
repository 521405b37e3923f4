"""What a person sees of a running init: the table of `status` at any width, events on a terminal."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bottle_init.cli import figures, telling
from bottle_init.words.jsonlines import encode, timestamp


def child(name: str, **facts: Any) -> dict[str, Any]:
    return {
        "name": name,
        "kind": "daemon",
        "state": "running",
        "health": "healthy",
        "pid": 4_194_304,
        "uptime_ms": 193_000,
        "restarts": 3,
        "says": "",
        "detail": "",
        "last_exit": None,
        "rss_bytes": 76_000_000,
        "cpu_percent": 12.5,
        "open_files": 14,
        **facts,
    }


def status(*children: dict[str, Any]) -> dict[str, Any]:
    return {"health": "healthy", "policy": "restart", "pid": 1, "stop": None, "lease_ms": None, "children": [*children]}


FACTS = status(child("egress", detail="HTTP 503 from a backend that is far away and slow"), child("a-rather-long-name"))


@given(st.integers(1, 300))
def test_the_table_fits_any_width(width: int) -> None:
    lines = figures.table(FACTS, width).splitlines()
    assert len(lines) == 4
    assert max(map(len, lines)) <= width
    assert all(
        line.startswith(name[:width])
        for line, name in zip(lines[1:], ("NAME", "egress", "a-rather-long-name"), strict=True)
    )


def test_a_narrow_table_keeps_what_tells_most() -> None:
    assert "NOTE" in figures.table(FACTS, 100)
    head = figures.table(FACTS, 60).splitlines()[1].split()
    assert head[0] == "NAME"
    assert {"STATE", "HEALTH"} <= {*head}
    assert not {"FILES", "CPU"} & {*head}
    assert figures.table(FACTS) == figures.table(FACTS, 300)


EXITED = encode("child_exited", "warning", [("child", "web"), ("code", 137), ("signal", 9)], timestamp(0))


def test_an_event_is_a_line_for_people() -> None:
    plain = telling.line_of(EXITED, colour=False)
    assert plain.endswith("  web  ended with code 137, killed by KILL\n")
    assert telling.line_of(EXITED, colour=True) == f"\x1b[33m{plain[:-1]}\x1b[0m\n"


def test_the_first_and_the_last_event_are_told_whole() -> None:
    following = json.dumps({"event": "following", "status": status(child("web"))}).encode()
    assert "NAME" in telling.line_of(following, colour=True, width=80)
    report = json.dumps({"event": "exit_report", "code": 3, "kind": "policy", "cause": "web exited with 3"}).encode()
    assert telling.line_of(report, colour=True) == "It ended with code 3: web exited with 3.\n"


@pytest.mark.parametrize(
    "line", [b"\x1b[2J", b"[]", b'{"event": "new_one", "x": "\\u001b[2J"}', b'{"event": 3}', b"{" * 9]
)
def test_what_is_unknown_moves_no_cursor(line: bytes) -> None:
    shown = telling.line_of(line, colour=False)
    assert shown.endswith("\n")
    assert shown[:-1].isprintable()
