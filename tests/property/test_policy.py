"""The policy file: a valid one means what docs/policy.md says; all faults are reported at once, each with its path."""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecars import layout, policy
from sidecars.dlp import BUILT_IN
from sidecars.hosts import Rule
from sidecars.policy import PolicyError, approvals, grammar, parse
from sidecars.policy.compiled import compiled
from sidecars.policy.model import GIT_METHODS, METHODS, Host, Push, Upstream

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


def test_the_documented_example() -> None:
    """The documented example is valid and means what it says."""
    read = parse(documented_example())
    assert read.allowlist.allows("api.example.com", 443)
    assert read.allowlist.allows("registry.example.net", 8443)
    hosts = {host.pattern.host: host for host in read.hosts}
    assert hosts["api.example.com"] == Host(Rule("api.example.com"), rule="egress.allow[0]")
    assert hosts["models.example.com"].methods == ("GET", "POST")
    assert (hosts["models.example.com"].on_secret, hosts["models.example.com"].idle_ms) == ("ask", 1_800_000)
    assert [(c.name, c.consumers) for c in read.credentials] == [("model-key", ("agent",)), ("git-token", ("git",))]
    demo, tools = read.repositories
    assert demo.upstream == "https://git.example.com/team/demo.git"
    assert demo.push == Push(branches=("agent/*", "main"))
    assert tools.source == Upstream(
        "ssh://git@code.example.com/team/tools.git", "ssh", "code.example.com", 22, "/team/tools.git"
    )
    assert read.patterns[-1].name == "staff-id"
    defaults = parse({})
    for name in ("walls", "transparent", "scan_limit", "quota", "answer_timeout_ms", "max_questions", "limits"):
        assert getattr(read, name) == getattr(defaults, name), f"the page's example shows the default of {name}"


def documented_rows(page: str) -> set[str]:
    """The keys in the first column of the page's tables, several to a row where they share one."""
    rows = re.findall(r"^\| ((?:`[a-z_]+`(?:, )?)+) \|", page, re.MULTILINE)
    return {key for row in rows for key in re.findall(r"[a-z_]+", row)}


def test_exactly_the_grammars_keys_are_documented() -> None:
    """Every key of the grammar is documented, and no other."""
    page = (ROOT / "docs/policy.md").read_text("utf-8").split("## Compiled")[0]
    keys = {*grammar.EGRESS_KEYS, *grammar.HOST_KEYS, *grammar.CREDENTIAL_KEYS, *grammar.REPOSITORY_KEYS}
    keys |= {*grammar.PUSH_KEYS, *grammar.LIMIT_KEYS, "walls", "transparent", "engine", "inspect", "patterns"}
    keys |= {"directory", "quota", "answer_timeout", "allowed_hosts", "max_questions"}
    assert documented_rows(page) == keys


