"""From a run that broke a promise to the smallest one that breaks the same.

Greedy delta debugging (Zeller, 1999) on the scenario's values: every simpler neighbour is tried,
the first that still fails becomes the new one, until none does.
"""

from __future__ import annotations

from dataclasses import MISSING, fields, replace
from typing import TYPE_CHECKING, Any

from bottle_init.core.spec import Bundle, Spec
from bottle_init.testing.scenario import Life

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bottle_init.testing.scenario import Scenario

SIMPLE_MS = (0, 1, 10, 100, 1_000, 10_000)


def shrink(
    scenario: Scenario, fails: Callable[[Scenario], bool], *, bundle_too: bool = False, attempts: int = 5_000
) -> Scenario:
    """The smallest scenario found that still fails.

    Args:
        scenario: one that fails.
        fails: whether a scenario breaks the same promise.
        bundle_too: whether the bundle may become simpler as well, or is what is being tested.
        attempts: how many neighbours to try at most.
    """
    searching = True
    while searching:
        searching = False
        for candidate in _neighbours(scenario, bundle_too=bundle_too):
            attempts -= 1
            if attempts < 0:
                return scenario
            if fails(candidate):
                scenario, searching = candidate, True
                break
    return scenario


def _neighbours(scenario: Scenario, *, bundle_too: bool) -> Iterator[Scenario]:
    """Simpler scenarios, the boldest steps first."""
    if bundle_too:
        yield from _without_children(scenario)
    for name in ("requests", "freezes", "storms", "stalls"):
        yield from (_but(scenario, name, rest) for rest in _without_one(getattr(scenario, name)))
    for child, lives in enumerate(scenario.lives):
        yield from (_with_lives(scenario, child, simpler) for simpler in _simpler_lives(lives))
    if bundle_too:
        yield from _simpler_bundles(scenario)
    yield from _plainer(scenario)
    for stop_at_ms in (2_000, 5_000, 10_000, 30_000):
        if stop_at_ms < scenario.stop_at_ms:
            yield replace(scenario, stop_at_ms=stop_at_ms)
    for name in ("requests", "freezes", "storms", "stalls"):
        yield from (_but(scenario, name, rest) for rest in _each_simpler(getattr(scenario, name)))


def _plainer(scenario: Scenario) -> Iterator[Scenario]:
    """The same on a plainer machine."""
    for name in ("late_answers", "jumbled", "one_pipe", "recycled", "drop_error", "lease_error"):
        if value := getattr(scenario, name):
            yield _but(scenario, name, value=type(value)())
    if scenario.descriptors is not None:
        yield _but(scenario, "descriptors", value=None)
    if scenario.lease_ms:
        yield _but(scenario, "lease_ms", value=0)


def _but(scenario: Scenario, name: str, value: Any) -> Scenario:
    changes: dict[str, Any] = {name: value}
    return replace(scenario, **changes)


def _without_one(values: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    if len(values) > 2:
        yield ()
    for index in range(len(values)):
        yield values[:index] + values[index + 1 :]


def _each_simpler(values: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    for index, value in enumerate(values):
        for simpler in _simpler(value):
            yield (*values[:index], simpler, *values[index + 1 :])


def _simpler(value: Any) -> Iterator[Any]:
    """A frozen value with one of its fields at its default, or at a rounder time."""
    for field in fields(value):
        present = getattr(value, field.name)
        if field.default is not MISSING and present != field.default:
            yield replace(value, **{field.name: field.default})
            if field.name in ("leaves", "says", "writes"):
                yield from (replace(value, **{field.name: rest}) for rest in _without_one(present))
                yield from (replace(value, **{field.name: rest}) for rest in _each_simpler(present))
        if isinstance(present, int) and field.name.endswith(("_ms", "lines", "_bytes")):
            yield from (replace(value, **{field.name: ms}) for ms in SIMPLE_MS if ms < present)


def _with_lives(scenario: Scenario, child: int, lives: tuple[Life, ...]) -> Scenario:
    return replace(scenario, lives=(*scenario.lives[:child], lives, *scenario.lives[child + 1 :]))


def _simpler_lives(lives: tuple[Life, ...]) -> Iterator[tuple[Life, ...]]:
    if lives != (Life(),):
        yield (Life(),)
    if len(lives) > 1:
        yield from _without_one(lives)
    yield from _each_simpler(lives)


def _without_children(scenario: Scenario) -> Iterator[Scenario]:
    children = scenario.bundle.children
    for index, spec in enumerate(children):
        if len(children) == 1 or scenario.bundle.exit_code_from == spec.name:
            continue
        rest = tuple(
            other.replace(after=tuple(name for name in other.after if name != spec.name))
            for other in children
            if other is not spec
        )
        requests = tuple(
            replace(request, event=_renumbered(request.event, index))
            for request in scenario.requests
            if getattr(request.event, "child", None) != index
        )
        lives = scenario.lives[:index] + scenario.lives[index + 1 :]
        yield replace(scenario, bundle=scenario.bundle.replace(children=rest), lives=lives, requests=requests)


def _renumbered(event: Any, gone: int) -> Any:
    child = getattr(event, "child", -1)
    return event.replace(child=child - 1) if child > gone else event


def _simpler_bundles(scenario: Scenario) -> Iterator[Scenario]:
    bundle = scenario.bundle
    plain = Bundle(())
    for name in ("exit_code_from", "lease", "stop_timeout_ms", "policy"):
        if getattr(bundle, name) != getattr(plain, name):
            yield replace(scenario, bundle=bundle.replace(**{name: getattr(plain, name)}))
    for index, spec in enumerate(bundle.children):
        default = Spec(spec.name, spec.kind, spec.command)
        for name, value in spec.fields():
            if value != getattr(default, name):
                simpler = spec.replace(**{name: getattr(default, name)})
                children = (*bundle.children[:index], simpler, *bundle.children[index + 1 :])
                yield replace(scenario, bundle=bundle.replace(children=children))
