"""Contract 2, stated once more as a table in words and compared with `core/verdict.py` on all of its domain."""

from __future__ import annotations

import re
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bottle_init.core import policies, verdict
from bottle_init.core.events import ChildStopOrdered
from bottle_init.core.policies import ACCEPT, AGAIN, POLICIES, STOP
from bottle_init.core.signals import KILL, TERM
from bottle_init.core.spec import Budget, Bundle, Check, Probe, Ready, Spec
from bottle_init.core.state import Death
from bottle_init.core.words import DAEMON, JOB, ONESHOT
from bottle_init.testing import End, Freeze, Life, Request, Scenario, check, render, simulate

ROOT = Path(__file__).parents[2]

ALL_ENDS = [(code, 0) for code in range(256)] + [(128 + signal, signal) for signal in range(1, 65)]
SENT = (0, 1 << TERM, 1 << KILL, (1 << TERM) | (1 << KILL), 1 << 1)
SUCCESS_CODES = ((0,), (0, 3), (0, 143), (0, 137), (0, 129))


def severity_in_words(
    spec: Spec, code: int, signal: int, *, sent: int, stopping: bool, forced: bool, asked: bool
) -> str:
    """The contract's table, read aloud from the bottom to the top."""
    the_init_sent = [number for number in range(1, 65) if sent & (1 << number)]
    if forced or (signal == KILL and KILL in the_init_sent):
        return "forced"
    if code in spec.success_codes:
        wants_it_to_run = spec.kind == DAEMON and spec.policy in ("exit-on-child-death", "restart")
        return "left" if wants_it_to_run and not (stopping or asked) else "clean"
    if (stopping or asked) and code - 128 in the_init_sent:
        return "clean"
    return "crash" if signal else "failure"


@pytest.mark.parametrize("kind", [DAEMON, JOB, ONESHOT])
@pytest.mark.parametrize("policy", POLICIES)
def test_severity_is_the_contracts(kind: str, policy: str) -> None:
    """The severity is the contract's, on its whole domain."""
    for success_codes in SUCCESS_CODES:
        spec = Spec("child", kind, ("x",), policy=policy, success_codes=success_codes)
        for (code, signal), sent, stopping, forced, asked in product(
            ALL_ENDS, SENT, (False, True), (False, True), (False, True)
        ):
            facts = {"stopping": stopping, "forced": forced, "asked": asked}
            found = verdict.severity_of(spec, code, signal, sent=sent, **facts)
            wanted = severity_in_words(spec, code, signal, sent=sent, **facts)
            assert verdict.SEVERITIES[found] == wanted, (spec, code, signal, sent, facts)


@pytest.mark.parametrize(
    ("severity", "code", "exit_code"),
    [
        (verdict.CRASH, 139, 139),
        (verdict.FORCED, 137, 137),
        (verdict.FORCED, 0, 137),
        (verdict.FAILURE, 3, 3),
        (verdict.LEFT, 0, 69),
        (verdict.CLEAN, 0, 0),
        (verdict.CLEAN, 143, 0),
        (verdict.CLEAN, 3, 0),
    ],
)
def test_the_code_of_a_severity(severity: int, code: int, exit_code: int) -> None:
    assert verdict.code_of(death(0, severity, code)) == exit_code


def test_the_severities_are_in_the_contracts_order() -> None:
    assert verdict.SEVERITIES == ("crash", "forced", "failure", "left", "clean")


def death(child: int, severity: int, code: int) -> Death:
    return Death(child, f"child-{child}", 100 + child, code, 0, severity, at_ms=0, ran_ms=0)


deaths = st.builds(death, st.integers(0, 9), st.sampled_from(range(5)), st.integers(0, 255))


@given(st.lists(deaths, unique_by=lambda found: found.child), st.randoms(use_true_random=False))
def test_the_worst_death_in_any_order(found: list[Death], random: object) -> None:
    """The worst death does not depend on the order of the deaths."""
    shuffled = list(found)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert verdict.worst(shuffled) == verdict.worst(found)


