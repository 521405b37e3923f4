"""The JSON Schema of bundle files and the tables of docs/bundle-file.md, from the rows of `bundle/keys.py`.

`python -m tools.bundle_file` writes both.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bottle_init.bundle import keys
from bottle_init.bundle.keys import Key, Shape, at
from bottle_init.bundle.readers import DEFINITIONS
from bottle_init.bundle.written import inline
from tools.tables import replaced

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from bottle_init.core.values import Value

ROOT = Path(__file__).parents[1]
SCHEMA = ROOT / "bottle_init/bundle/schema.json"
PAGE = ROOT / "docs/bundle-file.md"

WIDTH = 120

CHILDREN = {
    "oneshots": "Set-up steps: each must end with success before what is after it starts. They always run.",
    "daemons": "Children that are meant to run for as long as the bundle does.",
    "jobs": "Children whose end is the bundle's.",
}


def default_of(key: Key, plain: Value) -> object:
    """What a key stands for where it is left out, as TOML gives it; None where that is nothing that it could say."""
    if not key.field or key.required or key.inherits or isinstance(key.reader, Shape) or key.field == "probe":
        return None
    default = at(plain, key.field)
    return None if default is None else key.reader.write(default)


# The JSON Schema.


def schema() -> dict[str, Any]:
    """The JSON Schema, draft 7."""
    at_least_one = [{"required": [name], "properties": {name: {"minProperties": 1}}} for name in ("daemons", "jobs")]
    every = {key.name: _property(key, keys.PLAIN_CHILD) for key in _every_child()}
    shapes = (keys.BACKOFF, keys.RESTARTS, keys.LEASE, keys.READY, keys.HEALTH)
    found = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Bundle file of bottle-init",
        "$comment": "What a schema can say of a bundle file: `bottle-init check` also knows whether names, users and "
        "signals exist and whether `after` goes round in a circle. TOML has integers of its own: 3.0 is none.",
        "type": "object",
        "additionalProperties": False,
        "anyOf": at_least_one,
        "properties": {
            **{key.name: _property(key, keys.PLAIN_CHILD) for key in keys.TOP},
            "bundle": _table(keys.BUNDLE),
            **{name: _children(name, kind) for name, kind in keys.KINDS.items()},
        },
        "definitions": {
            **DEFINITIONS,
            **{shape.name: _table(shape) for shape in shapes},
            "child": {"properties": every},
            REPLACED: {
                "description": "A string with a variable; what it has to be is known once that is replaced.",
                "type": "string",
                "pattern": "\\$\\{[A-Za-z_][A-Za-z0-9_]*\\}",
            },
        },
    }
    return _replaceable(found)


REPLACED = "replaced"
_NOT_REPLACED = ("include", "variables", "override")
_TAKES_ANY = ("text", "word", "variables")


def _replaceable(value: dict[str, Any]) -> dict[str, Any]:
    """The schema with `${NAME}` wherever a string, a number or a boolean can stand."""
    found: dict[str, Any] = {}
    for key, each in value.items():
        if key in ("properties", "definitions"):
            found[key] = {
                name: below if name in (*_NOT_REPLACED, *_TAKES_ANY, REPLACED) else _place(below)
                for name, below in each.items()
            }
        elif key in ("items", "additionalItems", "additionalProperties") and not isinstance(each, bool):
            found[key] = [_place(below) for below in each] if isinstance(each, list) else _place(each)
        else:
            found[key] = each
    return found


def _place(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema of one place. A table or a list has places below; what refers to another schema is like that one."""
    if "$ref" in schema or "properties" in schema:
        return _replaceable(schema)
    if schema.get("type") in ("object", "array"):
        return _replaceable(schema)
    parts = schema.get("anyOf", ())
    if any(part.get("type") == "array" for part in parts):
        return {**schema, "anyOf": [_place(part) for part in parts]}
    about: dict[str, Any] = {key: schema[key] for key in ("description", "default") if key in schema}
    own = {key: each for key, each in schema.items() if key not in about}
    return {"anyOf": [own, {"$ref": f"#/definitions/{REPLACED}"}], **about}


