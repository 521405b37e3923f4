"""What all tests share: how hard properties are tried, and how tests are spread over the workers of pytest-xdist.

`HYPOTHESIS_PROFILE` is `dev` (default), `ci` or `night`. The runs of `ci` follow from the commit: the same commit is
tried in the same way on every machine, and every new commit in a new one.
"""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hypothesis import HealthCheck, settings
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

ROOT = Path(__file__).resolve().parents[1]
PROFILE = os.environ.get("HYPOTHESIS_PROFILE", "dev")
EVENTS = {"dev": 100_000, "ci": 1_000_000, "night": 100_000_000}
"""How many events the seeded generator simulates, without Hypothesis."""

PATIENT = settings(
    deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
"""No property depends on the pace of the machine."""
settings.register_profile("dev", PATIENT, max_examples=100)
settings.register_profile("ci", PATIENT, max_examples=400, database=None)
settings.register_profile("night", PATIENT, max_examples=20_000)
settings.load_profile(PROFILE)

# The tests start the interpreter some thousand times; where bytecode is not written it compiles everything anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

WORKERS_PER_CPU = 2
"""Most tests of `tests/integration` wait more than they compute."""

Once = Callable[[str, Callable[[], Any]], Any]


def commit() -> str:
    """The commit that is checked out, or "0" where there is none."""
    command = ["git", "-C", str(ROOT), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "0"


SEED = commit() if PROFILE == "ci" else os.environ.get("BOTTLE_SEED", "0")


def pytest_xdist_auto_num_workers() -> int | None:
    """What `-n auto` means here. Where $PYTEST_XDIST_AUTO_NUM_WORKERS is set, xdist decides."""
    if os.environ.get("PYTEST_XDIST_AUTO_NUM_WORKERS"):
        return None
    return WORKERS_PER_CPU * len(os.sched_getaffinity(0))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling:
    """How tests are spread over the workers, whatever `--dist` says."""
    return SharedTogether(config, log)


class SharedTogether(LoadScopeScheduling):  # type: ignore[misc]
    """Every test is handed out by itself, but those of a module that shares a fixture are handed out together."""

    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.partition("::")[0]
        return path if shares_a_fixture(path) else nodeid


@cache
def shares_a_fixture(path: str) -> bool:
    """Whether the tests of a module share something that should be set up once: a fixture of the module's scope."""
    return 'scope="module"' in (ROOT / path).read_text(encoding="utf-8")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Seed the properties. What takes long is started first, so that no worker is left alone with it at the end."""
    if PROFILE == "ci":
        for item in items:
            if isinstance(item, pytest.Function):
                seed_property(item)
    if is_worker(config):
        items.sort(key=lambda item: not (item.get_closest_marker("slow") or shares_a_fixture(item.location[0])))


def seed_property(item: pytest.Function) -> None:
    """Give Hypothesis the commit's seed, unless a test or the command line has chosen one."""
    if hypothesis.is_hypothesis_test(item.function) and not hasattr(item.function, "_hypothesis_internal_use_seed"):
        hypothesis.seed(int(SEED, 16))(item.function)


def is_worker(config: pytest.Config) -> bool:
    """Whether this process is one of several workers."""
    return hasattr(config, "workerinput")


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Once:
    """Calls a function once for the whole run, whichever worker comes first; its result must be JSON."""
    directory = tmp_path_factory.getbasetemp()
    if is_worker(request.config):
        directory = directory.parent

    def call(name: str, function: Callable[[], Any]) -> Any:
        with (directory / f"once-{name}").open("a+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            if text := file.read():
                return json.loads(text)
            result = function()
            file.write(json.dumps(result))
            return result

    return call


@pytest.fixture(scope="session")
def seed() -> str:
    """What every random choice of this run follows from; a failure names it."""
    return SEED


@pytest.fixture(scope="session")
def event_count() -> int:
    """How many events to simulate."""
    return EVENTS[PROFILE]
