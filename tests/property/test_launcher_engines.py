"""What the other backends make of a plan. No engine: the real programs' own schemas and parsers judge."""

import importlib.util
import json
import os
import socket
import stat
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from launcher import gate
from launcher.backend.kubernetes import Cluster, KubernetesBottleBackend, KubernetesBottlePlan, manifests_yaml, render
from launcher.backend.kubernetes.render import BUNDLE_ADDRESS, NOWHERE
from launcher.backend.podman import PodmanBottleBackend
from launcher.backend.smolmachines import SmolBottlePlan, SmolmachinesBottleBackend, machine_argv
from launcher.backend.smolmachines.render import render_machine
from launcher.backend.swarm import SwarmBottleBackend, SwarmBottlePlan
from launcher.backend.swarm.render import render as render_swarm
from launcher.docker import Result
from launcher.errors import LauncherError
from launcher.plan import LABEL_ROLE, LABEL_SLUG, Bind, Subnets
from launcher.spec import AgentSpec, BottleSpec, Credential, Host, Project, Repository
from launcher.staging import prepare_proxy

METADATA, API, BUNDLE_PORT = ("169.254.169.254", 80), ("10.96.0.1", 443), ("10.244.0.9", 8888)
Answers = dict[tuple[str, int], str | int]
VERSIONS = ("1.34", "1.35", "1.36", "1.37")
SECRET = "made-up-secret-of-21-c"
SPEC = BottleSpec(
    "demo",
    slug="demo-1",
    agent=AgentSpec(command=("sleep", "infinity"), env=(("COST", "$(HOME) is $5"),)),
    allow=("api.example.com",),
    hosts=(Host("10.0.0.5:8080", private=True),),
    credentials=(Credential("api", "api.example.com", from_env="MADE_UP"),),
    repositories=(Repository("work", "https://git.example.com/a/work.git"),),
)


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stage directory with what `prepare` writes that a renderer reads."""
    monkeypatch.setenv("MADE_UP", SECRET)
    directory = tmp_path / "stage"
    prepare_proxy(SPEC, directory)
    (directory / "agent").mkdir()
    for name in ("gitconfig", "mcp.json"):
        (directory / "agent" / name).write_text(f"# {name}\n")
    return directory


def documents(plan: KubernetesBottlePlan) -> Iterator[dict[str, Any]]:
    for part in render(plan).values():
        yield from part


def kubernetes(stage: Path, spec: BottleSpec = SPEC, **cluster: Any) -> KubernetesBottlePlan:
    return KubernetesBottleBackend(Cluster(**cluster)).plan(spec, stage)


def pod(plan: KubernetesBottlePlan, name: str) -> dict[str, Any]:
    (found,) = (each for each in documents(plan) if each["kind"] == "Pod" and each["metadata"]["name"] == name)
    return found


# Kubernetes.


@pytest.mark.parametrize("version", VERSIONS)
def test_manifests_meet_the_schema(stage: Path, version: str) -> None:
    """Every document meets the strict schema of the last four versions, in the file that `render` prints too."""
    clone = replace(SPEC, agent=replace(SPEC.agent, project=Project("clone", None, "work", "/workspace")))
    for plan in (
        kubernetes(stage),
        kubernetes(stage, runtime_class="gvisor", pull_policy="Never", forbidden=("10.0.0.1:6443",)),
        kubernetes(stage, clone),
    ):
        for each in (*documents(plan), *yaml.safe_load_all(manifests_yaml(plan))):
            kubernetes_validate.validate(each, version, strict=True)


def test_the_schema_refuses_a_word_it_does_not_know(stage: Path) -> None:
    """The test above can fail: with one letter too many in a security context it does."""
    broken = pod(kubernetes(stage), "agent")
    broken["spec"]["containers"][0]["securityContext"]["allowPrivilegeEscalations"] = False
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, VERSIONS[0], strict=True)


def test_the_policies_come_before_any_pod(stage: Path) -> None:
    """Both namespaces deny everything by default, and say so before anything runs in them."""
    plan = kubernetes(stage)
    kinds = [each["kind"] for each in documents(plan)]
    assert kinds.index("Pod") > max(index for index, kind in enumerate(kinds) if kind == "NetworkPolicy")
    denied = {each["metadata"]["namespace"] for each in documents(plan) if each["metadata"]["name"] == "default-deny"}
    assert denied == {plan.bundle_namespace, plan.agent_namespace}


def test_the_agents_way_is_the_bundle_alone(stage: Path) -> None:
    """Its policy has one peer, the bundle's pod, and no rule for DNS but to that; nothing may come in."""
    plan = kubernetes(stage)
    (policy,) = (
        each for each in documents(plan)
        if each["kind"] == "NetworkPolicy" and each["metadata"]["name"] == "agent"
    )  # fmt: skip
    (rule,) = policy["spec"]["egress"]
    (peer,) = rule["to"]
    assert peer["podSelector"]["matchLabels"] == {LABEL_SLUG: plan.slug, LABEL_ROLE: "sidecars"}
    assert peer["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": plan.bundle_namespace}
    assert {each["port"] for each in rule["ports"]} == {8888, 9418, 9100, 80, 443, 53}
    assert policy["spec"]["ingress"] == []


