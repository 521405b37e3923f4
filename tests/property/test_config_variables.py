"""`[variables]` and `include` of a bundle file (contract 9.4, 9.5)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bottle_init.bundle import compiled, document, include, load
from bottle_init.bundle.source import BundleInvalid
from bottle_init.cli import notes
from tests.property.bundle_documents import VARIABLES

if TYPE_CHECKING:
    from bottle_init.core.spec import Bundle, Spec

WEB = '[daemons.web]\ncommand = ["web"]\n'
TEXTS = st.text(st.sampled_from("${}AB x"), max_size=12)


def read(text: str, **environ: str) -> Bundle:
    """The bundle of a text in this environment."""
    reading = document.parse(text, "bundle.toml", environ)
    assert reading.bundle is not None, reading.faults
    return reading.bundle


def web(keys: str, variables: str = 'A = "1"', **environ: str) -> Spec:
    return read(f"{WEB}{keys}\n[variables]\n{variables}", **environ).children[0]


def faults(text: str, source: str = "bundle.toml", **environ: str) -> list[str]:
    return [f"{path}: {message}" for path, message in document.parse(text, source, environ).faults]


def words(argument: str, variables: str, **environ: str) -> str:
    """What becomes of one argument of a command."""
    return (
        read(f"[daemons.w]\ncommand = ['w', '''{argument}''']\n[variables]\n{variables}", **environ)
        .children[0]
        .command[1]
    )


def test_the_environment_holds_over_the_default() -> None:
    assert words("-${A}-", 'A = "1"') == "-1-"
    assert words("-${A}-", 'A = "1"', A="2") == "-2-"
    assert words("-${A}-", 'A = "1"', A="") == "--", "an empty value is a value"
    assert words("${A}", 'A = { default = "1" }') == "1"
    assert words("${T}", "T = { required = true }", T="") == ""


@pytest.mark.parametrize(
    ("written", "becomes"),
    [
        ("$${A}", "${A}"),
        ("$$${A}", "$${A}"),
        ("${A}${A}$${A}", "11${A}"),
        ("${B}", "${B}"),
        ("$${B}", "$${B}"),
        ("${${A}}", "${1}"),
        ("${A", "${A"),
        ("$A {A} $ {A}", "$A {A} $ {A}"),
        ("${A-x} ${A:-x} ${}", "${A-x} ${A:-x} ${}"),
        ("${a}", "${a}"),
    ],
)
def test_what_is_replaced(written: str, becomes: str) -> None:
    assert words(written, 'A = "1"') == becomes


@given(TEXTS, TEXTS)
def test_no_value_is_replaced_again(text: str, value: str) -> None:
    """What a value contains is not replaced, and without a declaration nothing is."""
    assert words("${A}", 'A = ""\nB = "b"', A=value, B="x") == value
    assert read(f"[daemons.w]\ncommand = ['w', '''{text}''']\n", A="1", B="2").children[0].command[1] == text


def test_every_string_of_the_file() -> None:
    bundle = read(
        """
        [variables]
        A = "x"
        [bundle]
        control = "@${A}"
        only_from = "V${A}"
        exit_code_from = "${A}"
        [daemons.x]
        command = ["${A}"]
        env = { K = "${A}" }
        cwd = "/${A}"
        ready = { http = "http://localhost/${A}", headers = { Host = "${A}" } }
        [jobs.j]
        command = ["j"]
        after = ["${A}"]
        """
    )
    x, j = bundle.children
    assert (bundle.control, bundle.only_from, bundle.exit_code_from) == ("@x", "Vx", "x")
    assert (x.command, x.settings.env, x.settings.cwd) == (("x",), (("K", "x"),), "/x")
    assert x.ready is not None
    assert (x.ready.probe.path, x.ready.probe.headers, j.after) == ("/x", (("Host", "x"),), ("x",))


@pytest.mark.parametrize(
    ("keys", "value", "same"),
    [
        ('ready = { tcp = "${A}" }', "8080", "ready = { tcp = 8080 }"),
        ('ready = { tcp = "127.0.0.1:${A}" }', "80", 'ready = { tcp = "127.0.0.1:80" }'),
        ('ready = { notify = "${A}" }', "true", "ready = { notify = true }"),
        ('enabled = "${A}"', "true", "enabled = true"),
        ('nice = "${A}"', "-5", "nice = -5"),
        ('success_codes = ["${A}", 3]', "7", "success_codes = [7, 3]"),
        ('user = "${A}"', "0", "user = 0"),
        ('user = "${A}"', "root", 'user = "root"'),
        ('groups = ["${A}"]', "0", "groups = [0]"),
        ('stop_timeout = "${A}"', "2.5", "stop_timeout = 2.5"),
        ('stop_timeout = "${A}"', "2s", 'stop_timeout = "2s"'),
        ('stop_timeout = "${A}s"', "2", 'stop_timeout = "2s"'),
        ('umask = "${A}"', "0027", 'umask = "0027"'),
        ('stop_signal = "${A}"', "15", "stop_signal = 15"),
        ('signals = { HUP = "${A}" }', "0", "signals = { HUP = 0 }"),
        ('rlimits = { nofile = "${A}" }', "9", "rlimits = { nofile = 9 }"),
        ('rlimits = { nofile = ["${A}", "unlimited"] }', "9", 'rlimits = { nofile = [9, "unlimited"] }'),
        ('backoff = { factor = "${A}" }', "1.5", "backoff = { factor = 1.5 }"),
        ('restarts = { max = "${A}" }', "3", "restarts = { max = 3 }"),
        ('no_new_privs = "${A}"', "false", "no_new_privs = false"),
        ('env = { K = "${A}" }', "true", 'env = { K = "true" }'),
        ('cwd = "${A}"', "1", 'cwd = "1"'),
    ],
)
def test_a_replaced_string_is_read_anew(keys: str, value: str, same: str) -> None:
    assert web(keys, A=value) == web(keys, f'A = "{value}"') == web(same)


def test_a_wrong_value_is_told_with_its_variable() -> None:
    text = WEB + 'nice = "${A}"\nready = { tcp = "${A}" }\n[variables]\nA = "1"\n'
    assert faults(text, A="50") == ["daemons.web.nice: must be a whole number from -20 to 19, is 50 (from ${A})"]
    assert faults(text, A="x")[0].endswith('from -20 to 19, is the string "x" (from ${A})')


def test_no_message_shows_what_may_be_a_secret() -> None:
    """A required variable may hold one, and so may what is made of it."""
    for key in ("nice", "user", "cwd", "stop_signal", "policy", "umask", "stop_timeout", "control"):
        table = "[bundle]\n" if key in ("policy", "control") else ""
        for secret in ("hunter2\n\0"[:7] + "/" * 200, "$A${B}hunter2"):
            text = (
                f'[variables]\nT = {{ required = true }}\nU = "-${{T}}"\n{table or WEB}{key} = ["${{T}}", "${{U}}"]\n'
            )
            scalar = f'[variables]\nT = {{ required = true }}\nU = "-${{T}}"\n{table or WEB}{key} = "${{U}}"\n'
            told = [*faults(text, T=secret), *faults(scalar, T=secret)]
            assert told
            if key not in ("user", "cwd", "control"):
                assert "hunter2" not in "".join(told), told


SECRETS = """
[variables]
T = { required = true }
[daemons.a]
command = ["/x/${T}", "${T}"]
ready = { exec = ["${T}"] }
cwd = "/x/${T}"
env_files = ["/x", "${T}"]
"""


@pytest.mark.parametrize("secret", ["hunter2", "hunter2" * 20, 'hunter2"\\\u00e4\n'])
def test_no_later_message_shows_a_secret(tmp_path: Path, secret: str) -> None:
    """Neither of what the values mean together or on this machine, nor a note. The defence is `secrets.unsaid`."""
    keys = ('user = "${T}"', 'group = "x${T}"', 'groups = ["root", "${T}"]', 'after = ["${T}"]')
    for key in keys:
        (told,) = faults(f"{SECRETS}{key}\n", T=secret)
        assert "${T}" in told
        assert "hunter" not in told
    (told,) = faults(f'{SECRETS}[bundle]\nexit_code_from = "${{T}}"\n', T=secret)
    assert "hunter" not in told
    reading = document.parse(SECRETS, "x", {"T": secret})
    assert reading.bundle is not None
    noted = list(notes.of(reading, reading.bundle))
    assert len([note for note in noted if "${T}" in note]) == 4
    assert "hunter" not in "".join(noted)
    path = tmp_path / "bundle.toml"
    path.write_text(f"{SECRETS}{keys[0]}\n")
    compiled.write(str(path))
    with pytest.raises(BundleInvalid) as invalid, pytest.MonkeyPatch.context() as patch:
        patch.setenv("T", secret)
        load.from_file(str(path))
    assert "hunter" not in str(invalid.value)


def test_a_required_variable_that_is_missing() -> None:
    text = (
        '[variables]\nT = { required = true }\nU = "${T}"\n' + WEB + 'nice = "${U}"\nready = { tcp = "${T}" }\nzz = 1\n'
    )
    told = faults(text)
    assert told == ["variables.T: is required, and the environment has no T", "daemons.web.zz: unknown key"]
    reading = document.parse(text.replace("zz = 1\n", ""), "bundle.toml", {}, starts=False)
    assert reading.bundle is not None
    assert reading.unset == ("T",)
    assert reading.bundle.children[0].settings.nice is None


@pytest.mark.parametrize(
    ("variables", "fault"),
    [
        ("A = 8080", "variables.A: must be a string in quotes, or { required = true }, is 8080"),
        ("A = {}", "variables.A: needs exactly one of default or required"),
        ("A = { required = false }", "variables.A.required: must be true, or left out, is false"),
        ('A = { required = true, default = "x" }', "variables.A: needs exactly one of default and required"),
        ("A = { required = true, x = 1 }", "variables.A.x: unknown key"),
        ('"A B" = "x"', 'variables."A B": the name'),
        ('"1" = "x"', "variables.1: the name"),
        ('A = "${A}"', "variables.A: names ${A}, which is not declared before it"),
        ('A = "${B}"\nB = "x"', "variables.A: names ${B}, which is not declared before it"),
        ('A = "\\u0000"', "variables.A: must not contain a NUL byte"),
    ],
)
def test_wrong_declarations(variables: str, fault: str) -> None:
    told = faults(f"[variables]\n{variables}\n{WEB}")
    assert told[0].startswith(fault), told
    assert len(told) == 1


def test_a_default_of_a_default() -> None:
    variables = 'A = "a"\nB = "${A}b$${A}"'
    assert words("${B}", variables) == "ab${A}"
    assert words("${B}", variables, A="x") == "xb${A}"


@given(st.dictionaries(VARIABLES, st.text(st.characters(codec="utf-8", exclude_characters="\0")), max_size=3))
def test_any_environment_is_a_bundle_or_faults(environ: dict[str, str]) -> None:
    text = WEB + "".join(f'{key} = "${{A}}"\n' for key in ("nice", "umask", "user", "stop_signal", "stop_timeout"))
    for value in environ.values():
        reading = document.parse(text + '[variables]\nA = "1"\n', "b", {"A": value}, here=False)
        assert (reading.bundle is None) == bool(reading.faults)


# Included files.


def files(directory: Path, main: str, **parts: str) -> str:
    """A bundle file with parts in `d`; returns its path."""
    (directory / "d").mkdir(exist_ok=True)
    for name, text in parts.items():
        (directory / "d" / f"{name}.toml").write_text(text)
    path = directory / "bundle.toml"
    path.write_text('include = ["d/*.toml"]\n' + main)
    return str(path)


def daemon(name: str, more: str = "") -> str:
    return f'[daemons.{name}]\ncommand = ["{name}"]\n{more}'


def test_children_in_the_order_of_names(tmp_path: Path) -> None:
    path = files(tmp_path, daemon("m"), b=daemon("b"), a=daemon("z") + daemon("y"), c='[oneshots.o]\ncommand = ["o"]')
    assert [spec.name for spec in load.from_file(path).children] == ["o", "m", "z", "y", "b"]


def test_faults_name_the_file(tmp_path: Path) -> None:
    path = files(
        tmp_path,
        daemon("m", "nice = 99\n"),
        a=daemon("a", "nice = 99\nafter = ['nobody']\nuser = 'no-such'\n") + "[variables]\nV = 1\n",
        b='include = ["x"]\n[bundle]\n[daemon.x]\n' + daemon("m"),
        c="[daemons]\n[jobs]\nx = 1\n",
    )
    with pytest.raises(BundleInvalid) as caught:
        load.from_file(path)
    told = {fault.path for fault in caught.value.faults}
    d = tmp_path / "d"
    assert told == {
        "daemons.m.nice",
        *(f"{d}/a.toml: {where}" for where in ("daemons.a.nice", "daemons.a.after", "daemons.a.user", "variables.V")),
        *(f"{d}/b.toml: {where}" for where in ("include", "bundle", "daemon", "daemons.m")),
        f"{d}/c.toml: jobs.x",
    }


def test_syntax_faults_are_told_alone(tmp_path: Path) -> None:
    path = files(tmp_path, daemon("m", "nice = 99\n"), a="x = [", b="[daemons.b]\n\ny = ]\n", c=daemon("c", "zz = 1\n"))
    with pytest.raises(BundleInvalid) as caught:
        load.from_file(path)
    assert [fault.path for fault in caught.value.faults] == [
        f"{tmp_path}/d/a.toml: line 1",
        f"{tmp_path}/d/b.toml: line 3, column 5",
    ]


def test_a_name_twice(tmp_path: Path) -> None:
    main = daemon("m") + "[variables]\nV = '1'\n"
    again = daemon("m", "nice = 3\n") + "[variables]\nV = {default = '2'}\n"
    path = files(tmp_path, main, a=again)
    with pytest.raises(BundleInvalid) as caught:
        load.from_file(path)
    assert [fault.path for fault in caught.value.faults] == [
        f"{tmp_path}/d/a.toml: {p}" for p in ("daemons.m", "variables.V")
    ]
    assert "daemons.m: `override = true` would replace" in caught.value.faults[0].message


def test_an_override_replaces_the_whole(tmp_path: Path) -> None:
    main = daemon("m", "nice = 3\ncwd = '/${V}'\n") + daemon("n", "cwd = '/${V}'\n") + "[variables]\nV = '1'\n"
    over = "override = true\n"
    path = files(tmp_path, main, a=daemon("m", over) + "[variables]\nV = { default = '2', override = true }\n")
    m, n = load.from_file(path).children
    assert (m.name, m.settings.nice, m.settings.cwd) == ("m", None, None)
    assert n.settings.cwd == "/2"
    path = files(tmp_path, main, a="[variables]\n", b=f"[jobs.m]\ncommand = ['j']\n{over}")
    assert [(spec.name, spec.kind) for spec in load.from_file(path).children] == [("n", "daemon"), ("m", "job")]
    path = files(tmp_path, main, a="[variables]\n", b=daemon("m", over), c=daemon("m", f"{over}nice = 99\n"))
    with pytest.raises(BundleInvalid) as caught:
        load.from_file(path)
    assert [fault.path for fault in caught.value.faults] == [f"{tmp_path}/d/c.toml: daemons.m.nice"]


def test_patterns(tmp_path: Path) -> None:
    for name in ("a1.toml", "a2.toml", "b.toml", ".hidden.toml", "c.txt"):
        (tmp_path / name).write_text("")
    main = tmp_path / "main.toml"
    main.write_text("")

    def found(*patterns: str) -> tuple[list[str], list[str]]:
        read, faults, unmatched = include.read(str(main), patterns)
        assert not faults
        return [os.path.basename(path) for path, _ in read], unmatched

    assert found("*.toml") == (["a1.toml", "a2.toml", "b.toml"], []), "never itself, and no hidden file"
    assert found("b.toml", "a?.toml", "*1.toml") == (["b.toml", "a1.toml", "a2.toml"], [])
    assert found(f"{tmp_path.parent}/{tmp_path.name[:-1]}?/c.*") == (["c.txt"], [])
    assert found("x/*.toml", "b.toml", "nope.toml") == (["b.toml"], ["x/*.toml", "nope.toml"])
    assert found(".*.toml") == ([".hidden.toml"], [])


def test_a_directory_in_the_place_of_a_file(tmp_path: Path) -> None:
    path = files(tmp_path, daemon("m"))
    (tmp_path / "d/x.toml").mkdir()
    with pytest.raises(BundleInvalid, match=r"d/x\.toml: the file cannot be read: Is a directory"):
        load.from_file(path)


# Compiled.


def start(path: str, text: bytes, monkeypatch: pytest.MonkeyPatch, **environ: str) -> tuple[Any, bool]:
    """The bundle of a start in this environment, or its faults, and whether the compiled form served."""
    for name in ("PORT", "T"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    used = compiled.find(path, text, environ) is not None
    try:
        return load.from_file(path), used
    except BundleInvalid as invalid:
        return str(invalid), used


def test_a_compiled_file_keeps_its_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each start has its own values, and no value of the compilation's environment is in the file."""
    monkeypatch.setenv("PORT", "1111")
    monkeypatch.setenv("T", "hunter2")
    text = (
        "[variables]\nPORT = '80'\nT = { required = true }\n"
        + daemon("m", "ready = { tcp = '${PORT}' }\nenv = { K = '${T}' }\n")
    ).encode()
    path = str(tmp_path / "b.toml")
    Path(path).write_bytes(text)
    written, reading = compiled.write(path)
    assert reading.unset == ("T",)
    assert b"1111" not in Path(written).read_bytes()
    assert b"hunter2" not in Path(written).read_bytes()
    for environ in ({"T": "x"}, {"T": "", "PORT": "9"}, {}, {"PORT": "x", "T": ""}):
        fresh = document.parse(text, path, environ)
        bundle, used = start(path, text, monkeypatch, **environ)
        assert used == (fresh.bundle is not None)
        if fresh.bundle is None:
            assert all(message in bundle for _, message in fresh.faults)
        else:
            assert bundle == load.settle(fresh.bundle, None)