def test_the_image_ships_a_policy_that_allows_nothing() -> None:
    shipped = policy.load(ROOT / "images/bundle/policy.toml")
    assert shipped.replace(generation="", source="") == parse({})
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
        upstream = "elsewhere.example.com/x.git"
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
    assert "pipelok: unknown key; did you mean pipelock?" in found


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (
            '[egress]\nallow = "api.example.com"',
            'egress.allow: must be a list of hosts, is the string "api.example.com"',
        ),
        ("egress = 1", "egress: must be a table, is 1"),
        ("[egress]\ncredentials = [1]", "egress.credentials[0]: must be a table, is 1"),
        ("[egress]\ncredentials = [{}]", "egress.credentials[0].host: is missing"),
        (
            "[supervise]\nanswer_timeout = true",
            'supervise.answer_timeout: must be a duration such as "8s", or a number of seconds, is true',
        ),
        ('[pipelock]\npatterns = [{name="github-token", regex="x"}]', '"github-token" is taken by another pattern'),
        ('[git.repos."../x"]', 'git.repos."../x": is not a repository\'s name'),
        ('[egress]\nhosts = [{ host = "a.example.com", methods = ["trace"] }]', "methods[0]: must not be TRACE"),
        ('[egress]\nhosts = [{ host = "a.example.com", methods = ["CONNECT"] }]', "methods[0]: must not be CONNECT"),
        ('[egress]\nhosts = [{ host = "a.example.com", methods = ["get"] }]', "did you mean GET?"),
        ('[egress]\nhosts = [{ host = "a.example.com", methods = [] }]', "methods: must not be empty"),
        ('[egress]\nhosts = [{ host = "a.example.com", for = ["agents"] }]', "for[0]: must be one of"),
        ('[egress]\nhosts = [{ host = "a.example.com", on_secret = "warn" }]', "on_secret: must be one of"),
        ('[egress]\nhosts = [{ host = "a.example.com", idle = 0 }]', "idle: must be longer than 0"),
        ('[egress]\nhosts = [{ host = "a.example.com", privat = true }]', "did you mean private?"),
        ("[egress]\nhosts = [{}]", "egress.hosts[0].host: is missing"),
        *(
            (f"[egress]\nhosts = [{{ host = 'a.example.com', paths = ['{path}'] }}]", "paths[0]: must")
            for path in ("v1", "/a/../b", "/a//b", "/a/.", "/a%2fb", "/a%2Eb", "/a?b", "/a#b", "/ä", "/a b", "/a\\b")
        ),
        ('[egress]\nscan_limit = "8MB"', 'must be a size such as "64KiB", "8MiB" or "1GiB", is the string "8MB"'),
        ('[egress]\nscan_limit = "1KiB"', "must be from 64KiB to 1GiB"),
        ("[limits]\nheader = 0", "limits.header: must be a size"),
        ("[limits]\nheaders = 1", "did you mean header?"),
        ('walls = "none"', 'walls: must be one of "kernel-rules" or "without-kernel-rules"'),
        ("[supervise]\nmax_questions = 0", "max_questions: must be a whole number from 1 to 1024"),
        ('[git.repos.x]\nupstream = "ssh://git@h.example.com/x"', "git.repos.x.ssh_key: is missing"),
        ('[git.repos.x]\nupstream = "git@h.example.com:x"', "git.repos.x.known_hosts: is missing"),
        ('[git.repos.x]\nssh_key = "/k"', "git.repos.x.ssh_key: is for an ssh upstream only"),
        ('[git.repos.x]\nupstream = "ssh://-oProxyCommand=x@h.example.com/x"', "may name a user, and nothing else"),
        ('[git.repos.x]\nupstream = "ssh://a:b@h.example.com/x"', "may name a user, and nothing else"),
        ('[git.repos.x]\nupstream = "https://h.example.com/a/../b"', "without empty or dot segments"),
        ('[git.repos.x]\nupstream = "https://h.example.com"', "must name a repository"),
        ('[git.repos.x]\nupstream = "https://h.example.com:0/x"', "the port must be from 1 to 65535"),
        ('[git.repos.x]\nupstream = "file://h/x"', "has the form file:///PATH"),
        ('[git.repos.x.push]\nbranches = ["refs/heads/x"]', "push.branches[0]: must be the name of a branch"),
        ('[git.repos.x]\nupstream = "https://u:p@h.example.com/x"', "let egress inject them"),
        ('[git.repos.x]\nupstream = "ext::sh -c id"', "an upstream is an https, http, git, ssh or file URL"),
        ('[git.repos.x]\nupstream = "--upload-pack=x"', "an upstream is an https, http, git, ssh or file URL"),
    ],
)
def test_a_fault_is_said_in_words(text: str, fault: str) -> None:
    assert any(fault in found for found in faults_of(text))


def test_a_header_is_set_once_for_a_host() -> None:
    credential = {"host": "a.example.com", "header": "X-Key", "value_file": "/x"}
    other = {**credential, "header": "x-key", "value_file": "/y"}
    with pytest.raises(PolicyError, match=r'credentials\[1\]\.header: "x-key" is set twice'):
        parse({"egress": {"allow": ["a.example.com"], "credentials": [credential, other]}})


AMBIGUOUS = """
[egress]
allow = ["git.example.com"]
[[egress.credentials]]
host = "git.example.com"
header = "Authorization"
value_file = "/run/secrets/t"
{consumers}
[git.repos.demo]
upstream = "https://git.example.com/demo.git"
"""


def test_whose_credential_it_is() -> None:
    """A credential belongs to those who reach its host.

    A host that both reach does not tell whose the credential is, and a default could give it to the wrong one.
    """
    assert "has to say whose this is" in " ".join(faults_of(AMBIGUOUS.format(consumers="")))
    read = parse(tomllib.loads(AMBIGUOUS.format(consumers='for = ["git"]')))
    assert read.credentials[0].consumers == ("git",)
    alone = AMBIGUOUS.format(consumers='for = ["agent"]').replace('allow = ["git.example.com"]', "")
    assert faults_of(alone) == [
        'egress.credentials[0].for: "git.example.com" is not allowed to "agent"; it is to "git": set for = ["git"]'
    ]


