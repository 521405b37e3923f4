"""The JSON Schema that ships with the package and the parser agree, and docs/bundle-file.md with both."""

from __future__ import annotations

import json
import re
import resource
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bottle_init.bundle import load, readers, written
from bottle_init.bundle.source import BundleInvalid
from bottle_init.linux.sys import libc
from tests.property.bundle_documents import EVERY_KEY, PATHS, bundles, mutated, text_of
from tests.property.bundle_schema import SCHEMA, VALIDATOR, at_path
from tools import bundle_file

if TYPE_CHECKING:
    from bottle_init.core.spec import Bundle

BEYOND = re.compile(
    r"there is no (child|user|group|signal|capability)|goes round in a circle|the name is taken"
    r"|is there twice|soft limit|is one of the bundle's stop_signals|is kept by the oneshot|cannot ask for a stop"
    r"|is not forwarded|must not be (KILL|STOP)|the host must be|the port must be|ten years|neither a user"
    r"|longer than 107 bytes|less than the timeout of ready"
)
"""What no schema can say: it depends on other keys, on this machine, or on what words mean."""

VALUES = st.one_of(
    st.booleans(),
    st.integers(-3, 70_000),
    st.floats(-1, 1_000, allow_nan=False),
    st.sampled_from(
        ["", "x", "a b", "TERM", "KILL", "8s", "0s", "9", "restart", "stop", "json", "localhost:80", "0777"]
    ),
    st.sampled_from(["http://localhost", "http://[::1]:80/a#b", "tcp:localhost:1", "unix:@", "@", "@x", "unlimited"]),
    st.lists(st.sampled_from([0, 1, -1, 300, "x", "", "root", "net_admin", "unlimited", True]), max_size=3),
    st.dictionaries(
        st.sampled_from(["tcp", "exec", "notify", "timeout", "fd", "renew", "USR1", "A B", "x=y", "command", "max"]),
        st.sampled_from([0, 1, 80, "8s", True, ["x"], "HUP", {}]),
        max_size=2,
    ),
)


def faults_of(text: str) -> list[str]:
    """All faults, none for a valid bundle file."""
    try:
        load.from_text(text, "bundle.toml")
    except BundleInvalid as invalid:
        return [str(fault) for fault in invalid.faults]
    return []


def agree(text: str) -> None:
    """The schema refuses nothing that the parser takes, and all that the parser refuses for its form."""
    by_schema = [error.message for error in VALIDATOR.iter_errors(tomllib.loads(text))]
    by_parser = faults_of(text)
    if by_schema:
        assert by_parser, by_schema
    if any(not BEYOND.search(fault) for fault in by_parser):
        assert by_schema, by_parser


def test_the_schema_is_a_schema() -> None:
    jsonschema.Draft7Validator.check_schema(SCHEMA)


@given(bundles())
def test_the_schema_accepts_what_the_parser_accepts(case: tuple[Bundle, dict[str, Any]]) -> None:
    VALIDATOR.validate(case[1])


@given(st.sampled_from(PATHS), VALUES)
def test_they_judge_a_changed_document_alike(path: tuple[str | int, ...], value: Any) -> None:
    agree(mutated({path: value}))


@given(
    st.sampled_from(
        [path for path in PATHS if path[0] == "bundle" or (len(path) > 3 and not isinstance(path[-1], int))]
    )
)
def test_they_agree_on_what_may_be_left_out(path: tuple[str | int, ...]) -> None:
    changed = json.loads(json.dumps(EVERY_KEY))
    place: Any = changed
    for part in path[:-1]:
        place = place[part]
    del place[path[-1]]
    agree(text_of(changed))


BOUNDS = [
    (path, bound + step)
    for path in PATHS
    for key, bound in at_path(path).items()
    if key in ("minimum", "maximum")
    for step in (-1, 0, 1)
]


@pytest.mark.parametrize(("path", "value"), BOUNDS)
def test_they_agree_on_every_bound(path: tuple[str | int, ...], value: int) -> None:
    agree(mutated({path: value}))


def properties(*path: str) -> dict[str, Any]:
    found: dict[str, Any] = at_path(path)["properties"]
    return found


def test_every_key_is_described() -> None:
    """Every key is described, and every default is the parser's."""
    for table, where in (("bundle", ()), ("oneshots", ("x",)), ("daemons", ("x",)), ("jobs", ("x",))):
        defaults = {key: each["default"] for key, each in _described(table, *where).items() if "default" in each}
        child = {} if table == "bundle" else {"command": ["x"]}
        bare = {"daemons": {"x": {"command": ["x"]}}} if table in ("bundle", "oneshots") else {}
        spelled = {**bare, table: {**child, **defaults} if not where else {"o": {**child, **defaults}}}
        plain = {**bare, table: child if not where else {"o": child}}
        assert load.from_text(text_of(spelled), "x") == load.from_text(text_of(plain), "x")


def _described(*path: str) -> dict[str, Any]:
    """The keys of a table, each with its description in the table."""
    found = {}
    for key, each in properties(*path).items():
        place: Any = each
        while "description" not in place:
            place = at_path((*path, key)) if "$ref" not in place else _step(place["$ref"])
        found[key] = {**place, **each}
        assert found[key]["description"].endswith("."), key
    return found


def _step(ref: str) -> Any:
    place: Any = SCHEMA
    for part in ref.removeprefix("#/").split("/"):
        place = place[part]
    return place


def test_the_words_are_the_kernels() -> None:
    limits = {name.removeprefix("RLIMIT_").lower() for name in dir(resource) if name.startswith("RLIMIT_")}
    assert set(readers.RLIMITS) == limits - {"ofile"}  # BSD's name of nofile.
    assert set(readers.CAPABILITIES) == set(libc.CAPABILITIES)


@pytest.mark.parametrize(("path", "text"), list(bundle_file.drawn()), ids=lambda value: getattr(value, "name", ""))
def test_schema_and_reference_are_drawn_from_the_keys(path: Path, text: str) -> None:
    assert path.read_text(encoding="utf-8") == text, "python -m tools.bundle_file"


@given(bundles())
def test_a_written_bundle_reads_back_the_same(case: tuple[Bundle, dict[str, Any]]) -> None:
    """A bundle that is written is the same when it is read."""
    bundle, _ = case
    document = written.document_of(bundle)
    text = written.toml_of(document)
    assert tomllib.loads(text) == document
    assert load.from_text(text, "bundle.toml") == bundle
    VALIDATOR.validate(document)
