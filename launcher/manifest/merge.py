"""Bottles out of their parents: tables are merged key by key, lists joined, and of anything else the later holds."""

from collections.abc import Mapping, Sequence
from typing import Any

from launcher.manifest.lines import Path as KeyPath
from launcher.manifest.schema import Bottle
from launcher.manifest.source import Fault, Source

WHOLE = (("credentials",), ("git", "repos"))
"""Tables whose entries replace each other whole: half of one credential and half of another are none."""
REPLACED = (("daemons",),)
"""Lists of which the later holds."""


class Bottles:
    """The bottles of several files, by name."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self.sources: dict[str, Source] = {}
        for source in sources:
            for name in source.manifest.bottles:
                if name in self.sources:
                    fault = f"there is a bottle of that name in {self.sources[name].path} too"
                    raise source.error([Fault(("bottles", name), fault)])
                self.sources[name] = source

    def __contains__(self, name: str) -> bool:
        return name in self.sources

    def merged(self, names: Sequence[str], asked: tuple[Source, KeyPath]) -> Bottle:
        """Several bottles as one, in the order given; `asked` is the key that names them.

        Raises `ManifestError` for a name that there is not, and for a bottle that extends itself.
        """
        table: dict[str, Any] = {}
        for name in self.in_order(names, asked):
            own = self.sources[name].tables["bottles"][name]
            table = merge(table, {key: value for key, value in own.items() if key != "extends"})
        return Bottle.model_validate(table)

    def in_order(self, names: Sequence[str], asked: tuple[Source, KeyPath]) -> list[str]:
        """The bottles and all that they extend: each once, and after all that it extends.

        So what two parents have from the same bottle does not undo what one of them says over it.

        Raises as `merged` does.
        """
        found: dict[str, None] = {}
        for name in names:
            self._visit(name, asked, (), found)
        return list(found)

    def _visit(
        self, name: str, asked: tuple[Source, KeyPath], on_the_way: tuple[str, ...], found: dict[str, None]
    ) -> None:
        if name in on_the_way:
            circle = " extends ".join((*on_the_way[on_the_way.index(name) :], name))
            raise asked[0].error([Fault(asked[1], f"a circle: {circle}")])
        if name not in self.sources:
            known = ", ".join(sorted(self.sources)) or "none"
            raise asked[0].error([Fault(asked[1], f"there is no bottle {name!r}; known: {known}")])
        if name in found:
            return
        source = self.sources[name]
        parents = source.tables["bottles"][name].get("extends", [])
        for parent in [parents] if isinstance(parents, str) else parents:
            self._visit(parent, (source, ("bottles", name, "extends")), (*on_the_way, name), found)
        found[name] = None


def merge(earlier: Mapping[str, Any], later: Mapping[str, Any], path: tuple[str, ...] = ()) -> dict[str, Any]:
    """The later over the earlier."""
    merged = dict(earlier)
    for key, value in later.items():
        here, before = (*path, key), merged.get(key)
        if isinstance(value, dict) and isinstance(before, dict) and path not in WHOLE:
            merged[key] = merge(before, value, here)
        elif isinstance(value, list) and isinstance(before, list) and here not in REPLACED:
            merged[key] = before + [item for item in value if item not in before]
        else:
            merged[key] = value
    return merged
