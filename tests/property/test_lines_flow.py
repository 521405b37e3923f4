"""How lines flow to a reader that stalls (contract 8): the decisions by themselves, and in exact virtual time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bottle_init.core import flow
from bottle_init.core.flow import FLUSH_STALL_MS, STALL_MS, Account, Farewell, Outlet
from bottle_init.core.spec import Bundle, Probe, Ready, Spec
from bottle_init.core.words import DAEMON, JOB
from bottle_init.testing import End, Freeze, Life, Logs, Scenario, Stall, Trace, Write, check, render, simulate

FLOOD = Write(1_000, 400, 4_000)
"""More than a pipe, the queue and another pipe hold."""
ONE = Bundle((Spec("a", DAEMON, ("a",)),))
FOREVER_MS = 1_000_000


def run(*lives: Life, bundle: Bundle = ONE, stop_at_ms: int = 30_000, **facts: object) -> Trace:
    """One life of the bundle in which nothing is broken."""
    scenario = Scenario(bundle, tuple((life,) for life in lives), stop_at_ms=stop_at_ms, **facts)  # type: ignore[arg-type]
    trace = simulate(scenario)
    assert not check(trace), render(trace, check(trace))
    return trace


def logs_of(trace: Trace) -> Logs:
    assert trace.logs is not None
    return trace.logs


def dropped(trace: Trace) -> int:
    return sum(account.lost for account in logs_of(trace).accounts)


def told(trace: Trace) -> list[tuple[int, str]]:
    return logs_of(trace).story


# In virtual time.


@pytest.mark.parametrize("for_ms", [100, STALL_MS - 1])
def test_a_child_ahead_of_its_reader_waits(for_ms: int) -> None:
    """A child ahead of its reader waits, and loses nothing within a second."""
    trace = run(Life(run_ms=1_000, writes=(FLOOD,)), bundle=job(), stalls=(Stall(1_000, for_ms),))
    assert dropped(trace) == 0
    assert told(trace) == [(1_000, "a is made to wait for the reader")]
    assert trace.processes[0].ended_ms == 1_000 + for_ms  # What it had begun to write kept it from its end.
    assert logs_of(trace).reader.got.count(b"\n") == 400


def test_lines_are_dropped_after_a_second() -> None:
    """After a second lines are dropped, and no child waits any more."""
    trace = run(Life(run_ms=1_000, writes=(FLOOD,)), bundle=job(), stalls=(Stall(1_000, FOREVER_MS),))
    assert next(loss.at_ms for loss in logs_of(trace).losses if not loss.closing) == 1_000 + STALL_MS
    assert trace.processes[0].ended_ms == 1_000 + STALL_MS
    assert dropped(trace) > 0


def test_a_stop_waits_for_no_stalled_reader() -> None:
    """During a stop a stalled reader is not waited for at all."""
    trace = run(Life(catches=(15,), stop_ms=50, writes=(FLOOD,)), stalls=(Stall(0, FOREVER_MS),), stop_at_ms=1_300)
    assert trace.exit is not None
    assert trace.exit.code == 0
    assert trace.end_ms == 1_350
    assert dropped(trace) > 0


@pytest.mark.parametrize("sip_bytes", [1, 100, 8_192])
def test_a_reader_of_sips_is_waited_for(sip_bytes: int) -> None:
    """A reader that takes anything twice a second is waited for."""
    trace = run(Life(writes=(FLOOD,)), stalls=(Stall(0, 20_000, sip_bytes),))
    assert dropped(trace) == 0
    assert trace.logs is not None
    assert trace.logs.reader.got.count(b"\n") == 400


def test_an_unscheduled_init_was_not_refused() -> None:
    """An init that was not scheduled for a minute has not been refused for a minute."""
    life = Life(writes=(FLOOD, Write(70_000, 1)))
    trace = run(life, stalls=(Stall(1_000, 500),), freezes=(Freeze(1_200, 60_000),), stop_at_ms=100_000)
    assert dropped(trace) == 0


def test_a_loss_is_told_before_the_next_line() -> None:
    """A loss is reported before the line that follows it."""
    life = Life(writes=(FLOOD, Write(6_000, 1)))
    trace = run(life, stalls=(Stall(500, 5_000),), one_pipe=True)
    text = logs_of(trace).reader.got.decode()
    event, last = text.index('{"event": "lines_dropped a'), text.index("[a] 1 400 ")
    assert event < last
    assert f"lines_dropped a {dropped(trace)}" in text
    assert dropped(trace) > 0


def test_two_losses_are_told_once_each() -> None:
    bundle = Bundle((Spec("a", DAEMON, ("a",)), Spec("b", DAEMON, ("b",))))
    life = Life(writes=(FLOOD,))
    trace = run(life, life, bundle=bundle, stalls=(Stall(500, 5_000),), one_pipe=True)
    assert sorted(name for name, _ in logs_of(trace).told if name) == ["a", "b"]


def test_a_waiting_writer_is_not_ready() -> None:
    """A writer that waits is not ready before it goes on."""
    first = Spec("a", DAEMON, ("a",), ready=Ready(Probe("tcp", port=1)))
    bundle = Bundle((first, Spec("b", DAEMON, ("b",), ("a",))))
    life = Life(ready_ms=100, writes=(Write(0, 400, 4_000),))
    trace = run(life, Life(), bundle=bundle, stalls=(Stall(0, 700),))
    assert 700 <= trace.processes[1].born_ms <= 700 + 250


def test_a_signal_acts_on_a_writer_that_waits() -> None:
    by_default = run(Life(writes=(FLOOD,)), stalls=(Stall(0, FOREVER_MS),), stop_at_ms=1_500)
    by_a_handler = run(
        Life(catches=(15,), stop_end=End(3), writes=(FLOOD,)), stalls=(Stall(0, FOREVER_MS),), stop_at_ms=1_500
    )
    assert by_default.end_ms == by_a_handler.end_ms == 1_500
    assert by_a_handler.exit is not None
    assert by_a_handler.exit.code == 3


@given(st.integers(0, 5_000), st.sampled_from([Life(), Life(run_ms=1_500, end=End(3)), Life(catches=(15,))]))
def test_a_stall_delays_no_signal_no_stop_and_no_death(at_ms: int, life: Life) -> None:
    """A child that writes nothing is not affected: every step is the same, at the same time."""
    flooding = Bundle((Spec("a", DAEMON, ("a",)), Spec("b", DAEMON, ("b",), policy="wait-for-all")))
    lives = ((life,), (Life(writes=(Write(0, 400, 4_000),)),))
    stalled, free = (
        simulate(Scenario(flooding, lives, stalls=stalls, stop_at_ms=2_000))
        for stalls in ((Stall(at_ms, FOREVER_MS),), ())
    )
    assert [(step.now_ms, step.actions) for step in stalled.steps] == [(s.now_ms, s.actions) for s in free.steps]


def job() -> Bundle:
    return Bundle((Spec("a", JOB, ("a",)),))


# The decisions by themselves.

LINES = st.lists(st.binary(max_size=12).map(lambda raw: raw.replace(b"\n", b"") + b"\n"), min_size=1, max_size=4)


@given(st.lists(st.one_of(LINES.map(b"".join), st.integers(1, 40), st.just("fail"), st.just("refuse")), max_size=40))
def test_every_line_arrives_whole_or_is_counted(happenings: list[bytes | int | str]) -> None:
    """Every line reaches the reader whole, or is counted."""
    outlet, account = Outlet(), Account("a", "stdout")
    written = got = b""
    for now_ms, happening in enumerate(happenings):
        if isinstance(happening, bytes):
            outlet.queue(happening, account)
            written += happening
        elif happening == "refuse":
            outlet.refused(now_ms)
        elif happening == "fail":
            outlet.failed()
        elif isinstance(happening, int):
            data = b"".join(outlet.head())[:happening]
            outlet.took(len(data))
            got += data
        waiting = b"".join(outlet.head())
        assert outlet.size == len(waiting) + flow.BLOCK_BYTES * len(outlet.head())
    whole = got + b"".join(outlet.head())
    assert whole.count(b"\n") + account.lost == written.count(b"\n")
    left = iter(written.splitlines(keepends=True))
    assert all(line in left for line in whole.splitlines(keepends=True))  # As they were, in their order.


@given(st.lists(st.tuples(st.integers(0, 1_500), st.integers(0, 3), st.booleans()), max_size=20))
def test_a_reader_is_given_up_after_a_second(
    answers: list[tuple[int, int, bool]],
) -> None:
    """A reader is given up only when it has refused for a second."""
    outlet, now_ms, took_ms, unread = Outlet(), 0, 0, 1_000
    asked = False
    for pause_ms, sip, moved in answers:
        now_ms += pause_ms
        unread -= sip
        if sip or moved or not asked:
            took_ms = now_ms
        outlet.refused(now_ms, unread, moved=moved)
        asked = True
        assert outlet.stalled() == (now_ms - took_ms >= STALL_MS)
        assert outlet.due_ms() == took_ms + STALL_MS


def test_a_queue_makes_wait_or_drops_and_never_both() -> None:
    outlet, account = Outlet(), Account("a", "stdout")
    outlet.queue(b"x" * flow.QUEUE_BYTES + b"\n", account)
    outlet.refused(0)
    assert (outlet.holds_up(), outlet.drops(), outlet.lets_go_on()) == (True, False, False)
    outlet.refused(STALL_MS - 1)
    assert (outlet.holds_up(), outlet.drops()) == (True, False)
    outlet.refused(STALL_MS)
    assert (outlet.holds_up(), outlet.drops()) == (False, True)
    outlet.took(1)
    outlet.refused(STALL_MS, moved=True)
    assert (outlet.holds_up(), outlet.drops()) == (True, False)
    outlet.hurry()
    assert (outlet.holds_up(), outlet.drops()) == (False, True)


@pytest.mark.parametrize("deadline_ms", [0, 1_000])
def test_the_last_lines_wait_until_the_deadline(deadline_ms: int) -> None:
    """The last lines are offered for as long as they are taken, and never beyond the deadline."""
    farewell = Farewell(500, deadline_ms)
    end_ms = max(deadline_ms, 500 + FLUSH_STALL_MS)
    assert farewell.until_ms(10_000, 0, 500) == 500 + FLUSH_STALL_MS
    now_ms = 500
    for pending in range(9_999, 0, -1):
        now_ms += FLUSH_STALL_MS - 1
        until_ms = farewell.until_ms(pending, 0, now_ms)
        if until_ms is None:
            break
        assert until_ms == min(now_ms + FLUSH_STALL_MS, end_ms)
    assert end_ms <= now_ms < end_ms + FLUSH_STALL_MS
    assert Farewell(0, 8_000).until_ms(0, 0, 0) is None
    stalling = Farewell(0, 8_000)
    assert stalling.until_ms(5, 0, 0) == stalling.until_ms(5, 0, FLUSH_STALL_MS - 1) == FLUSH_STALL_MS
    assert stalling.until_ms(5, 0, FLUSH_STALL_MS) is None
