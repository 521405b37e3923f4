"""Plans and their command lines, for any bottle. No engine: a plan is a value, and so is a command line."""

import csv
import ipaddress
import json
import os
import re
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import dropwhile
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from launcher import sandbox
from launcher.agent_side import (
    EXTRA_VARIABLES,
    PROXY_VARIABLES,
    STORE_VARIABLES,
    agent_env,
    git_config,
    guarded,
    project_binds,
)
from launcher.backend.docker import (
    Agent,
    DockerBottleBackend,
    DockerBottlePlan,
    PipelockProxy,
    PipelockProxyPlan,
    pipelock_container_name,
    prepare_proxy,
)
from launcher.backend.docker.argv import create
from launcher.backend.docker.render import early_steps, render, without
from launcher.containers import agent, bundle, gate
from launcher.errors import LauncherError
from launcher.host_rules import remove_rules, set_rules, table_name
from launcher.plan import (
    CA_STORE,
    DAEMONS,
    PIPELOCK_CA_TARGET,
    Bind,
    Subnets,
    bridge_name,
    new_slug,
    object_name,
    slug_of,
)
from launcher.spec import AgentSpec, BottleSpec, Credential, Host, Project, Repository, Secret
from launcher.steps import Step, in_order

# What the engine accepts as the name of a container or network, and what DNS accepts as a label.
DOCKER_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")
DNS_LABEL_MAX = 63
INTERFACE_MAX = 15  # IFNAMSIZ, with its NUL
# No word of a manifest below holds this, so that finding it anywhere means that a secret has got there.
SECRET = "sEcReT-value-of-21-chars"
STAGE = Path("/stage")
BACKEND = DockerBottleBackend()

WORDS = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), min_size=1, max_size=20)
NAMES = st.from_regex(r"[a-z][a-z0-9-]{0,10}", fullmatch=True)
VARIABLES = st.from_regex(r"[A-Z][A-Z0-9_]{0,10}", fullmatch=True) | st.sampled_from(PROXY_VARIABLES)
HOSTS = st.from_regex(r"[a-z]{1,8}\.example\.(com|org)", fullmatch=True)
PROJECTS = st.sampled_from([None, Project("bind", Path("/p"), target="/w"), Project("copy", Path("/p"), target="/w")])


@st.composite
def specs(draw: st.DrawFn) -> BottleSpec:
    """Any bottle that a manifest can ask for."""
    allow = tuple(draw(st.lists(HOSTS, min_size=1, max_size=4, unique=True)))
    names = draw(st.lists(NAMES, max_size=3, unique=True))
    repositories = draw(st.dictionaries(NAMES, HOSTS.map("https://{}/x.git".format) | st.none(), max_size=3))
    return BottleSpec(
        name=draw(WORDS),
        agent=AgentSpec(
            image=draw(NAMES),
            user=draw(st.sampled_from(["1000:1000", "65534", "1:2"])),
            command=tuple(draw(st.lists(WORDS, min_size=1, max_size=4))),
            env=tuple(draw(st.dictionaries(VARIABLES, WORDS, max_size=4)).items()),
            tty=draw(st.booleans()),
            prompt=draw(st.sampled_from(["", "do it"])),
            project=draw(PROJECTS),
            init=draw(st.sampled_from(["bottle", "engine"])),
            writable=tuple(draw(st.sampled_from([(), ("/var/cache",)]))),
        ),
        daemons=tuple(each for each in DAEMONS if draw(st.booleans())),
        allow=allow,
        hosts=(Host("10.0.0.7:8443", private=True),) if draw(st.booleans()) else (),
        credentials=tuple(
            Credential(name, draw(st.sampled_from(allow)), prefix=draw(st.sampled_from(["", "Bearer "])), from_env=name)
            for name in names
        ),
        engine=draw(st.sampled_from(["auto", "pipelock", "portable"])),
        repositories=tuple(
            Repository(name, upstream, ssh_key=Secret(env="DEPLOY") if draw(st.booleans()) else None)
            for name, upstream in repositories.items()
        ),
        walls=draw(st.sampled_from(["kernel-rules", "without-kernel-rules"])),
        slug=draw(NAMES) + "-3f9a1c",
    )