def test_the_agents_pod_is_restricted(stage: Path) -> None:
    """The agent meets the `restricted` standard of its namespace, init containers included (Pod Security Standards)."""
    plan = kubernetes(stage)
    (namespace,) = (
        each for each in documents(plan)
        if each["kind"] == "Namespace" and each["metadata"]["name"] == plan.agent_namespace
    )  # fmt: skip
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    spec = pod(plan, "agent")["spec"]
    assert spec["securityContext"]["runAsNonRoot"]
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["automountServiceAccountToken"] is False
    for container in (*spec["initContainers"], *spec["containers"]):
        context = container["securityContext"]
        assert (context["allowPrivilegeEscalation"], context["capabilities"]) == (False, {"drop": ["ALL"]})
        assert context["readOnlyRootFilesystem"]
    assert not [volume for volume in spec["volumes"] if not {"emptyDir", "configMap"} & set(volume)]


def test_the_bundles_namespace_lets_net_admin_in(stage: Path) -> None:
    """Only for the kernel rules: without them (W4) the `baseline` standard is enforced."""
    found = []
    for spec in (SPEC, replace(SPEC, walls="without-kernel-rules", engine="portable")):
        plan = kubernetes(stage, spec)
        (namespace,) = (each for each in documents(plan) if each["metadata"]["name"] == plan.bundle_namespace)
        added = pod(plan, "sidecars")["spec"]["containers"][0]["securityContext"]["capabilities"]["add"]
        found.append((namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"], "NET_ADMIN" in added))
    assert found == [("privileged", True), ("baseline", False)]


def test_the_gate_comes_before_the_agent(stage: Path) -> None:
    """The gate is an init container of the agent's pod, in its network, and asks for what is forbidden everywhere."""
    plan = replace(kubernetes(stage, forbidden=("10.0.0.1:6443",)), bundle_address="10.244.0.9")
    spec = pod(plan, "agent")["spec"]
    (gate,) = (each for each in spec["initContainers"] if each["name"] == "gate")
    order = json.loads(gate["command"][-1])
    assert ["169.254.169.254", 80] in order["forbidden"]
    assert ["10.0.0.1", 6443] in order["forbidden"]
    assert ["10.244.0.9", 9099] in order["forbidden"]
    assert order["forbidden_by_variables"] == [["KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"]]
    assert order["ports"] == [8888, 9418, 9100]
    assert spec["hostAliases"] == [{"ip": "10.244.0.9", "hostnames": ["sidecars"]}]


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        pytest.param({}, None, id="dropped"),
        pytest.param({NOWHERE: 111, METADATA: 111, API: 111}, None, id="refused by the enforcer"),
        pytest.param({METADATA: 111}, "169.254.169.254:80", id="refused by the host"),
        pytest.param({NOWHERE: 111, METADATA: 111, API: "connected"}, "10.96.0.1:443", id="refused and not guarded"),
        pytest.param({NOWHERE: "connected", METADATA: "connected"}, "169.254.169.254:80", id="all let through"),
        pytest.param({BUNDLE_PORT: 111}, "does not answer on port 8888", id="a bundle that is down"),
    ],
)
def test_the_gate_tells_a_refusal_from_an_answer(
    stage: Path, monkeypatch: pytest.MonkeyPatch, answers: Answers, words: str | None
) -> None:
    """kube-router refuses whatever a policy forbids, where others drop it, and the kernel sends few of its refusals: a
    later round has only some of them. Defence: an address that no host has is asked too.
    """
    plan = replace(kubernetes(stage), bundle_address=BUNDLE_PORT[0])
    (found,) = (each for each in pod(plan, "agent")["spec"]["initContainers"] if each["name"] == "gate")
    order = json.loads(found["command"][-1]) | {"within_s": 0.2, "ports": [BUNDLE_PORT[1]]}
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", API[0])
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(API[1]))
    every: Answers = {BUNDLE_PORT: "connected", **answers}
    rounds = iter([every])

    def ask(addresses: list[tuple[str, int]], _window_s: float) -> Answers:
        found = next(rounds, {address: answer for address, answer in every.items() if address != NOWHERE})
        return {address: found[address] for address in addresses if address in found}

    monkeypatch.setattr(gate, "ask", ask)
    said = gate.watch(order)
    assert said is None if words is None else words in str(said)


