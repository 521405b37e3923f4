"""The simulated kernel behaves as Linux does: the same scripts, played to it and to Linux, have the same outcome.

Compared are each child's story (starts, readiness, deaths with code, signal and severity, restarts),
the order of whatever has an order, the exit code, and the deaths of the report; no time is.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given

from bottle_init.core import events as happened
from bottle_init.core.spec import Backoff, Budget, Bundle, Check, Probe, Ready, Spec
from bottle_init.core.words import DAEMON, JOB, ONESHOT
from bottle_init.testing import End, Life, Remnant, Request, Say, Scenario, Stall, Write, real, scenarios
from bottle_init.testing.__main__ import main
from bottle_init.testing.real import Told, Undecided, compare, decide, differences, play, slowed

pytestmark = pytest.mark.real

TERM, HUP, USR1 = 15, 1, 10
READY = Ready(Probe("tcp", port=1))
QUICK = Backoff(1_000, 2.0, 4_000)
SIDE_BY_SIDE = 6
STAYS = (Life(),)
SLOW = (Life(catches=(TERM,), stop_ms=1_000),)
DEAF = (Life(catches=(TERM,), stop_ms=None),)


def daemon(name: str, *after: str, **facts: object) -> Spec:
    return Spec(name, DAEMON, ("x",), after, **facts)  # type: ignore[arg-type]


def life(**facts: object) -> tuple[Life, ...]:
    return (Life(**facts),)  # type: ignore[arg-type]


def script(*children: tuple[Spec, tuple[Life, ...]], stop_at_ms: int = 4_000, **facts: object) -> Scenario:
    requests, stalls = facts.pop("requests", ()), facts.pop("stalls", ())
    bundle = Bundle(tuple(spec for spec, _ in children), **facts)  # type: ignore[arg-type]
    lives = tuple(lives for _, lives in children)
    return Scenario(bundle, lives, requests, stalls=stalls, stop_at_ms=stop_at_ms)  # type: ignore[arg-type]


FLOODS = (Write(1_000, 60, 50_000),)
"""More than the pipes and the queue hold."""

CHAIN = (
    (daemon("a", ready=READY), life(ready_ms=600, catches=(TERM,), stop_ms=700)),
    (daemon("b", "a", ready=READY), SLOW),
    (daemon("c", "b"), SLOW),
)

SCRIPTS = {
    "a chain comes up and goes down in reverse": script(*CHAIN, stop_at_ms=5_000),
    "one daemon fails, the others follow": script(
        (daemon("a"), life(run_ms=1_500, end=End(3))),
        (daemon("b"), SLOW),
        (daemon("c"), life(catches=(TERM,), stop_end=End(5))),
    ),
    "killed by a signal of its own": script(
        (daemon("a"), life(run_ms=1_000, end=End(signal=11))), (daemon("b"), STAYS)
    ),
    "a daemon that leaves": script((daemon("a"), life(run_ms=1_000)), (daemon("b"), STAYS)),
    "a stop by our TERM": script((daemon("a"), STAYS), (daemon("b"), life(catches=(TERM,), stop_end=End(143)))),
    "one that ignores TERM is killed": script((daemon("a", stop_timeout_ms=1_000), DEAF), (daemon("b", "a"), SLOW)),
    "the deadline": script((daemon("a"), DEAF), (daemon("b", "a"), DEAF), stop_timeout_ms=2_000),
    "the second signal": script(
        (daemon("a"), DEAF), (daemon("b", "a"), DEAF), requests=(Request(5_500, happened.SignalReceived(TERM)),)
    ),
    "a suspended daemon": script((daemon("a"), life(stopped_ms=1_000)), (daemon("b"), STAYS)),
    "another stop signal": script((daemon("a", stop_signal=2), life(catches=(2, TERM), stop_ms=500, stop_end=End(7)))),
    "a stop signal that an interpreter catches by itself": script((daemon("a", stop_signal=2), STAYS)),
    "lines as objects": script(
        (daemon("a"), life(writes=(*FLOODS, Write(7_000, 5)))), stalls=(Stall(0, 5_000),), stop_at_ms=9_000, logs="json"
    ),
    "a job ends it": script((daemon("a"), SLOW), (Spec("tests", JOB, ("x",), ("a",)), life(run_ms=1_000, end=End(4)))),
    "a oneshot comes first": script(
        (Spec("setup", ONESHOT, ("x",)), life(run_ms=800)), (daemon("a", "setup"), STAYS), stop_at_ms=4_000
    ),
    "a oneshot fails": script(
        (Spec("setup", ONESHOT, ("x",)), life(run_ms=800, end=End(9))), (daemon("a", "setup"), STAYS)
    ),
    "a oneshot out of time": script(
        (Spec("setup", ONESHOT, ("x",), timeout_ms=1_500), SLOW), (daemon("a"), SLOW), stop_at_ms=9_000
    ),
    "a command that is not found": script((daemon("a"), life(exec_error=127))),
    "a command that cannot be executed": script((daemon("a"), life(exec_error=126))),
    "restarted, then well": script(
        (daemon("a", policy="restart", backoff=QUICK), (Life(run_ms=1_000, end=End(1)), Life(run_ms=1_000), Life())),
        stop_at_ms=9_000,
    ),
    "a budget used up": script(
        (daemon("a", policy="restart-on-failure", backoff=QUICK, restarts=Budget(1)), life(run_ms=1_000, end=End(6))),
        (daemon("b"), SLOW),
        stop_at_ms=20_000,
    ),
    "rest for one": script(
        (
            daemon("a", policy="restart", backoff=QUICK, restart_dependents=True, ready=READY),
            (Life(run_ms=4_000, end=End(1)), Life()),
        ),
        (daemon("b", "a", ready=READY), SLOW),
        (daemon("c", "b"), SLOW),
        stop_at_ms=15_000,
    ),
    "not ready in time": script(
        (daemon("a", ready=Ready(Probe("tcp", port=1), 2_000)), life(ready_ms=None)), stop_at_ms=9_000
    ),
    "ready by notify": script(
        (daemon("a", ready=Ready(Probe("notify"))), life(says=(Say(1_000, ready=True),))), (daemon("b", "a"), STAYS)
    ),
    "unhealthy, and that stops it": script(
        (
            daemon("a", ready=READY, health=Check(Probe("tcp", port=1), 1_500, 1_000, 2), on_unhealthy="stop"),
            life(sick=((2_000, 100_000),)),
        ),
        stop_at_ms=20_000,
    ),
    "what is left of a session": script(
        (daemon("a", stop_timeout_ms=2_000), life(leaves=(Remnant(), Remnant(stop_ms=None), Remnant(adopted=True)))),
    ),
    "what has escaped": script(
        (daemon("a"), life(leaves=(Remnant(escapes=True), Remnant(escapes=True, adopted=True, stop_ms=None)))),
        stop_timeout_ms=2_000,
    ),
    "a restart clears the session first": script(
        (
            daemon("a", policy="restart", stop_timeout_ms=1_000, backoff=QUICK),
            (Life(run_ms=1_500, end=End(1), leaves=(Remnant(stop_ms=None),)), Life()),
        ),
        stop_at_ms=9_000,
    ),
    "wait for all": script(
        (daemon("a", policy="wait-for-all"), life(run_ms=1_000, end=End(3))),
        (daemon("b", policy="wait-for-all"), life(run_ms=2_500)),
        policy="wait-for-all",
        stop_at_ms=9_000,
    ),
    "a HUP to those that name it": script(
        (daemon("a", signals=((HUP, HUP),)), life(catches=(HUP, TERM), heeds=(HUP,), stop_end=End(5))),
        (daemon("b"), STAYS),
        requests=(Request(2_000, happened.SignalReceived(HUP)),),
    ),
    "a rewritten signal": script(
        (daemon("a", signals=((USR1, HUP),)), life(catches=(HUP, USR1), heeds=(HUP,), stop_end=End(6))),
        requests=(Request(2_000, happened.SignalReceived(USR1)),),
    ),
    "ctl restarts one": script(
        (daemon("a", restart_dependents=True), SLOW),
        (daemon("b", "a"), SLOW),
        requests=(Request(2_000, happened.ChildRestartOrdered(0, 1)),),
        stop_at_ms=9_000,
    ),
    "ctl stops and starts one": script(
        (daemon("a"), SLOW),
        (daemon("b"), STAYS),
        requests=(Request(2_000, happened.ChildStopOrdered(0, 1)), Request(6_000, happened.ChildStartOrdered(0, 2))),
        stop_at_ms=9_000,
    ),
    "a stop delay": script((daemon("a", stop_delay_ms=1_500), SLOW), (daemon("b"), SLOW)),
    "a reader that stalls for long": script(
        (daemon("a"), life(catches=(TERM,), writes=FLOODS)),
        (daemon("b"), life(writes=(Write(500, 20),))),
        stalls=(Stall(0, 6_000),),
        stop_at_ms=9_000,
    ),
    "a reader that stalls for a moment": script(
        (daemon("a"), life(catches=(TERM,), writes=FLOODS)), stalls=(Stall(1_200, 300),), stop_at_ms=6_000
    ),
    "a reader of single lines": script(
        (daemon("a"), life(catches=(TERM,), writes=(Write(1_000, 25, 50_000),))),
        stalls=(Stall(0, 7_000, 100),),
        stop_at_ms=12_000,
    ),
    "a writer that waits ends late": script(
        (daemon("b"), life(run_ms=4_000, end=End(3))),
        (Spec("tests", JOB, ("x",)), life(run_ms=1_500, end=End(4), catches=(TERM,), stop_ms=None, writes=FLOODS)),
        stalls=(Stall(0, 12_000, 100),),
        stop_at_ms=15_000,
    ),
    "a stop ends a writer that waits": script(
        (daemon("a"), life(catches=(TERM,), stop_end=End(5), writes=FLOODS)),
        (daemon("b"), life(writes=FLOODS)),
        stalls=(Stall(0, 20_000, 100),),
        stop_at_ms=4_000,
    ),
    "exit_code_from": script(
        (daemon("a"), life(run_ms=1_500, end=End(3))),
        (daemon("b"), life(catches=(TERM,), stop_end=End(8))),
        exit_code_from="b",
    ),
}


def _parameters(item: pytest.Item) -> dict[str, str]:
    callspec = getattr(item, "callspec", None)
    return dict(callspec.params) if callspec is not None else {}


@pytest.fixture(scope="module")
def comparisons(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Future[list[str]]]:
    """The scripts of all selected tests, at work side by side: they mostly sleep."""
    names = [_parameters(item)["name"] for item in request.session.items if "name" in _parameters(item)]
    chosen = [name for name in SCRIPTS if name in names]
    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        places = {name: tmp_path_factory.mktemp("script") for name in chosen}
        return {name: pool.submit(compare, SCRIPTS[name], places[name]) for name in chosen}


@pytest.mark.parametrize("name", SCRIPTS)
def test_linux_does_what_the_simulated_kernel_says(name: str, comparisons: dict[str, Future[list[str]]]) -> None:
    assert comparisons[name].result() == []


def test_a_script_that_hangs_on_a_moment_is_refused() -> None:
    ends_as_it_is_stopped = script((daemon("a"), life(run_ms=4_100, end=End(3))))
    with pytest.raises(Undecided):
        decide(ends_as_it_is_stopped)


def test_a_difference_is_seen(tmp_path: Path) -> None:
    """The control: Linux plays one script, and is compared with the simulation of another.

    What Linux ends with depends on a late machine: the order to stop may come before the daemon has left.
    """
    real = play(SCRIPTS["a daemon that leaves"], tmp_path)
    other = decide(SCRIPTS["killed by a signal of its own"])
    found = differences(other, real)
    assert any(line.startswith("exit code: simulated 139, real ") for line in found)
    assert any(line.startswith("a:") for line in found)


def test_a_late_machine_plays_it_again_more_slowly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A difference that is gone at half the pace was the machine's."""
    scenario = SCRIPTS["a daemon that leaves"]
    late, right = decide(SCRIPTS["killed by a signal of its own"])[0], decide(scenario)[0]
    played: list[Scenario] = []

    def play(scenario: Scenario, _: Path) -> Told:
        played.append(scenario)
        return right if len(played) == 2 else late

    monkeypatch.setattr(real, "play", play)
    assert compare(scenario, tmp_path) == []
    assert played == [scenario, slowed(scenario, 2)]
    assert slowed(scenario, 2).lives[0][0].run_ms == 2_000


@given(scenarios())
def test_a_slower_pace_changes_times_alone(scenario: Scenario) -> None:
    assert slowed(scenario, 1) == scenario
    assert slowed(slowed(scenario, 2), 3) == slowed(scenario, 6)


def test_a_difference_in_the_lines_is_seen() -> None:
    expected = decide(SCRIPTS["a reader that stalls for long"])
    other = replace(expected[0], lines=expected[0].lines - 1, dropped=False)
    assert differences(expected, expected[0]) == []
    assert differences(expected, other) == [
        "lines: simulated 80, real 79",
        "whether lines were dropped: simulated True, real False",
    ]


def test_the_command_plays_a_bundle_on_this_machine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "bundle.toml"
    file.write_text("[daemons.a]\ncommand = ['a']\n[daemons.b]\ncommand = ['b']\nafter = ['a']\npolicy = 'restart'\n")
    assert main([str(file), "--real", "2", "--seed", "3"]) == 0
    assert capsys.readouterr().out.startswith("2 runs on Linux, each as simulated, seed 3")
