"""The manifest: what is written is what is meant, and whatever is wrong is told all at once, with its line."""

import ast
import tempfile
import tomllib
from pathlib import Path
from typing import Any, get_args

import jsonschema
import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st

import launcher
from launcher import state
from launcher.backend import _BACKENDS, get_bottle_backend
from launcher.backend.docker import DockerBottleBackend
from launcher.cli.lifecycle import spec_of as spec_of_target
from launcher.errors import LauncherError, ManifestError
from launcher.manifest import (
    AgentSpec,
    BottleSpec,
    Credential,
    Host,
    Project,
    Repository,
    Wishes,
    find,
    load,
    parse,
    schema,
)
from launcher.manifest.jsonschema import schema_text, shipped
from launcher.manifest.lines import positions
from launcher.manifest.merge import merge
from launcher.manifest.source import read
from launcher.plan import DAEMONS, Bind, Limits
from launcher.policy import policy_toml, secret_value
from launcher.spec import ACCEPTABLE, Push, Secret

HERE = Path("/home/somebody/bottle.toml")
WHOLE = """
address_pool = "10.99.0.0/16"
notify = ["notify-me"]

[bottles.base]
image = "agent:test"
user = "1234"
env = { EDITOR = "vi", LANG = "C" }
egress.allow = ["api.example.com"]
limits.agent.pids = 100

[bottles.demo]
extends = "base"
sidecars = "sidecars:test"
daemons = ["pipelock", "egress", "git-gate", "supervise"]
home = "/home/me"
writable = ["/var/cache"]
walls = "without-kernel-rules"
accept_missing = ["host-rules"]
transparent = false
lease = true
env = { LANG = "en" }
pipelock = { engine = "portable", patterns = [{ name = "staff-id", regex = 'ACME-[0-9]{6}' }] }

[bottles.demo.egress]
allow = ["*.example.org"]
upstream_ca = "/etc/company.pem"

[[bottles.demo.egress.hosts]]
host = "models.example.com"
for = ["agent", "git"]
methods = ["GET"]
paths = ["/v1/"]
private = true
on_secret = "ask"
idle = "30m"

[bottles.demo.credentials.api]
host = "api.example.com"
header = "X-Key"
prefix = "Token "
plaintext = true
env = "API_KEY"
placeholder = "made-up-key"
variable = "KEY"

[bottles.demo.credentials.other]
host = "models.example.com"
command = ["pass", "show", "other"]

[bottles.demo.git]
quota = "2GiB"

[bottles.demo.git.repos.demo]
upstream = "ssh://git@code.example.com/team/demo.git"
ssh_key = { file = "/keys/demo" }
known_hosts = "code.example.com ssh-ed25519 AAAA"
push = { branches = ["agent/*"], delete = true }

[bottles.demo.git.repos.scratch]

[bottles.demo.supervise]
answer_timeout = "5s"

[bottles.demo.limits]
agent = { memory = "2GiB", cpus = 1.5 }
sidecars = { logs = "1MiB" }
header = "32KiB"

[agents.demo]
bottle = "demo"
command = ["sh", "-c", "true", "{prompt}"]
headless = ["sh", "-c", "{prompt}"]
prompt = "do it"
env = { LANG = "de" }
git = { name = "Agent", email = "agent@example.com" }
tty = true
workdir = "/src"
project = { mode = "clone", repo = "demo", target = "/src" }
"""
SMALL = """
[bottles.b]
egress.allow = ["a.example"]
[bottles.b.credentials.x]
host = "a.example"
env = "X"
[agents.a]
bottle = "b"
"""
OLD = """
name = "demo"
image = "sidecars:test"
daemons = ["pipelock", "egress"]
[agent]
image = "agent:test"
user = "1234"
command = ["sh"]
tty = true
[egress]
allow = ["api.example.com"]
[credentials.api]
host = "api.example.com"
from_env = "API_KEY"
"""
JSON_LIKE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=6,
)
# The manifest's own keys with anything in them: deeper than anything at random would get.
TABLES = st.dictionaries(
    st.sampled_from(["name", "image", "agent", "egress", "credentials", "bottles", "agents", "git", "notify", "x"]),
    JSON_LIKE
    | st.dictionaries(
        st.sampled_from(["image", "user", "env", "allow", "patterns", "repos", "engine", "a", "bottle", "egress"]),
        JSON_LIKE
        | st.dictionaries(st.sampled_from(["host", "env", "allow", "upstream", "bottle", "project"]), JSON_LIKE),
    ),
)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An operator with an empty ~/.claude-bottle, whose current directory is another one."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    own = tmp_path / "home" / ".claude-bottle"
    own.mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return own


