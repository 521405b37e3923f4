"""What the JSON Schema of bundle files says of each place in one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
from jsonschema.protocols import Validator

from bottle_init.bundle import load

SCHEMA: dict[str, Any] = json.loads(Path(load.__file__).with_name("schema.json").read_text(encoding="utf-8"))

VARIABLE = {"$ref": "#/definitions/replaced"}
"""What a place accepts besides its own: a string with a variable in it."""

# To TOML 3.0 is no integer; to JSON it is the same as 3.
_TYPES = jsonschema.Draft7Validator.TYPE_CHECKER.redefine(
    "integer", lambda _checker, value: isinstance(value, int) and not isinstance(value, bool)
)
VALIDATOR: Validator = jsonschema.validators.create(
    jsonschema.Draft7Validator.META_SCHEMA, jsonschema.Draft7Validator.VALIDATORS, type_checker=_TYPES
)(SCHEMA)


def resolved(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema itself, or what it refers to; of a place that a variable can fill, what it stands for there."""
    while True:
        if "$ref" in schema:
            place: Any = SCHEMA
            for part in schema["$ref"].removeprefix("#/").split("/"):
                place = place[part]
            schema = place
        elif VARIABLE in schema.get("anyOf", ()):
            schema = schema["anyOf"][0]
        else:
            return schema


def at_path(path: tuple[str | int, ...]) -> dict[str, Any]:
    """The schema of one place in a bundle file."""
    schema = resolved(SCHEMA)
    for part in path:
        schema = resolved(_below(schema, part))
    return schema


def _below(schema: dict[str, Any], part: str | int) -> dict[str, Any]:
    if isinstance(part, int):
        items = next(each["items"] for each in (schema, *map(resolved, schema.get("anyOf", ()))) if "items" in each)
        found: dict[str, Any] = items if isinstance(items, dict) else [*items, schema["additionalItems"]][min(part, 1)]
        return found
    below: dict[str, Any] = schema.get("properties", {}).get(part) or schema["additionalProperties"]
    return below


def accepted_types(schema: dict[str, Any]) -> set[str]:
    """The JSON types of which the schema takes at least one value."""
    schema = resolved(schema)
    if "type" in schema:
        return {schema["type"], "integer"} if schema["type"] == "number" else {schema["type"]}
    if "enum" in schema:
        return {type_of(value) for value in schema["enum"]}
    return set().union(*map(accepted_types, schema["anyOf"]))


def type_of(value: object) -> str:
    """The JSON type of a value that TOML gave; a date is of none."""
    for type_, name in (
        (bool, "boolean"), (str, "string"), (int, "integer"), (float, "number"), (list, "array"), (dict, "object")
    ):  # fmt: skip
        if isinstance(value, type_):
            return name
    return "date"
