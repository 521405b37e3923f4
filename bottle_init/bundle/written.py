"""The way back: from a `Bundle` to a bundle file that describes it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from bottle_init.bundle import patterns
from bottle_init.bundle.keys import BUNDLE, KINDS, PLAIN_CHILD, Key, Shape, at, of_kind

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bottle_init.core.spec import Bundle
    from bottle_init.core.values import Value


def document_of(bundle: Bundle) -> dict[str, Any]:
    """The document of a bundle, as `tomllib` would give it; what is as by default is left out.

    What a daemon may inherit is written for each daemon.
    """
    document: dict[str, Any] = {}
    own = table_of(BUNDLE.keys, bundle, BUNDLE.plain)
    if own:
        document["bundle"] = own
    for name, kind in KINDS.items():
        children = [spec for spec in bundle.children if spec.kind == kind]
        if children:
            document[name] = {spec.name: table_of(of_kind(kind), spec, PLAIN_CHILD) for spec in children}
    return document


def table_of(keys: Iterable[Key], value: Value, plain: Value) -> dict[str, Any]:
    """The table of a value: a key for each of its fields that is not as in `plain`, or has to be there."""
    table = {}
    for key in keys:
        if not key.field:
            continue
        content, default = at(value, key.field), at(plain, key.field)
        if content != default or key.required or key.inherits:
            if isinstance(key.reader, Shape):
                table[key.name] = shape_of(key.reader, content)
            elif key.field != "probe" or content.kind == key.name:
                table[key.name] = key.reader.write(content)
    return table


def shape_of(shape: Shape, value: Value) -> dict[str, Any]:
    """The table below a key."""
    return table_of(shape.keys, value, shape.plain)


def toml_of(document: dict[str, Any]) -> str:
    """A document as TOML: the children's tables with headings of their own, what is below them in one line each."""
    parts = []
    for name, content in document.items():
        if name in KINDS:
            parts += [_section(f"{name}.{_key(child)}", table) for child, table in content.items()]
        else:
            parts.append(_section(name, content))
    return "\n".join(parts)


def _section(heading: str, table: dict[str, Any]) -> str:
    lines = [f"[{heading}]", *(f"{_key(key)} = {inline(value)}" for key, value in table.items())]
    return "\n".join(lines) + "\n"


def inline(value: Any) -> str:
    """A value as TOML writes it on one line."""
    if isinstance(value, dict):
        return f"{{{', '.join(f'{_key(key)} = {inline(below)}' for key, below in value.items())}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(inline, value))}]"
    return _string(value) if isinstance(value, str) else json.dumps(value)


def _key(key: str) -> str:
    return key if patterns.is_bare_key(key) else _string(key)


def _string(text: str) -> str:
    """A basic string: JSON's escapes are TOML's, but for DEL, which TOML wants escaped too."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