def test_one_credential_has_one_value() -> None:
    """One credential has one value and one placeholder."""
    one = {"host": "a.example.com", "header": "X-Key", "value_file": "/one/key", "placeholder": "made-up-key"}
    document = {"egress": {"allow": ["a.example.com"], "credentials": [one]}}
    other = {**one, "header": "X-Other", "value_file": "/other/key", "placeholder": "a-made-up-key-too"}
    document["egress"]["credentials"].append(other)  # type: ignore[attr-defined]
    with pytest.raises(PolicyError, match=r'credentials\[1\]\.name: "key" is taken by egress.credentials\[0\]'):
        parse(document)
    other["name"] = "other"
    with pytest.raises(PolicyError, match=r"credentials\[1\]\.placeholder: cannot be told from that of"):
        parse(document)
    other["placeholder"] = "something-else"
    assert [credential.name for credential in parse(document).credentials] == ["key", "other"]


def test_a_repository_implies_a_rule_for_git() -> None:
    """A repository implies that git, and no other consumer, reaches its host below its path."""
    read = parse({"git": {"repos": {"demo": {"upstream": "https://git.example.com/team/demo.git/"}}}})
    rule = Host(
        *(Rule("git.example.com", port=443), ("git",), GIT_METHODS, ("/team/demo.git",), False, "pass"),
        rule="git.repos.demo.upstream",
    )
    assert read.hosts == (rule,)
    assert compiled(read)["egress"]["tunnels"] == []


def test_an_upstream_without_http_gets_a_tunnel() -> None:
    """An upstream that does not speak HTTP gets a tunnel and no rule."""
    keys = {"ssh_key": "/k", "known_hosts": "code.example.com ssh-ed25519 AAAA"}
    repos = {"a": {"upstream": "git@code.example.com:a.git", **keys}, "b": {"upstream": "git://b.example.com:99/b"}}
    made = compiled(parse({"git": {"repos": repos}}))
    assert made["egress"]["hosts"] == []
    assert made["egress"]["tunnels"] == [
        {"host": "code.example.com", "port": 22, "private": False, "repository": "a"},
        {"host": "b.example.com", "port": 99, "private": False, "repository": "b"},
    ]
    assert made["git"]["repos"]["a"]["upstream"] == "git@code.example.com:a.git"


def test_the_compiled_form_is_complete() -> None:
    """The compiled form has every default, and the most specific names first."""
    allow = ["*.example.org", "*.deep.example.org", "docs.example.org:8443", "a.example.com"]
    made = compiled(parse({"egress": {"allow": allow}}))
    assert [(rule["host"], rule["port"], rule["rule"]) for rule in made["egress"]["hosts"]] == [
        ("docs.example.org", 8443, "egress.allow[2]"),
        ("a.example.com", None, "egress.allow[3]"),
        ("deep.example.org", None, "egress.allow[1]"),
        ("example.org", None, "egress.allow[0]"),
    ]
    assert made["egress"]["methods"] == list(METHODS)
    assert not {"TRACE", "CONNECT"} & set(METHODS)
    assert [pattern["name"] for pattern in made["pipelock"]["patterns"]] == [pattern.name for pattern in BUILT_IN]
    assert made["walls"] == "kernel-rules"
    assert json.loads(json.dumps(made)) == made


