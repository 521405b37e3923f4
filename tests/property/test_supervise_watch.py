"""What supervise tells of the bundle: bounded, current or said not to be, and nothing that a daemon has written."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from sidecars.supervise.watch import FACTS, HISTORY_MAX, TOLD, Watch

AT = "2026-01-31T08:15:00.000250Z"
LATER = "2026-01-31T08:16:00.000000Z"
SECRET = "s3cret"

DAEMON = {"kind": "daemon", "state": "running", "health": "healthy", "state_ms": 1_000, "restarts": 0}
SETUP = {"name": "setup", "kind": "oneshot", "state": "ended", "state_ms": 5, "restarts": 0, "last_exit": None}


def first_line(**differences: object) -> dict[str, Any]:
    """The line that a subscription begins with: one daemon, and the oneshot before it."""
    egress = {**DAEMON, "name": "egress", "last_exit": None, "detail": SECRET, "says": SECRET, **differences}
    return {"event": "following", "timestamp": AT, "status": {"phase": "up", "children": [SETUP, egress]}}


def following(**differences: object) -> Watch:
    """A subscription that has just begun."""
    watch = Watch()
    watch.take(first_line(**differences))
    return watch


def event(name: str, **facts: object) -> dict[str, Any]:
    """An event of the daemon's."""
    return {"event": name, "level": "warning", "child": "egress", **facts, "timestamp": LATER}


def egress(watch: Watch) -> Any:
    """What is reported about the daemon."""
    (daemon,) = watch.status()["daemons"]
    return daemon


def test_the_present_state_is_of_daemons_alone() -> None:
    """The present state has times, and covers only daemons."""
    last = {"code": 137, "signal": 9, "ago_ms": 2_000, "ran_ms": 1, "detail": SECRET}
    told = egress(following(last_exit=last, restarts=1))
    exited = {"code": 137, "signal": 9, "timestamp": "2026-01-31T08:14:58.000250Z"}
    since = "2026-01-31T08:14:59.000250Z"
    assert told == {"name": "egress", "state": "running", "since": since, "restarts": 1, "last_exit": exited}


def test_a_failing_check_of_before_counts() -> None:
    assert egress(following(health="unhealthy"))["state"] == "unhealthy"


def test_a_death_and_the_restart_after_it_are_followed() -> None:
    watch = following()
    states = []
    for name, facts in (
        ("child_exited", {"code": 137, "signal": 9, "severity": "crash"}),
        ("child_restarting", {"restart": 1}),
        ("child_started", {"restart": 1}),
        ("child_ready", {}),
        ("child_unhealthy", {}),
        ("child_healthy", {}),
    ):
        watch.take(event(name, **facts))
        states.append(egress(watch)["state"])
    assert states == ["ended", "backoff", "starting", "running", "unhealthy", "running"]
    assert egress(watch)["restarts"] == 1
    assert egress(watch)["last_exit"] == {"code": 137, "signal": 9, "timestamp": LATER}
    assert watch.status()["recent"][0]["severity"] == "crash"


def test_an_ending_that_was_asked_for_does_not_alarm() -> None:
    watch = following()
    watch.take({**event("child_exited", code=143, signal=15, severity="crash"), "level": "info"})
    assert "severity" not in watch.status()["recent"][0]


def test_a_stop_of_the_bundle_is_told() -> None:
    watch = following()
    assert not watch.status()["stopping"]
    watch.take({"event": "stopping", "level": "info", "kind": "requested", "cause": SECRET, "timestamp": LATER})
    assert watch.status()["stopping"]


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.just(SECRET),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.just(SECRET), inner),
    max_leaves=5,
)
UNTOLD = ("detail", "reason", "last", "last_lines", "process", "command", "answer", "cause", "pid", "says", "exit")
KEYS = st.dictionaries(st.sampled_from(UNTOLD), ANYTHING)


@given(st.lists(st.tuples(st.sampled_from([*sorted(TOLD), "exit_report", "lines_dropped"]), KEYS)))
def test_nothing_but_the_listed_facts_is_told(events: list[tuple[str, dict[str, object]]]) -> None:
    watch = following()
    for name, extra in events:
        watch.take(event(name, **extra))
    told = watch.status()
    assert SECRET not in json.dumps(told)
    assert [entry["event"] for entry in told["recent"]] == [name for name, _ in events if name in TOLD][-HISTORY_MAX:]
    assert all(set(entry) <= set(FACTS) for entry in told["recent"])


def test_the_history_is_bounded() -> None:
    """The history is bounded, and no flood that a daemon causes washes it out."""
    watch = following()
    for code in range(HISTORY_MAX + 20):
        watch.take(event("child_exited", code=code))
    for _ in range(10 * HISTORY_MAX):
        watch.take(event("lines_dropped", count=1))
        watch.take(event("child_reloading"))
    assert [entry["code"] for entry in watch.status()["recent"]] == list(range(20, HISTORY_MAX + 20))


@given(st.sampled_from([b"", b"{", b"[]", b"{}", b"null", b'{"event": "following"}', b'{"event": []}', b"\xff"]))
def test_nonsense_ends_the_subscription_alone(line: bytes) -> None:
    """A line that is not understood ends the subscription and nothing else."""
    watch = Watch()
    watch.follow([json.dumps(first_line()).encode(), line])
    told = watch.status()
    assert told["events"] == "unknown"
    assert told["reason"] == "the init said something that is not understood"
    assert egress(watch)["state"] == "running"


def test_why_the_rest_is_unknown_is_told() -> None:
    for lines, problem, reason in (
        ([], "refused", "refused"),
        ([], "", "the init has ended the subscription"),
        ([b'{"event": "follower_too_slow"}'], "", "supervise was too slow to take the init's events"),
    ):
        watch = Watch()
        assert watch.follow(lines, problem) == reason
        told = watch.status()
        assert (told["events"], told["reason"]) == ("unknown", reason)