@contextmanager
def prepared(spec: BottleSpec) -> Iterator[DockerBottlePlan]:
    """The plan of a spec whose secrets all have the value SECRET, with its files on the disk."""
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as directory:
        patch.setenv("HOME", directory)
        patch.setenv("DEPLOY", SECRET)
        for credential in spec.credentials:
            patch.setenv(str(credential.from_env), SECRET)
        yield BACKEND.prepare(spec, Path(directory) / "a stage, with a comma")


def filled(spec: BottleSpec) -> DockerBottlePlan:
    """A plan as `launch` fills it in."""
    return BACKEND.plan(spec, STAGE).with_networks(Subnets("10.213.0.32/28", "10.213.0.48/28"))


def steps_of(spec: BottleSpec) -> dict[str, Step]:
    return {step.name: step for step in render(filled(spec))}


def words_of(step: Step) -> list[str]:
    return [*step.command.argv, *(step.source.argv if step.source else ())]


FLAGS = ("--init", "--interactive", "--internal", "--no-healthcheck", "--read-only", "--rm", "--tty")
"""Options of `docker create` and `docker network create` without a value."""


def values(argv: tuple[str, ...], option: str) -> list[str]:
    """Every value that an option is given, before the image and what is the container's own."""
    found = []
    words = dropwhile(lambda word: not word.startswith("--"), argv)
    for word in words:
        if not word.startswith("--"):
            break
        value = next(words, "") if word not in FLAGS else ""
        found += [value] if word == option else []
    return found


def mounts(argv: tuple[str, ...]) -> list[dict[str, str]]:
    """Every --mount, taken apart."""
    return [dict(field.partition("=")[::2] for field in next(csv.reader([value]))) for value in values(argv, "--mount")]


def before(steps: dict[str, Step], name: str) -> set[str]:
    """All steps that are done before one, whatever runs side by side."""
    found: set[str] = set()
    left = list(steps[name].after)
    while left:
        each = left.pop()
        if each not in found:
            found.add(each)
            left += steps[each].after
    return found


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


# Secrets and files.


@given(specs())
def test_a_secret_is_in_its_own_file_and_nowhere_else(spec: BottleSpec) -> None:
    """Not in a command line, an environment, a label, a policy or a compose file."""
    with prepared(spec) as plan:
        steps = render(plan.with_networks(Subnets.drawn()))
        assert not any(SECRET in word for step in steps for word in words_of(step))
        assert not any(SECRET in str(step) for step in steps)
        holders = {path for path in plan.stage_dir.rglob("*") if path.is_file() and SECRET in path.read_text()}
        names = [each.name for each in spec.credentials] + [f"ssh-{r.name}" for r in spec.repositories if r.ssh_key]
        assert holders == {plan.stage_dir / "secrets" / name for name in names}


@given(specs())
def test_secrets_go_into_the_bundle_by_standard_input(spec: BottleSpec) -> None:
    """They rest on no disk of the engine's: no mount, no volume, no `docker cp` has them."""
    steps = steps_of(spec)
    secrets = filled(spec).proxy.settings.secrets
    assert ("secrets.hand_over" in steps) == bool(secrets)
    if secrets:
        step = steps["secrets.hand_over"]
        assert step.command.argv[-1] == "bottle-secrets"
        assert ("BOTTLE_SECRETS", "stdin") in bundle(filled(spec).proxy).env
    for step in steps.values():
        assert not any(mount["target"].startswith("/run/secrets") for mount in mounts(step.command.argv))


@given(specs(), st.sampled_from([0o000, 0o022, 0o077, 0o777]))
def test_nobody_else_reads_the_stage_directory(spec: BottleSpec, umask: int) -> None:
    before_this = os.umask(umask)
    try:
        with prepared(spec) as plan:
            modes = {path: stat.S_IMODE(path.stat().st_mode) for path in (plan.stage_dir, *plan.stage_dir.rglob("*"))}
    finally:
        os.umask(before_this)
    assert modes[plan.stage_dir] == 0o700
    assert {mode for path, mode in modes.items() if path.parent.name == "secrets"} <= {0o600}


