"""`explain` (contract 7): the story of whatever it is given, and never a traceback."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bottle_init.cli import drawing, explain
from tests.integration.support.init import PATIENCE_S, ROOT, running
from tests.integration.support.one_command import ENVIRON
from tools import timeline

REPORT: dict[str, Any] = {
    "event": "exit_report",
    "level": "error",
    "code": 137,
    "kind": "policy",
    "cause": "egress was killed by signal 9 (out of memory)",
    "sender": None,
    "culprit": "egress",
    "stop_ms": 5012,
    "deaths": [
        {"name": "egress", "code": 137, "signal": "KILL", "severity": "crash", "oom": True, "last_lines": ["help!"]},
        {"name": "git-gate", "code": 137, "signal": "KILL", "severity": "forced", "forced": True, "stop_ms": 5000},
        {"name": "pipelock", "code": 3, "signal": None, "severity": "failure", "detail": "", "last_lines": ["\x1b[2J"]},
        {"name": "supervise", "code": 143, "signal": "TERM", "severity": "clean", "sent_by_init": True},
    ],
    "survivors": [{"pid": 77, "name": "sleep", "command": "sleep 1000"}],
    "lines_dropped": 12,
    "timestamp": "2026-01-31T08:15:05.250000Z",
}

STARTED = {
    "event": "child_started",
    "level": "info",
    "child": "egress",
    "pid": 7,
    "timestamp": "2026-01-31T08:15:00.000000Z",
}


def line(event: dict[str, Any]) -> bytes:
    """An event as it stands in a log."""
    return json.dumps(event).encode() + b"\n"


def told(*lines: bytes) -> str:
    """The story of a log."""
    return explain.story(lines)


def shell(script: str, *arguments: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
    """A shell script in which `"$@"` is `bottle_init explain` with these arguments."""
    words = ["sh", "-c", script, "sh", sys.executable, "-m", "bottle_init", "explain", *arguments]
    return subprocess.run(
        words, env=ENVIRON, input=text, capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )


def command(*arguments: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
    """`bottle_init explain`, as a user runs it; `text` is its standard input."""
    return shell('exec "$@"', *arguments, text=text)


def test_a_report_is_one_paragraph_and_the_last_words() -> None:
    paragraph, words, *rest = told(line(REPORT)).split("\n\n")
    assert paragraph == (
        "It ended with code 137: egress was killed by signal 9 (KILL) (out of memory). "
        "The kernel killed egress for lack of memory. "
        "git-gate did not stop when asked and was killed after 5.0s. pipelock exited with 3. "
        "supervise ended cleanly. The stop took 5.0s. "
        "Left behind by those that had ended, and ended by the init: sleep (77). "
        "12 log lines were dropped, because nobody read them."
    )
    assert words == "Last lines of egress:\n  help!"
    assert rest[0] == "Last lines of pipelock:\n   [2J", "what would move the cursor does not reach the terminal"


def test_a_report_alone_has_a_timeline() -> None:
    """A report without a log has a timeline of what the report knows."""
    ended = {"egress": (0, 900, False), "git-gate": (5_000, 5_900, True), "supervise": (0, 100, True)}
    deaths = [
        {**death, "ended_ms": ended[name][0], "ran_ms": ended[name][1], "during_stop": ended[name][2], "pid": 7}
        for death in REPORT["deaths"]
        if (name := death["name"]) in ended
    ]
    assert told(line({**REPORT, "deaths": deaths})).endswith(
        "Timeline, from 2026-01-31T08:14:59.338000Z:\n"
        "       +0.000s  egress     started as process 7\n"
        "       +0.000s  git-gate   started as process 7\n"
        "       +0.800s  supervise  started as process 7\n"
        "       +0.900s  egress     ended with code 137, killed by KILL, crash, out of memory\n"
        "       +0.900s             the stop begins, policy: egress was killed by signal 9 (KILL) (out of memory)\n"
        "       +0.900s  supervise  ended with code 143, killed by TERM, clean\n"
        "       +5.900s  git-gate   ended with code 137, killed by KILL, forced\n"
        "       +5.912s             the end, with code 137\n"
    )


def test_who_asked_is_told() -> None:
    asked = {**REPORT, "code": 0, "kind": "requested", "cause": "signal 15", "culprit": None, "deaths": []}
    outside = told(line({**asked, "sender": {"pid": 0, "uid": 0, "name": None}}))
    assert outside.startswith("It ended with code 0: it was asked to stop by signal 15 (TERM), which came from outside")
    inside = told(line({**asked, "sender": {"pid": 12, "uid": 1000, "name": "sh"}}))
    assert "signal 15 (TERM), sent by process 12 (sh), user 1000." in inside


def test_a_log_has_a_timeline_too() -> None:
    story = told(b"[egress] listening\n", line(STARTED), b"[egress] Killed\n", line(REPORT))
    assert story.endswith(
        "Timeline, from 2026-01-31T08:15:00.000000Z:\n"
        "       +0.000s  egress  started as process 7\n"
        "       +5.250s          the end, with code 137\n"
    )


def test_log_drivers_prefixes_do_not_matter() -> None:
    """What a log driver puts before a line does not matter."""
    plain = told(line(STARTED), line(REPORT))
    for prefix in (b"2026-01-31T08:15:00.123456789Z ", b"sidecars-1  | ", b"Jan 31 08:15:00 host bottle[12]: "):
        assert told(prefix + line(STARTED), prefix + line(REPORT)) == plain


def test_what_a_daemon_says_is_not_the_inits() -> None:
    """Neither with `logs = "tag"` nor with `"json"` can it forge an end of the story."""
    forged = line({**REPORT, "cause": "forged"})
    tagged = b"2026-01-31T08:15:00Z [egress] " + forged
    after_words = b"[egress] something and \r" + forged
    as_json = line({"event": "exit_report", "logger": "egress", "cause": "forged"})
    with pytest.raises(explain.Unreadable):
        told(tagged, after_words, as_json)
    assert "forged" not in told(line(STARTED), tagged, after_words, as_json, line(REPORT))


def test_the_last_of_several_lives_is_told() -> None:
    """The story of a container that was restarted is that of its last life."""
    earlier = {**REPORT, "code": 3, "cause": "an earlier one"}
    story = told(line(STARTED), line(earlier), line({**STARTED, "pid": 8}), line(REPORT))
    assert "process 8" in story
    assert "process 7" not in story
    assert "earlier" not in story


def test_a_log_without_an_end_says_so() -> None:
    assert told(line(STARTED)).startswith("The log ends without an exit report")


def test_an_internal_error_needs_no_report() -> None:
    """An internal error of the init is in the story even without a report."""
    story = told(line(STARTED), line({"event": "internal_error", "level": "critical", "code": 70}))
    assert story.startswith("The init itself failed")


@pytest.mark.timeout(120)
def test_a_long_log_is_read_once() -> None:
    """Minutes, not seconds, if each line that is not the init's cost what all those before it did."""
    assert told(*[b"[egress] a line\n"] * 1_000_000, line(REPORT)).startswith("It ended with code 137")