def test_the_generation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The generation names the policy and the approvals."""
    file, overlay = tmp_path / "policy.toml", tmp_path / "approvals.json"
    monkeypatch.setattr(layout, "APPROVALS", overlay)
    file.write_text("")
    first = policy.load(file)
    assert first.generation == hashlib.sha256(b"").hexdigest()[:16]
    file.write_text("# a comment")
    overlay.write_text("[]")
    assert policy.load(file).generation == hashlib.sha256(b"# a comment[]").hexdigest()[:16]
    overlay.write_text('[{"id": "x", "kind": "all"}]')
    with pytest.raises(PolicyError, match=r'approvals\.json: \[0\]\.kind: must be one of "host"'):
        policy.load(file)


def test_an_approval_has_the_policys_shapes() -> None:
    """An approval allows in the shapes of the policy itself."""
    common = {"reason": "for the build", "at": 1, "until": 2}
    entries = [
        {"id": "h", "kind": "host", "host": "new.example.com", "methods": ["GET"], **common},
        {"id": "r", "kind": "repository", "name": "x", "repository": {"upstream": "https://g.example.com/x"}, **common},
        {"id": "t", "kind": "repository", "name": "y", "repository": {"upstream": "git://g.example.com/y"}, **common},
        {
            **common,
            **dict.fromkeys(("id", "request", "method", "path", "pattern"), "x"),
            "kind": "request",
            "host": "a.example.com",
            "port": 443,
        },
        {"id": "p", "kind": "push", "push": "4567", "repository": "x", **common},
    ]
    read, faults = approvals.parse(json.dumps(entries).encode())
    assert faults == []
    host, repository, tunnelled, request, push = read
    assert [(rule["host"], rule["methods"], rule["rule"]) for rule in host["hosts"]] == [
        ("new.example.com", ["GET"], "approval h")
    ]
    assert repository["repos"]["x"]["upstream"] == "https://g.example.com/x"
    assert [(rule["host"], rule["for"]) for rule in repository["hosts"]] == [("g.example.com", ["git"])]
    assert tunnelled["tunnels"] == [{"host": "g.example.com", "port": 9418, "private": False, "repository": "y"}]
    assert request["request"]["host"] == "a.example.com"
    assert push["push"] == {"push": "4567", "repository": "x"}
    assert {entry["until"] for entry in read} == {2}


@pytest.mark.parametrize(
    "overlay",
    [
        *("{", "1", "[1]", "[{}]", '[{"kind": "host"}]', '[{"kind": "host", "host": "*"}]', "[" * 9999),
        *('[{"kind": "repository", "name": "../x"}]', '[{"kind": "push"}]', '[{"kind": "request", "port": 0}]'),
        *('[{"kind": "host", "host": "a.example.com", "until": "never"}]', "\xff"),
    ],
)
def test_a_faulty_overlay_is_a_fault(overlay: str) -> None:
    """An overlay with a fault is a fault and no traceback."""
    assert approvals.parse(overlay.encode("latin-1"))[1]


def test_what_is_not_toml_is_a_fault(tmp_path: Path) -> None:
    """What is not TOML is a fault with the file's name."""
    broken = tmp_path / "policy.toml"
    broken.write_text("[egress\n")
    with pytest.raises(PolicyError, match=r"policy\.toml: line 1, column \d+: not TOML: "):
        policy.load(broken)
    for beyond_python, wrong in (
        ("a = " + "[" * 9999, "nested too deep"),
        ("a = 1" + "0" * 9999, "thousands of digits"),
    ):
        broken.write_text(beyond_python)
        with pytest.raises(PolicyError, match=wrong):
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
def test_any_document_is_a_policy_or_its_faults(junk: Any) -> None:
    """Any document becomes a policy or a list of its faults.

    No document is so odd that parsing it ends in another exception.
    """
    for document in (
        {"egress": junk},
        {"egress": {"allow": junk, "credentials": junk}},
        {"egress": {"allow": ["a.example.com"], "credentials": [{"host": junk, "header": junk, "value_file": junk}]}},
        {"pipelock": {"engine": junk, "patterns": [{"name": junk, "regex": junk}]}},
        {"git": {"directory": junk, "repos": junk}},
        {"git": {"repos": {"x": {"upstream": junk}}}},
        {"git": {"repos": {"x": {"ssh_key": junk, "known_hosts": junk, "push": junk, "private": junk}}}},
        {"git": {"repos": {"x": {"push": {"branches": junk, "tags": junk, "force": junk, "delete": junk}}}}},
        {"supervise": {"answer_timeout": junk, "allowed_hosts": junk, "max_questions": junk}},
        {"egress": {"hosts": [{"host": junk, "for": junk, "methods": junk, "paths": junk, "idle": junk}]}},
        {"egress": {"hosts": [{"host": "a.example.com", "on_secret": junk, "private": junk}], "scan_limit": junk}},
        {"walls": junk, "transparent": junk, "limits": junk},
        {"limits": {"header": junk, "connections": junk, "audit": junk}},
    ):
        try:
            read = parse(document)
        except PolicyError as error:
            assert error.faults
        else:
            assert read.patterns[: len(BUILT_IN)] == BUILT_IN
