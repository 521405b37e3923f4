"""Variables of the environment in the values of a draft, and what `[variables]` can say of them (contract 9.4).

A converter puts a mark where its tool would put a variable. Once all values are known, each variable that stands in one
is declared, and the marks become `${NAME}`. The operators are those of a shell, as Compose has them, too.
"""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from bottle_init.bundle import variables
from bottle_init.bundle.table import listed
from bottle_init.convert.comments import MARK, is_marked, shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from bottle_init.convert.comments import Comments

_SECRET: Final = re.compile("pass|secret|token|key|credential|private|auth|dsn|salt", re.IGNORECASE)
_WITH_PASSWORD: Final = re.compile(r"://[^/@\s]*:[^/@\s]+@")
_ANYTHING: Final = "x"


class Use(NamedTuple):
    """A variable at one place: `operator` is one of "", -, :-, ?, :?, +, :+, and `rest` what follows it, marked."""

    name: str
    operator: str
    rest: str


class Variables:
    """The variables of one draft. `declared` are those of the bundle file, with their defaults, None for required.

    `emptied` are those whose default also stands for an empty value, `refused` those that must not be empty, and
    `nested` those that are required only in place of another one. `apart` are the names that a variable has here
    because of more defaults, and `unwritten` those whose default cannot be written. `messages` are for those that are
    missing, and `withheld` says why a value of .env is not copied.
    """

    def __init__(self) -> None:
        self.declared: dict[str, str | None] = {}
        self.emptied: dict[str, None] = {}
        self.refused: dict[str, None] = {}
        self.apart: dict[str, list[str]] = {}
        self.messages: dict[str, str] = {}
        self.nested: dict[str, None] = {}
        self.unwritten: dict[str, None] = {}
        self.withheld: dict[str, str] = {}
        self._given: dict[str, str] = {}
        self._uses: dict[str, Use] = {}
        self._marks: dict[Use, str] = {}
        self._names: dict[Use, str] = {}
        self._defaults: dict[str, str | None] = {}
        self._required: set[str] = set()

    def give(self, name: str, value: str) -> None:
        """A value that holds where the environment has none. What looks like a secret is withheld, and why."""
        if _SECRET.search(name) or _WITH_PASSWORD.search(value):
            self.withheld[name] = "it looks like a secret, which no image should contain"
        elif "$" in value:
            self.withheld[name] = "it has a $ in it"
        else:
            self._given[name] = value

    def is_given(self, name: str) -> bool:
        """Whether the variable has a value where the environment has none."""
        return name in self._given or name in self.withheld

    def mark(self, name: str, operator: str = "", rest: str = "") -> str:
        """What stands in a value in place of the variable."""
        use = Use(name, operator, rest)
        if use not in self._marks:
            self._marks[use] = f"\ue000{name}\ue002{len(self._marks)}\ue001"
            self._uses[self._marks[use]] = use
        return self._marks[use]

    def unset(self, text: str) -> str:
        """A text as it is where the environment has none of its variables; a required one is an `x`."""
        return MARK.sub(lambda match: self._unset(match[0]), text)

    def each_as(self, text: str, value: str) -> str:
        """A text as it is where every variable has this value."""
        return MARK.sub(lambda match: value if match[0] in self._uses else match[0], text)

    def split(self, text: str, said: Comments, key: str) -> list[str]:
        """The words of a marked line under `key`, with what is lost because its variables were replaced before.

        Raises ValueError for a quotation that is not closed.
        """
        words = shlex.split(text)
        if not is_marked(text):
            return words
        fixed = _split(self.unset(text))
        if fixed != [self.unset(word) for word in words]:
            said.lose(f"{key}: it is split into words once its variables are replaced, so their defaults stand there")
            return fixed
        odd = [
            what
            for what, value in (("is empty", ""), ("has spaces", "a b"), ("has quotes or backslashes", "a\\\"b'"))
            if _split(self.each_as(text, value)) != [self.each_as(word, value) for word in words]
        ]
        if odd:
            say = said.lose if odd[1:] else said.note
            say(f"{key}: a variable whose value {listed(odd, 'or')} changes the words there; here it stays as it is")
        return words

    def _unset(self, mark: str) -> str:
        use = self._uses.get(mark)
        if use is None:
            return mark
        given = _ANYTHING if use.name in self.withheld else self._held(use)
        if use.operator.endswith("+"):
            return "" if given is None else self.unset(use.rest)
        if given is not None:
            return given
        if use.operator.endswith("?"):
            return _ANYTHING
        return self.unset(use.rest)

    # Declaring them.

    def declare(self, texts: Iterable[str]) -> None:
        """Declare all variables that stand in these texts, which are all of the bundle file."""
        seen = list(dict.fromkeys(use for text in texts for use in self._in(text)))
        for use in seen:
            if use.operator.endswith("?") and self._held(use) is None:
                self._required.add(use.name)
                if use.rest:
                    self.messages.setdefault(use.name, self.unset(use.rest))
        for use in seen:
            self._name(use)
        for name, default in self._defaults.items():
            self.declared[name] = None if default is None else self._default_written(name, default)

    def _in(self, text: str) -> Iterator[Use]:
        return (self._uses[match[0]] for match in MARK.finditer(text) if match[0] in self._uses)

    def _name(self, use: Use) -> str | None:
        """The name of the variable that stands for a use, declared if it was not; None where none can."""
        if use.operator.endswith("+"):
            return None
        if use not in self._names:
            default = self._default(use)
            for below in self._in(default or ""):
                self._name(below)
            self._names[use] = self._free_name(use.name, default)
            self._defaults.setdefault(self._names[use], default)
            if use.operator == ":-" and use.rest:
                self.emptied[use.name] = None
            elif use.operator == ":?":
                self.refused[use.name] = None
        return self._names[use]

    def _default(self, use: Use) -> str | None:
        """The default, marked, or None where the variable is required."""
        if use.name in self._required or use.name in self.withheld:
            return None
        given = self._held(use)
        if given is not None:
            return given
        if use.operator.endswith("?"):
            self.nested[use.name] = None
            return ""
        return use.rest

    def _held(self, use: Use) -> str | None:
        """The given value that takes the place of the variable; an empty one does not where `:` is in the operator."""
        given = self._given.get(use.name)
        return None if given == "" and use.operator.startswith(":") else given

    def _free_name(self, wanted: str, default: str | None) -> str:
        """The variable itself, or for one more default of it a name that nothing else has."""
        name, number = wanted, 2
        natural = {use.name for use in self._marks}
        while self._defaults.get(name, default) != default or (number > 2 and name in natural):
            name, number = f"{wanted}_{number}", number + 1
        if name != wanted and name not in self.apart.setdefault(wanted, []):
            self.apart[wanted].append(name)
        return name

    def _default_written(self, name: str, default: str) -> str:
        written = self._written(default, list(self.declared))
        before = tuple((each, value) for each, value in self.declared.items())
        found, faults = variables.resolve((*before, (name, written)), {})
        if faults or (name in found.known and found.known[name] != self.unset(default)):
            self.unwritten[name] = None
            return ""
        return written

    def require(self, name: str) -> bool:
        """Make a variable required that has nothing for a default; whether it was not."""
        if self.declared.get(name) != "":
            return False
        self.declared[name] = None
        return True

    # Writing them.

    def written(self, text: str) -> str | None:
        """A text as a bundle file has it, or None where that cannot be written."""
        written = self._written(text, self.declared)
        values = variables.Values()
        values.known = {name: f"\ue000{name}" for name in self.declared}
        same = MARK.sub(lambda match: self._stand_in(match[0]), text)
        return written if str(variables.replace(written, values)) == same else None

    def _stand_in(self, mark: str) -> str:
        use = self._uses.get(mark)
        name = None if use is None else self._names.get(use)
        return self._unset(mark) if name is None else f"\ue000{name}"

    def _written(self, text: str, declared: Iterable[str]) -> str:
        parts, done = [], 0
        known = set(declared)
        for match in MARK.finditer(text):
            use = self._uses.get(match[0])
            name = None if use is None else self._names.get(use)
            if use is not None:
                parts += [
                    _escaped(text[done : match.start()], known),
                    f"${{{name}}}" if name is not None else self._unset(match[0]),
                ]
                done = match.end()
        return "".join(parts) + _escaped(text[done:], known)

    def unsaid(self, text: str) -> list[str]:
        """Those that no variable of a bundle file can stand for, for people."""
        return [
            f"${{{use.name}{use.operator}{shown(use.rest)}}}" for use in self._in(text) if use.operator.endswith("+")
        ]

    def used(self, texts: Iterable[str]) -> dict[str, str | None]:
        """The declarations that these written texts, and their defaults, need."""
        needed: set[str] = set()
        todo = list(texts)
        while todo:
            text = todo.pop()
            named = [name for name in self.declared if name not in needed and f"${{{name}}}" in text]
            needed.update(named)
            todo.extend(self.declared[name] or "" for name in named)
        return {name: default for name, default in self.declared.items() if name in needed}


def _split(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:
        return [text]


def _escaped(text: str, declared: set[str]) -> str:
    """A text in which nothing is replaced."""
    return re.sub(r"\$\{([^${}]*)\}", lambda match: f"${match[0]}" if match[1] in declared else match[0], text)


def strings(value: Any) -> Iterator[str]:
    """Every string in tables and lists."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for below in value.values() if isinstance(value, dict) else value:
            yield from strings(below)
