"""How bundles are, and how much waits in them: in their own words of this moment.

The engine's own check comes every 15 seconds, and only three failures in a row change its word. The init of a bundle
knows of a kill switch or a question at once.
"""

import re
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from launcher import state
from launcher.backend.base import Running
from launcher.docker import AT_ONCE, Command, Result, run
from launcher.errors import LauncherError
from launcher.plan import SIDECARS

ASK = "bottle-health"
KILL_SWITCH = "kill switch on"
RUNS = ("running", "starting", "healthy", "unhealthy")
VERDICTS = ("healthy", "degraded", "starting", "unhealthy", "stopping")
_WAITING = re.compile(r"\b(\d+) requests? waits? for the operator\b")


@dataclass(frozen=True, slots=True)
class Health:
    """What a bundle says of itself."""

    state: str
    """The init's verdict on its daemons, or `KILL_SWITCH`."""
    waiting: int
    """Requests and questions that wait for the operator."""


def health_of(objects: Iterable[Running], in_bundle: Callable[[str, str], Command]) -> dict[str, Health]:
    """The health of those bundles that run and are this operator's, by slug: one call for each, side by side.

    `in_bundle` is the backend's. A bundle that does not answer is left out.
    """
    mine = state.operator()
    slugs = [
        each.slug for each in objects if each.role == SIDECARS and each.state in RUNS and each.operator in ("", mine)
    ]
    if not slugs:
        return {}
    with ThreadPoolExecutor(AT_ONCE) as pool:
        answers = pool.map(lambda slug: _ask(in_bundle, slug), slugs)
        return {slug: health for slug, health in zip(slugs, answers, strict=True) if health is not None}


def _ask(in_bundle: Callable[[str, str], Command], slug: str) -> Health | None:
    try:
        return read(run(in_bundle(slug, ASK), check=False))
    except LauncherError:
        return None


def read(answer: Result) -> Health | None:
    """What `bottle-health` has said; `None` where it was not the bundle that spoke."""
    verdict, _, rest = answer.stdout.partition("\n")
    if verdict not in VERDICTS:
        return None
    told = _WAITING.search(rest)
    switched_off = KILL_SWITCH in rest.splitlines()
    return Health(KILL_SWITCH if switched_off else verdict, int(told[1]) if told else 0)
