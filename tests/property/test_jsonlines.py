"""The init's own event lines: any JSON reader gets back what was said (`bottle_init.words.jsonlines`)."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import structlog
from hypothesis import given
from hypothesis import strategies as st

from bottle_init.words import jsonlines

NOW = "2026-01-31T08:15:00.000250Z"

# Everything that JSON can represent; text without lone surrogates, which have none.
text = st.text(st.characters(exclude_categories=["Cs"]))
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | text,
    lambda inner: st.lists(inner) | st.dictionaries(text, inner),
    max_leaves=6,
)
facts = st.dictionaries(text.filter(lambda key: key not in ("event", "level", "timestamp")), values)


@given(text, st.sampled_from(["info", "warning", "error"]), facts)
def test_a_line_reads_back_as_it_was(event: str, level: str, said: dict[str, object]) -> None:
    """A JSON reader gets back what was said, from one line of ASCII."""
    line = jsonlines.encode(event, level, said.items(), NOW)
    assert json.loads(line) == {"event": event, "level": level, **said, "timestamp": NOW}
    assert all(0x20 <= byte < 0x80 for byte in line)


@given(text, facts)
def test_a_line_is_what_structlog_writes(event: str, said: dict[str, object]) -> None:
    out = io.StringIO()
    renderer = structlog.processors.JSONRenderer()
    out.write(str(renderer(None, "info", {"event": event, "level": "info", **said, "timestamp": NOW})))
    assert jsonlines.encode(event, "info", said.items(), NOW).decode() == out.getvalue()


@given(st.text(), st.binary())
def test_what_json_cannot_say_is_still_said(odd: str, raw: bytes) -> None:
    """Lone surrogates (file names that are no UTF-8), bytes, floats that are not finite, objects of any kind."""
    said = {"odd": odd, "raw": raw, "never": float("inf"), "none": float("nan"), "object": complex(1, 2)}
    found = json.loads(jsonlines.encode("odd", "info", said.items(), NOW))
    assert found["odd"] == odd.encode("utf-8", "backslashreplace").decode()
    assert found["raw"] == raw.decode("utf-8", "replace")
    assert found["never"] is None
    assert found["none"] is None
    assert found["object"] == "(1+2j)"


@given(st.tuples(st.integers(), text))
def test_a_tuple_is_an_array(pair: tuple[int, str]) -> None:
    assert json.loads(jsonlines.encode("pair", "info", [("pair", pair)], NOW))["pair"] == list(pair)


@given(st.datetimes(min_value=datetime(1970, 1, 1), max_value=datetime(2999, 12, 31)))  # noqa: DTZ001 - UTC below.
def test_a_timestamp_is_what_datetime_says(naive: datetime) -> None:
    moment = naive.replace(tzinfo=UTC)
    seconds = (moment - datetime(1970, 1, 1, tzinfo=UTC)) / timedelta(seconds=1)
    found = datetime.fromisoformat(jsonlines.timestamp(seconds))
    # A float holds seconds since 1970 to a quarter of a microsecond, or a few of them further out.
    assert abs(found - moment) <= timedelta(microseconds=8)


def test_a_timestamp_is_structlogs() -> None:
    """A timestamp has the form that structlog gives it."""
    assert jsonlines.timestamp(1_000_000_000.00025) == "2001-09-09T01:46:40.000250Z"
    assert jsonlines.timestamp(0.9999999) == "1970-01-01T00:00:01.000000Z"


def test_plain_events_import_nothing_expensive() -> None:
    """Plain events import nothing that PID 1 would pay for."""
    code = (
        "import sys; before = set(sys.modules)\n"
        "from bottle_init.words import jsonlines\n"
        "jsonlines.encode('started', 'info', [('child', 'egress'), ('pid', 7)], jsonlines.timestamp(1.5))\n"
        "print(*sorted(set(sys.modules) - before))\n"
    )
    done = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["__future__", "bottle_init", "bottle_init.words", "bottle_init.words.jsonlines"]