def test_no_manifest_holds_a_secret(stage: Path) -> None:
    """Nor a value of one: the Secret is made by other hands, or the bundle waits for standard input."""
    plan = kubernetes(stage)
    text = manifests_yaml(plan)
    assert SECRET not in text
    assert "Secret" not in {each["kind"] for each in documents(plan)}
    bundle = render(plan, secret=False)["bundle"][-1]["spec"]["containers"][0]
    assert {"name": "BOTTLE_SECRETS", "value": "stdin"} in bundle["env"]


def test_a_dollar_sign_stays_one(stage: Path) -> None:
    """A kubelet replaces `$(NAME)` in a value of `env`, and `$$` by a dollar sign."""
    env = {each["name"]: each["value"] for each in pod(kubernetes(stage), "agent")["spec"]["containers"][0]["env"]}
    assert env["COST"] == "$$(HOME) is $$5"


def test_what_runs_first_needs_the_address(stage: Path) -> None:
    """No API server takes the placeholder for an address: a file applied as it is fails, and loudly."""
    assert f"ip: {BUNDLE_ADDRESS}" in manifests_yaml(kubernetes(stage))


@pytest.mark.parametrize(
    ("agent", "words"),
    [
        (AgentSpec(command=("x",), mounts=(Bind(Path("/srv"), "/srv"),)), "mounted into a cluster"),
        (AgentSpec(command=("x",), project=Project("copy", Path("/srv"), "", "/w")), "copy"),
        (AgentSpec(command=()), r"agents\.NAME\.command"),
        (AgentSpec(command=("x",), user="0:0"), "another user than root"),
        (AgentSpec(command=("x",), init="engine"), "our own init"),
    ],
)
def test_what_a_cluster_cannot_have(stage: Path, agent: AgentSpec, words: str) -> None:
    """It is refused in words, before anything is made."""
    with pytest.raises(LauncherError, match=words):
        render(kubernetes(stage, replace(SPEC, agent=agent)))


def test_a_sandbox_of_agent_sandbox(stage: Path) -> None:
    """The same pod, as the template of a `Sandbox`."""
    plan = kubernetes(stage, agent_sandbox=True)
    sandbox = render(plan)["agent"][-1]
    bare = render(kubernetes(stage))["agent"][-1]
    assert sandbox["kind"] == "Sandbox"
    assert sandbox["spec"]["podTemplate"]["spec"] == bare["spec"]


def test_the_settings_of_a_cluster() -> None:
    """They come by variables; one that cannot be meant is a fault."""
    prefix = "CLAUDE_BOTTLE_KUBERNETES_"
    found = Cluster.of_environment(
        {f"{prefix}POD_ADDRESSES": "10.1.0.0/16", f"{prefix}FORBIDDEN": "10.0.0.1:1,10.0.0.2:2"}
    )
    assert (found.pod_addresses, found.forbidden) == ("10.1.0.0/16", ("10.0.0.1:1", "10.0.0.2:2"))
    assert Cluster.of_environment({}) == Cluster()
    with pytest.raises(LauncherError, match="PULL_POLICY"):
        Cluster.of_environment({f"{prefix}PULL_POLICY": "never"})


# Podman.


def test_what_is_brought_gets_into_the_volumes(stage: Path) -> None:
    """`podman cp` fills the container's own root, and its start the volumes from there: in this order, before any use.

    The other way round the bundle found an empty volume, and started with the image's own policy, which allows nothing.
    """
    names = [step.name for step in PodmanBottleBackend().steps(PodmanBottleBackend().plan(SPEC, stage))]
    order = [names.index(name) for name in ("stage.create", "stage.fill", "stage.run", "sidecars.start", "gate.run")]
    assert order[:3] == sorted(order[:3])
    assert max(order[:3]) < min(order[3:])


