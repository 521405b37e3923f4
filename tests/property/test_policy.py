"""The policy file: what is valid means what docs/policy.md says, and what is not is said all at once, with its path."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecars import policy
from sidecars.dlp import BUILT_IN
from sidecars.policy import PolicyError, parse

ROOT = Path(__file__).resolve().parents[2]


def faults_of(text: str) -> list[str]:
    """The faults of a policy file with this content, without the file's name."""
    with pytest.raises(PolicyError) as caught:
        parse(tomllib.loads(text))
    return [fault.removeprefix("/etc/bottle/policy.toml: ") for fault in caught.value.faults]


def documented_example() -> dict[str, Any]:
    """The first TOML block of docs/policy.md."""
    match = re.search(r"```toml\n(.*?)```", (ROOT / "docs/policy.md").read_text("utf-8"), re.DOTALL)
    assert match
    return tomllib.loads(match.group(1))


def test_the_documented_example_is_valid_and_means_what_it_says() -> None:
    read = parse(documented_example())
    assert read.allowlist.allows("api.example.com", 443)
    assert read.allowlist.allows("registry.example.net", 8443)
    assert read.credentials[0].header == "Authorization"
    assert read.git_directory == Path("/srv/git")
    assert [(r.name, r.upstream) for r in read.repositories] == [("demo", "https://git.example.com/team/demo.git")]
    assert read.patterns[-1].name == "staff-id"
    assert read.answer_timeout_s == 60.0


def test_the_image_ships_a_policy_that_allows_nothing() -> None:
    shipped = policy.load(ROOT / "images/bundle/policy.toml")
    assert shipped == parse({})
    assert shipped.allowlist.rules == ()


def test_all_faults_come_at_once_each_with_its_path() -> None:
    found = faults_of("""
        pipelok = 1
        [egress]
        allow = ["*.", 3, "api.example.com:99999", "git.example.com"]
        upstream_ca = "relative.pem"
        [[egress.credentials]]
        host = "other.example.com"
        header = "Content-Length"
        value_file = "/run/secrets/x"
        [pipelock]
        engine = "fast"
        patterns = [{ name = "a b", regex = "(?=x)" }]
        [git.repos.demo]
        upstream = "https://elsewhere.example.com/x.git"
        upstrem = ""
        [supervise]
        answer_timeout = "soon"
    """)
    assert sorted(fault.split(": ")[0] for fault in found) == [
        "egress.allow[0]",
        "egress.allow[1]",
        "egress.allow[2]",
        "egress.credentials[0].header",
        "egress.credentials[0].host",
        "egress.upstream_ca",
        "git.repos.demo.upstream",
        "git.repos.demo.upstrem",
        "pipelock.engine",
        "pipelock.patterns[0].name",
        "pipelock.patterns[0].regex",
        "pipelok",
        "supervise.answer_timeout",
    ]
    assert "pipelok: unknown key; did you mean 'pipelock'?" in found


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('[egress]\nallow = "api.example.com"', "egress.allow: 'api.example.com' is not a list of strings"),
        ("egress = 1", "egress: 1 is not a table"),
        ("[egress]\ncredentials = [1]", "egress.credentials[0]: 1 is not a table"),
        ("[egress]\ncredentials = [{}]", "egress.credentials[0].host: is missing"),
        ("[supervise]\nanswer_timeout = true", "supervise.answer_timeout: True is not a duration"),
        ('[pipelock]\npatterns = [{name="github-token", regex="x"}]', "'github-token' is taken by another pattern"),
        ('[git.repos."../x"]', "git.repos.../x: is not a repository's name"),
        ('[git.repos.x]\nupstream = "https://u:p@h.example.com/x"', "let egress inject them"),
        ('[git.repos.x]\nupstream = "ext::sh -c id"', "an upstream is an https, http, git or file URL"),
        ('[git.repos.x]\nupstream = "--upload-pack=x"', "an upstream is an https, http, git or file URL"),
    ],
)
def test_a_fault_is_said_in_words(text: str, fault: str) -> None:
    assert any(fault in found for found in faults_of(text))


def test_a_header_is_set_once_for_a_host() -> None:
    credential = {"host": "a.example.com", "header": "X-Key", "value_file": "/x"}
    other = {**credential, "header": "x-key", "value_file": "/y"}
    with pytest.raises(PolicyError, match=r"credentials\[1\]\.header: 'x-key' is set twice"):
        parse({"egress": {"allow": ["a.example.com"], "credentials": [credential, other]}})


def test_what_is_not_toml_is_a_fault_with_the_files_name(tmp_path: Path) -> None:
    broken = tmp_path / "policy.toml"
    broken.write_text("[egress\n")
    with pytest.raises(PolicyError, match=r"policy\.toml: not TOML: .*line 1"):
        policy.load(broken)
    for beyond_python in ("a = " + "[" * 9999, "a = 1" + "0" * 9999):
        broken.write_text(beyond_python)
        with pytest.raises(PolicyError, match="too deep, or a number of thousands of digits"):
            policy.load(broken)
    with pytest.raises(PolicyError, match="No such file or directory"):
        policy.load(tmp_path / "missing.toml")


def test_a_fault_is_no_traceback(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        policy.or_exit(lambda: policy.load(tmp_path / "missing.toml"))
    assert stopped.value.code == 78
    assert capsys.readouterr().err == f"{tmp_path}/missing.toml: No such file or directory\n"


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=True) | st.text(max_size=12),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
        max_leaves=12,
    )
)
def test_nothing_but_a_policy_or_its_faults_comes_of_any_document(junk: Any) -> None:
    """No document is so odd that parsing it ends in another exception."""
    for document in (
        {"egress": junk},
        {"egress": {"allow": junk, "credentials": junk}},
        {"egress": {"allow": ["a.example.com"], "credentials": [{"host": junk, "header": junk, "value_file": junk}]}},
        {"pipelock": {"engine": junk, "patterns": [{"name": junk, "regex": junk}]}},
        {"git": {"directory": junk, "repos": junk}},
        {"git": {"repos": {"x": {"upstream": junk}}}},
        {"supervise": {"answer_timeout": junk, "allowed_hosts": junk}},
    ):
        try:
            read = parse(document)
        except PolicyError as error:
            assert error.faults
        else:
            assert read.patterns[: len(BUILT_IN)] == BUILT_IN


@given(st.integers(0, 23), st.integers(0, 59), st.integers(0, 59), st.integers(0, 999))
def test_durations_add_up(hours: int, minutes: int, seconds: int, milliseconds: int) -> None:
    text = f"{hours}h{minutes}m{seconds}s{milliseconds}ms"
    expected = pytest.approx(hours * 3600 + minutes * 60 + seconds + milliseconds / 1000)
    assert policy.parse_duration_s(text) == expected


@pytest.mark.parametrize(
    "text", ["", "s", "1", "-1s", "1 s", "1s1m", "1ms1s", "\u0661s", float("nan"), float("inf"), -1]
)
def test_what_is_no_duration_is_refused(text: str | float) -> None:
    with pytest.raises(ValueError, match="not a duration"):
        policy.parse_duration_s(text)
