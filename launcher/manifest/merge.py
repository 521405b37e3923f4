"""Bottles out of their parents: tables are merged key by key, lists joined, and of anything else the later holds."""

from collections.abc import Mapping, Sequence
from typing import Any

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

    def merged(self, names: Sequence[str], asked: tuple[Source, tuple[str | int, ...]]) -> Bottle:
        """Several bottles as one, in the order given; `asked` is the key that names them.

        Raises `ManifestError` for a name that there is not, and for a bottle that extends itself.
        """
        table: dict[str, Any] = {}
        for name in names:
            table = merge(table, self._whole(name, asked, ()))
        return Bottle.model_validate(table)

    def _whole(
        self, name: str, asked: tuple[Source, tuple[str | int, ...]], on_the_way: tuple[str, ...]
    ) -> dict[str, Any]:
        if name in on_the_way:
            circle = " extends ".join((*on_the_way[on_the_way.index(name) :], name))
            raise asked[0].error([Fault(asked[1], f"a circle: {circle}")])
        if name not in self.sources:
            known = ", ".join(sorted(self.sources)) or "none"
            raise asked[0].error([Fault(asked[1], f"there is no bottle {name!r}; known: {known}")])
        source = self.sources[name]
        own = dict(source.tables["bottles"][name])
        parents = own.pop("extends", [])
        table: dict[str, Any] = {}
        for parent in [parents] if isinstance(parents, str) else parents:
            where = (source, ("bottles", name, "extends"))
            table = merge(table, self._whole(parent, where, (*on_the_way, name)))
        return merge(table, own)


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
