"""`bottle-init convert`: a variable means the same in the bundle file as in the file that it came from.

The oracle evaluates trees by the rules of Compose (docs.docker.com/reference/compose-file/interpolation) and never sees
the text that the converter reads. Where a bundle file cannot say the same, the converter has to say so.
"""

from __future__ import annotations

import json
import shlex
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from bottle_init.bundle import document
from bottle_init.convert import compose, procfile, supervisord

if TYPE_CHECKING:
    from bottle_init.convert.draft import Draft

TRIES = settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
NAMES = ("A", "B", "C")

Node = Any
"""A literal, or `(name, operator, parts)`; a value is a list of nodes."""


class Refused(Exception):
    """Compose does not start with these variables."""


def evaluated(parts: list[Node], environ: dict[str, str]) -> str:
    """What Compose makes of a value. Raises Refused."""
    return "".join(part if isinstance(part, str) else _evaluated(part, environ) for part in parts)


def _evaluated(use: Node, environ: dict[str, str]) -> str:
    name, operator, rest = use
    value = environ.get(name)
    there = value is not None and (value != "" or ":" not in operator)
    if operator.endswith("+"):
        return evaluated(rest, environ) if there else ""
    if operator.endswith("?") and not there:
        raise Refused
    if operator.endswith("-") and not there:
        return evaluated(rest, environ)
    return value or ""


def spelled(parts: list[Node]) -> str:
    """A value as it stands in a compose file."""
    return "".join(part.replace("$", "$$") if isinstance(part, str) else _spelled(*part) for part in parts)


def _spelled(name: str, operator: str, rest: list[Node]) -> str:
    return f"${{{name}{operator}{spelled(rest)}}}"


LITERALS = st.sampled_from(["a", "b-", "$", "${A}", "${B:-", "{", ":", "", "'", "${UNKNOWN}", "$$"])
RESTS = st.sampled_from(["x", "y", "", "80", "$", "a b"])
OPERATORS = st.sampled_from(["", "-", ":-", "?", ":?", "+", ":+"])


def _with_operator(below: st.SearchStrategy[list[Node]]) -> st.SearchStrategy[Node]:
    return st.tuples(st.sampled_from(NAMES), OPERATORS, below).map(
        lambda use: (use[0], use[1], use[2] if use[1] else [])
    )


VALUES = st.lists(
    LITERALS | _with_operator(st.lists(RESTS | _with_operator(st.lists(RESTS, max_size=1)), max_size=2)), max_size=4
)
ENVIRONMENTS = st.fixed_dictionaries({}, optional={name: st.sampled_from(["", "v", "w x", "${B}"]) for name in NAMES})


def compose_file(service: dict[str, Any]) -> str:
    return json.dumps({"services": {"a": service}})


def bundle_of(text: str, environ: dict[str, str]) -> Any:
    """The first daemon, as the init would start it in this environment."""
    reading = document.parse(text, environ=environ, here=False)
    assert reading.bundle is not None, reading.faults
    return reading.bundle.children[0]


def about_empty(line: str) -> bool:
    return "an empty value of" in line


@TRIES
@given(st.lists(VALUES, min_size=1, max_size=3), VALUES, ENVIRONMENTS)
@example([[("A", ":-", ["x"])]], [], {"A": ""})
@example([[("A", ":?", ["no"])]], [], {"A": ""})
@example([[("A", "-", [("B", "-", ["x"])])]], [("B", "", [])], {"A": ""})
@example([["${A}"], ["$", ("A", "", [])]], [], {})
def test_a_compose_file_means_the_same(words: list[list[Node]], value: list[Node], environ: dict[str, str]) -> None:
    """What is said to be lost is the only thing that may be different, and nothing is where nothing is set."""
    service = {"command": ["run", *map(spelled, words)], "environment": {"OUT": spelled(value)}}
    draft = compose.convert(compose_file(service), "compose.yml", None)
    text = draft.text()
    assert document.parse(text, here=False, starts=False).faults == []
    others = [line for line in draft.lost if not about_empty(line)]
    if others or (draft.lost and "" in environ.values()):
        environ = {}
    try:
        expected = [evaluated(word, environ) for word in words]
        out = evaluated(value, environ)
    except Refused:
        reading = document.parse(text, environ=environ, here=False)
        assert reading.faults or others, "a start without a required variable is refused here, too"
        return
    if any("is required" in message for _, message in document.parse(text, environ=environ, here=False).faults):
        assert others, "only what is said to be lost may be missed"
        return
    if any("cannot be written in this file" in line for line in others):
        return
    child = bundle_of(text, environ)
    assert (list(child.command[1:]), dict(child.settings.env).get("OUT")) == (expected, out), text


@TRIES
@given(
    st.lists(
        st.tuples(st.sampled_from([*NAMES, ""]), st.sampled_from(["", "-", "?"]), st.sampled_from(["x", "x y", ""])),
        min_size=1,
        max_size=3,
    ),
    st.sampled_from(["{}", '"{}"', "--opt={}", "'{}'"]),
    ENVIRONMENTS,
)
def test_a_line_has_the_same_words(uses: list[tuple[str, str, str]], around: str, environ: dict[str, str]) -> None:
    """Compose replaces before it splits; what comes out as other words for some values is said."""
    parts: list[Node] = ["run"]
    for name, operator, rest in uses:
        before, _, after = around.partition("{}")
        parts += [f" {before}", (name, operator, [rest] if operator else []) if name else "lit", after]
    draft = compose.convert(compose_file({"command": spelled(parts)}), "compose.yml", None)
    text = draft.text()
    said = " ".join(draft.lost)
    if "several defaults" in said or "their defaults stand there" in said:
        environ = {}
    try:
        expected = shlex.split(evaluated(parts, environ))
    except (Refused, ValueError):
        return
    values = [environ.get(name, "") for name, _, _ in uses if name]
    if ("is empty" in said and "" in values) or ("has spaces" in said and "w x" in values):
        return
    if any("is required" in message for _, message in document.parse(text, environ=environ, here=False).faults):
        return
    assert list(bundle_of(text, environ).command) == expected, text


