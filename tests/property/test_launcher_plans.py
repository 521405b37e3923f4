"""Plans and their command lines, for any manifest. No engine: a plan is a value, and so is a command line."""

import csv
import os
import re
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from operator import add
from pathlib import Path
from string import ascii_lowercase, ascii_uppercase, digits
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from launcher.backend.docker import (
    PROXY_VARIABLES,
    CopyOut,
    DockerBackend,
    WaitHealthy,
    plan_bottle,
    render,
    render_networks,
)
from launcher.docker import Command
from launcher.manifest import AgentSpec, BottleSpec, Credential
from launcher.plan import DAEMONS, BottlePlan, new_slug, object_name, slug_of

# What the engine accepts as the name of a container or network, and what DNS accepts as a label.
DOCKER_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")
DNS_LABEL_MAX = 63
# No word of a manifest below holds this, so that finding it anywhere means that a secret has got there.
SECRET = "sEcReT-value-of-21-chars"

WORDS = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), min_size=1, max_size=20)
NAMES = st.builds(add, st.sampled_from(ascii_lowercase), st.text(ascii_lowercase + digits + "-", max_size=10))
VARIABLES = st.sampled_from(PROXY_VARIABLES) | st.builds(
    add, st.sampled_from(ascii_uppercase), st.text(ascii_uppercase + digits + "_", max_size=10)
)
HOSTS = st.builds(
    add, st.text(ascii_lowercase, min_size=1, max_size=8), st.sampled_from([".example.com", ".example.org"])
)


@st.composite
def specs(draw: st.DrawFn) -> BottleSpec:
    """Any bottle that a manifest can ask for."""
    allow = tuple(draw(st.lists(HOSTS, min_size=1, max_size=4, unique=True)))
    names = draw(st.lists(NAMES, max_size=3, unique=True))
    return BottleSpec(
        name=draw(WORDS),
        agent=AgentSpec(
            image=draw(NAMES),
            user=draw(st.sampled_from(["1000:1000", "65534", "1:2"])),
            command=tuple(draw(st.lists(WORDS, max_size=4))),
            env=tuple(draw(st.dictionaries(VARIABLES, WORDS, max_size=4)).items()),
            tty=draw(st.booleans()),
        ),
        daemons=tuple(each for each in DAEMONS if draw(st.booleans())) or DAEMONS,
        allow=allow,
        credentials=tuple(
            Credential(name, draw(st.sampled_from(allow)), prefix=draw(st.sampled_from(["", "Bearer "])), from_env=name)
            for name in names
        ),
        engine=draw(st.sampled_from(["auto", "pipelock", "portable"])),
        git_repos=tuple(
            draw(st.dictionaries(NAMES, HOSTS.map("https://{}/x.git".format) | st.none(), max_size=3)).items()
        ),
        slug=draw(NAMES) + "-3f9a1c",
    )


@contextmanager
def prepared(spec: BottleSpec) -> Iterator[BottlePlan]:
    """The plan of a spec whose credentials all have the value SECRET, with its files on the disk."""
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as directory:
        for credential in spec.credentials:
            patch.setenv(str(credential.from_env), SECRET)
        yield DockerBackend().prepare(spec, Path(directory) / "a stage, with a comma")


def command_lines(plan: BottlePlan) -> list[tuple[str, ...]]:
    """All command lines of a plan whose networks have been filled in."""
    plan = with_networks(plan)
    return [step.argv for step in (*render_networks(plan), *render(plan)) if isinstance(step, Command)]


def with_networks(plan: BottlePlan) -> BottlePlan:
    """As `launch` fills them in."""
    return replace(plan, internal_network="inside", egress_network="outside")


def create_line(plan: BottlePlan, container: str) -> tuple[str, ...]:
    """The one command line that makes a container."""
    (line,) = (argv for argv in command_lines(plan) if argv[:4] == ("docker", "create", "--name", container))
    return line


def values(argv: tuple[str, ...], option: str) -> list[str]:
    """Every value that an option is given."""
    return [value for word, value in pairwise(argv) if word == option]


def unescaped(value: Any) -> Any:
    """What compose makes of a file without variables: `$$` is a dollar sign."""
    match value:
        case str():
            return value.replace("$$", "$")
        case dict():
            return {key: unescaped(each) for key, each in value.items()}
        case list():
            return [unescaped(each) for each in value]
    return value


