"""The harness as maintainers of other bundles meet it: the command, the pytest plugin, the shrinking, the timeline."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from bottle_init.core import backoff, supervisor
from bottle_init.core import invariants as core_invariants
from bottle_init.core.spec import Backoff, Budget, Bundle, Check, Probe, Spec
from bottle_init.core.words import DAEMON
from bottle_init.testing import (
    End,
    Freeze,
    Life,
    Logs,
    Remnant,
    Scenario,
    Stall,
    Trace,
    Write,
    check,
    fuzz,
    render,
    scenario_of,
    shrink,
    simulate,
)
from bottle_init.testing.__main__ import main
from bottle_init.testing.world import MAX_STEPS, most_steps

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bottle_init.core.actions import Action
    from bottle_init.core.events import Event
    from bottle_init.core.state import State

ROOT = Path(__file__).parents[2]
pytest_plugins = "pytester"

BUNDLE = """
[bundle]
policy = "restart"
stop_timeout = "10s"

[daemons.proxy]
command = ["/usr/bin/proxy"]
restart_dependents = false
user = "nobody-that-exists-here"
ready = { tcp = 8888 }
health = { tcp = 8888, interval = "5s" }
on_unhealthy = "restart"

[daemons.gate]
command = ["/usr/bin/gate"]
after = ["proxy"]
"""


@pytest.fixture
def bundle_file(tmp_path: Path) -> str:
    path = tmp_path / "bundle.toml"
    path.write_text(BUNDLE)
    return str(path)


@pytest.fixture
def broken_core(monkeypatch: pytest.MonkeyPatch) -> None:
    """A core whose restarts have no budget."""
    monkeypatch.setattr(core_invariants, "check", lambda *_: None)
    monkeypatch.setattr(backoff, "is_spent", lambda *_: False)


# The command.


def test_a_bundle_that_survives(bundle_file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([bundle_file, "--runs", "50", "--seed", "1"]) == 0
    out = capsys.readouterr().out
    assert "50 runs" in out
    assert "nothing was broken" in out
    assert "seed 1" in out


@pytest.mark.usefixtures("broken_core")
def test_a_counter_example_is_told_as_a_timeline(bundle_file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([bundle_file, "--runs", "5000", "--seed", "1"]) == 1
    out = capsys.readouterr().out
    assert "start proxy" in out
    assert "  ! " in out
    assert "The contract: " in out
    assert "of seed 1" in out


def test_the_same_seed_tells_the_same(bundle_file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([bundle_file, "--seed", "7", "--show", "3"]) == 0
    first = capsys.readouterr().out
    assert main([bundle_file, "--seed", "7", "--show", "3"]) == 0
    assert capsys.readouterr().out == first
    assert "EXIT" in first


def test_a_faulty_file_is_78_with_all_faults(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "bundle.toml"
    path.write_text('[daemons.a]\ncommand = []\nafter = ["b"]\n')
    assert main([str(path)]) == 78
    err = capsys.readouterr().err
    assert "daemons.a.command" in err
    assert "daemons.a.after" in err


def test_a_missing_file_is_78(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["/nonexistent/bundle.toml"]) == 78
    assert "/nonexistent/bundle.toml" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "which bundle file?"),
        (["x.toml", "--runs", "-1"], "must be a whole number, is '-1'"),
        (["x.toml", "--real", "x"], "must be a whole number, is 'x'"),
        (["x.toml", "--seconds", "0"], "must be a number of seconds above 0, is '0'"),
        (["x.toml", "--seconds", "long"], "must be a number of seconds above 0, is 'long'"),
        (["--no-such"], "--no-such"),
    ],
)
def test_wrong_usage_is_2(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert words in capsys.readouterr().err


# The plugin.


def run_pytest(pytester: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    return pytester.runpytest_inprocess("-p", "no:cacheprovider", *arguments)


def test_the_fixtures_try_the_bundle_of_the_marker(pytester: pytest.Pytester) -> None:
    pytester.makefile(".toml", bundle=BUNDLE)
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.bottle_bundle("bundle.toml", policy="wait-for-all")
        def test_it(bottle_bundle, assert_bundle_survives):
            assert bottle_bundle.policy == "wait-for-all"
            assert assert_bundle_survives(bottle_bundle, runs=20).runs == 20
        """
    )
    run_pytest(pytester).assert_outcomes(passed=1)


