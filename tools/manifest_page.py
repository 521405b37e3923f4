"""The JSON Schema of manifests and docs/manifest.md, from the grammar in `launcher/manifest/schema.py`.

`python -m tools.manifest_page` writes both.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from launcher.manifest.jsonschema import FILE, schema_text
from launcher.manifest.schema import Manifest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]
SCHEMA = ROOT / "launcher/manifest" / FILE
PAGE = ROOT / "docs/manifest.md"

HEAD = """\
# The keys of a manifest

This page is drawn from the grammar (`make docs`). [The guide](launcher.md) explains how manifests are found and merged.
`bottle render --schema` prints the JSON Schema, for editors. An unknown key is a fault, and all faults of a file are
shown at once with their lines.

Sizes are written as `"512MiB"` or `"4GiB"`, durations as `"500ms"`, `"8s"` or `"1m30s"`.
"""
TABLES = (
    ("At the top", "Manifest"),
    ("`[bottles.NAME]`", "Bottle"),
    ("`[bottles.NAME.egress]`", "Egress"),
    ("`[[bottles.NAME.egress.hosts]]`", "Host"),
    ("`[bottles.NAME.credentials.NAME]`", "Credential"),
    ("`[bottles.NAME.pipelock]`", "Pipelock"),
    ("`[[bottles.NAME.pipelock.patterns]]`", "Pattern"),
    ("`[bottles.NAME.git]`", "Git"),
    ("`[bottles.NAME.git.repos.NAME]`", "Repository"),
    ("`[bottles.NAME.git.repos.NAME.push]`", "Push"),
    ("`[bottles.NAME.supervise]`", "Supervise"),
    ("`[bottles.NAME.limits]`", "Limits"),
    ("`[bottles.NAME.limits.agent]` and `.sidecars`", "ContainerLimits"),
    ("`[agents.NAME]`", "Agent"),
    ("`project`", "Project"),
    ("`[[agents.NAME.mounts]]`", "Mount"),
    ("`git`", "Identity"),
    ("Where a secret is read from", "Secret"),
)
"""The headings of the page, and the table of the grammar under each."""
WORDS = {"string": "string", "integer": "integer", "number": "number", "boolean": "boolean"}


def page() -> str:
    """The text of docs/manifest.md."""
    whole = Manifest.model_json_schema(by_alias=True)
    shapes = {**whole["$defs"], "Manifest": whole}
    undrawn = shapes.keys() - {name for _, name in TABLES}
    if undrawn:
        raise ValueError(f"no heading has {', '.join(sorted(undrawn))}")
    return HEAD + "".join(_section(heading, shapes[name]) for heading, name in TABLES)


def _section(heading: str, shape: dict[str, Any]) -> str:
    required = shape.get("required", ())
    rows = "".join(_row(name, key, name in required) for name, key in shape["properties"].items())
    words = _one_line(shape["description"])
    return f"\n## {heading}\n\n{words}\n\n| key | type | meaning |\n| --- | --- | --- |\n{rows}"


def _row(name: str, key: dict[str, Any], required: bool) -> str:
    default = key.get("default")
    words = _one_line(key["description"])
    if required:
        words += " Required."
    elif default is not None and default not in ([], {}, "") and not isinstance(default, dict):
        words += f" Default: `{_toml(default)}`."
    return f"| `{name}` | {' or '.join(dict.fromkeys(_types(key)))} | {words} |\n"


def _one_line(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()


def _toml(value: object) -> str:
    match value:
        case bool():
            return str(value).lower()
        case list():
            return f"[{', '.join(map(_toml, value))}]"
        case str():
            return f'"{value}"'
    return str(value)


def _types(key: dict[str, Any]) -> Iterator[str]:
    """What a value may be, in the words of TOML."""
    if "anyOf" in key:
        for each in key["anyOf"]:
            yield from _types(each)
    elif "enum" in key:
        yield ", ".join(f'`"{each}"`' for each in key["enum"])
    elif "$ref" in key:
        yield "table"
    elif key.get("type") == "array":
        yield f"list of {'/'.join(_types(key['items']))}"
    elif key.get("type") == "object":
        yield "tables by name" if "patternProperties" in key and "$ref" in str(key) else "table of strings"
    elif key.get("type") != "null":
        yield WORDS[key["type"]]


def main() -> int:
    """Write both files."""
    SCHEMA.write_text(schema_text(), encoding="utf-8")
    PAGE.write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