@given(specs())
def test_nothing_is_bound_but_the_project_and_mounts(spec: BottleSpec) -> None:
    """Files reach containers by volumes, so that an engine elsewhere is served as one here."""
    mount = Bind(Path("/data"), "/data")
    spec = replace(spec, agent=replace(spec.agent, mounts=(mount,)))
    project = spec.agent.project
    allowed = {"/data"} | ({str(project.path)} if project and project.mode == "bind" else set())
    for step in steps_of(spec).values():
        for found in mounts(step.command.argv):
            if found["type"] != "volume":
                assert found["source"] in allowed
                assert step.name in ("agent.create", "gate.create")
        assert not {"--volume", "-v", "--privileged", "--device", "--publish"} & set(step.command.argv)


@given(specs())
def test_prepare_fills_the_plan_but_for_its_networks(spec: BottleSpec) -> None:
    with prepared(spec) as plan:
        assert isinstance(plan.proxy, PipelockProxyPlan)
        assert plan.slug == plan.proxy.slug == spec.slug
        assert plan.proxy.yaml_path.parent == plan.stage_dir
        assert plan.proxy.yaml_path.is_file()
        assert plan.compose_path.is_file()
        assert (plan.proxy.internal_network, plan.proxy.egress_network) == ("", "")
        with pytest.raises(ValueError, match="networks"):
            PipelockProxy.start(plan.proxy)
        with pytest.raises(ValueError, match="networks"):
            Agent.start(plan.agent)


def test_prepare_proxy_is_there_by_itself(tmp_path: Path) -> None:
    """As a function and as the backend's method, and the same."""
    spec = BottleSpec("x", slug="x-1", allow=("a.example",))
    plan = prepare_proxy(spec, tmp_path / "one")
    assert (plan.slug, plan.internal_network, plan.egress_network) == ("x-1", "", "")
    other = BACKEND.prepare_proxy(spec, tmp_path / "other")
    assert plan.yaml_path.read_text() == other.yaml_path.read_text()
    assert "a.example" in plan.yaml_path.read_text()
    assert pipelock_container_name("x-1") == "bottle-x-1-sidecars"


def test_plans_are_frozen() -> None:
    plan = BACKEND.plan(BottleSpec("x"), STAGE)
    for value, name in ((plan, "slug"), (plan.proxy, "slug"), (plan.agent, "slug"), (plan, "anything")):
        with pytest.raises((AttributeError, TypeError)):
            setattr(value, name, "y")


@given(specs())
def test_a_slug_is_made_where_none_is_given(spec: BottleSpec) -> None:
    with prepared(replace(spec, slug=None)) as plan:
        assert DOCKER_NAME.fullmatch(plan.slug)


@given(st.text())
def test_names_are_valid_for_engine_dns_and_kernel(name: str) -> None:
    slug = new_slug(name)
    for role in ("internal", "egress", "sidecars", "agent", "certificates", "internet"):
        assert DOCKER_NAME.fullmatch(object_name(slug, role))
        assert len(object_name(slug, role)) <= DNS_LABEL_MAX
    bridges = {bridge_name(slug, role) for role in ("internal", "egress")}
    assert len(bridges) == 2
    assert all(re.fullmatch(r"[a-z0-9]+", each) and len(each) <= INTERFACE_MAX for each in bridges)
    assert re.fullmatch(r"[a-z_][a-z0-9_]*", table_name(slug))


@given(st.text())
def test_a_container_name_leads_back_to_its_bottle(name: str) -> None:
    slug = new_slug(name)
    for target in (object_name(slug, "agent"), pipelock_container_name(slug), slug):
        assert slug_of(target) == slug


@given(st.integers(8, 27))
def test_subnets_are_drawn_from_the_pool(length: int) -> None:
    pool = ipaddress.IPv4Network(("10.0.0.0", length))
    subnets = Subnets.drawn(str(pool))
    internal, egress = ipaddress.IPv4Network(subnets.internal), ipaddress.IPv4Network(subnets.egress)
    assert internal.prefixlen == egress.prefixlen == 28
    assert internal.subnet_of(pool)
    assert egress.subnet_of(pool)
    assert not internal.overlaps(egress)
    addresses = {subnets.bundle, subnets.agent, subnets.bundle_outside, *subnets.gateways}
    assert len(addresses) == 5