def _every_child() -> tuple[Key, ...]:
    return tuple(key for key in keys.CHILD if len(key.kinds) == len(keys.KINDS))


def _table(shape: Shape) -> dict[str, Any]:
    found: dict[str, Any] = {
        "description": shape.sentence,
        "type": "object",
        "additionalProperties": False,
        "properties": {key.name: _property(key, shape.plain) for key in shape.keys},
    }
    if shape.one_of:
        found["oneOf"] = [{"required": [name]} for name in shape.one_of]
    return found


def _property(key: Key, plain: Value) -> dict[str, Any]:
    shared = isinstance(key.reader, Shape)
    found = {"$ref": f"#/definitions/{key.reader.name}"} if shared else dict(key.reader.schema)
    found["description"] = key.sentence
    default = default_of(key, plain)
    return found if default is None else {**found, "default": default}


def _children(name: str, kind: str) -> dict[str, Any]:
    own = {
        key.name: {"$ref": f"#/definitions/child/properties/{key.name}"}
        if key in _every_child()
        else _property(key, keys.PLAIN_CHILD)
        for key in keys.of_kind(kind)
    }
    return {
        "description": CHILDREN[name],
        "type": "object",
        "propertyNames": DEFINITIONS["name"],
        "additionalProperties": {
            "description": "One child.",
            "type": "object",
            "additionalProperties": False,
            "required": [key.name for key in keys.CHILD if key.required],
            "properties": own,
        },
    }


def text_of(value: Any, indent: int = 0, before: int = 0) -> str:
    """JSON for people: what fits on a line stands on one. `before` is the width of what stands before the value."""
    line = json.dumps(value, ensure_ascii=False)
    if indent + before + len(line) < WIDTH or not isinstance(value, dict | list) or not value:
        return line
    inside = indent + 2
    if isinstance(value, list):
        parts = [text_of(each, inside) for each in value]
        opened, closed = "[", "]"
    else:
        quoted = {json.dumps(key): each for key, each in value.items()}
        parts = [f"{key}: {text_of(each, inside, len(key) + 2)}" for key, each in quoted.items()]
        opened, closed = "{", "}"
    separator = ",\n" + " " * inside
    return f"{opened}\n{' ' * inside}{separator.join(parts)}\n{' ' * indent}{closed}"


# The tables of the documentation.


def tables() -> dict[str, list[str]]:
    """The tables of docs/bundle-file.md, by their headings."""
    every = _every_child()
    return {
        "The top of the file": _rows(keys.TOP, keys.PLAIN_CHILD),
        "`[bundle]`": _rows(keys.BUNDLE.keys, keys.BUNDLE.plain),
        "Every child": _rows(every, keys.PLAIN_CHILD),
        **{
            f"`[{name}.NAME]`": _rows((key for key in keys.of_kind(kind) if key not in every), keys.PLAIN_CHILD)
            for name, kind in keys.KINDS.items()
        },
        **{
            f"`{shape.name}`": _rows(shape.keys, shape.plain)
            for shape in (keys.READY, keys.HEALTH, keys.BACKOFF, keys.RESTARTS, keys.LEASE)
        },
    }


def _rows(own: Iterable[Key], plain: Value) -> list[str]:
    rows = ["| key | type | default | meaning |", "| --- | --- | --- | --- |"]
    for key in own:
        says = f"[table](#{key.reader.name})" if isinstance(key.reader, Shape) else key.reader.says
        default = default_of(key, plain)
        shown = "" if default is None else f"`{inline(default)}`"
        rows.append(f"| `{key.name}` | {says} | {shown} | {key.sentence} |")
    return rows


def drawn() -> Iterator[tuple[Path, str]]:
    """Every file that is made here, and its contents."""
    yield SCHEMA, text_of(schema()) + "\n"
    yield PAGE, replaced(PAGE.read_text(encoding="utf-8"), tables())


def main() -> int:
    """Write the files."""
    for path, text in drawn():
        path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