@given(specs())
def test_a_secret_is_in_its_own_file_and_nowhere_else(spec: BottleSpec) -> None:
    with prepared(spec) as plan:
        assert not any(SECRET in word for argv in command_lines(plan) for word in argv)
        assert not any(SECRET in line for line in DockerBackend().preview(spec, plan.stage_dir))
        holders = {path for path in plan.stage_dir.rglob("*") if path.is_file() and SECRET in path.read_text()}
        assert holders == {plan.stage_dir / "secrets" / credential.name for credential in spec.credentials}


@given(specs(), st.sampled_from([0o000, 0o022, 0o077, 0o777]))
def test_nobody_else_reads_the_stage_directory(spec: BottleSpec, umask: int) -> None:
    before = os.umask(umask)
    try:
        with prepared(spec) as plan:
            modes = {path: stat.S_IMODE(path.stat().st_mode) for path in (plan.stage_dir, *plan.stage_dir.rglob("*"))}
    finally:
        os.umask(before)
    assert modes[plan.stage_dir] == 0o700
    assert {mode for path, mode in modes.items() if path.parent.name == "secrets"} <= {0o600}
    assert modes[plan.stage_dir / "policy.toml"] == 0o644, "every daemon of the bundle reads it"


@given(specs())
def test_prepare_leaves_the_networks_empty(spec: BottleSpec) -> None:
    """`prepare` fills in the slug and the YAML's path, and leaves the networks empty."""
    with prepared(spec) as plan:
        assert plan.slug == spec.slug
        assert plan.yaml_path.parent == plan.stage_dir
        assert plan.yaml_path.is_file()
        assert (plan.internal_network, plan.egress_network) == ("", "")
        with pytest.raises(ValueError, match="networks"):
            DockerBackend().start(plan)


@given(specs())
def test_a_slug_is_made_where_none_is_given(spec: BottleSpec) -> None:
    with prepared(replace(spec, slug=None)) as plan:
        assert DOCKER_NAME.fullmatch(plan.slug)


@given(st.text())
def test_names_are_valid_for_the_engine_and_for_dns(name: str) -> None:
    slug = new_slug(name)
    for role in ("internal", "egress", "sidecars", "agent", "internet"):
        assert DOCKER_NAME.fullmatch(object_name(slug, role))
        assert len(object_name(slug, role)) <= DNS_LABEL_MAX


@given(st.text())
def test_a_container_name_leads_back_to_its_bottle(name: str) -> None:
    slug = new_slug(name)
    assert slug_of(object_name(slug, "agent")) == slug
    assert slug_of(object_name(slug, "sidecars")) == slug
    assert slug_of(slug) == slug


@given(specs())
def test_the_agent_has_one_network_and_no_privilege(spec: BottleSpec) -> None:
    plan = plan_bottle(spec, "x", Path("/stage"))
    argv = create_line(plan, plan.agent.name)
    options = argv[: argv.index(plan.agent.image)]
    assert values(options, "--network") == ["inside"]
    assert values(options, "--cap-drop") == ["ALL"]
    assert values(options, "--security-opt") == ["no-new-privileges"]
    assert values(options, "--dns") == ["127.0.0.1"]
    assert values(options, "--user") == [spec.agent.user]
    assert not {"--cap-add", "--privileged", "--device", "--volume", "--publish"} & set(options)
    connected = [line[-1] for line in command_lines(plan) if line[1:3] == ("network", "connect")]
    assert connected == [plan.bundle.name], "the bundle alone is in both networks"


@given(specs())
def test_the_agent_waits_for_a_healthy_bundle(spec: BottleSpec) -> None:
    """The agent is created only once the bundle is healthy."""
    plan = plan_bottle(spec, "x", Path("/stage"))
    steps = render(with_networks(plan))
    waits = [index for index, step in enumerate(steps) if isinstance(step, WaitHealthy)]
    agents = [index for index, step in enumerate(steps) if isinstance(step, Command) and plan.agent.name in step.argv]
    copies = [index for index, step in enumerate(steps) if isinstance(step, CopyOut)]
    assert len(waits) == 1
    assert len(agents) == 2, "created and started"
    assert sorted((*waits, *copies, *agents)) == [*waits, *copies, *agents]