@pytest.mark.parametrize("pool", ["10.0.0.0/28", "fd00::/64", "10.0.0.1/8", "nonsense"])
def test_a_pool_without_room_is_refused(pool: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 -- ipaddress says it in words of its own
        Subnets.drawn(pool)


# The walls in the command lines.


@given(specs())
def test_the_agent_has_one_network_and_no_privilege(spec: BottleSpec) -> None:
    plan = filled(spec)
    argv = create(agent(plan.agent))
    options = argv[: argv.index(plan.agent.image)]
    assert values(options, "--network") == [object_name(plan.slug, "internal")]
    assert values(options, "--cap-drop") == ["ALL"]
    assert values(options, "--security-opt") == ["no-new-privileges", f"seccomp={sandbox.seccomp_profile()}"]
    assert values(options, "--user") == [spec.agent.user]
    assert values(options, "--add-host") == ["sidecars:10.213.0.34"]
    assert values(options, "--dns") in (["127.0.0.1"], ["10.213.0.34"])
    assert "net.ipv4.ip_unprivileged_port_start=1024" in values(options, "--sysctl")
    assert "--read-only" in options
    assert "--cap-add" not in options
    lines = [step.command.argv for step in steps_of(spec).values()]
    connected = [line[-1] for line in lines if line[1:3] == ("network", "connect")]
    assert connected == [plan.proxy.name], "the bundle alone is in both networks"


@given(specs())
def test_the_agent_asks_one_nameserver(spec: BottleSpec) -> None:
    """One nameserver, for which a failed lookup does not wait, and no search list of the host's."""
    argv = create(agent(filled(spec).agent))
    assert values(argv, "--dns") in (["127.0.0.1"], ["10.213.0.34"])
    assert values(argv, "--dns-search") == ["."]
    assert values(argv, "--dns-option") == ["timeout:1", "attempts:1"]


@given(specs())
def test_nothing_is_pulled(spec: BottleSpec) -> None:
    """What runs is what the operator has, also where the engine could fetch an image of that name."""
    created = [step.command.argv for step in steps_of(spec).values() if step.command.argv[1] in ("create", "run")]
    assert created
    for argv in created:
        assert values(argv, "--pull") == ["never"]


@given(specs())
def test_both_containers_are_limited(spec: BottleSpec) -> None:
    plan = filled(spec)
    for container in (agent(plan.agent), bundle(plan.proxy)):
        argv = create(container)
        for option in ("--memory", "--memory-swap", "--cpu-period", "--cpu-quota", "--pids-limit"):
            (value,) = values(argv, option)
            assert int(value) > 0
        assert values(argv, "--memory-swap") == values(argv, "--memory"), "swap is no memory besides"
        fixed = [*sandbox.TMPFS, *sandbox.AGENT_TMPFS]
        assert all(",size=" in tmpfs for tmpfs in values(argv, "--tmpfs") if tmpfs in fixed)
        assert values(argv, "--log-driver") == ["json-file"]
        size, files = (value.partition("=") for value in values(argv, "--log-opt"))
        assert (size[0], int(size[2]) > 0, files) == ("max-size", True, ("max-file", "=", "2"))


@given(specs())
def test_the_agent_starts_after_gate_rules_and_bundle(spec: BottleSpec) -> None:
    """Whatever is done side by side."""
    steps = steps_of(spec)
    earlier = before(steps, "agent.start")
    assert {"gate.run", "walls.set", "sidecars.start", "internal.create", "egress.create", "agent.create"} <= earlier
    assert "walls.set" in before(steps, "sidecars.start"), "the bundle never runs without the rules on the host"
    assert render(filled(spec))[-1].name == "agent.start", "`launch` leaves the last step to `attach`"
    starts = [name for name, step in steps.items() if step.command.argv[-1] == object_name(filled(spec).slug, "agent")]
    assert starts == ["agent.start"]


@given(specs())
def test_steps_can_be_done_in_their_order(spec: BottleSpec) -> None:
    ordered = in_order(render(filled(spec)))
    names = [step.name for step in ordered]
    assert len(set(names)) == len(names)
    for index, step in enumerate(ordered):
        assert set(step.after) <= set(names[:index])


@given(specs())
def test_early_steps_are_those_of_the_whole_plan(spec: BottleSpec) -> None:
    """What is begun before the networks' addresses are known must not depend on them."""
    whole = steps_of(spec)
    for step in early_steps(BACKEND.plan(spec, STAGE)):
        assert replace(whole[step.name], after=()) == replace(step, after=())
        assert before(whole, step.name) <= {each.name for each in early_steps(filled(spec))}


@given(specs())
def test_the_gate_is_in_the_agents_place(spec: BottleSpec) -> None:
    """Its image, network, address and runtime are the agent's, and it has no way of its own."""
    plan = filled(spec)
    tried, real = gate(plan.agent), agent(plan.agent)
    same = ("image", "network", "address", "runtime", "sysctls")
    assert [getattr(tried, name) for name in same] == [getattr(real, name) for name in same]
    assert all(bind.read_only for bind in tried.binds)
    order = json.loads(tried.command[-1])
    assert order["rounds"] == 3
    assert order["bundle"] not in [address for address, port in order["forbidden"] if port in order["ports"]]
    assert {"10.213.0.33", "10.213.0.49", "169.254.169.254"} <= {address for address, _ in order["forbidden"]}


@given(specs())
def test_no_manifest_overrides_the_way_out(spec: BottleSpec) -> None:
    argv = create(agent(filled(replace(spec, daemons=DAEMONS)).agent))
    given_env = [pair.partition("=") for pair in values(argv, "--env")]
    assert len({name for name, _, _ in given_env}) == len(given_env), "no variable is given twice"
    env = {name: value for name, _, value in given_env}
    for name in PROXY_VARIABLES:
        assert env[name] == env[name.lower()] == "http://sidecars:8888"
    assert {env[name] for name in STORE_VARIABLES} == {CA_STORE}
    assert {env[name] for name in EXTRA_VARIABLES} == {PIPELOCK_CA_TARGET}
    assert "trustStore=" in env["JAVA_TOOL_OPTIONS"]


@given(specs())
def test_the_bundle_keeps_an_inits_capabilities(spec: BottleSpec) -> None:
    argv = create(bundle(filled(spec).proxy))
    assert values(argv, "--cap-drop") == ["ALL"]
    wanted = spec.walls == "kernel-rules" or spec.engine == "pipelock"
    assert set(values(argv, "--cap-add")) == {"KILL", "SETGID", "SETPCAP", "SETUID", *(["NET_ADMIN"] if wanted else [])}
    assert "--read-only" in argv
    assert "BOTTLE_INTERNAL=10.213.0.32/28" in values(argv, "--env")


def test_the_internal_network_has_no_host() -> None:
    steps = steps_of(BottleSpec("x", slug="x"))
    internal, egress = (steps[f"{role}.create"].command.argv for role in ("internal", "egress"))
    assert "--internal" in internal
    assert "com.docker.network.bridge.inhibit_ipv4=true" in internal
    assert "--internal" not in egress
    assert f"com.docker.network.bridge.name={bridge_name('x', 'internal')}" in internal


def test_the_hosts_rules_name_both_bridges() -> None:
    """And are set and removed as one transaction each, whatever was there before."""
    rules = set_rules("x", (("10.0.0.7", 8443), ("", 443)))
    assert f'device "{bridge_name("x", "internal")}"' in rules
    assert f'iifname "{bridge_name("x", "egress")}"' in rules
    assert "ip daddr 10.0.0.7 tcp dport 8443 accept" in rules
    assert "    tcp dport 443 accept" in rules
    assert rules.startswith(remove_rules("x"))


@given(specs())
def test_only_what_is_private_reaches_the_host(spec: BottleSpec) -> None:
    private = filled(spec).proxy.settings.private
    assert private == ((("10.0.0.7", 8443),) if spec.hosts else ())


@given(specs())
def test_every_object_is_labelled_for_the_clean_up(spec: BottleSpec) -> None:
    with prepared(spec) as plan:
        steps = render(plan.with_networks(Subnets.drawn()))
        for step in steps:
            argv = step.command.argv
            if "create" in argv[1:3]:
                assert f"claude-bottle.slug={plan.slug}" in values(argv, "--label")
                assert any(label.startswith("claude-bottle.operator=") for label in values(argv, "--label"))
                for mount in csv.reader(values(argv, "--mount")):
                    assert "type=bind" in mount or f"volume-label=claude-bottle.slug={plan.slug}" in mount


@given(st.text(st.characters(blacklist_characters="\0\r\n"), min_size=1))
def test_a_mount_survives_any_path(name: str) -> None:
    spec = BottleSpec("x", agent=AgentSpec(mounts=(Bind(Path("/data") / name, "/data"),)))
    (found,) = (each for each in mounts(create(agent(filled(spec).agent))) if each["type"] == "bind")
    assert found["source"] == str(Path("/data") / name)
    assert "readonly" in found


def test_a_projects_git_is_no_trap_for_its_operator(tmp_path: Path) -> None:
    """What the operator's own git obeys and runs is read-only, and its directory cannot be moved away."""
    (tmp_path / ".git" / "hooks").mkdir(parents=True)
    (tmp_path / ".git" / "config").touch()
    spec = BottleSpec("x", agent=AgentSpec(project=Project("bind", tmp_path, target="/w")))
    found = [(bind.target, bind.read_only) for bind in filled(spec).agent.binds]
    assert found == [("/w", False), ("/w/.git", False), ("/w/.git/config", True), ("/w/.git/hooks", True)]


def test_hooks_that_are_not_there_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    project = Project("bind", tmp_path, target="/w")
    guarded(project)
    assert ("/w/.git/hooks", True) in [(bind.target, bind.read_only) for bind in project_binds(project)]
    assert (tmp_path / ".git/hooks").is_dir()


def test_a_git_that_is_elsewhere_is_no_trap_either(tmp_path: Path) -> None:
    """The file of a linked work tree says where; a link could be replaced, so such a project is not mounted."""
    tree, linked = tmp_path / "tree", tmp_path / "linked"
    for each in (tree, linked):
        each.mkdir()
    (tree / ".git").write_text("gitdir: /elsewhere\n")
    (linked / ".git").symlink_to("/elsewhere")
    binds = project_binds(Project("bind", tree, target="/w"))
    assert [(bind.target, bind.read_only) for bind in binds] == [("/w", False), ("/w/.git", True)]
    with pytest.raises(LauncherError, match="is a link"):
        guarded(Project("bind", linked, target="/w"))


def test_submodules_are_no_trap_either(tmp_path: Path) -> None:
    """`git status` looks into them, and obeys their configuration. The path of one is its operator's choice."""
    module = tmp_path / ".git/modules/lib/deep"
    for name in ("objects", "hooks", "modules/inner/objects"):
        (module / name).mkdir(parents=True)
    for place, tree in ((module, "../../../../sub dir"), (module / "modules/inner", "/nowhere")):
        (place / "HEAD").touch()
        (place / "config").write_text(f"[core]\n\tworktree = {tree}\n")
    (tmp_path / "sub dir").mkdir()
    (tmp_path / "sub dir/.git").write_text("gitdir: ../.git/modules/lib/deep\n")
    guarded(project := Project("bind", tmp_path, target="/w"))
    read_only = [bind.target for bind in project_binds(project) if bind.read_only]
    deep = "/w/.git/modules/lib/deep"
    assert read_only == [
        "/w/.git/hooks",
        *(f"{deep}/config", f"{deep}/hooks", "/w/sub dir/.git"),
        *(f"{deep}/modules/inner/config", f"{deep}/modules/inner/hooks"),
    ]


@given(specs())
@example(BottleSpec("x", agent=AgentSpec(mounts=(Bind(Path("/data"), "/data", read_only=True),))))
def test_the_compose_file_says_what_the_lines_do(spec: BottleSpec) -> None:
    with prepared(spec) as plan:
        document = unescaped(yaml.safe_load(plan.compose_path.read_text()))
    lines = {"sidecars": create(bundle(plan.proxy)), "agent": create(agent(plan.agent))}
    for role, argv in lines.items():
        service = document["services"][role]
        assert service["container_name"] == values(argv, "--name")[0]
        assert service["image"] in argv
        assert service["cap_drop"] == values(argv, "--cap-drop")
        assert service.get("cap_add", []) == values(argv, "--cap-add")
        assert service["security_opt"] == values(argv, "--security-opt")
        assert [f"{name}={value}" for name, value in service.get("environment", {}).items()] == values(argv, "--env")
        assert [each["target"] for each in service["volumes"]] == [each["target"] for each in mounts(argv)]
        assert [each["read_only"] for each in service["volumes"]] == ["readonly" in each for each in mounts(argv)]
        assert service["read_only"] is True
        assert service.get("user", "") == "".join(values(argv, "--user"))
        assert service["tmpfs"] == values(argv, "--tmpfs")
        assert [f"{name}={value}" for name, value in service["sysctls"].items()] == values(argv, "--sysctl")
        for word, option in (("dns", "--dns"), ("dns_search", "--dns-search"), ("dns_opt", "--dns-option")):
            assert service.get(word, []) == values(argv, option)
        for word, option in (
            ("pids_limit", "--pids-limit"),
            ("mem_limit", "--memory"),
            ("memswap_limit", "--memory-swap"),
        ):
            assert service[word] == int(values(argv, option)[0])
        assert round(service["cpus"] * 100_000) == int(values(argv, "--cpu-quota")[0])
        assert service["logging"]["driver"] == values(argv, "--log-driver")[0]
        assert [f"{name}={value}" for name, value in service["logging"]["options"].items()] == values(argv, "--log-opt")
    assert document["services"]["agent"]["networks"] == ["internal"]
    internal = document["networks"]["internal"]
    assert internal["internal"] is True
    assert internal["driver_opts"]["com.docker.network.bridge.inhibit_ipv4"] == "true"


@given(specs())
def test_a_plan_is_a_function_of_its_spec(spec: BottleSpec) -> None:
    assert BACKEND.plan(spec, STAGE) == BACKEND.plan(spec, STAGE)
    assert render(filled(spec)) == render(filled(spec))


@given(specs(), st.sampled_from(["internal.create", "walls.set", "gate.run"]))
def test_a_step_that_is_done_is_waited_for_no_more(spec: BottleSpec, name: str) -> None:
    left = without(render(filled(spec)), name)
    assert name not in {step.name for step in left}
    assert name not in {each for step in left for each in step.after}


# What the agent finds.


def test_a_clone_of_an_upstream_goes_to_the_gate(tmp_path: Path) -> None:
    """By git's own reading of what is written for it, and a neighbour whose name only begins alike does not."""
    demo = Repository("demo", "https://git.example.com/team/demo.git")
    tools = Repository("tools", "git@code.example.com:team/tools.git")
    spec = BottleSpec("x", repositories=(demo, tools))
    config = tmp_path / "gitconfig"
    config.write_text(git_config(spec))
    gated, free = "git://sidecars:9418/", None
    expected = {
        "https://git.example.com/team/demo.git": f"{gated}demo",
        "https://git.example.com/team/demo": f"{gated}demo",
        "https://git.example.com/team/demo.github.io": free,
        "https://git.example.com/team/demo-two.git": free,
        "https://git.example.com/team/demo.gitx": free,
        "git@code.example.com:team/tools.git": f"{gated}tools",
        "ssh://git@code.example.com/team/tools": f"{gated}tools",
        "https://code.example.com/team/tools.git": f"{gated}tools",
        "git@code.example.com:team/toolset.git": free,
    }
    environment = {"GIT_CONFIG_SYSTEM": str(config), "GIT_CONFIG_GLOBAL": "/dev/null", "PATH": os.environ["PATH"]}
    for url, real in expected.items():
        argv = ["git", "ls-remote", "--get-url", url]
        found = subprocess.run(argv, env=environment, cwd=tmp_path, capture_output=True, text=True, check=True)
        assert found.stdout.strip() == (real or url), url


def test_a_placeholder_is_what_the_agent_holds() -> None:
    credential = Credential("k", "a.example", from_env="REAL", placeholder="sk-made-up", variable="API_KEY")
    env = dict(agent_env(BottleSpec("x", allow=("a.example",), credentials=(credential,))))
    assert env["API_KEY"] == "sk-made-up"
    assert "REAL" not in env