@given(st.lists(deaths, unique_by=lambda found: found.child, min_size=1))
def test_no_death_is_worse_than_the_worst(found: list[Death]) -> None:
    worst = verdict.worst(found)
    assert worst is not None
    assert all((worst.severity, worst.child) <= (other.severity, other.child) for other in found)


# The rules, one example each: (bundle, lives, exit code).

DEFAULT = "exit-on-child-death"
STAYS = Life()
ENDS_CLEANLY = Life(catches=(TERM,))
IGNORES_TERM = Life(catches=(TERM,), stop_ms=None)


def ends(code: int, after_ms: int = 100) -> Life:
    return Life(run_ms=after_ms, end=End(code))


def killed(signal: int, after_ms: int = 100) -> Life:
    return Life(run_ms=after_ms, end=End(signal=signal))


def daemon(name: str, policy: str = DEFAULT, **facts: object) -> Spec:
    return Spec(name, DAEMON, (name,), policy=policy, **facts)  # type: ignore[arg-type]


def job(name: str, **facts: object) -> Spec:
    return Spec(name, JOB, (name,), **facts)  # type: ignore[arg-type]


def oneshot(name: str, **facts: object) -> Spec:
    return Spec(name, ONESHOT, (name,), **facts)  # type: ignore[arg-type]


ONE_DAEMON = Bundle((daemon("a"),))
TWO_DAEMONS = Bundle((daemon("a"), daemon("b")))
WAITING = Bundle((daemon("a", "wait-for-all"), daemon("b", "wait-for-all")))

