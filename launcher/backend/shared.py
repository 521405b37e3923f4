"""What backends of different engines do in the same way."""

import time
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import TypeVar

from launcher.errors import LauncherError
from launcher.plan import BottlePlan

ASKS_S = 1.0
"""How often an engine is asked whether a bundle still runs, where it cannot be waited for."""
Plan = TypeVar("Plan", bound=BottlePlan)


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