def converted(draft: Draft) -> tuple[dict[str, Any], list[str]]:
    text = draft.text()
    assert document.parse(text, here=False, starts=False).faults == []
    return tomllib.loads(text), draft.lost


def test_defaults_are_declared_before_they_are_named() -> None:
    found, lost = converted(
        compose.convert(compose_file({"command": ["run", "${A-${B-x}}", "$${A}", "${UNKNOWN-}"]}), "compose.yml", None)
    )
    assert list(found["variables"].items()) == [("B", "x"), ("A", "${B}"), ("UNKNOWN", "")]
    assert found["daemons"]["a"]["command"] == ["run", "${A}", "$${A}", "${UNKNOWN}"]
    assert lost == []


def test_what_only_the_container_has_is_not_declared() -> None:
    found, lost = converted(
        compose.convert(
            compose_file({"command": "run", "image": "a:${TAG:?which}", "ports": ["${PORT:+80}"]}), "compose.yml", None
        )
    )
    assert "variables" not in found
    assert lost == []


def test_numbers_and_durations_may_be_variables() -> None:
    """Where the default is written as a bundle file has it; else it takes the place of its variable."""
    check = {
        "test": "true",
        "interval": "${EVERY-5s}",
        "start_period": "$FIRST",
        "timeout": "${LIMIT-1500us}",
        "retries": "${MOST-4}",
    }
    found, lost = converted(
        compose.convert(
            compose_file({"command": "run", "healthcheck": check, "stop_grace_period": "${GRACE-20s}"}), "c", None
        )
    )
    daemon = found["daemons"]["a"]
    assert (daemon["health"]["interval"], daemon["health"]["retries"]) == ("${EVERY}", "${MOST}")
    assert (daemon["health"]["timeout"], daemon["stop_timeout"]) == ("2ms", "${GRACE}")
    assert found["bundle"]["stop_timeout"] == "20s", "as long as the stops take by default"
    assert daemon["health"]["start_period"] == "${FIRST}"
    assert found["variables"]["FIRST"] == {"required": True}, "nothing is no duration for Compose either"
    assert [line for line in lost if "FIRST" not in line] == [
        "services.a: healthcheck.timeout: the defaults of its variables are in their place"
    ]


def test_values_of_an_env_file_are_defaults(tmp_path: Path) -> None:
    """But no secret becomes part of a file that becomes part of an image."""
    (tmp_path / ".env").write_text(
        "# of Compose\nPORT=8080\nexport NAME='two words'\nEMPTY=\nDB_PASSWORD=hunter2\nURL=redis://u:hunter2@x\n"
    )
    service = {
        "command": ["run", "${PORT:-80}", "${NAME}", "${EMPTY:-none}", "${DB_PASSWORD:-x}", "$URL"],
        "environment": ["PORT", "HOME"],
    }
    draft = compose.convert(compose_file(service), "compose.yml", tmp_path)
    found, lost = converted(draft)
    required = {"required": True}
    assert found["variables"] == {
        "PORT": "8080",
        "NAME": "two words",
        "EMPTY": "none",
        "DB_PASSWORD": required,
        "URL": required,
    }
    assert found["daemons"]["a"]["env"] == {"PORT": "${PORT}"}, "HOME is the container's"
    assert "hunter2" not in draft.text()
    assert any("a value of DB_PASSWORD that is not copied" in line for line in lost)


def test_variables_of_supervisord_are_required() -> None:
    """supervisord does not start either where one is missing."""
    text = (
        "[program:web]\ncommand=sh -c 'exec web --root ${ROOT} --port \"$PORT\"'\nautostart=%(ENV_WEB)s\n"
        'stopwaitsecs=%(ENV_WAIT)s\nuser=%(ENV_WHO)s\nenvironment=PORT="%(ENV_PORT)s",ROOT="%(ENV_ROOT)s/x"\n'
    )
    found, _ = converted(supervisord.convert(text, "x.conf", None))
    assert found["variables"] == {name: {"required": True} for name in ("WEB", "WAIT", "WHO", "PORT", "ROOT")}
    daemon = found["daemons"]["web"]
    assert daemon["command"] == ["sh", "-c", 'exec web --root $${ROOT} --port "$PORT"'], "this one is the shell's"
    assert daemon["env"] == {"PORT": "${PORT}", "ROOT": "${ROOT}/x"}
    assert (daemon["enabled"], daemon["stop_timeout"], daemon["user"]) == ("${WEB}", "${WAIT}", "${WHO}")


@pytest.mark.parametrize(
    ("environ", "command"),
    [({}, ("run", "x")), ({"A": "v w"}, ("run", "v w")), ({"A": ""}, ("run", ""))],
)
def test_a_variable_is_set_empty_or_unset(environ: dict[str, str], command: tuple[str, ...]) -> None:
    text = compose.convert(compose_file({"command": ["run", "${A-x}"]}), "compose.yml", None).text()
    assert bundle_of(text, environ).command == command


def test_a_procfile_leaves_variables_to_its_shell() -> None:
    found, lost = converted(procfile.convert("web: serve --dir ${DIR:-/srv}\n", "Procfile", None))
    assert found["daemons"]["web"]["command"] == ["sh", "-c", "exec serve --dir ${DIR:-/srv}"]
    assert ("variables" in found, lost) == (False, [])