RULES: dict[str, tuple[Bundle, tuple[Life, ...], int]] = {
    "a requested stop, killed by our TERM": (ONE_DAEMON, (STAYS,), 0),
    "a requested stop, exit 0 on TERM": (ONE_DAEMON, (ENDS_CLEANLY,), 0),
    "a requested stop, exit 143 on our TERM": (ONE_DAEMON, (Life(catches=(TERM,), stop_end=End(143)),), 0),
    "a requested stop, killed by a signal that was not ours": (
        ONE_DAEMON,
        (Life(catches=(TERM,), stop_end=End(signal=11)),),
        139,
    ),
    "a requested stop, exit 130 though we sent TERM": (ONE_DAEMON, (Life(catches=(TERM,), stop_end=End(130)),), 130),
    "a requested stop, TERM ignored": (ONE_DAEMON, (IGNORES_TERM,), 137),
    "a requested stop, one fails and one is forced": (
        TWO_DAEMONS,
        (Life(catches=(TERM,), stop_end=End(4)), IGNORES_TERM),
        137,
    ),
    "a requested stop, one crashes and one is forced": (
        TWO_DAEMONS,
        (IGNORES_TERM, Life(catches=(TERM,), stop_end=End(signal=6))),
        134,
    ),
    "an unasked 143 is a failure": (ONE_DAEMON, (ends(143),), 143),
    "an unasked kill by TERM is a crash": (ONE_DAEMON, (killed(15),), 143),
    "an unasked 0 is a daemon that left": (ONE_DAEMON, (ends(0),), 69),
    "the first cause wins over the cascade": (
        TWO_DAEMONS,
        (ends(3), Life(catches=(TERM,), stop_end=End(signal=11))),
        3,
    ),
    "the first cause wins over a forced kill": (TWO_DAEMONS, (ends(3), IGNORES_TERM), 3),
    "the worst of one sweep": (TWO_DAEMONS, (ends(3), killed(11)), 139),
    "equals: declared first": (TWO_DAEMONS, (ends(3), ends(4)), 3),
    "an oom kill is a crash": (ONE_DAEMON, (Life(run_ms=5, end=End(signal=9, oom=True)),), 137),
    "deaths under wait-for-all count in a requested stop": (WAITING, (ends(7), STAYS), 7),
    "wait-for-all, all ended well": (WAITING, (ends(0), ends(0, 200)), 0),
    "wait-for-all, the worst of them": (WAITING, (ends(5), killed(9, 200)), 137),
    "a forgiven success does not count": (
        Bundle((daemon("a", "exit-on-child-failure"), daemon("b"))),
        (ends(0), STAYS),
        0,
    ),
    "a failure under exit-on-child-failure": (
        Bundle((daemon("a", "exit-on-child-failure"), daemon("b"))),
        (ends(9), STAYS),
        9,
    ),
    "exit_code_from a victim that ended cleanly": (
        Bundle(TWO_DAEMONS.children, exit_code_from="b"),
        (ends(3), STAYS),
        0,
    ),
    "exit_code_from overrules the cause": (
        Bundle(TWO_DAEMONS.children, exit_code_from="b"),
        (ends(3), Life(catches=(TERM,), stop_end=End(5))),
        5,
    ),
    "exit_code_from one that never ran": (
        Bundle((oneshot("set-up"), daemon("b", after=("set-up",))), exit_code_from="b"),
        (ends(1), STAYS),
        69,
    ),
    "a job's success": (Bundle((daemon("a"), job("tests"))), (STAYS, ends(0, 500)), 0),
    "a job's failure": (Bundle((daemon("a"), job("tests"))), (STAYS, ends(2, 500)), 2),
    "a job's success with another code": (
        Bundle((daemon("a"), job("tests", success_codes=(0, 5)))),
        (STAYS, ends(5, 500)),
        0,
    ),
    "the first of two jobs": (Bundle((job("one"), job("two"))), (ends(4, 300), ends(0, 100)), 0),
    "a job that is killed from outside": (Bundle((job("tests"),)), (killed(15),), 143),
    "a job that runs out of time": (Bundle((job("tests", timeout_ms=500),)), (ENDS_CLEANLY,), 137),
    "a oneshot that fails": (Bundle((oneshot("set-up"), daemon("a", after=("set-up",)))), (ends(6), STAYS), 6),
    "a oneshot that is killed": (Bundle((oneshot("set-up"), daemon("a"))), (killed(9), STAYS), 137),
    "a fork that fails": (ONE_DAEMON, (Life(fork_error="Cannot allocate memory"),), 69),
    "a command that is not found": (ONE_DAEMON, (Life(exec_error=127),), 127),
    "a command that cannot be executed": (ONE_DAEMON, (Life(exec_error=126),), 126),
    "a command that is not found, restarted in vain": (
        Bundle((daemon("a", "restart-on-failure"),)),
        (Life(exec_error=127),),
        127,
    ),
    "a crash that is answered": (Bundle((daemon("a", "restart-on-crash"),)), (killed(11, 1_000),), 0),
    "crashes beyond the budget": (Bundle((daemon("a", "restart-on-crash"),)), (killed(11, 1),), 139),
    "a failure where crashes are answered": (Bundle((daemon("a", "restart-on-crash"),)), (ends(4, 1_000),), 4),
    "a success where crashes are answered": (
        Bundle((daemon("a", "restart-on-crash"), daemon("b"))),
        (ends(0, 1), STAYS),
        0,
    ),
    "a fork that fails where crashes are answered": (
        Bundle((daemon("a", "restart-on-crash"),)),
        (Life(fork_error="Cannot allocate memory"),),
        69,
    ),
    "a spent budget of successes": (Bundle((daemon("a", "restart"),)), (ends(0, 1),), 69),
    "a spent budget of crashes": (Bundle((daemon("a", "restart"),)), (killed(11, 1),), 139),
    "a death that a restart answered": (Bundle((daemon("a", "restart"),)), (ends(3, 1_000), STAYS), 0),
    "an awaited daemon that ends before it is ready": (
        Bundle((daemon("a", "wait-for-all"), daemon("b", after=("a",)))),
        (Life(exec_ms=10, exec_error=127), STAYS),
        127,
    ),
    "an awaited daemon that ends with success before it is ready": (
        Bundle((daemon("a", "wait-for-all", ready=Ready(Probe("notify"))), daemon("b", after=("a",)))),
        (ends(0), STAYS),
        69,
    ),
    "readiness missed": (
        Bundle((daemon("a", ready=Ready(Probe("tcp", port=1))),)),
        (Life(ready_ms=None),),
        69,
    ),
    "unhealthy, which stops the bundle": (
        Bundle((daemon("a", health=Check(Probe("tcp", port=1), interval_ms=1_000), on_unhealthy="stop"),)),
        (Life(sick=((0, 100_000),)),),
        69,
    ),
}


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_by_example(rule: str) -> None:
    """A TERM comes after a minute; whatever still runs by then is asked to stop."""
    bundle, lives, code = RULES[rule]
    trace = simulate(
        Scenario(bundle, tuple((life,) if life is STAYS else _lives(life) for life in lives), stop_at_ms=60_000)
    )
    assert trace.exit is not None, trace.crash or trace.stuck
    assert trace.exit.code == code, render(trace)