def test_podmans_containers_have_no_ipv6(stage: Path) -> None:
    """W5b: each container with a network of its own has IPv6 switched off; Podman gives it a link-local address."""
    steps = PodmanBottleBackend().steps(PodmanBottleBackend().plan(SPEC, stage))
    argvs = {step.name: step.command.argv for step in steps}
    for name in ("agent.create", "sidecars.create"):
        assert "net.ipv6.conf.all.disable_ipv6=1" in argvs[name]


def test_a_bundle_that_ended_has_no_health(monkeypatch: pytest.MonkeyPatch) -> None:
    """Podman still calls it `(starting)`; it would count as running, so that `prune` left its bottle alone."""
    fields = ["demo-1", "sidecars", "/s", "", "", "bottle-demo-1-sidecars"]
    lines = [[*fields, "exited", "Exited (0) 3 minutes ago (starting)"], [*fields, "running", "Up 5 seconds (healthy)"]]
    answer = Result(0, "\n".join(map(json.dumps, lines)), "")
    monkeypatch.setattr("launcher.backend.docker.listing.run", lambda *_words, **_more: answer)
    found = PodmanBottleBackend().running("demo-1", containers_alone=True)
    assert [each.state for each in found] == ["exited", "healthy"]


# Swarm.


def swarm(stage: Path, spec: BottleSpec = SPEC) -> SwarmBottlePlan:
    return SwarmBottleBackend().plan(spec, stage).with_networks(Subnets("10.213.0.0/28", "10.213.0.16/28"))


def commands(plan: SwarmBottlePlan) -> dict[str, tuple[str, ...]]:
    return {step.name: step.command.argv for step in render_swarm(plan)}


def test_services_are_pinned_and_never_come_back(stage: Path) -> None:
    """A bundle that came back would have another authority: none does, and all run on the one node."""
    services = {name: argv for name, argv in commands(swarm(stage)).items() if "service" in argv[:2]}
    assert set(services) == {"sidecars.create", "gate.run", "agent.create"}
    for argv in services.values():
        words = " ".join(argv)
        assert "--restart-condition none" in words
        assert "--constraint node.id==NODE" in words
        assert "--cap-drop ALL" in words
        assert "--read-only" in words


def test_the_agents_service_has_one_network(stage: Path) -> None:
    """Of its networks there is one, and that is internal."""
    found = commands(swarm(stage))
    networks = [after for word, after in zip(found["agent.create"], found["agent.create"][1:], strict=False)
                if word == "--network"]  # fmt: skip
    assert networks == ["bottle-demo-1-internal"]
    assert "--internal" in found["internal.create"]


def test_no_secret_is_in_a_command(stage: Path) -> None:
    """They go by standard input into the swarm's own store."""
    steps = render_swarm(swarm(stage))
    assert SECRET not in " ".join(word for step in steps for word in step.command.argv)
    (secret,) = (step for step in steps if step.command.argv[1] == "secret")
    assert secret.command.argv[-1] == "-"
    assert secret.stdin is not None


def test_the_gate_runs_before_the_agents_service(stage: Path) -> None:
    """It is a job that ends, in the same network, and the agent's service comes after it."""
    names = [step.name for step in render_swarm(swarm(stage))]
    assert names.index("gate.run") < names.index("agent.create")
    assert "replicated-job" in commands(swarm(stage))["gate.run"]


def test_what_a_swarm_cannot_have(stage: Path) -> None:
    """It is refused in words."""
    agent = AgentSpec(command=("x",), mounts=(Bind(Path("/srv"), "/srv"),))
    with pytest.raises(LauncherError, match="mounted into a service"):
        render_swarm(swarm(stage, replace(SPEC, agent=agent)))


