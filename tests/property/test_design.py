"""Promises about the design of a bundle: each has a bundle that breaks it and one that keeps it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from bottle_init.bundle import accepted, load
from bottle_init.testing import design
from bottle_init.testing.__main__ import main
from bottle_init.testing.design import Judgement, Run

if TYPE_CHECKING:
    from bottle_init.testing.design import Promise

ROOT = Path(__file__).parents[2]
pytest_plugins = "pytester"

EARLY, ALONE, BUDGET, DEADLINE = "nobody-is-killed-early", "nobody-runs-on-alone", "one-restart-fits", "the-stop-fits"

CHAIN = """
[bundle]
stop_timeout = "{deadline}"
policy = "{policy}"
[daemons.db]
command = ["db"]
{db}
[daemons.web]
command = ["web"]
after = ["db"]
ready = {{ notify = true }}
"""


def judged(text: str, *own: Promise, runs: int = 20) -> Judgement:
    return design.judge(load.from_text(text, "x", here=False), accepted=accepted.lone_daemons(text), own=own, runs=runs)


def chain(db: str = "", policy: str = "exit-on-child-death", deadline: str = "10s") -> str:
    return CHAIN.format(db=db, policy=policy, deadline=deadline)


def broken(judgement: Judgement) -> list[str]:
    return [breach.promise.name for breach in judgement.breaches]


def test_stops_in_a_row_need_a_long_deadline() -> None:
    """Two times 5 s do not fit 8 s: the second is killed, though it would have ended."""
    judgement = judged(chain(deadline="8s"))
    assert broken(judgement) == [EARLY, DEADLINE]
    assert "would have ended after 4999 ms" in judgement.breaches[0].what
    assert "db is killed" in str(judgement)
    kept = judged(chain())
    assert (kept.is_good, kept.kept) == (True, (EARLY, ALONE, DEADLINE))


def test_a_delay_is_a_part_of_the_stop() -> None:
    text = '[daemons.web]\ncommand = ["web"]\nstop_timeout = "5s"\nstop_delay = "{}"\n'
    assert broken(judged(text.format("4s"))) == [EARLY, DEADLINE]
    assert judged(text.format("2s")).is_good


def test_who_never_ends_is_killed_in_its_own_time() -> None:
    """A stop_timeout of 0 is no time to end in: nobody is killed early, and the stop fits."""
    assert judged(chain('stop_timeout = "0s"', deadline="6s")).is_good


@pytest.mark.parametrize("policy", ["restart", "restart-on-failure", "wait-for-all", "exit-on-child-failure"])
def test_nobody_runs_on_alone(policy: str) -> None:
    """A daemon that is after another one runs on without it, unless the file says what it wants."""
    assert broken(judged(chain(policy=policy))) == [ALONE]
    assert judged(chain("restart_dependents = false", policy=policy)).is_good, "written, and so meant"


def test_dependents_that_are_restarted_do_not_run_on() -> None:
    assert judged(chain("restart_dependents = true", policy="restart")).is_good


def test_a_job_is_not_restarted() -> None:
    text = '[daemons.db]\ncommand = ["db"]\npolicy = "restart"\n{}\n[jobs.tests]\ncommand = ["t"]\nafter = ["db"]\n'
    text = f'[bundle]\nstop_timeout = "10s"\n{text}'
    assert broken(judged(text.format(""))) == [ALONE]
    assert judged(text.format("restart_dependents = true")).is_good


def test_one_restart_fits_each_budget() -> None:
    text = '[daemons.web]\ncommand = ["web"]\npolicy = "restart-on-failure"\nrestarts = {{ max = {} }}\n'
    judgement = judged(text.format(0))
    assert broken(judgement) == [BUDGET]
    assert "its budget of 0 restarts was spent" in judgement.breaches[0].what
    assert judged(text.format(1)).kept == (EARLY, BUDGET, DEADLINE)


def test_a_breach_is_as_small_as_it_gets() -> None:
    (breach,) = judged(chain(policy="restart")).breaches
    lives = breach.trace.scenario.lives
    assert sum(life.run_ms is not None for child in lives for life in child) == 1, "one death is enough"
    assert "restart_dependents = true" in str(breach)


# What a promise is worth.


def test_a_promise_that_reads_nothing_is_vacuous() -> None:
    """Else a promise about what never happens would count as kept for ever."""

    def whoever_is_started_twice_is_fine(run: Run) -> str | None:
        for name in run.names:
            for _ in list(run.lives(name))[5:]:
                return None
        return None

    def nothing_at_all(_run: Run) -> str | None:
        return None

    judgement = judged(chain(), whoever_is_started_twice_is_fine, nothing_at_all)
    assert judgement.vacuous == ("nothing_at_all",)
    assert not judgement.is_good
    assert "nothing_at_all: vacuous" in str(judgement)


def test_a_promise_of_ones_own_reads_by_names() -> None:
    def the_database_is_up_first(run: Run) -> str | None:
        for moment in run.moments():
            if moment["web"].is_ready and not moment["db"].is_ready and not moment.is_stopping:
                return f"web is ready alone at {moment.at_ms} ms"
        return None

    assert "the_database_is_up_first" in judged(chain(), the_database_is_up_first).kept
    found = judged(chain("restart_dependents = false", policy="restart"), the_database_is_up_first)
    assert broken(found) == ["the_database_is_up_first"]


def test_a_promise_about_nobody_is_an_error() -> None:
    with pytest.raises(LookupError, match="there is no such child: db, web"):
        judged(chain(), lambda run: str(list(run.lives("wbe"))))


# The command and the plugin.


def test_the_command_judges_the_design(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, promises = tmp_path / "bundle.toml", tmp_path / "promises.py"
    path.write_text(chain())
    words = [str(path), "--runs", "5", "--seed", "1"]
    assert main(words) == 0
    assert f"{EARLY}, {ALONE}, {DEADLINE} kept" in capsys.readouterr().out
    promises.write_text("def mine(run):\n    for life in run.lives('db'):\n        return 'no'\n\n_other = print\n")
    assert main([*words, "--promises", str(promises)]) == 1
    assert "! mine: no" in capsys.readouterr().out
    promises.write_text("def mine(run):\n    return None\n")
    assert main([*words, "--promises", str(promises)]) == 1
    assert "mine: vacuous" in capsys.readouterr().out
    path.write_text(chain(deadline="8s"))
    assert main(words) == 1
    assert DEADLINE in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "said"),
    [(None, "No such file"), ("a = 1\n", "there is no function in it"), ("def f(run):\n    run.index('x')\n", "'x'")],
)
def test_wrong_promises_are_2(tmp_path: Path, text: str | None, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    path, promises = tmp_path / "bundle.toml", tmp_path / "promises.py"
    path.write_text(chain())
    if text is not None:
        promises.write_text(text)
    with pytest.raises(SystemExit) as stopped:
        main([str(path), "--runs", "1", "--promises", str(promises)])
    assert stopped.value.code == 2
    assert said in capsys.readouterr().err


def test_the_plugin_judges_the_design(pytester: pytest.Pytester) -> None:
    pytester.makefile(".toml", good=chain("restart_dependents = false", policy="restart"), bad=chain(deadline="8s"))
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.bottle_bundle("good.toml")
        def test_good(assert_design_holds):
            assert assert_design_holds().is_good

        @pytest.mark.bottle_bundle("bad.toml")
        def test_bad(assert_design_holds):
            assert_design_holds()
        """
    )
    result = pytester.runpytest_inprocess("-p", "no:cacheprovider")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*! the-stop-fits: db is killed*"])


def test_the_images_own_bundle_keeps_its_design() -> None:
    text = (ROOT / "images/bundle/bundle.toml").read_text(encoding="utf-8")
    judgement = judged(text)
    assert judgement.is_good, str(judgement)