def _lives(life: Life) -> tuple[Life, ...]:
    return (life, STAYS) if life.run_ms == 1_000 else (life,)


def run(bundle: Bundle, *lives: tuple[Life, ...], **facts: object) -> int:
    """The exit code of a run in which no promise was broken."""
    trace = simulate(Scenario(bundle, lives, **facts))  # type: ignore[arg-type]
    violations = check(trace)
    assert not violations, render(trace, violations)
    assert trace.exit is not None
    return trace.exit.code


CHECKED = Check(Probe("tcp", port=1), interval_ms=1_000, timeout_ms=500, retries=1)
SICK = ((0, 10_000_000),)


def test_what_the_init_caused_is_no_worse_than_failure() -> None:
    """What the init itself brought about is not worse than a failure.

    a has no restart left when TERM ends it for its health; in the same sweep b fails, and that is to blame.
    """
    a = daemon("a", health=CHECKED, on_unhealthy="restart", restarts=Budget(0))
    assert run(Bundle((a, daemon("b"))), (Life(sick=SICK, dies_ms=200),), (ends(3, 1_200),)) == 3
    assert run(Bundle((a, job("b"))), (Life(sick=SICK, dies_ms=200),), (ends(0, 1_200),)) == 69


def test_a_daemon_that_ends_when_asked_has_not_left() -> None:
    """A daemon that ends well when it is asked to has not left."""
    bundle = Bundle((daemon("a"), daemon("b")), exit_code_from="a")
    order = Request(1_000, ChildStopOrdered(0, 1))
    assert run(bundle, (ENDS_CLEANLY,), (STAYS,), requests=(order,)) == 0


@pytest.mark.parametrize("on_unhealthy", ["stop", "restart"])
def test_a_death_is_to_blame_for_a_failed_check(on_unhealthy: str) -> None:
    """A death is to blame, and not the check that failed because of it.

    The probe is out when the daemon crashes; both are seen in one wake-up.
    """
    bundle = Bundle((daemon("a", health=CHECKED, on_unhealthy=on_unhealthy),))
    crashes = Life(run_ms=1_020, end=End(signal=11), probe_ms=50)
    for jumbled in (False, True):
        assert run(bundle, (crashes, STAYS), freezes=(Freeze(1_010, 200),), jumbled=jumbled) == 139


def test_the_table_of_policies_is_the_contracts() -> None:
    """Each row of the contract's table says in words what the row of `core/policies.py` says."""
    text = (ROOT / "docs/contract.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `([a-z-]+)`(?: \(default\))? \| (.*) \|$", text, flags=re.MULTILINE))
    told = {name: rows[name] for name in rows if name in POLICIES}
    answers = {
        "every death stops the bundle": (STOP, STOP, STOP),
        "a death that is not a success stops the bundle; after a success the others continue": (ACCEPT, STOP, STOP),
        "the daemon is always restarted, as long as its budget lasts": (AGAIN, AGAIN, AGAIN),
        "the daemon is restarted after every death but a success, as long as its budget lasts": (ACCEPT, AGAIN, AGAIN),
        "the daemon is restarted if a signal killed it, as long as its budget lasts; a failure stops the bundle; "
        "after a success the others continue": (ACCEPT, STOP, AGAIN),
        "nothing: the bundle ends when its last child has ended": (ACCEPT, ACCEPT, ACCEPT),
    }
    assert {name: answers[row] for name, row in told.items()} == {
        name: (row.success, row.failure, row.crash) for name, row in POLICIES.items()
    }
    assert "| `exit-on-child-death` (default) |" in text
    assert policies.DEFAULT == "exit-on-child-death"
