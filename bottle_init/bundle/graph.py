"""Names and the `after` graph: what dangles, what goes round in circles, who starts when (contract 4, 9)."""

from __future__ import annotations

from bottle_init.bundle.table import nearest
from bottle_init.core.values import Value
from bottle_init.core.words import ONESHOT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from bottle_init.bundle.source import Faults
    from bottle_init.core.spec import Bundle


class Node(Value):
    """A child as the graph sees it: `path` is its table in the file."""

    name: str
    kind: str
    path: str
    after: tuple[str, ...]
    enabled: bool = True


NOTHING_ENABLED = "every daemon and job has enabled = false, so nothing would run"


def faults(nodes: Sequence[Node], exit_code_from: str | None) -> Faults:
    """All that is wrong with the children as a whole, each as `(path, message)`."""
    found = list(_repeated(nodes))
    if all(node.kind == ONESHOT for node in nodes):
        found.append(("", "there is neither a daemon nor a job, so nothing to run: add [daemons.NAME] or [jobs.NAME]"))
    elif not any(node.enabled for node in nodes if node.kind != ONESHOT):
        found.append(("", NOTHING_ENABLED))
    names = [node.name for node in nodes]
    for node in nodes:
        found.extend(_unknown(f"{node.path}.after", name, names) for name in node.after if name not in names)
    if exit_code_from is not None and exit_code_from not in names:
        found.append(_unknown("bundle.exit_code_from", exit_code_from, names))
    found.extend(_cycles(nodes))
    return found


def _repeated(nodes: Sequence[Node]) -> Iterable[tuple[str, str]]:
    first: dict[str, Node] = {}
    for node in nodes:
        owner = first.setdefault(node.name, node)
        if owner is not node:
            yield node.path, f"the name is taken by {owner.path}: it can be one child's alone"


def _unknown(path: str, name: str, names: list[str]) -> tuple[str, str]:
    return path, f"there is no child {name}{nearest(name, names)}"


def _cycles(nodes: Sequence[Node]) -> Iterable[tuple[str, str]]:
    """Cycles enough that none is left once each is cut at its last step."""
    paths = {node.name: node.path for node in nodes}
    after = {node.name: tuple(name for name in node.after if name in paths) for node in nodes}
    while True:
        _drop_startable(after)
        if not after:
            return
        cycle = _walk(after)
        chain = " -> ".join((*cycle, cycle[0]))
        yield f"{paths[cycle[0]]}.after", f"goes round in a circle: {chain} (each is after the next)"
        after[cycle[-1]] = tuple(name for name in after[cycle[-1]] if name != cycle[0])


def _drop_startable(after: dict[str, tuple[str, ...]]) -> None:
    """Take away, again and again, every child that is after none of those that are left."""
    while free := [name for name, needs in after.items() if not any(need in after for need in needs)]:
        for name in free:
            del after[name]


def _walk(after: dict[str, tuple[str, ...]]) -> list[str]:
    """A cycle, beginning with its first declared child; everything in `after` is after something in it."""
    steps: dict[str, None] = {}
    name = next(iter(after))
    while name not in steps:
        steps[name] = None
        name = next(need for need in after[name] if need in after)
    cycle = list(steps)[list(steps).index(name) :]
    first = min(cycle, key=list(after).index)
    turn = cycle.index(first)
    return cycle[turn:] + cycle[:turn]


def levels(bundle: Bundle) -> list[list[str]]:
    """The children by when they can start: all of a level need only what is in the levels before."""
    left = {spec.name: spec.after for spec in bundle.children}
    found = []
    while left:
        level = [name for name, needs in left.items() if not any(need in left for need in needs)]
        found.append(level)
        for name in level:
            del left[name]
    return found