@given(specs())
def test_no_manifest_overrides_the_way_out(spec: BottleSpec) -> None:
    plan = plan_bottle(replace(spec, daemons=DAEMONS), "x", Path("/stage"))
    given_env = [pair.partition("=") for pair in values(create_line(plan, plan.agent.name), "--env")]
    assert len({name for name, _, _ in given_env}) == len(given_env), "no variable is given twice"
    env = {name: value for name, _, value in given_env}
    for name in PROXY_VARIABLES:
        assert env[name] == env[name.lower()] == "http://sidecars:8888"


@given(specs(), st.booleans())
def test_the_bundle_keeps_an_inits_capabilities(spec: BottleSpec, redirect: bool) -> None:
    """The bundle keeps the capabilities of an init and no others."""
    plan = plan_bottle(spec, "x", Path("/stage"))
    plan = replace(plan, bundle=replace(plan.bundle, redirect=redirect))
    argv = create_line(plan, plan.bundle.name)
    assert values(argv, "--cap-drop") == ["ALL"]
    assert set(values(argv, "--cap-add")) == {
        "KILL",
        "SETGID",
        "SETPCAP",
        "SETUID",
        *(["NET_ADMIN"] if redirect else []),
    }
    assert "--read-only" in argv
    assert "--privileged" not in argv


def test_the_host_has_no_address_inside() -> None:
    """The internal network leaves the host no address."""
    internal, egress = (each.argv for each in render_networks(plan_bottle(BottleSpec("x"), "x", Path("/stage"))))
    assert "--internal" in internal
    assert "com.docker.network.bridge.inhibit_ipv4=true" in internal
    assert "--internal" not in egress


@given(specs())
def test_every_object_is_labelled_for_the_clean_up(spec: BottleSpec) -> None:
    plan = plan_bottle(spec, "x", Path("/stage"))
    makers = [argv for argv in command_lines(plan) if "create" in argv[1:3]]
    assert len(makers) == 4, "two networks and two containers"
    for argv in makers:
        assert "claude-bottle.slug=x" in values(argv, "--label")


@given(st.text(st.characters(blacklist_characters="\0\r\n"), min_size=1))
def test_a_mount_survives_any_path(name: str) -> None:
    plan = plan_bottle(BottleSpec("x"), "x", Path("/stage") / name)
    (mount,) = values(create_line(plan, plan.agent.name), "--mount")
    fields = dict(field.partition("=")[::2] for field in next(csv.reader([mount])))
    assert fields["source"] == str(Path("/stage") / name / "pipelock-ca.pem")
    assert "readonly" in fields


@given(specs())
def test_the_compose_file_matches_the_commands(spec: BottleSpec) -> None:
    """The compose file says what the command lines do."""
    with prepared(spec) as plan:
        document = unescaped(yaml.safe_load(plan.yaml_path.read_text()))
        lines = {"sidecars": create_line(plan, plan.bundle.name), "agent": create_line(plan, plan.agent.name)}
    for role, argv in lines.items():
        service = document["services"][role]
        assert service["container_name"] == values(argv, "--name")[0]
        assert service["image"] in argv
        assert service["cap_drop"] == values(argv, "--cap-drop")
        assert service.get("cap_add", []) == values(argv, "--cap-add")
        assert service["security_opt"] == values(argv, "--security-opt")
        assert [f"{name}={value}" for name, value in service["environment"].items()] == values(argv, "--env")
        sources = [next(csv.reader([mount])) for mount in values(argv, "--mount")]
        assert [f"source={volume['source']}" for volume in service["volumes"]] == [fields[1] for fields in sources]
        assert all(volume["read_only"] for volume in service["volumes"])
    agent = document["services"]["agent"]
    assert agent["networks"] == ["internal"]
    assert agent["depends_on"] == {"sidecars": {"condition": "service_healthy"}}
    assert agent["user"] == spec.agent.user
    assert agent.get("command", []) == list(spec.agent.command)
    assert document["networks"]["internal"]["internal"] is True


@given(specs())
def test_a_plan_is_a_function_of_its_spec(spec: BottleSpec) -> None:
    assert plan_bottle(spec, "x", Path("/stage")) == plan_bottle(spec, "x", Path("/stage"))
    assert render(with_networks(plan_bottle(spec, "x", Path("/s")))) == render(
        with_networks(plan_bottle(spec, "x", Path("/s")))
    )
