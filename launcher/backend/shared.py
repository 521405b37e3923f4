"""What backends of different engines do in the same way."""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from typing import TypeVar

from launcher import state
from launcher.backend.base import Running
from launcher.errors import LauncherError
from launcher.plan import SIDECARS, BottlePlan

ENDED = ("exited", "dead", "created")
ASKS_S = 1.0
"""How often an engine is asked whether a bundle still runs, where it cannot be waited for."""
Plan = TypeVar("Plan", bound=BottlePlan)


def left_behind(objects: Iterable[Running], slugs: Iterable[str] = ()) -> list[str]:
    """The bottles of these objects, and `slugs` besides, at which no launcher works and that do not run whole."""
    by_slug: dict[str, list[Running]] = {slug: [] for slug in slugs}
    for each in objects:
        by_slug.setdefault(each.slug, []).append(each)
    return [
        slug
        for slug, found in sorted(by_slug.items())
        if not (state.is_held(state.state_root() / slug) or _is_whole(found))
    ]


def _is_whole(objects: Iterable[Running]) -> bool:
    """Whether a bottle's agent and bundle run both."""
    states = {each.role: each.state for each in objects if each.kind == "container"}
    return all(states.get(role, "exited") not in ENDED for role in ("agent", SIDECARS))


def each_second(sleep: Callable[[float], None], look: Callable[[], None]) -> Callable[[float], None]:
    """A `sleep` that also calls `look`, at most once in `ASKS_S`; what either raises goes on."""
    asked = time.monotonic()

    def sleep_and_look(seconds: float) -> None:
        nonlocal asked
        sleep(seconds)
        if time.monotonic() - asked > ASKS_S:
            asked = time.monotonic()
            look()

    return sleep_and_look


def refuse(faults: Mapping[str, bool], hint: str) -> None:
    """Raises `LauncherError` with the words of all faults that are there."""
    if found := [words for words, is_there in faults.items() if is_there]:
        raise LauncherError("\n".join(found), hint=hint)


def recast(kind: type[Plan], plan: BottlePlan) -> Plan:
    """The same plan as another backend's kind, which has the fields of this one and perhaps more."""
    return kind(**{field.name: getattr(plan, field.name) for field in fields(plan)})