def test_the_configuration_may_name_the_bundle(pytester: pytest.Pytester) -> None:
    pytester.makefile(".toml", bundle=BUNDLE)
    pytester.makeini("[pytest]\nbottle_bundle = bundle.toml\n")
    pytester.makepyfile(
        """
        def test_it(bottle_bundle, assert_bundle_survives):
            assert assert_bundle_survives(bottle_bundle).runs == 30
        """
    )
    run_pytest(pytester, "--bottle-runs", "30").assert_outcomes(passed=1)


def test_a_promise_of_the_bundles_own_is_checked_too(pytester: pytest.Pytester) -> None:
    pytester.makefile(".toml", bundle=BUNDLE)
    pytester.makepyfile(
        """
        import pytest

        def the_proxy_is_never_killed(trace):
            deaths = trace.exit.deaths
            return next((f"{death.name} was" for death in deaths if death.name == "proxy" and death.forced), None)

        @pytest.mark.bottle_bundle("bundle.toml")
        def test_it(bottle_bundle, assert_bundle_survives):
            assert_bundle_survives(bottle_bundle, promise=the_proxy_is_never_killed)
        """
    )
    result = run_pytest(pytester)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*! the_proxy_is_never_killed: proxy was", "*Run * of seed 0*"])


def test_a_faulty_bundle_fails_in_words(pytester: pytest.Pytester) -> None:
    pytester.makefile(".toml", bundle="[daemons.a]\n")
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.bottle_bundle("bundle.toml")
        def test_it(bottle_bundle):
            pass
        """
    )
    result = run_pytest(pytester)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*daemons.a.command: is required*"])


# The documentation.


def test_the_examples_of_the_documentation_run() -> None:
    text = (ROOT / "docs/testing.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    assert len(blocks) == 6
    for block in blocks:
        exec(compile(block, "docs/testing.md", "exec"), {"__name__": "docs"})  # noqa: S102 - the page is ours


# Shrinking and telling.

ONE = Bundle((Spec("a", DAEMON, ("a",)),))


def test_shrinking_leaves_only_what_matters() -> None:
    big = scenario_of("shrink", 3)
    assert len(big.bundle.children) > 1

    def fails(scenario: Scenario) -> bool:
        trace = simulate(scenario)
        return trace.exit is not None and any(death.code == 0 for death in trace.exit.deaths)

    assert not fails(Scenario(ONE, ((Life(),),)))
    small = shrink(_with_a_zero(big), fails, bundle_too=True)
    assert fails(small)
    assert len(small.bundle.children) == 1
    assert (small.freezes, small.storms, small.requests) == ((), (), ())


def _with_a_zero(scenario: Scenario) -> Scenario:
    """The same, with a last child that ends with 0 on its own."""
    spec = Spec("last", DAEMON, ("x",), policy="wait-for-all")
    bundle = scenario.bundle.replace(children=(*scenario.bundle.children, spec))
    lives = (*scenario.lives, (Life(run_ms=0, leaves=(Remnant(),)),))
    return Scenario(bundle, lives, freezes=(Freeze(100, 100),), stop_at_ms=60_000)


def test_a_timeline_has_events_and_actions() -> None:
    """A timeline tells what happened and what was done."""
    trace = simulate(Scenario(ONE, ((Life(run_ms=1_500, end=End(signal=9, oom=True)),),)))
    told = render(trace)
    assert "a: kind=daemon:" in told
    assert "1.500 s  > a is killed by KILL (out of memory)" in told
    assert told.rstrip().endswith("EXIT 137 (policy: a was killed by signal 9 (out of memory))")


def test_a_timeline_tells_what_became_of_the_lines() -> None:
    life = Life(writes=(Write(1_000, 400, 4_000),))
    trace = simulate(Scenario(ONE, ((life,),), stalls=(Stall(500, 3_000), Stall(9_000, 9_000)), stop_at_ms=10_000))
    told = [line.strip() for line in render(trace).splitlines()]
    assert "the reader of the logs takes nothing from 0.500 s on, for 3.000 s" in told
    assert "1.000 s  ~ a is made to wait for the reader" in told
    assert "2.000 s  ~ nobody waits for the reader any more" in told
    assert f"~ {logs_of(trace).losses[0].count} lines of a are dropped" not in told  # All of one moment are one line.
    assert f"~ {logs_of(trace).dropped()} lines of a are dropped" in told
    assert f"3.500 s  ~ it is told that {logs_of(trace).dropped()} lines of a were dropped" in told
    assert "~ the reader of the logs reads again" in told


def logs_of(trace: Trace) -> Logs:
    assert trace.logs is not None
    return trace.logs


def test_what_nobody_has_taken_in_the_end_is_told_too() -> None:
    life = Life(writes=(Write(1_000, 100, 4_000),))
    trace = simulate(Scenario(ONE, ((life,),), stalls=(Stall(500, 90_000),), stop_at_ms=2_000))
    assert render(trace).endswith(f"2.100 s  ~ {logs_of(trace).dropped()} lines of a are dropped")


def test_a_shrunk_stall_has_the_fewest_lines() -> None:
    """Shrinking a stall leaves the fewest and shortest lines."""
    writes = (Write(1_000, 400, 4_000), Write(3_000, 100, 1_000), Write(5_000))
    big = Scenario(ONE, ((Life(writes=writes),),), stalls=(Stall(500, 9_999), Stall(20_000, 500, 100)), one_pipe=True)

    def fails(scenario: Scenario) -> bool:
        trace = simulate(scenario)
        return trace.logs is not None and trace.logs.dropped() > 0

    small = shrink(big, fails)
    assert fails(small)
    assert len(small.stalls) == len(small.lives[0][0].writes) == 1
    assert not small.one_pipe


def test_the_types_reach_those_who_use_the_package() -> None:
    """PEP 561: without this file a type checker takes everything of an installed package for Any."""
    assert (ROOT / "bottle_init/py.typed").read_text() == ""


BUSY = [
    Spec("a", DAEMON, ("a",), health=Check(Probe("tcp", port=1), interval_ms=10)),
    Spec("a", DAEMON, ("a",), policy="restart", backoff=Backoff(10, 1.0, 10), restarts=Budget(10**9, 60_000)),
]


@pytest.mark.parametrize("spec", BUSY, ids=["checks", "restarts"])
def test_a_busy_bundle_is_in_no_circle(spec: Spec) -> None:
    """The bound on steps is the bundle's own pace: some hundred checks or restarts a second are no fault."""
    life = Life() if spec.health else Life(run_ms=10)
    trace = simulate(Scenario(Bundle((spec,)), ((life,),), stop_at_ms=120_000))
    assert len(trace.steps) > MAX_STEPS
    assert check(trace) == []


def test_a_bundle_in_a_circle_is_found() -> None:
    """The bound is still one: a core that wants to be woken at once, always, is stopped."""
    scenario = Scenario(Bundle((BUSY[0],)), ((Life(),),), stop_at_ms=1_000)

    def step(state: State, now_ms: int, events: Iterable[Event]) -> tuple[State, tuple[Action, ...]]:
        if now_ms < 100:
            return supervisor.step(state, now_ms, events)
        state.lease_at_ms = now_ms
        return state, ()

    trace = simulate(scenario, step=step)
    assert "steps, and the bundle has not ended" in trace.stuck
    assert len(trace.steps) == most_steps(scenario) + 1


def test_fuzzing_finds_the_smallest_breach() -> None:
    """Fuzzing with a promise finds its smallest breach."""

    def nothing_is_ever_killed(trace: Trace) -> str | None:
        killed = trace.exit is not None and any(death.signal == 9 for death in trace.exit.deaths)
        return "something was" if killed else None

    found = fuzz(ONE, seed="1", runs=2_000, promise=nothing_is_ever_killed).counter_example
    assert found is not None
    assert check(found.trace) == []
    assert found.violations[0].invariant == "nothing_is_ever_killed"
    assert len(found.trace.steps) <= 9
