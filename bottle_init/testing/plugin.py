"""A pytest plugin for maintainers of bundles; it comes with the package.

    import pytest

    @pytest.mark.bottle_bundle("images/bundle/bundle.toml")
    def test_the_bundle_survives_anything(bottle_bundle, assert_bundle_survives):
        assert_bundle_survives(bottle_bundle)

The path is relative to pytest's root directory. `bottle_bundle = PATH` in pytest's configuration
serves all tests without a marker; `--bottle-runs` and `--bottle-seed` say how much is tried.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import pytest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bottle_init.core.spec import Bundle
    from bottle_init.testing import design
    from bottle_init.testing.fuzz import Outcome, Promise


class SurvivalCheck(Protocol):
    """What the fixture `assert_bundle_survives` is."""

    def __call__(self, bundle: Bundle, *, runs: int | None = None, promise: Promise | None = None) -> Outcome:
        """Try the bundle; fails the test with the smallest counter-example, told as a timeline."""


class DesignCheck(Protocol):
    """What the fixture `assert_design_holds` is."""

    def __call__(self, *promises: design.Promise) -> design.Judgement:
        """Judge the design of the bundle of the test, by these promises as well; fails with every breach."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options and settings of the plugin."""
    group = parser.getgroup("bottle_init", "bundles in the simulated kernel")
    group.addoption("--bottle-runs", type=int, default=1_000, help="simulated runs for each bundle (default: 1000)")
    group.addoption("--bottle-seed", default="0", help="what the runs follow from (default: 0)")
    parser.addini("bottle_bundle", "bundle file of the fixture bottle_bundle, relative to the root directory")


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker."""
    config.addinivalue_line("markers", "bottle_bundle(path, policy=None): the file of the fixture bottle_bundle")


@pytest.fixture
def bottle_bundle(request: pytest.FixtureRequest) -> Bundle:
    """The bundle of the test's marker, or of pytest's configuration; its users need not exist on this machine."""
    return _bundle(request)[0]


def _bundle(request: pytest.FixtureRequest) -> tuple[Bundle, bytes]:
    """The bundle of a test, and its text."""
    from bottle_init.bundle import load
    from bottle_init.bundle.source import BundleInvalid, read_text

    marker = request.node.get_closest_marker("bottle_bundle")
    configured = request.config.getini("bottle_bundle")
    path = marker.args[0] if marker is not None and marker.args else configured
    if not path:
        raise pytest.UsageError(
            "bottle_bundle: no file, neither by @pytest.mark.bottle_bundle(path) nor in the configuration"
        )
    file = str(request.config.rootpath / path)
    policy = marker.kwargs.get("policy") if marker is not None else None
    try:
        text = read_text(file)
        return load.from_text(text, file, policy, here=False), text
    except BundleInvalid as invalid:
        pytest.fail(str(invalid), pytrace=False)


@pytest.fixture
def assert_bundle_survives(request: pytest.FixtureRequest) -> SurvivalCheck:
    """Tries a bundle in the simulated kernel, and fails with the smallest run that breaks a promise."""
    from bottle_init.testing.fuzz import fuzz

    default_runs, seed = request.config.getoption("--bottle-runs"), request.config.getoption("--bottle-seed")

    def survive(bundle: Bundle, *, runs: int | None = None, promise: Promise | None = None) -> Outcome:
        outcome = fuzz(bundle, seed=seed, runs=default_runs if runs is None else runs, promise=promise)
        if outcome.counter_example is not None:
            pytest.fail(f"{outcome.counter_example}\n{outcome}", pytrace=False)
        return outcome

    return survive


@pytest.fixture
def assert_design_holds(request: pytest.FixtureRequest) -> DesignCheck:
    """Judges the design of the bundle of the test, and fails with all that is wrong with it."""
    from bottle_init.bundle import accepted
    from bottle_init.testing import design

    def holds(*promises: design.Promise) -> design.Judgement:
        bundle, text = _bundle(request)
        own: Sequence[design.Promise] = promises
        seed = request.config.getoption("--bottle-seed")
        judgement = design.judge(bundle, accepted=accepted.lone_daemons(text), own=own, seed=seed)
        if not judgement.is_good:
            pytest.fail(str(judgement), pytrace=False)
        return judgement

    return holds
