"""From the text of a bundle file to a `Bundle`, or to all that is wrong with it (contract 9).

`tomllib` (14 ms) and the other readers of a text are for whoever writes, checks or compiles a bundle file, and for a
container whose file was not compiled.
"""

from __future__ import annotations

from bottle_init.bundle import accounts, foreign, graph, keys, patterns, readers, secrets, variables, whole
from bottle_init.bundle.keys import BUNDLE, CHILD, INHERITED, KINDS, PLAIN_CHILD, TOP, Key, Shape
from bottle_init.bundle.source import path_of
from bottle_init.bundle.table import Table, join
from bottle_init.bundle.whole import Whole
from bottle_init.core import words
from bottle_init.core.spec import Bundle, ExecSettings, Spec
from bottle_init.core.words import ONESHOT
from bottle_init.words import durations, signames

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from typing import Any, TypeVar

    from bottle_init.bundle.secrets import Secrets
    from bottle_init.bundle.source import Faults
    from bottle_init.bundle.variables import Declared
    from bottle_init.core.values import Value

    Fields = dict[str, Any]
    T = TypeVar("T")

_SETTINGS = "settings."
_REQUEST = "is one of the bundle's stop_signals: a request to the init, which goes to no child"


class Reading:
    """What became of a bundle file.

    `bundle` is None where there are `faults`, each `(path, message)`. `whole` is what the file and those that it
    includes say, None where one of them is no TOML. `declared` are its variables, and `unset` the required ones of
    which the environment has none. `hidden` is what no message may show.
    """

    __slots__ = ("bundle", "declared", "faults", "hidden", "unset", "whole")

    def __init__(
        self,
        bundle: Bundle | None,
        faults: Faults,
        whole: Whole,
        declared: Declared = (),
        unset: tuple[str, ...] = (),
        hidden: Secrets | None = None,
    ) -> None:
        self.bundle = None if faults else bundle
        self.faults = faults
        self.whole = whole
        self.declared = declared
        self.unset = unset
        self.hidden = hidden or {}


def parse(
    text: bytes | str,
    source: str = "",
    environ: Mapping[str, str] | None = None,
    *,
    here: bool = True,
    starts: bool = True,
) -> Reading:
    """The bundle that the text of `source` describes, with what it includes, or all that is wrong.

    Users and groups have to exist where the bundle is to run, which is `here` or elsewhere. Where it `starts`, a
    required variable that `environ` lacks is a fault; else what depends on one is as by default. A daemon without a
    policy of its own has `INHERITED` for one: `--policy` may still change the bundle's.
    """
    found, faults = whole.read(text, source, environ or {})
    if found is None:
        return Reading(None, faults, Whole({}))
    return build(found, environ or {}, faults, here=here, starts=starts)


def build(found: Whole, environ: Mapping[str, str], told: Faults, *, here: bool = True, starts: bool = True) -> Reading:
    """The bundle of a document in this environment; `told` is what was wrong before."""
    faults: Faults = []
    declared = Table("", found.content, faults).read("variables", readers.variables, ())
    values, circular = variables.resolve(declared, environ)
    faults.extend(circular)
    unset = tuple(variables.unset(declared, environ))
    if starts:
        faults.extend((f"variables.{name}", f"is required, and the environment has no {name}") for name in unset)
    content = {key: each if key in _LITERAL else variables.replace(each, values) for key, each in found.content.items()}
    bundle = _read_content(content, faults, here=here)
    hidden = secrets.of(found.content, values)
    named = [(found.named(path), secrets.unsaid(message, hidden.get(path, ()))) for path, message in faults]
    return Reading(bundle, [*told, *named], found, declared, unset, hidden)


_LITERAL = ("include", "variables")
"""What is read before anything is replaced."""


def _read_content(content: dict[str, Any], faults: Faults, *, here: bool) -> Bundle:
    root = Table("", content, faults)
    elsewhere = {key.name: "belongs in [bundle]" for key in BUNDLE.keys}
    known = ("bundle", *KINDS, *(key.name for key in TOP))
    root.allow(known, {**foreign.hints(root, foreign.OF_THE_TOP), **elsewhere})
    bundle, inherited = root.within("bundle", _read_bundle, _read_bundle(Table("", {}, [])))
    nodes: list[graph.Node] = []
    children: list[Spec] = []
    for key, kind in KINDS.items():
        for name, spec in root.within(key, _reading(_read_children, kind, inherited), []):
            nodes.append(
                graph.Node(name, kind, join(key, name), spec.after if spec else (), spec is None or spec.enabled)
            )
            if spec:
                children.append(spec)
    faults.extend(_forwarded_requests(children, bundle.stop_signals))
    faults.extend(_kept_faults(children))
    faults.extend((*_second_readers(children), *_too_late(children)))
    if here:
        faults.extend(accounts.faults(children))
    if all(isinstance(content.get(key, {}), dict) for key in KINDS):
        faults.extend(graph.faults(nodes, bundle.exit_code_from))
    return bundle.replace(children=tuple(children))


