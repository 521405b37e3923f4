"""One command's rules (contract 5): which signal it gets, what becomes of its code and of what it leaves."""

from __future__ import annotations

import signal

from hypothesis import given
from hypothesis import strategies as st

from bottle_init.core import command
from bottle_init.core.command import Rules
from bottle_init.core.spec import Bundle, Spec
from bottle_init.core.words import GIVE_UP_MS, JOB

SIGNALS = st.sampled_from(sorted(signal.valid_signals()))
CATCHABLE = SIGNALS.filter(lambda number: number not in (signal.SIGKILL, signal.SIGSTOP))
TARGETS = st.one_of(st.just(0), SIGNALS)
REWRITES = st.lists(st.tuples(SIGNALS, TARGETS), max_size=5).map(tuple)
CODES = st.integers(0, 255)
TIMES = st.integers(0, 100_000)


@given(number=CATCHABLE, single_child=st.booleans())
def test_every_catchable_signal_is_passed_on(number: int, single_child: bool) -> None:
    """Every signal that can be caught is passed on as it is."""
    target = command.target_of(Rules(single_child=single_child), number)
    if number == signal.SIGCHLD:
        assert target == 0
    elif number in command.JOB_CONTROL and not single_child:
        assert target == signal.SIGSTOP
    else:
        assert target == number


@given(rewrites=REWRITES, number=CATCHABLE, target=TARGETS, single_child=st.booleans())
def test_the_last_rewrite_of_a_signal_holds(
    rewrites: tuple[tuple[int, int], ...], number: int, target: int, single_child: bool
) -> None:
    rules = Rules((*rewrites, (number, target)), single_child=single_child)
    assert command.target_of(rules, number) == target


@given(rewrites=REWRITES, number=CATCHABLE, single_child=st.booleans())
def test_a_rewrite_is_about_its_own_signal_alone(
    rewrites: tuple[tuple[int, int], ...], number: int, single_child: bool
) -> None:
    others = tuple(rule for rule in rewrites if rule[0] != number)
    plain = Rules(single_child=single_child)
    assert command.target_of(plain.replace(rewrites=others), number) == command.target_of(plain, number)


@given(number=CATCHABLE, target=TARGETS)
def test_the_init_stops_itself_unless_it_is_pid_1(number: int, target: int) -> None:
    """For a stop of job control's as it came, rewritten or not, and not where it is dropped; as PID 1 it never does."""
    stops = (signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU)
    assert command.sleeps_too(number, target, is_pid_1=False) == (number in stops and target != 0)
    assert not command.sleeps_too(number, target, is_pid_1=True)


@given(number=CATCHABLE, rewrites=REWRITES, single_child=st.booleans())
def test_plain_signals_mean_nothing_to_the_init(
    number: int, rewrites: tuple[tuple[int, int], ...], single_child: bool
) -> None:
    """A signal that is merely passed on means nothing to the init itself."""
    target = command.target_of(Rules(rewrites, single_child=single_child), number)
    means_more = (
        target == 0
        or number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
        or command.sleeps_too(number, target, is_pid_1=False)
        or target in command.JOB_CONTROL
    )
    assert command.is_plain(number, target) == (not means_more)


@given(number=SIGNALS, single_child=st.booleans(), by_kernel=st.booleans(), same_group=st.booleans())
def test_a_signal_that_the_terminal_sent_to_both(
    number: int, single_child: bool, by_kernel: bool, same_group: bool
) -> None:
    """A signal is left out only where the terminal has sent it to both already."""
    rules = Rules(single_child=single_child)
    left_out = command.has_it_already(rules, number, by_kernel=by_kernel, same_group=same_group)
    assert left_out == (single_child and by_kernel and same_group and number in command.FROM_TERMINAL)


@given(mapped=st.lists(CODES, max_size=5).map(tuple), code=CODES)
def test_the_code_is_the_commands_own(mapped: tuple[int, ...], code: int) -> None:
    """The code is the command's own unless it is mapped."""
    assert command.exit_code(Rules(mapped=mapped), code) == (0 if code in mapped else code)


