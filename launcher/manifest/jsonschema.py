"""The manifest's JSON Schema, for editors: shipped as manifest.schema.json and made from the grammar."""

import json
from importlib.resources import files

from launcher.manifest.schema import Manifest

FILE = "manifest.schema.json"


def schema_text() -> str:
    """The schema as it is shipped."""
    schema = Manifest.model_json_schema(by_alias=True)
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "A bottle's manifest"
    return json.dumps(schema, indent=2) + "\n"


def shipped() -> str:
    """The file that comes with the package."""
    return (files("launcher.manifest") / FILE).read_text()
