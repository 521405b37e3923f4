"""A bundle file in the making: its tables, and beside them, as comments, what could not be converted.

What a draft writes is always a valid bundle file: a value that the reader of its key refuses becomes a comment.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from bottle_init.bundle import document, graph, keys, patterns, readers, written
from bottle_init.bundle import variables as bundle_variables
from bottle_init.bundle.source import Wrong
from bottle_init.bundle.table import listed
from bottle_init.convert.comments import NOT_CONVERTED, Comments, shown
from bottle_init.convert.variables import Variables, strings
from bottle_init.core.words import DAEMON, JOB, ONESHOT
from bottle_init.words import durations
from bottle_init.words.text import plain

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bottle_init.bundle.source import Faults

MOST_CHILDREN: Final = 1_000
UNLIMITED_RESTARTS: Final = 1_000_000
"""For tools that never give up: a budget that nobody spends."""

_SETUID: Final = ("sudo", "su", "doas", "pkexec", "newgrp", "crontab")
"""Programs that gain privileges by their setuid bit, or refuse to run where they could not."""


class Unconvertible(Exception):
    """The input is not what it should be, and nothing comes of it; `where` is a place in it, or empty."""

    def __init__(self, where: str, message: str) -> None:
        super().__init__(f"{where}: {message}" if where else message)


class ExtraMissing(Exception):
    """A reader's library is not installed; `library` is its name."""

    def __init__(self, library: str) -> None:
        super().__init__(f"{library} is not installed")
        self.library = library


class Child(Comments):
    """One child: its `kind`, and its `table` as TOML will have it."""

    def __init__(self, name: str, kind: str, place: str) -> None:
        super().__init__()
        self.name = name
        self.kind = kind
        self.place = place
        self.table: dict[str, Any] = {}

    def command(self, words: Iterable[str]) -> None:
        """Set the command. A program that needs its setuid bit gets it."""
        found = list(words)
        self.table["command"] = found
        named = {part.rpartition("/")[2] for word in found for part in word.split()}
        if needs := sorted(named.intersection(_SETUID)):
            self.table["no_new_privs"] = False
            self.note(f"no_new_privs is false because of {', '.join(needs)}, which no child may use otherwise")

    def env(self, variables: Iterable[tuple[str, str]]) -> None:
        """Add variables; what no variable can be called is not converted."""
        for name, value in variables:
            if not patterns.is_variable(name):
                self.lose(f"the variable {name!r}: a name is made of letters, digits and _")
            elif "\0" in value:
                self.lose(f"the variable {name}: its value contains a NUL byte, which no variable can")
            else:
                self.table.setdefault("env", {})[name] = value

    def after(self, names: Iterable[str]) -> None:
        """Add children that this one starts after."""
        known = self.table.setdefault("after", [])
        known += [name for name in dict.fromkeys(names) if name not in known and name != self.name]
        if not known:
            del self.table["after"]

    def drop_key(self, key: str, why: str) -> None:
        """Turn a key into a comment."""
        self.lose(f"{key} = {_shown(self.table.pop(key))}: {why}")

    def stop_ms(self, values: bundle_variables.Values) -> int:
        """How long its stop may take where variables have these values: 5 s by default."""
        try:
            limit = bundle_variables.replace(self.table.get("stop_timeout", "5s"), values)
            return int(bundle_variables.taken(limit, readers.duration_ms))
        except (Wrong, bundle_variables.Unknown):
            return 0