def test_the_deadlines_are_those_of_a_bundle_file() -> None:
    job = Spec("job", JOB, ("true",))
    assert job.stop_timeout_ms == command.SESSION_KILL_MS
    assert Bundle((job,)).stop_timeout_ms == command.EVERYTHING_KILL_MS
    assert command.GIVE_UP_MS == GIVE_UP_MS


ORDER = (command.ASK, command.KILL_SESSION, command.KILL_EVERYTHING, command.GIVE_UP)


@given(began_ms=TIMES, was_asked=st.booleans(), waits=st.lists(st.tuples(st.integers(0, 3_000), st.booleans())))
def test_leftovers_are_killed_or_given_up(began_ms: int, was_asked: bool, waits: list[tuple[int, bool]]) -> None:
    """What is left is asked, then killed, and given up in the end."""
    left = command.begin(Rules(), began_ms, was_asked=was_asked)
    now_ms, stages = began_ms, [command.stage(left, began_ms)]
    asked = int(was_asked)
    for wait_ms, stop_signal in waits:
        now_ms += wait_ms
        if stop_signal:
            asked += 1
            left = command.stop_again(left, now_ms)
        stages.append(command.stage(left, now_ms))
        if asked > 1:
            assert stages[-1] in (command.KILL_EVERYTHING, command.GIVE_UP), "the second stop signal kills at once"
    assert stages == sorted(stages, key=ORDER.index)
    assert stages[0] == command.ASK
    assert command.stage(left, began_ms + command.EVERYTHING_KILL_MS + command.GIVE_UP_MS) == command.GIVE_UP


@given(began_ms=TIMES, later_ms=st.integers(0, 20_000))
def test_stages_begin_at_their_deadlines(began_ms: int, later_ms: int) -> None:
    """Without a stop signal the stages begin at their deadlines."""
    expected = (
        command.ASK
        if later_ms < 5_000
        else command.KILL_SESSION
        if later_ms < 8_000
        else command.KILL_EVERYTHING
        if later_ms < 9_000
        else command.GIVE_UP
    )
    assert command.stage(command.begin(Rules(), began_ms, was_asked=False), began_ms + later_ms) == expected


@given(began_ms=TIMES, later_ms=st.integers(0, 8_999), stops=st.integers(0, 3))
def test_the_next_stage_is_always_ahead(began_ms: int, later_ms: int, stops: int) -> None:
    """The next stage is always ahead, and never slept through."""
    now_ms = began_ms + later_ms
    left = command.begin(Rules(), began_ms, was_asked=False)
    for _ in range(stops):
        left = command.stop_again(left, now_ms)
    stage = command.stage(left, now_ms)
    if stage == command.GIVE_UP:
        return
    next_ms = command.next_stage_ms(left, now_ms)
    assert next_ms > now_ms
    assert command.stage(left, next_ms - 1) == stage
    assert command.stage(left, next_ms) != stage or stage == command.KILL_EVERYTHING


@given(ended_ms=TIMES, timeout_ms=TIMES, later_ms=TIMES)
def test_what_outlives_its_lease(ended_ms: int, timeout_ms: int, later_ms: int) -> None:
    """It is killed when its time is over, and given up a second after it was killed, however late that was."""
    rules = Rules(stop_timeout_ms=timeout_ms)
    kill_ms = command.next_without_lease_ms(rules, ended_ms, None)
    assert kill_ms == ended_ms + timeout_ms
    assert command.next_without_lease_ms(rules, ended_ms, kill_ms + later_ms) == kill_ms + later_ms + GIVE_UP_MS


@given(ended_ms=TIMES, timeout_ms=TIMES, later_ms=TIMES)
def test_leftovers_share_the_time_of_the_lease(ended_ms: int, timeout_ms: int, later_ms: int) -> None:
    """What the command leaves behind has no more time than the command had."""
    rules, now_ms = Rules(stop_timeout_ms=timeout_ms), ended_ms + later_ms
    with_lease = command.begin(rules, now_ms, was_asked=True, lease_ended_ms=ended_ms)
    assert with_lease.kill_at_ms == ended_ms + timeout_ms
    assert command.begin(rules, now_ms, was_asked=False).kill_at_ms == now_ms + timeout_ms