def test_a_compiled_file_is_of_all_that_it_includes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = files(
        tmp_path, daemon("m") + "[variables]\nPORT = '8'\n", a=daemon("a", "nice = '${PORT}'\n"), b=daemon("b")
    )
    text = Path(path).read_bytes()
    compiled.write(path)
    bundle, used = start(path, text, monkeypatch, PORT="7")
    assert used
    assert bundle.children[1].settings.nice == 7
    part = tmp_path / "d/b.toml"
    for change in (
        lambda: part.write_text(daemon("b", "nice = 3\n")),
        part.unlink,
        lambda: part.write_text(daemon("c")),
        lambda: (tmp_path / "d/c.toml").write_text(""),
    ):
        compiled.write(path)
        assert start(path, text, monkeypatch)[1]
        change()
        bundle, used = start(path, text, monkeypatch)
        assert not used
        assert bundle == load.from_text(text, path)


def test_users_of_an_included_file_are_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where one is missing at the start of a compiled file, the fault names the included file."""
    path = files(tmp_path, daemon("m") + "[variables]\nT = 'root'\n", a=daemon("a", "user = '${T}'\n"))
    compiled.write(path)
    told, used = start(path, Path(path).read_bytes(), monkeypatch, T="no-such")
    assert used
    assert f"{tmp_path}/d/a.toml: daemons.a.user: there is no user" in told


def test_control_is_replaced_for_those_who_ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even where a required variable is not set there."""
    text = b"[bundle]\ncontrol = '@${PORT}'\n[variables]\nPORT = '80'\nT = { required = true }\n" + daemon("m").encode()
    path = str(tmp_path / "b.toml")
    Path(path).write_bytes(text)
    monkeypatch.setenv("PORT", "x")
    assert load.control_of(path, text) == "@x"
    compiled.write(path)
    assert load.control_of(path, text) == "@x"
    monkeypatch.setenv("T", "t")
    assert load.control_of(path, text) == "@x"