def test_what_is_kept_of_a_log_is_bounded() -> None:
    """The defence is `_EVENTS_BYTES`: where daemons write as they like, anything may look like an event."""
    large = json.dumps({"event": "child_ready", "child": "web", "after_ms": 1, "more": "x" * (6 << 20)}).encode()
    life = explain.life_of([large] * 10)
    assert (len(life.events), life.earlier) == (2, 8)
    life = explain.life_of([b'{"event":"child_ready","child":"web","after_ms":1}'] * (explain.EVENTS_KEPT + 3))
    assert (len(life.events), life.earlier) == (explain.EVENTS_KEPT, 3)


def test_a_report_that_was_spread_over_lines_is_read() -> None:
    assert told(*json.dumps(REPORT, indent=2, sort_keys=True).encode().splitlines(True)) == told(line(REPORT))


def test_a_long_life_is_told_from_its_end() -> None:
    lines = [line({**STARTED, "pid": number}) for number in range(explain.EVENTS_KEPT + 5)]
    story = told(*lines, line(REPORT))
    assert "(5 earlier events are not shown)" in story
    assert "process 4\n" not in story
    assert "process 5\n" in story


def test_the_documentations_example_is_what_it_prints() -> None:
    page = (ROOT / "docs" / "report.md").read_text()
    example = page.partition("$ docker logs my-bundle 2>&1 | bottle-init explain\n")[2].partition("```")[0]
    assert told(*timeline.log()) == example


# The picture.


def elements(picture: str) -> list[ET.Element]:
    """All elements of an SVG that is well-formed XML."""
    return list(ET.fromstring(picture).iter())  # noqa: S314 - The picture is our own.


def titles(picture: str) -> list[str]:
    return [element.text or "" for element in elements(picture) if element.tag.endswith("}title")]


def test_the_documentations_picture_is_drawn() -> None:
    assert timeline.PICTURE.read_text() == timeline.picture(), "make docs"