def _reading(read: Callable[..., T], *first: Any) -> Callable[[Table], T]:
    """What reads a table with these arguments before it; `functools` takes 4 ms to import."""
    return lambda table: read(*first, table)


def _too_late(children: Iterable[Spec]) -> Iterator[tuple[str, str]]:
    """A daemon that has to run for longer than it has time to become ready never is."""
    for spec in children:
        if spec.ready is not None and spec.ready.probe.after_ms >= spec.ready.timeout_ms:
            limit = durations.spell(spec.ready.timeout_ms)
            yield f"{path_of(spec)}.ready.after", f"must be less than the timeout of ready, which is {limit}"


def _second_readers(children: Iterable[Spec]) -> Iterator[tuple[str, str]]:
    """Of two that read the same input, each would get a part of it."""
    first: Spec | None = None
    for spec in children:
        if spec.settings.stdin == words.INHERIT:
            if first is not None:
                yield f"{path_of(spec)}.stdin", f"{path_of(first)} has the init's standard input already"
            first = first or spec


def _forwarded_requests(children: Iterable[Spec], stop_signals: tuple[int, ...]) -> Iterator[tuple[str, str]]:
    """A request to the init is not for a child."""
    for spec in children:
        for source, _ in spec.signals:
            if source in stop_signals:
                yield f"{path_of(spec)}.signals.{signames.name(source)}", _REQUEST


def _kept_faults(children: Iterable[Spec]) -> Iterator[tuple[str, str]]:
    """A daemon or job that needs what a oneshot keeps would lack it, at a restart at the latest."""
    keepers = {name: spec.name for spec in children for name in spec.keeps}
    for spec in children:
        for name in spec.settings.capabilities or ():
            if spec.kind != ONESHOT and name in keepers:
                reason = f"{name.upper()} is kept by the oneshot {keepers[name]} from all that start after it"
                yield f"{path_of(spec)}.capabilities", reason


def _read_bundle(table: Table) -> tuple[Bundle, Fields]:
    """`[bundle]`, without its children, and what daemons inherit of it, by the names of their keys."""
    table.allow(key.name for key in BUNDLE.keys)
    own = [key for key in BUNDLE.keys if key.field]
    bundle = Bundle(children=(), **_read(table, own, BUNDLE.plain, {}))
    shapes = [key for key in BUNDLE.keys if not key.field]
    inherited = {
        key.name: table.within(key.name, _reading(_read_shape, key.reader, None), key.reader.plain) for key in shapes
    }
    return bundle, {"policy": INHERITED, "logs": bundle.logs, **inherited}


def _read(table: Table, own: Iterable[Key], plain: Value, inherited: Mapping[str, Any]) -> Fields:
    """What a table says under its keys, by the core's names; a default where it says nothing, or something wrong."""
    found = {}
    for key in own:
        default = inherited[key.name] if key.inherits else keys.at(plain, key.field)
        if key.required and key.name not in table:
            table.fault(key.name, key.required)
        if isinstance(key.reader, Shape):
            found[key.field] = table.within(key.name, _reading(_read_shape, key.reader, default), default)
        else:
            found[key.field] = table.read(key.name, key.reader, default)
    return found


def _read_shape(shape: Shape, inherited: Value | None, table: Table) -> Value:
    """A table below a key; what it leaves out is as in `inherited`."""
    table.allow((key.name for key in shape.keys), {**foreign.hints(table, foreign.OF_A_PROBE), **dict(shape.elsewhere)})
    if shape.one_of:
        table.one_of(shape.one_of)
    plain = shape.plain if inherited is None else inherited
    found = _read(table, [key for key in shape.keys if key.name in table], plain, {})
    headers = found.pop("probe.headers", None)
    if headers and "probe" in found:
        if found["probe"].kind == "http":
            found["probe"] = found["probe"].replace(headers=headers)
        elif found["probe"].kind:
            table.fault("headers", "belong to http")
    return plain.replace(**found)


def _read_children(kind: str, inherited: Fields, owner: Table) -> list[tuple[str, Spec | None]]:
    """All children of one kind by their names, in file order; None for what is not even a table."""
    for name in owner:
        if not patterns.is_name(name):
            owner.fault(name, "a name must be made of letters, digits, _ and -, and not begin with -")
    return [(name, owner.within(name, _reading(_read_child, name, kind, inherited), None)) for name in owner]


def _read_child(name: str, kind: str, inherited: Fields, table: Table) -> Spec:
    """One child, with every default filled in; on a fault, what comes back only serves to find more of them."""
    own = keys.of_kind(kind)
    elsewhere = {key.name: key.elsewhere for key in CHILD if kind not in key.kinds}
    table.allow((key.name for key in own), {**foreign.hints(table, foreign.OF_A_CHILD), **elsewhere})
    table.read("override", readers.boolean, False)
    found = _read(table, [key for key in own if key.field], PLAIN_CHILD, inherited)
    settings = {field.removeprefix(_SETTINGS): found.pop(field) for field in list(found) if field.startswith(_SETTINGS)}
    return Spec(name=name, kind=kind, settings=ExecSettings(**settings), **found)
