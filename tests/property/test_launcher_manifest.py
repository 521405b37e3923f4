"""The manifest: what is written is what is meant, and whatever is wrong is said all at once."""

import ast
import tempfile
import tomllib
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st

import launcher
from launcher import state
from launcher.backend import get_bottle_backend
from launcher.backend.docker import DockerBackend
from launcher.errors import LauncherError, ManifestError
from launcher.manifest import AgentSpec, BottleSpec, Credential, load, parse
from launcher.policy import policy_toml, secret_value

HERE = Path("/home/somebody/bottle.toml")
WHOLE = """
name = "demo"
image = "sidecars:test"
daemons = ["pipelock", "egress", "git-gate", "supervise"]

[agent]
image = "agent:test"
user = "1234"
command = ["sh", "-c", "true"]
env = { EDITOR = "vi" }
tty = true

[egress]
allow = ["api.example.com", "*.example.org"]
upstream_ca = "/etc/company.pem"

[credentials.api]
host = "api.example.com"
header = "X-Key"
prefix = "Token "
plaintext = true
from_env = "API_KEY"

[pipelock]
engine = "portable"

[[pipelock.patterns]]
name = "staff-id"
regex = 'ACME-[0-9]{6}'

[git.repos.demo]
upstream = "https://api.example.com/demo.git"

[git.repos.scratch]

[supervise]
answer_timeout = "5s"
"""
JSON_LIKE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=6,
)
# The manifest's own keys with anything in them: deeper than anything at random would get.
TABLES = st.dictionaries(
    st.sampled_from(
        ["name", "image", "daemons", "agent", "egress", "credentials", "pipelock", "git", "supervise", "x"]
    ),
    JSON_LIKE
    | st.dictionaries(
        st.sampled_from(["image", "user", "env", "allow", "upstream_ca", "patterns", "repos", "engine", "a"]),
        JSON_LIKE | st.dictionaries(st.sampled_from(["host", "from_env", "from_file", "upstream"]), JSON_LIKE),
    ),
)


def faults_of(text: str, path: Path = HERE) -> tuple[str, ...]:
    """The faults of a manifest that has some."""
    with pytest.raises(ManifestError) as raised:
        parse(tomllib.loads(text), path)
    return raised.value.faults


def test_every_key_means_what_it_says() -> None:
    assert parse(tomllib.loads(WHOLE), HERE) == BottleSpec(
        name="demo",
        image="sidecars:test",
        agent=AgentSpec("agent:test", "1234", ("sh", "-c", "true"), (("EDITOR", "vi"),), tty=True),
        allow=("api.example.com", "*.example.org"),
        upstream_ca=Path("/etc/company.pem"),
        credentials=(Credential("api", "api.example.com", "X-Key", "Token ", True, from_env="API_KEY"),),
        engine="portable",
        patterns=(("staff-id", "ACME-[0-9]{6}"),),
        git_repos=(("demo", "https://api.example.com/demo.git"), ("scratch", None)),
        answer_timeout="5s",
    )


def test_an_empty_manifest_allows_nothing() -> None:
    assert parse({}, HERE) == BottleSpec(name="somebody")


def test_all_faults_at_once_each_with_its_path() -> None:
    faults = faults_of("""
        nmae = "x"
        daemons = ["egres"]
        [agent]
        user = "0:1000"
        command = "sh"
        env = { "A-B" = "c" }
        [egress]
        allow = ["a.example.com", 7]
        [credentials.one]
        host = "b.example.com"
        from_env = "A"
        from_file = "relative"
        [credentials.two]
        [[pipelock.patterns]]
        name = "x"
        [git.repos.demo]
        url = "https://a.example.com/"
    """)
    paths = [fault.partition(": ")[0] for fault in faults]
    assert sorted(paths) == sorted([
        "nmae", "daemons", "agent.user", "agent.command", "agent.env", "egress.allow[1]", "credentials.one",
        "credentials.one.from_file", "credentials.one.host", "credentials.two", "credentials.two.host",
        "pipelock.patterns[0].regex", "git.repos.demo.url",
    ])  # fmt: skip