def test_a_picture_has_all_that_the_timeline_has() -> None:
    """Each event is a mark with its words; each process a bar in pieces, from its start to its end."""
    picture = timeline.picture()
    life = explain.life_of(timeline.log())
    told_in_it = titles(picture)
    for event in explain.told_events(life):
        assert any(explain.phrase(event) in title for title in told_in_it), event
    bars = [
        (element.get("class"), float(element.get("x", "0")), float(element.get("width", "0")))
        for element in elements(picture)
        if element.get("rx") and element.get("height") == "14"
    ]
    assert [kind for kind, _, _ in bars] == ["starting", "starting", "running", "starting", "running"]
    assert all(drawing.SHORTEST <= width < drawing.WIDTH and x + width <= drawing.WIDTH for _, x, width in bars)
    assert "// 52.3 s, drawn shorter //" in picture


def test_a_report_alone_is_drawn(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    deaths = [{**death, "ended_ms": 10, "ran_ms": 2_000} for death in REPORT["deaths"]]
    path.write_bytes(line({**REPORT, "deaths": deaths}))
    end = command("--svg", str(path))
    assert (end.returncode, end.stderr) == (0, "")
    assert len([title for title in titles(end.stdout) if "ended with code" in title]) >= len(deaths)
    (tmp_path / "no-time").write_bytes(b'{"event": "stopping"}')
    end = command("--svg", str(tmp_path / "no-time"))
    assert (end.returncode, end.stdout, end.stderr.count("\n")) == (1, "", 1)


# Bad input.


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=10,
)
KEYS = st.sampled_from([*REPORT, *STARTED, *(key for death in REPORT["deaths"] for key in death), "after_ms", "reason"])
ANY_EVENT = st.builds(
    lambda name, facts: {**facts, "event": name},
    st.sampled_from([*explain.PHRASES, explain.REPORT]),
    st.dictionaries(KEYS, JSON | st.lists(st.dictionaries(KEYS, JSON, max_size=5), max_size=3), max_size=8),
)


@given(st.lists(ANY_EVENT, min_size=1, max_size=5))
def test_an_event_of_any_shape_is_told(events: list[dict[str, Any]]) -> None:
    lines = [line(event) for event in events]
    told(*lines)
    with suppress(explain.Unreadable):
        elements(drawing.svg(explain.life_of(lines)))


@given(st.lists(st.binary(max_size=200) | st.just(line(REPORT)[:100]), max_size=5))
def test_any_other_bytes_are_refused_in_one_sentence(lines: list[bytes]) -> None:
    with pytest.raises(explain.Unreadable):
        told(*lines)


def test_bad_input_gets_one_line_and_1(tmp_path: Path) -> None:
    binary = tmp_path / "binary"
    binary.write_bytes(bytes(range(256)) * 1_000)
    deep = tmp_path / "deep"
    deep.write_bytes(b'{"event": ' + b"[" * 1_000_000)
    for path in (tmp_path / "missing", tmp_path, binary, deep, Path("/proc/self/mem")):
        end = command(str(path))
        assert (end.returncode, end.stdout) == (1, "")
        assert end.stderr.startswith("bottle-init explain: ")
        assert end.stderr.count("\n") == 1
    for given_input in ("", "\n\n", "no event\n"):
        end = command(text=given_input)
        assert (end.returncode, end.stdout, end.stderr.count("\n")) == (1, "", 1)
    closed = shell('"$@" <&-', "-")
    assert (closed.returncode, closed.stderr.count("\n")) == (1, 1)


def test_a_closed_pipe_gives_no_traceback(tmp_path: Path) -> None:
    """A reader that has seen enough gets no traceback."""
    path = tmp_path / "log"
    path.write_bytes(line(STARTED) * 5_000 + line(REPORT))
    end = shell('"$@" | head -n 1', str(path))
    assert end.stdout.startswith("It ended with code 137")
    assert end.stderr == ""


@pytest.mark.real
def test_a_real_bundles_log_and_report(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    bundle = """
        [daemons.steady]
        command = ["sleep", "1000"]
        [daemons.crasher]
        command = ["sh", "-c", "echo about to crash; kill -SEGV $$"]
        after = ["steady"]
    """
    with running(tmp_path, bundle, f"--report={path}") as init:
        assert init.wait() == 139
        log = "".join(f"{text}\n" for text in [*init.out, *init.err])
    short = command(str(path)).stdout
    paragraph = "It ended with code 139: crasher was killed by signal 11 (SEGV). steady ended cleanly."
    assert short.startswith(paragraph)
    assert "crasher  ended with code 139, killed by SEGV, crash\n" in short
    assert "Last lines of crasher:\n  about to crash\n" in short
    long = command(text=log)
    assert long.returncode == 0
    assert long.stdout.startswith(paragraph)
    assert "crasher  ended with code 139, killed by SEGV, crash" in long.stdout