def test_an_engine_that_is_no_swarm_is_refused(stage: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In words, with what to do, and before anything is made."""
    program = tmp_path / "docker"
    program.write_text(f"""#!/bin/sh
case $1 in
info) echo '{{"Swarm": {{"ControlAvailable": false}}, "NCPU": 2}}' ;;
*) case "$2" in ls) ;; *) echo "$@" >> {tmp_path}/made ;; esac ;;
esac
""")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("HOME", str(tmp_path))
    plan = swarm(stage)
    with pytest.raises(LauncherError, match="no manager of a swarm") as caught:
        SwarmBottleBackend().launch(plan)
    assert "docker swarm init" in caught.value.hint
    made = (tmp_path / "made").read_text().splitlines() if (tmp_path / "made").exists() else []
    assert not [line for line in made if "create" in line]


# smolmachines: the real program's parser, which is in its wheel.


@pytest.fixture(scope="module")
def smolvm() -> tuple[str, dict[str, str]]:
    """The program, and the environment that it needs."""
    spec = importlib.util.find_spec("smol")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    directory = Path(spec.submodule_search_locations[0])
    program = directory / "smol-vmm"
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return str(program), {**os.environ, "LD_LIBRARY_PATH": str(directory), "SMOLVM_LIB_DIR": str(directory)}


@pytest.fixture
def machine(stage: Path) -> Iterator[SmolBottlePlan]:
    """A plan whose directories and sockets are there, as `launch` makes them."""
    plan = SmolmachinesBottleBackend().plan(SPEC, stage).with_networks(Subnets("10.213.0.0/28", "10.213.0.16/28"))
    for name in ("runtime", "certificates", "sockets"):
        (stage / name).mkdir()
    (stage / "agent.tar").write_bytes(bytes(10_240))
    servers = []
    for daemon in ("pipelock", "git-gate", "supervise"):
        server = socket.socket(socket.AF_UNIX)
        # A relative path: one below pytest's own may be longer than the 108 bytes of sun_path.
        here = os.open(stage / "sockets", os.O_PATH)
        server.bind(f"/proc/self/fd/{here}/{daemon}.sock")
        os.close(here)
        servers.append(server)
    yield plan
    for server in servers:
        server.close()


def test_a_machine_has_no_network(machine: SmolBottlePlan, smolvm: tuple[str, dict[str, str]], tmp_path: Path) -> None:
    """The real parser takes the command line, and what it writes down has no network, our labels, and the sockets.

    That a machine boots is not proved: it takes KVM.
    """
    program, env = smolvm

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        line = (program, "--state-dir", str(tmp_path / "state"), *words)
        return subprocess.run(line, env=env, capture_output=True, text=True, check=False)

    created = run(*machine_argv(machine, machine.stage_dir / "agent.tar"))
    assert created.returncode == 0, created.stderr
    (found,) = json.loads(run("machine", "ls", "--json").stdout)
    assert found["name"] == "bottle-demo-1-agent"
    assert found["network"] is False
    assert found["labels"][LABEL_SLUG] == "demo-1"
    assert found["cmd"][-3:] == ["--", "sleep", "infinity"]
    assert run("machine", "delete", "--name", "bottle-demo-1-agent", "-f").returncode == 0
    assert json.loads(run("machine", "ls", "--json").stdout) == []


@pytest.mark.parametrize("word", ["start", "exec", "exec at a terminal", "logs", "logs as they come", "stop", "delete"])
def test_the_real_parser_takes_each_command(
    machine: SmolBottlePlan, smolvm: tuple[str, dict[str, str]], tmp_path: Path, word: str
) -> None:
    """Of a machine that is not there it says so, with 1: what it could not parse would end with 2."""
    program, env = smolvm
    backend, slug = SmolmachinesBottleBackend(), machine.slug
    start = render_machine(machine, backend.state_dir, machine.stage_dir / "agent.tar")[-1]
    commands = {
        "start": start.command,
        "exec": backend.in_agent(slug, "true", "--help"),
        "exec at a terminal": backend.in_agent(slug, "true", tty=True),
        "logs": backend.logs(slug, "agent"),
        "logs as they come": backend.logs(slug, "agent", follow=True),
        "stop": backend.stop_machine(slug),
        "delete": backend.delete_machine(slug),
    }
    argv = commands[word].argv
    assert argv[:2] == ("smolvm", "--state-dir")
    line = (program, "--state-dir", str(tmp_path / "state"), *argv[3:])
    done = subprocess.run(line, env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, "NOT_FOUND" in done.stderr or "not found" in done.stderr) == (1, True), done.stderr


def test_the_real_parser_refuses_an_unknown_word(smolvm: tuple[str, dict[str, str]], tmp_path: Path) -> None:
    """The test above can fail: a word that the parser does not know ends with 2."""
    program, env = smolvm
    line = (program, "--state-dir", str(tmp_path), "machine", "create", "--name", "x", "--no-such-option")
    assert subprocess.run(line, env=env, capture_output=True, check=False).returncode == 2