class Draft(Comments):
    """The bundle file. `source` and `tool` are what it is made from; `bundle` is the table of the bundle as a whole."""

    def __init__(self, source: str, tool: str) -> None:
        super().__init__()
        self.source = source
        self.tool = tool
        self.bundle: dict[str, Any] = {}
        self.children: dict[str, Child] = {}
        self.variables = Variables()

    def child(self, wanted: str, kind: str, place: str) -> Child:
        """A new child, under a name that is as close to `wanted` as names allow. `place` is where the source has it."""
        if len(self.children) >= MOST_CHILDREN:
            raise Unconvertible(place, f"there are more than {MOST_CHILDREN:,} children")
        base = re.sub(r"[^A-Za-z0-9_-]+", "-", wanted)[:200].lstrip("-") or "child"
        name, number = base, 2
        while name in self.children:
            name, number = f"{base}-{number}", number + 1
        child = self.children[name] = Child(name, kind, place)
        if name != wanted:
            child.note(f"it was called {wanted!r}")
        return child

    @property
    def lost(self) -> list[str]:  # type: ignore[override]
        """All that changes behaviour, each with the place where it is."""
        own = Comments.lost(self)
        said = (f"{child.place}: {text}" for child in self.children.values() for text in child.lost())
        return own + list(dict.fromkeys(said))

    def text(self) -> str:
        """The bundle file. Raises Unconvertible where there is nothing that could run."""
        self._settle()
        if not any(child.kind != ONESHOT for child in self.children.values()):
            raise Unconvertible("", "; ".join([f"there is nothing to run in this {self.tool}", *Comments.lost(self)]))
        self._settle_variables()
        self._fit_stop()
        self._mend()
        return self._written()

    # Making it valid.

    def _settle(self) -> None:
        """Names that are after something that is not there are dropped."""
        for child in self.children.values():
            if "command" not in child.table:
                child.command(["sh", "-c", f"echo '{child.name}: write its command into the bundle file' >&2; exit 1"])
                child.lose("it has no command: write one in place of this one, which fails")

    def _settle_variables(self) -> None:
        """Declare the variables that stand in what the children have, and write them."""
        self.variables.declare(text for child in self.children.values() for text in strings(child.table))
        for child in self.children.values():
            child.table = {key: self._settled(child, value) for key, value in child.table.items()}
        self._say_variables()

    def _settled(self, child: Child, value: Any) -> Any:
        """A value with `${NAME}` in place of each variable, and its default in place of what cannot be written."""
        if isinstance(value, dict):
            return {key: self._settled(child, below) for key, below in value.items()}
        if isinstance(value, list):
            return [self._settled(child, below) for below in value]
        if not isinstance(value, str):
            return value
        for use in self.variables.unsaid(value):
            child.lose(f"{use} depends on whether a variable is set; in its place is what it is by default")
        written = self.variables.written(value)
        if written is None:
            fixed = self.variables.unset(value)
            child.lose(f"{_shown(fixed)}: a variable behind a $ cannot be written, so its default is in its place")
            return self.variables.written(fixed) or fixed
        return written

    def _say_variables(self) -> None:
        """What `[variables]` says less, or more, than the tool."""
        found = self.variables
        if found.emptied:
            self.lose(
                f"an empty value of {listed(found.emptied)} stands for the default there; here it is a value: leave"
                " the variable unset"
            )
        if found.refused:
            self.lose(f"an empty value of {listed(found.refused)} is refused there; here it is a value")
        if found.nested:
            self.lose(f"{listed(found.nested)} must be set where the other variable is not; here that is not checked")
        if found.unwritten:
            self.lose(f"the default of {listed(found.unwritten)} cannot be written in this file; it is empty")
        for name, others in found.apart.items():
            names = listed([name, *others])
            self.lose(f"{name} has several defaults, and is several variables here: set all of {names}")
        for name, why in found.withheld.items():
            if name in found.declared:
                self.lose(f".env has a value of {name} that is not copied, since {why}: give it to the container")
        for name, message in found.messages.items():
            self.note(f"where {name} is missing, {self.tool}s say: {message}")

    def _fit_stop(self) -> None:
        """The bundle's deadline is as long as all stops in their order may take, at least the 8 s of the default.

        A oneshot has ended before any that is after it runs.
        """
        below_ms: dict[str, int] = {}
        values, _ = bundle_variables.resolve(tuple(self.variables.declared.items()), {})
        needed_ms = 0
        for name in self._by_depth():
            child = self.children[name]
            before_ms = max((below_ms.get(other, 0) for other in child.table.get("after", ())), default=0)
            needed_ms = max(needed_ms, before_ms + child.stop_ms(values))
            below_ms[name] = before_ms if child.kind == ONESHOT else before_ms + child.stop_ms(values)
        if needed_ms > 8_000 and "stop_timeout" not in self.bundle:
            self.bundle["stop_timeout"] = durations.spell(min(needed_ms, durations.LONGEST_MS))
            self.note(
                f"a stop may take {self.bundle['stop_timeout']}, as long as the children's own times in their order:"
                " let `docker stop --timeout` (or stop_grace_period) wait for longer than that"
            )

    def _by_depth(self) -> list[str]:
        """The children, each after all that it is after, as far as they do not go round in a circle."""
        done: dict[str, None] = {}
        for _ in range(len(self.children)):
            free = [
                name
                for name, child in self.children.items()
                if name not in done and all(other in done for other in child.table.get("after", ()))
            ]
            if not free:
                break
            done.update(dict.fromkeys(free))
        return [*done, *(name for name in self.children if name not in done)]

    def _mend(self) -> None:
        """Turn every key that the bundle file does not take into a comment."""
        for _ in range(len(self.children) + len(self.variables.declared) + 10):
            faults = self._faults()
            if not faults:
                return
            for path, message in faults:
                self._drop(path, message)
        raise Unconvertible(*self._faults()[0])

    def _faults(self) -> Faults:
        text = self._written()
        try:
            text.encode()
        except UnicodeEncodeError:
            raise Unconvertible("", "a string contains half of a surrogate pair, which is no character") from None
        return document.parse(text, here=False, starts=False).faults

    def _drop(self, path: str, message: str) -> None:
        if message == graph.NOTHING_ENABLED:
            for child in self.children.values():
                if child.table.pop("enabled", True) is False:
                    child.lose("it is not started by itself there; here a bundle without any child that is cannot be")
            return
        table, name, key = [*re.split(r"[.\[]", path, maxsplit=3), "", "", ""][:3]
        at_fault = self.children.get(name) if table in keys.KINDS else None
        key = key.partition(".")[0]
        if at_fault is not None and self._require(at_fault, key, message):
            return
        if at_fault is not None and key == "command":
            at_fault.lose(f"its command {_shown(at_fault.table['command'])}: {message}")
            at_fault.table["command"] = ["false"]
        elif at_fault is not None and key in at_fault.table:
            at_fault.drop_key(key, message)
        elif table == "bundle" and name in self.bundle:
            self.lose(f"{name} = {_shown(self.bundle.pop(name))}: {message}")

    def _require(self, child: Child, key: str, message: str) -> bool:
        """Require the variables of a key that takes no empty value; whether one of them was not required."""
        named = [name for text in strings(child.table.get(key)) for name in bundle_variables.names_in(text)]
        required = [name for name in dict.fromkeys(named) if self.variables.require(name)]
        for name in required:
            child.lose(f"{key} needs a value of {name}, which may be missing there; here it is required: {message}")
        return bool(required)

    # Writing it.

    def _written(self) -> str:
        declared = self.variables.used(text for child in self.children.values() for text in strings(child.table))
        tables = {name: {"required": True} if default is None else default for name, default in declared.items()}
        head = [
            f"# Converted from {plain(self.source, 200)} ({self.tool}) by `bottle-init convert`.",
            f"# A comment that begins with {NOT_CONVERTED} is about a difference in behaviour; check it by hand.",
            *self.lines(),
            "",
            *(_table("variables", tables, ()) if tables else ()),
            *(_table("bundle", self.bundle, ()) if self.bundle else ()),
        ]
        kinds = {kind: table for table, kind in keys.KINDS.items()}
        for kind in (ONESHOT, DAEMON, JOB):
            for child in self.children.values():
                if child.kind == kind:
                    ordered = {key.name: child.table[key.name] for key in keys.CHILD if key.name in child.table}
                    head += _table(f"{kinds[kind]}.{child.name}", ordered, child.lines())
        return "\n".join(head)


def _table(heading: str, table: dict[str, Any], comments: Iterable[str]) -> list[str]:
    rows = [f"{key} = {written.inline(value)}" for key, value in table.items()]
    return [f"[{heading}]", *comments, *rows, ""]


def _shown(value: Any) -> str:
    text = shown(written.inline(value))
    return text if len(text) <= 100 else text[:97] + "..."