def spec_of(text: str, path: Path = HERE) -> BottleSpec:
    return parse(tomllib.loads(text), path)


def faults_of(text: str, path: Path = HERE) -> tuple[str, ...]:
    """The faults of a manifest that has some."""
    with pytest.raises(ManifestError) as raised:
        parse(tomllib.loads(text), path)
    return raised.value.faults


def paths_of(faults: tuple[str, ...]) -> list[str]:
    return [fault.partition(": ")[0] for fault in faults]


def test_every_key_means_what_it_says() -> None:
    assert spec_of(WHOLE) == BottleSpec(
        name="demo",
        image="sidecars:test",
        daemons=("egress", "pipelock", "git-gate", "supervise"),
        agent=AgentSpec(
            name="demo",
            image="agent:test",
            user="1234",
            command=("sh", "-c", "true", "{prompt}"),
            headless=("sh", "-c", "{prompt}"),
            prompt="do it",
            env=(("EDITOR", "vi"), ("LANG", "de")),
            tty=True,
            home="/home/me",
            workdir="/src",
            git_name="Agent",
            git_email="agent@example.com",
            project=Project("clone", repository="demo", target="/src"),
            writable=("/var/cache",),
            limits=Limits(memory=2 * 2**30, cpus=1.5, pids=100, log_size=20 * 2**20),
        ),
        allow=("api.example.com", "*.example.org"),
        hosts=(Host("models.example.com", ("agent", "git"), ("GET",), ("/v1/",), True, "ask", "30m"),),
        upstream_ca=Path("/etc/company.pem"),
        credentials=(
            Credential(
                "api", "api.example.com", "X-Key", "Token ", True, "API_KEY", placeholder="made-up-key", variable="KEY"
            ),
            Credential("other", "models.example.com", from_command=("pass", "show", "other")),
        ),
        engine="portable",
        patterns=(("staff-id", "ACME-[0-9]{6}"),),
        repositories=(
            Repository(
                "demo",
                "ssh://git@code.example.com/team/demo.git",
                ssh_key=Secret(file=Path("/keys/demo")),
                known_hosts="code.example.com ssh-ed25519 AAAA",
                push=Push(branches=("agent/*",), delete=True),
            ),
            Repository("scratch"),
        ),
        git_quota="2GiB",
        answer_timeout="5s",
        policy_limits=(("header", "32KiB"),),
        walls="without-kernel-rules",
        accept_missing=("host-rules",),
        transparent=False,
        lease=True,
        limits=Limits(memory=2**30, cpus=2.0, pids=512, log_size=2**20),
        address_pool="10.99.0.0/16",
        notify=("notify-me",),
    )


def test_the_first_form_is_still_understood() -> None:
    assert spec_of(OLD) == BottleSpec(
        name="demo",
        image="sidecars:test",
        daemons=("egress", "pipelock"),
        agent=AgentSpec("agent:test", "1234", ("sh",), tty=True, name="demo"),
        allow=("api.example.com",),
        credentials=(Credential("api", "api.example.com", from_env="API_KEY"),),
    )


def test_what_migrate_writes_means_the_same(tmp_path: Path) -> None:
    (tmp_path / "old.toml").write_text(OLD)
    text = tomli_w.dumps(read(tmp_path / "old.toml").tables)
    assert "bottles" in tomllib.loads(text)
    assert spec_of(text) == spec_of(OLD)


def test_an_empty_manifest_allows_nothing() -> None:
    assert parse({}, HERE) == BottleSpec(name="somebody", agent=AgentSpec(name="somebody"))


