"""How hard the property tests try: `HYPOTHESIS_PROFILE=dev` (default), `ci`, or `night`.

The runs of `ci` follow from the commit: the same commit is tried in the same way on every machine,
and every new commit in a new one.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import hypothesis
import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).parents[2]
PROFILE = os.environ.get("HYPOTHESIS_PROFILE", "dev")
EVENTS = {"dev": 100_000, "ci": 1_000_000, "night": 100_000_000}
"""How many events the seeded generator simulates, without Hypothesis."""

PATIENT = settings(
    deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
settings.register_profile("dev", PATIENT, max_examples=100)
settings.register_profile("ci", PATIENT, max_examples=400, database=None)
settings.register_profile("night", PATIENT, max_examples=20_000)
settings.load_profile(PROFILE)


def commit() -> str:
    """The commit that is checked out, or "0" where there is none."""
    command = ["git", "-C", str(ROOT), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "0"


SEED = commit() if PROFILE == "ci" else os.environ.get("BOTTLE_SEED", "0")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give Hypothesis the commit's seed, unless a test or the command line has chosen one."""
    if PROFILE != "ci":
        return
    for item in items:
        if not isinstance(item, pytest.Function) or not hypothesis.is_hypothesis_test(item.function):
            continue
        if not hasattr(item.function, "_hypothesis_internal_use_seed"):
            hypothesis.seed(int(SEED, 16))(item.function)


@pytest.fixture(scope="session")
def seed() -> str:
    """What every random choice of this run follows from; a failure names it."""
    return SEED


@pytest.fixture(scope="session")
def event_count() -> int:
    """How many events to simulate."""
    return EVENTS[PROFILE]