@given(st.sampled_from([(), ("agent",), ("egress",), ("credentials", "api"), ("pipelock",), ("git",), ("supervise",)]))
def test_an_unknown_key_is_a_fault_in_every_table(path: tuple[str, ...]) -> None:
    document = tomllib.loads(WHOLE)
    table = document
    for key in path:
        table = table[key]
    table["typo"] = 1
    assert faults_of(tomli_w.dumps(document)) != ()
    assert faults_of(tomli_w.dumps(document))[0].startswith(".".join((*path, "typo")))


@given(TABLES)
def test_anything_else_is_a_spec_or_a_list_of_faults(document: dict[str, Any]) -> None:
    try:
        spec = parse(document, HERE)
    except ManifestError as error:
        assert error.faults
    else:
        tomllib.loads(policy_toml(spec))


@pytest.mark.parametrize(
    ("text", "faults"),
    [
        (
            '[egress]\nallow = [7, "a.example"]\n[credentials.x]\nhost = "a.example"\nfrom_env = "X"',
            ["egress.allow[0]"],
        ),
        ("[pipelock]\npatterns = [7]", ["pipelock.patterns[0]"]),
        ("[credentials]\nx = 7", ["credentials.x"]),
        ("[git.repos]\nx = 7", ["git.repos.x"]),
    ],
)
def test_a_fault_brings_no_other_with_it(text: str, faults: list[str]) -> None:
    assert [fault.partition(": ")[0] for fault in faults_of(text)] == faults


@pytest.mark.parametrize(
    ("daemons", "rest", "path"),
    [
        ("pipelock", "", "daemons"),
        ("git-gate", '[git.repos.x]\nupstream = "https://a.example/x.git"', "git.repos.x.upstream"),
        ("supervise", '[credentials.x]\nhost = "a.example"\nfrom_env = "X"', "credentials"),
    ],
)
def test_what_needs_egress_says_so(daemons: str, rest: str, path: str) -> None:
    """What needs egress says so where egress is left out."""
    document = f'daemons = ["{daemons}"]\n[egress]\nallow = ["a.example"]\n{rest}'
    (fault,) = faults_of(document)
    assert fault.startswith(f"{path}: ")
    parse(tomllib.loads(document.replace('"]', '", "egress"]', 1)), HERE)


@pytest.mark.parametrize("user", ["0", "00", "0:0", "1000:0", "root", "1000:", "-1", "", "\uff11", "2147483648"])
def test_an_agent_is_never_root(user: str) -> None:
    assert faults_of(f'[agent]\nuser = "{user}"')[0].startswith("agent.user")


def test_a_repository_cannot_redirect_a_secret(tmp_path: Path) -> None:
    """A repository has no say in where a secret goes."""
    (tmp_path / ".git").mkdir()
    (tmp_path / "deep").mkdir()
    manifest = '[egress]\nallow = ["evil.example"]\n[credentials.x]\nhost = "evil.example"\nfrom_env = "TOKEN"'
    (fault,) = faults_of(manifest, tmp_path / "deep" / "bottle.toml")
    assert fault.startswith(f"credentials: not in a git work tree ({tmp_path})")
    assert parse(tomllib.loads('[egress]\nallow = ["a.example"]'), tmp_path / "bottle.toml").allow == ("a.example",)


def test_nor_has_it_through_a_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    own = tmp_path / ".claude-bottle"
    cloned = tmp_path / "cloned"
    own.mkdir()
    (cloned / ".git").mkdir(parents=True)
    manifest = '[egress]\nallow = ["a.example"]\n[credentials.x]\nhost = "a.example"\nfrom_env = "TOKEN"'
    (cloned / "bottle.toml").write_text(manifest)
    (own / "bottle.toml").symlink_to(cloned / "bottle.toml")
    with pytest.raises(ManifestError, match="git work tree"):
        load(own / "bottle.toml")
    (own / "mine.toml").write_text(manifest)
    assert load(own / "mine.toml").credentials