def test_only_daemons_that_are_used_run() -> None:
    assert spec_of(SMALL).used_daemons == ("egress", "pipelock", "supervise")
    assert spec_of(SMALL + "[bottles.b.git.repos.x]").used_daemons == DAEMONS


def test_the_grammar_knows_the_same_words_as_the_plan() -> None:
    """A Literal cannot be made of a constant, so the two lists are compared."""
    daemons = schema.Bottle.model_fields["daemons"].annotation
    assert set(get_args(get_args(get_args(daemons)[0])[0])) == set(DAEMONS)
    walls = schema.Bottle.model_fields["accept_missing"].annotation
    assert set(get_args(get_args(walls)[0])) == set(ACCEPTABLE)


def test_all_faults_of_the_first_form_at_once() -> None:
    """Each with its path in the file, as it stands there."""
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
        from_file = "relative"
        [credentials.two]
        [[pipelock.patterns]]
        name = "x"
        [git.repos.demo]
        url = "https://a.example.com/"
    """)
    assert sorted(paths_of(faults)) == sorted([
        "nmae", "daemons[0]", "agent.user", "agent.command", "agent.env.A-B", "egress.allow[1]",
        "credentials.one.from_file", "credentials.two.host", "pipelock.patterns[0].regex", "git.repos.demo.url",
    ])  # fmt: skip


def test_every_fault_has_its_line(tmp_path: Path) -> None:
    path = tmp_path / "bottle.toml"
    path.write_text(
        '[bottles.b]\nimage = 7\negress.allow = [\n  "a",\n  8,\n]\n\n[agents.a]\nbottle = "b"\ntyt = true\n'
    )
    with pytest.raises(ManifestError) as raised:
        load(path)
    told = dict(zip(paths_of(raised.value.faults), raised.value.lines, strict=True))
    assert told == {"bottles.b.image": 2, "bottles.b.egress.allow[1]": 5, "agents.a.tyt": 10}
    assert f"{path}:10: agents.a.tyt: unknown key; did you mean tty?" in str(raised.value)


BOTTLE = ("bottles", "demo")
EVERYWHERE = [
    *((), BOTTLE, (*BOTTLE, "egress"), (*BOTTLE, "git"), (*BOTTLE, "credentials", "api"), (*BOTTLE, "limits", "agent")),
    *(("agents", "demo"), ("agents", "demo", "git")),
]


@given(st.sampled_from(EVERYWHERE))
def test_an_unknown_key_is_a_fault_everywhere(path: tuple[str, ...]) -> None:
    document = tomllib.loads(WHOLE)
    table = document
    for key in path:
        table = table[key]
    table["typo"] = 1
    assert paths_of(faults_of(tomli_w.dumps(document))) == [".".join((*path, "typo"))]


@given(TABLES)
def test_anything_is_a_spec_or_a_list_of_faults(document: dict[str, Any]) -> None:
    try:
        spec = parse(document, HERE)
    except ManifestError as error:
        assert error.faults
    except LauncherError as error:
        assert error.hint
    else:
        tomllib.loads(policy_toml(spec))


def test_a_value_among_secrets_is_not_shown() -> None:
    """A key pasted where the name of a variable belongs would be in a log."""
    pasted = "sk-ant-0123456789"
    (fault,) = faults_of(SMALL.replace('env = "X"', f'env = "{pasted}"'))
    assert pasted not in fault
    assert fault.startswith("bottles.b.credentials.x.env: ")


@pytest.mark.parametrize(
    ("daemons", "rest", "path"),
    [
        ("pipelock", "", "bottles.b.daemons"),
        ("git-gate", '[bottles.b.git.repos.x]\nupstream = "https://a.example/x.git"', "bottles.b.git.repos.x.upstream"),
        ("supervise", '[bottles.b.credentials.x]\nhost = "a.example"\nenv = "X"', "bottles.b.credentials"),
    ],
)
def test_what_needs_egress_says_so_without_it(daemons: str, rest: str, path: str) -> None:
    document = f'[bottles.b]\ndaemons = ["{daemons}"]\negress.allow = ["a.example"]\n{rest}\n[agents.a]\nbottle = "b"'
    assert paths_of(faults_of(document)) == [path]
    spec_of(document.replace('"]', '", "egress"]', 1))


@pytest.mark.parametrize("user", ["0", "00", "0:0", "1000:0", "root", "1000:", "-1", "", "\uff11", "2147483648"])
def test_an_agent_is_never_root(user: str) -> None:
    assert paths_of(faults_of(f'[agent]\nuser = "{user}"')) == ["agent.user"]


# Bottles out of others.


def test_several_parents_are_merged_as_given() -> None:
    spec = spec_of("""
        [bottles.one]
        image = "one"
        egress.allow = ["a.example", "b.example"]
        env = { A = "1", B = "1" }
        [bottles.two]
        image = "two"
        egress.allow = ["b.example", "c.example"]
        env = { B = "2" }
        [bottles.both]
        extends = ["one", "two"]
        env = { C = "3" }
        [bottles.more]
        egress.allow = ["d.example"]
        [agents.a]
        bottle = ["both", "more"]
    """)
    assert spec.agent.image == "two"
    assert spec.allow == ("a.example", "b.example", "c.example", "d.example")
    assert dict(spec.agent.env) == {"A": "1", "B": "2", "C": "3"}


def test_a_credential_replaces_another_one_whole() -> None:
    """Half of one and half of another would send a secret to a host that no manifest gave it."""
    spec = spec_of("""
        [bottles.one]
        egress.allow = ["a.example", "b.example"]
        [bottles.one.credentials.x]
        host = "a.example"
        header = "X-One"
        env = "ONE"
        [bottles.two]
        extends = "one"
        [bottles.two.credentials.x]
        host = "b.example"
        file = "/two"
        [agents.a]
        bottle = "two"
    """)
    assert spec.credentials == (Credential("x", "b.example", from_file=Path("/two")),)


def test_a_common_parent_undoes_nothing() -> None:
    """What `careful` says over `base` holds, though `python`, which comes later, has the base's as well.

    Defence: `Bottles.in_order`.
    """
    spec = spec_of("""
        [bottles.base]
        egress.allow = ["base.example.com"]
        transparent = true
        [bottles.careful]
        extends = "base"
        transparent = false
        [bottles.python]
        extends = "base"
        egress.allow = ["python.example.com"]
        [bottles.both]
        extends = ["careful", "python"]
        [agents.a]
        bottle = "both"
    """)
    assert not spec.transparent
    assert spec.allow == ("base.example.com", "python.example.com")
    assert set(spec.bottles) == {"both", "careful", "python", "base"}


def test_a_bottle_that_extends_itself_is_a_fault() -> None:
    (fault,) = faults_of('[bottles.a]\nextends = "b"\n[bottles.b]\nextends = "a"\n[agents.x]\nbottle = "a"')
    assert fault.startswith("bottles.b.extends: ")
    assert "a extends b extends a" in fault


def test_a_parent_that_there_is_not_is_named() -> None:
    (fault,) = faults_of('[bottles.a]\nextends = "gone"\n[agents.x]\nbottle = "a"')
    assert fault == "bottles.a.extends: there is no bottle 'gone'; known: a"


@given(st.dictionaries(st.sampled_from("abc"), st.integers() | st.lists(st.integers())))
def test_a_merge_with_nothing_changes_nothing(table: dict[str, Any]) -> None:
    assert merge(table, {}) == table
    assert merge({}, table) == table
    assert merge(table, table) == table


# The rule by place.


def write(path: Path, text: str = SMALL) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.mark.usefixtures("home")
def test_a_file_that_is_named_may_define_bottles(tmp_path: Path) -> None:
    """Whether there is a `.git` beside it or not: place decides, and nothing else."""
    (tmp_path / "repository" / ".git").mkdir(parents=True)
    assert load(write(tmp_path / "repository" / "bottle.toml")).credentials


@pytest.mark.usefixtures("home")
def test_but_not_inside_of_what_its_agent_is_given(tmp_path: Path) -> None:
    """The agent of yesterday could have written it."""
    project = tmp_path / "project"
    path = write(project / "deep" / "bottle.toml", f'{SMALL}project = {{ mode = "copy", path = "{project}" }}')
    with pytest.raises(ManifestError) as raised:
        load(path)
    (fault,) = raised.value.faults
    assert fault.startswith("bottles.b: this file lies in what the agent is given")
    outside = write(tmp_path / "outside.toml", f'{SMALL}project = {{ mode = "copy", path = "{project}" }}')
    assert load(outside).agent.project == Project("copy", project, target="/workspace")


@pytest.mark.usefixtures("home")
def test_nor_through_a_link(tmp_path: Path) -> None:
    project = tmp_path / "project"
    write(project / "bottle.toml", f'{SMALL}project = {{ mode = "copy", path = "{project}" }}')
    (tmp_path / "link.toml").symlink_to(project / "bottle.toml")
    with pytest.raises(ManifestError, match="lies in what the agent is given"):
        load(tmp_path / "link.toml")


def test_a_link_out_of_the_directory_has_no_bottles(tmp_path: Path, home: Path) -> None:
    write(tmp_path / "cloned" / "bottle.toml")
    (home / "bottle.toml").symlink_to(tmp_path / "cloned" / "bottle.toml")
    with pytest.raises(ManifestError, match="not read through a link"):
        load(home / "bottle.toml")
    write(home / "mine.toml")
    (home / "bottle.toml").unlink()
    assert load(home / "mine.toml").credentials


@pytest.mark.parametrize("given_as", ["project", "mount"])
def test_nobody_gets_the_directory_of_the_bottles(tmp_path: Path, home: Path, given_as: str) -> None:
    """An agent that could write there would describe its own successor's walls."""
    line = {
        "project": f'project = {{ mode = "copy", path = "{home.parent}" }}',
        "mount": f'mounts = [{{ source = "{home.parent}", target = "/mnt" }}]',
    }[given_as]
    with pytest.raises(ManifestError, match="an agent may not have it"):
        load(write(tmp_path / "named.toml", SMALL + line))


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('env = "X"', 'file = "{project}/key"'),
        ('env = "X"', 'command = ["{project}/key"]'),
        ("[bottles.b.cred", 'dockerfile = "{project}/key"\n[bottles.b.cred'),
    ],
)
def test_secrets_are_not_read_from_the_agents_place(tmp_path: Path, old: str, new: str) -> None:
    """A file or a program of the operator's side that the agent could replace."""
    project = tmp_path / "project"
    write(project / "key", "#!/bin/sh")
    text = SMALL.replace(old, new.format(project=project))
    with pytest.raises(ManifestError, match="the agent could change it"):
        load(write(tmp_path / "named.toml", f'{text}project = {{ mode = "copy", path = "{project}" }}'))
    assert load(write(tmp_path / "named.toml", text)).credentials


