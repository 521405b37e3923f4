"""Frozen value classes that cost PID 1 nothing.

`dataclasses`, `enum` and `typing` together take longer to import than the rest of the init
takes to run its daemons, so the core's vocabularies stand on a tuple: `class Death(Value)` with
annotated fields gets a positional and keyword constructor, read-only attributes, `__match_args__`,
equality by type and content, and a hash. Type checkers see a frozen dataclass.
"""

from __future__ import annotations

from _operator import itemgetter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Self, dataclass_transform

    @dataclass_transform(frozen_default=True)
    class _Record(type):
        pass

    class Value(metaclass=_Record):
        """Base of every frozen value of the core."""

        def replace(self, **changes: Any) -> Self:
            """A copy with some fields changed. Raises TypeError for an unknown field."""

        def fields(self) -> tuple[tuple[str, Any], ...]:
            """The fields in order, as `(name, value)` pairs."""

else:
    _FIELDS = tuple(property(itemgetter(position)) for position in range(24))
    """What reads a field, by its place: the same for every class."""

    class _Record(type):
        def __new__(mcs, name, bases, namespace):
            names = tuple(namespace.get("__annotations__", ()))
            if "__annotate_func__" in namespace or "__annotate__" in namespace:
                raise TypeError(f"{name}: declare values under `from __future__ import annotations`")
            if len(names) > len(_FIELDS):
                raise TypeError(f"{name}: more than {len(_FIELDS)} fields")
            namespace["_defaults"] = {field: namespace.pop(field) for field in names if field in namespace}
            namespace.update(zip(names, _FIELDS, strict=False))
            namespace["__slots__"] = ()
            namespace["__match_args__"] = names
            return type.__new__(mcs, name, bases, namespace)

    class Value(tuple, metaclass=_Record):
        def __new__(cls, *args, **kwargs):
            names = cls.__match_args__
            missing = len(names) - len(args)
            if kwargs or missing < 0 or missing > len(cls._defaults):
                args = _complete(cls, names, args, kwargs)
            elif missing:
                defaults = cls._defaults
                args += tuple([defaults[name] for name in names[-missing:]])
            return tuple.__new__(cls, args)

        def __eq__(self, other):
            return type(self) is type(other) and tuple.__eq__(self, other)

        def __ne__(self, other):
            return not self == other

        def __hash__(self):
            return hash((type(self).__name__, *self))

        def __repr__(self):
            inside = ", ".join(f"{name}={value!r}" for name, value in self.fields())
            return f"{type(self).__name__}({inside})"

        def __getnewargs__(self):
            return tuple(self)

        def replace(self, **changes):
            return type(self)(**{**dict(self.fields()), **changes})

        def fields(self):
            return tuple(zip(self.__match_args__, self, strict=True))

    def _complete(cls, names, args, kwargs):
        """The whole row of fields from what was given and the declared defaults."""
        given = {**cls._defaults, **dict(zip(names, args, strict=False)), **kwargs}
        if len(args) > len(names) or set(given) != set(names) or set(kwargs) & set(names[: len(args)]):
            odd = sorted(set(given) ^ set(names))
            raise TypeError(f"{cls.__name__}: missing, unknown or repeated fields: {odd or sorted(kwargs)}")
        return tuple(given[name] for name in names)