@pytest.mark.parametrize("content", [None, b"\xff", b"= nonsense", b"a = " + b"[" * 9999, b"a = 1" + b"0" * 9999])
def test_an_unreadable_manifest_is_said_in_one_line(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "bottle.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(LauncherError) as raised:
        load(path)
    assert str(raised.value).startswith(f"{path}: ")
    assert "\n" not in str(raised.value)


def test_the_policy_is_what_the_bundle_reads() -> None:
    """The keys are those of docs/policy.md."""
    assert tomllib.loads(policy_toml(parse(tomllib.loads(WHOLE), HERE))) == {
        "walls": "without-kernel-rules",
        "egress": {
            "allow": ["api.example.com", "*.example.org"],
            "upstream_ca": "/etc/bottle/ca/origins.pem",
            "credentials": [
                {"host": "api.example.com", "header": "X-Key", "value_file": "/run/secrets/api", "plaintext": True}
            ],
        },
        "pipelock": {"engine": "portable", "patterns": [{"name": "staff-id", "regex": "ACME-[0-9]{6}"}]},
        "git": {"repos": {"demo": {"upstream": "https://api.example.com/demo.git"}, "scratch": {}}},
        "supervise": {"answer_timeout": "5s"},
    }


@given(st.text())
def test_a_bad_secret_is_refused_unseen(text: str) -> None:
    """A secret is one line, or is refused without being shown."""
    credential = Credential("c", "a.example", prefix="Bearer ", from_env="X")
    try:
        assert secret_value(credential, {"X": text}) == f"Bearer {text.strip()}"
        assert text.strip().isprintable()
    except LauncherError as error:
        assert str(error).count("$X") == 1
        assert len(text) < 5 or text not in str(error)


def test_all_credentials_that_cannot_be_read_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("UNSET", raising=False)
    spec = BottleSpec(
        "x",
        allow=("a.example",),
        credentials=(
            Credential("one", "a.example", from_env="UNSET"),
            Credential("two", "a.example", from_file=tmp_path / "absent"),
        ),
    )
    with pytest.raises(LauncherError, match=r"(?s)credentials\.one.*credentials\.two"):
        DockerBackend().prepare(spec, tmp_path / "stage")
    assert not (tmp_path / "stage").exists()


def test_how_a_backend_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Backends are chosen by name, then by the environment."""
    monkeypatch.delenv("CLAUDE_BOTTLE_BACKEND", raising=False)
    assert isinstance(get_bottle_backend(), DockerBackend)
    monkeypatch.setenv("CLAUDE_BOTTLE_BACKEND", "dokcer")
    assert isinstance(get_bottle_backend("docker"), DockerBackend)
    with pytest.raises(LauncherError, match="'dokcer'") as raised:
        get_bottle_backend()
    assert "docker" in raised.value.hint


def imports(path: Path) -> set[str]:
    """The modules that a file imports, by their full names."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Import(names=names):
                found.update(alias.name for alias in names)
            case ast.ImportFrom(module=str(module), names=names):
                found.update((module, *(f"{module}.{alias.name}" for alias in names)))
    return found


def test_one_module_runs_subprocesses() -> None:
    """One file shows what the launcher runs on the host. What is copied into a container is not the launcher's own."""
    copied = {"demo_origin.py"}
    own = [path for path in Path(launcher.__path__[0]).rglob("*.py") if path.name not in copied]
    running = {path.name for path in own if imports(path) & {"subprocess", "pty", "multiprocessing"}}
    assert running == {"docker.py"}
    assert not {module.rpartition(".")[2] + ".py" for path in own for module in imports(path)} & copied


def test_only_its_own_stage_directory_is_removed() -> None:
    """A stage directory is removed only if it is the bottle's own."""
    with tempfile.TemporaryDirectory() as directory:
        plan = DockerBackend().prepare(BottleSpec("x", slug="x-1"), Path(directory) / "x-1")
        state.discard(plan.stage_dir, "another")
        state.discard(Path(directory), "x-1")
        assert plan.yaml_path.exists()
        state.discard(plan.stage_dir, "x-1")
        assert not plan.stage_dir.exists()
