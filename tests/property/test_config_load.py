"""A valid bundle file means what it says, however it is spelled (contract 9)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given

from bottle_init.bundle import load
from bottle_init.core import backoff
from bottle_init.core.policies import POLICIES
from bottle_init.core.spec import Backoff, Budget, Bundle, Probe, Spec
from tests.property.bundle_documents import bundles, text_of

if TYPE_CHECKING:
    from bottle_init.core.spec import Bundle, Spec

MINIMAL = '[daemons.web]\ncommand = ["web"]\n'


def bundle_of(text: str) -> Bundle:
    return load.from_text(text, "bundle.toml")


def daemon(keys: str) -> Spec:
    """The one daemon of a file that gives it these keys."""
    return bundle_of(MINIMAL + keys).children[0]


@given(bundles())
def test_a_bundle_is_what_its_file_says(case: tuple[Bundle, dict[str, Any]]) -> None:
    bundle, document = case
    text = text_of(document)
    assert bundle_of(text) == bundle
    assert load.from_text(text.encode(), "bundle.toml") == bundle


def test_the_defaults_are_those_of_the_contract() -> None:
    bundle = bundle_of(MINIMAL)
    assert bundle == Bundle((Spec("web", "daemon", ("web",)),))
    assert bundle.policy == "exit-on-child-death"
    assert bundle.stop_timeout_ms == 8_000
    assert (bundle.logs, bundle.control, bundle.lease, bundle.exit_code_from) == ("tag", "@bottle_init", None, None)
    spec = bundle.children[0]
    assert (spec.stop_signal, spec.stop_timeout_ms, spec.stop_delay_ms, spec.timeout_ms) == (15, 5_000, 0, None)
    assert (spec.backoff, spec.restarts) == (Backoff(500, 2.0, 30_000), Budget(5, 60_000))
    assert spec.success_codes == (0,)
    assert spec.settings.no_new_privs is True
    assert spec.settings.capabilities is None


def test_the_order_of_declaration() -> None:
    """The order of declaration is oneshots, then daemons, then jobs."""
    text = "".join(
        f'[{table}.{name}]\ncommand = ["x"]\n'
        for table, name in (("jobs", "j"), ("daemons", "z"), ("oneshots", "o"), ("daemons", "a"))
    )
    assert [spec.name for spec in bundle_of(text).children] == ["o", "z", "a", "j"]


@pytest.mark.parametrize(
    ("spelled", "ms"),
    [
        ('"500ms"', 500), ('"8s"', 8_000), ('"1m30s"', 90_000), ('"2h"', 7_200_000), ('"1h1ms"', 3_600_001),
        ('"0.5s"', 500), ('"1.5h"', 5_400_000), ('"0s"', 0), ("8", 8_000), ("0.25", 250), ("1.1", 1_100), ("0", 0),
        ("0.0001", 1), ('"0.1ms"', 1),
    ],
)  # fmt: skip
def test_durations(spelled: str, ms: int) -> None:
    assert daemon(f"stop_timeout = {spelled}").stop_timeout_ms == ms


@pytest.mark.parametrize("own", [None, *POLICIES])
@pytest.mark.parametrize("asked", [None, *POLICIES])
def test_a_daemons_own_policy_wins(own: str | None, asked: str | None) -> None:
    """A daemon's own policy overrides the one that was asked for."""
    keys = f'policy = "{own}"' if own else ""
    bundle = load.from_text(f'[bundle]\npolicy = "wait-for-all"\n{MINIMAL}{keys}', "bundle.toml", asked)
    assert bundle.policy == (asked or "wait-for-all")
    assert bundle.children[0].policy == (own or asked or "wait-for-all")


def test_backoff_and_restarts_are_inherited_key_by_key() -> None:
    bundle = bundle_of(
        '[bundle]\nbackoff = { initial = "2s", factor = 3 }\nrestarts = { max = 9 }\n'
        f'{MINIMAL}backoff = {{ limit = "4s" }}\nrestarts = {{ window = 7 }}\n'
    )
    assert bundle.children[0].backoff == Backoff(2_000, 3.0, 4_000)
    assert bundle.children[0].restarts == Budget(9, 7_000)


def test_a_low_backoff_limit_caps_every_pause() -> None:
    """A backoff limit below its initial value caps every pause."""
    assert daemon('backoff = { limit = "100ms" }').backoff == Backoff(500, 2.0, 100)
    assert backoff.delay_ms(Backoff(500, 2.0, 100), 0) == backoff.delay_ms(Backoff(500, 2.0, 100), 9) == 100


@pytest.mark.parametrize(
    ("spelled", "probe"),
    [
        ("tcp = 9099", Probe("tcp", "localhost", 9099)),
        ('tcp = "[::1]:80"', Probe("tcp", "::1", 80)),
        ('http = "http://127.0.0.1"', Probe("http", "127.0.0.1", 80, "/")),
        ('http = "http://localhost:8080/health?full=1"', Probe("http", "localhost", 8080, "/health?full=1")),
        ('http = "http://[::1]?q"', Probe("http", "::1", 80, "/?q")),
        ('exec = ["test", "-e", ""]', Probe("exec", command=("test", "-e", ""))),
        ("notify = true", Probe("notify")),
    ],
)
def test_probes(spelled: str, probe: Probe) -> None:
    ready = daemon(f"ready = {{ {spelled} }}").ready
    assert ready is not None
    assert ready.probe == probe


def test_after_may_name_any_kind() -> None:
    """A child may be after a job or any other kind."""
    bundle = bundle_of(
        f'{MINIMAL}after = ["batch", "setup"]\n[jobs.batch]\ncommand = ["x"]\n[oneshots.setup]\ncommand = ["x"]\n'
    )
    assert bundle.children[1].after == ("batch", "setup")


def test_real_time_signals_and_numbers() -> None:
    assert daemon('stop_signal = "RTMIN+3"').stop_signal == 37
    assert daemon('stop_signal = "SIGRTMAX-1"').stop_signal == 63
    assert daemon('signals = { RTMIN = "sigusr1", 12 = 0 }').signals == ((34, 10), (12, 0))