def test_a_projects_own_file_defines_agents_alone(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(home / "bottle.toml", "[bottles.mine]\n")
    (tmp_path / "project" / ".git").mkdir(parents=True)
    (tmp_path / "project" / "src").mkdir()
    monkeypatch.chdir(tmp_path / "project" / "src")
    own = tmp_path / "project" / ".claude-bottle.toml"
    write(own, '[agents.theirs]\nbottle = "mine"\ncommand = ["make"]\n')
    assert launcher.manifest.find("theirs").agent.command == ("make",)
    for wall in ("[bottles.theirs]\n", 'notify = ["sh"]\n', 'address_pool = "10.0.0.0/8"\n'):
        write(own, wall + '[agents.theirs]\nbottle = "mine"\n')
        with pytest.raises(ManifestError, match="not in a project's own file"):
            launcher.manifest.find("theirs")


@pytest.mark.parametrize(
    "line",
    [
        'mounts = [{ source = "/etc", target = "/mnt" }]',
        'skills = ["/etc"]',
        'project = { mode = "copy", path = "/etc" }',
    ],
)
def test_a_projects_own_file_gives_nothing_else_away(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    write(home / "bottle.toml", "[bottles.mine]\n")
    project = tmp_path / "project"
    monkeypatch.chdir(write(project / ".claude-bottle.toml", f'[agents.theirs]\nbottle = "mine"\n{line}\n').parent)
    with pytest.raises(ManifestError, match=r"outside of the project|nothing but of the project"):
        launcher.manifest.find("theirs")


def test_an_agent_of_the_operators_comes_before_theirs(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(home / "bottle.toml", '[bottles.mine]\n[agents.same]\nbottle = "mine"\ncommand = ["mine"]\n')
    own = write(tmp_path / "project" / ".claude-bottle.toml", '[agents.same]\nbottle = "mine"\ncommand = ["theirs"]\n')
    monkeypatch.chdir(own.parent)
    assert launcher.manifest.find("same").agent.command == ("mine",)


@pytest.mark.parametrize("text", ["", "# nothing\n", 'notify = ["true"]\n'])
def test_a_file_without_an_agent_is_no_bottle(tmp_path: Path, home: Path, text: str) -> None:
    """`bottle up /dev/null`; and in the operator's directory such a file is in nobody's way."""
    path = write(tmp_path / "nothing.toml", text)
    write(home / "mine.toml", '[bottles.mine]\n[agents.mine]\nbottle = "mine"\n')
    write(home / "nothing.toml", text)
    with pytest.raises(LauncherError, match="defines no agent"):
        load(path)
    assert launcher.manifest.find().agent.name == "mine"


def test_the_files_own_bottle_is_meant(tmp_path: Path, home: Path) -> None:
    write(home / "mine.toml", "[bottles.mine]\n[bottles.other]\n")
    assert load(write(tmp_path / "one.toml", "[bottles.theirs]\n")).agent.name == "theirs"


@pytest.mark.usefixtures("home")
def test_an_agent_of_a_file_is_chosen_by_name(tmp_path: Path) -> None:
    path = str(write(tmp_path / "two.toml", SMALL + '[agents.z]\nbottle = "b"\n'))
    assert spec_of_target(path, agent="z").agent.name == "z"
    with pytest.raises(LauncherError, match="two agents were named: x and z"):
        spec_of_target("x", agent="z")


@pytest.mark.usefixtures("home")
def test_which_agent_is_asked_and_not_guessed(tmp_path: Path) -> None:
    path = write(tmp_path / "two.toml", SMALL + '[agents.z]\nbottle = "b"\n')
    with pytest.raises(LauncherError, match="which agent") as raised:
        load(path)
    assert "a, b, z" in raised.value.hint
    assert load(path, "z").agent.name == "z"
    with pytest.raises(LauncherError, match="no agent 'y'"):
        load(path, "y")


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize(
    ("manifest", "prompt", "words"),
    [
        ('command = ["work"]', "count", "has no command for --headless"),
        ('headless = ["work", "{prompt}"]', "", "needs a prompt"),
    ],
)
def test_a_headless_start_that_cannot_be_is_refused(tmp_path: Path, manifest: str, prompt: str, words: str) -> None:
    """The image's own command would run in the place of one that is not there."""
    path = tmp_path / "work.toml"
    path.write_text(f"[bottles.work]\n[agents.work]\nbottle = 'work'\n{manifest}\n")
    with pytest.raises(LauncherError, match=words):
        load(path, wishes=Wishes(prompt=prompt, headless=True))
    assert load(path).agent.name == "work"


@pytest.mark.usefixtures("home")
def test_a_build_is_of_no_project(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be asked for anywhere, in the operator's home as well, which no agent may have."""
    (home / "work.toml").write_text("[bottles.work]\n[agents.work]\nbottle = 'work'\nproject = 'bind'\n")
    monkeypatch.chdir(home.parent)
    with pytest.raises(LauncherError, match="an agent may not have it"):
        find("work")
    assert find("work", Wishes(to_build=True)).agent.name == "work"


@pytest.mark.usefixtures("home")
def test_a_mounted_directory_makes_the_agent_its_owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A root operator's is copied instead: no agent is root."""
    path = write(tmp_path / "named.toml", SMALL + f'project = {{ mode = "bind", path = "{tmp_path / "elsewhere"}" }}')
    for uid, user, mode in ((501, "501:20", "bind"), (0, "1000:1000", "copy")):
        monkeypatch.setattr("os.getuid", lambda uid=uid: uid)
        monkeypatch.setattr("os.geteuid", lambda uid=uid: uid)
        monkeypatch.setattr("os.getgid", lambda: 20)
        agent = load(path).agent
        assert agent.project is not None
        assert (agent.user, agent.project.mode) == (user, mode)


@pytest.mark.usefixtures("home")
def test_mounts_are_read_only_unless_said(tmp_path: Path) -> None:
    first = f'{{ source = "{tmp_path}/elsewhere", target = "/a" }}'
    second = f'{{ source = "{tmp_path}/elsewhere", target = "/b", read_only = false }}'
    mounts = load(write(tmp_path / "named.toml", f"{SMALL}mounts = [{first}, {second}]")).agent.mounts
    assert mounts == (Bind(tmp_path / "elsewhere", "/a"), Bind(tmp_path / "elsewhere", "/b", read_only=False))


# Reading.


@pytest.mark.parametrize("content", [None, b"\xff", b"= nonsense", b"a = " + b"[" * 9999, b"a = 1" + b"0" * 9999])
def test_an_unreadable_manifest_is_said_in_one_line(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "bottle.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(LauncherError) as raised:
        load(path)
    assert str(raised.value).startswith(f"{path}: ")
    assert "\n" not in str(raised.value)


def every_path(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return ([path] if path else []) + [found for key, each in inner for found in every_path(each, (*path, key))]


@given(st.dictionaries(st.text(min_size=1), JSON_LIKE.filter(lambda value: value is not None), max_size=4))
def test_every_key_that_is_written_has_a_line(document: dict[str, Any]) -> None:
    def without_none(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: without_none(each) for key, each in value.items() if each is not None}
        return [without_none(each) for each in value if each is not None] if isinstance(value, list) else value

    text = tomli_w.dumps(without_none(document))
    found = positions(text)
    assert [path for path in every_path(tomllib.loads(text)) if path not in found] == []


def test_lines_of_every_form_that_toml_has() -> None:
    text = (
        'a.b = 1 # no "string\n"c d" = """\n[x]\n"""\n[t]\nk = [ # ]\n  "]", {z = \'}\'},\n]\n'
        "[[t.list]]\n[[t.list]]\nm = '''\n= '''\n[t.list.inner]\ndate = 1979-05-27T07:32:00Z\n"
    )
    found = positions(text)
    expected = {
        ("a", "b"): 1,
        ("c d",): 2,
        ("t",): 5,
        ("t", "k"): 6,
        ("t", "k", 0): 7,
        ("t", "k", 1, "z"): 7,
        ("t", "list", 0): 9,
        ("t", "list", 1): 10,
        ("t", "list", 1, "m"): 11,
        ("t", "list", 1, "inner", "date"): 14,
    }
    assert {path: found.get(path) for path in expected} == expected
    assert [path for path in every_path(tomllib.loads(text)) if path not in found] == []


# What comes of it.


def test_the_shipped_schema_is_the_grammars() -> None:
    """`bottle render --schema > launcher/manifest/manifest.schema.json` writes it anew."""
    assert shipped() == schema_text()
    jsonschema.validate(
        tomllib.loads(WHOLE), jsonschema.Draft202012Validator(__import__("json").loads(shipped())).schema
    )


def test_the_policy_is_what_the_bundle_reads() -> None:
    """The keys are those of docs/policy.md."""
    assert tomllib.loads(policy_toml(spec_of(WHOLE))) == {
        "walls": "without-kernel-rules",
        "transparent": False,
        "egress": {
            "allow": ["api.example.com", "*.example.org"],
            "hosts": [
                {
                    "host": "models.example.com", "for": ["agent", "git"], "on_secret": "ask", "methods": ["GET"],
                    "paths": ["/v1/"], "private": True, "idle": "30m",
                }
            ],
            "upstream_ca": "/etc/bottle/policy/upstream-ca.pem",
            "credentials": [
                {
                    "host": "api.example.com", "header": "X-Key", "value_file": "/run/secrets/api", "plaintext": True,
                    "placeholder": "made-up-key",
                },
                {"host": "models.example.com", "header": "Authorization", "value_file": "/run/secrets/other"},
            ],
        },
        "pipelock": {"engine": "portable", "patterns": [{"name": "staff-id", "regex": "ACME-[0-9]{6}"}]},
        "git": {
            "quota": "2GiB",
            "repos": {
                "demo": {
                    "upstream": "ssh://git@code.example.com/team/demo.git",
                    "known_hosts": "code.example.com ssh-ed25519 AAAA",
                    "ssh_key": "/run/secrets/ssh-demo",
                    "push": {"branches": ["agent/*"], "delete": True},
                },
                "scratch": {},
            },
        },
        "supervise": {"answer_timeout": "5s"},
        "limits": {"header": "32KiB"},
    }  # fmt: skip


@given(st.text())
def test_a_secret_is_one_line_or_refused_unshown(text: str) -> None:
    credential = Credential("c", "a.example", prefix="Bearer ", from_env="X")
    try:
        assert secret_value(credential, {"X": text}) == f"Bearer {text.strip()}"
        assert text.strip().isprintable()
    except LauncherError as error:
        assert str(error).count("$X") == 1
        assert len(text) < 5 or text not in str(error)


def test_a_secret_may_be_what_a_command_prints() -> None:
    """Run in the operator's home, without a shell."""
    credential = Credential("c", "a.example", from_command=("printf", "%s\n", "value of $HOME"))
    assert secret_value(credential) == "value of $HOME"
    with pytest.raises(LauncherError, match=r"credentials\.c\.command"):
        secret_value(Credential("c", "a.example", from_command=("false",)))


def test_all_secrets_that_cannot_be_read_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("UNSET", raising=False)
    spec = BottleSpec(
        "x",
        allow=("a.example",),
        credentials=(
            Credential("one", "a.example", from_env="UNSET"),
            Credential("two", "a.example", from_file=tmp_path / "absent"),
        ),
        repositories=(Repository("r", ssh_key=Secret(file=tmp_path / "gone")),),
    )
    with pytest.raises(LauncherError, match=r"(?s)credentials\.one.*credentials\.two.*git\.repos\.r\.ssh_key"):
        DockerBottleBackend().prepare(spec, tmp_path / "stage")
    assert not (tmp_path / "stage").exists()


def test_backends_are_chosen_by_name_or_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CLAUDE_BOTTLE_BACKEND", raising=False)
    assert isinstance(get_bottle_backend(), DockerBottleBackend)
    monkeypatch.setenv("CLAUDE_BOTTLE_BACKEND", "dokcer")
    assert isinstance(get_bottle_backend("docker"), DockerBottleBackend)
    with pytest.raises(LauncherError, match="'dokcer'") as raised:
        get_bottle_backend()
    assert "docker" in raised.value.hint
    assert _BACKENDS["docker"] is DockerBottleBackend


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
    copied = {"demo_origin.py", "inspection.py"}
    own = [path for path in Path(launcher.__path__[0]).rglob("*.py") if path.name not in copied]
    running = {path.name for path in own if imports(path) & {"subprocess", "pty", "multiprocessing"}}
    assert running == {"docker.py"}
    assert not {module.rpartition(".")[2] + ".py" for path in own for module in imports(path)} & copied


def test_only_the_bottles_own_stage_directory_goes() -> None:
    with tempfile.TemporaryDirectory() as directory:
        plan = DockerBottleBackend().prepare(BottleSpec("x", slug="x-1"), Path(directory) / "x-1")
        state.discard(plan.stage_dir, "another")
        state.discard(Path(directory), "x-1")
        assert plan.compose_path.exists()
        state.discard(plan.stage_dir, "x-1")
        assert not plan.stage_dir.exists()
