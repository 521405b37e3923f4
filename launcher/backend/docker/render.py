"""A plan as steps: pure functions, whose values tests compare and `plan --argv` prints."""

from dataclasses import replace
from pathlib import PurePosixPath

from launcher import containers
from launcher.backend.docker.argv import create
from launcher.backend.docker.bottle_plan import DockerBottlePlan
from launcher.docker import Command
from launcher.host_rules import set_rules
from launcher.plan import (
    BASE_DIR,
    POLICY_TARGET,
    SIDECARS,
    UPSTREAM_CA_TARGET,
    AgentPlan,
    File,
    PipelockProxyPlan,
    Subnets,
    bridge_name,
    object_name,
)
from launcher.policy import secret_path
from launcher.sandbox import BRIDGE_OPTION, INTERNAL_OPTIONS
from launcher.steps import Archive, Secrets, Step, Stored, Text

PUBLISH = "bottle-publish"
"""The command in the bundle that prints what the gate makes the agent's store of certificates from."""


def render_networks(plan: DockerBottlePlan) -> tuple[Step, ...]:
    """The two networks: one for agent and bundle, with no way out, and one for the bundle alone."""
    subnets = plan.proxy.subnets
    internal = tuple(word for key, value in INTERNAL_OPTIONS for word in ("--opt", f"{key}={value}"))
    return (
        _network(plan, "internal", subnets, "--internal", *internal),
        _network(plan, "egress", subnets),
    )


def _network(plan: DockerBottlePlan, role: str, subnets: Subnets | None, *options: str) -> Step:
    subnet = ("--subnet", getattr(subnets, role)) if subnets else ()
    bridge = ("--opt", f"{BRIDGE_OPTION}={bridge_name(plan.slug, role)}")
    labels = tuple(word for key, value in plan.labels(role) for word in ("--label", f"{key}={value}"))
    argv = ("docker", "network", "create", *options, *bridge, *subnet, *labels, object_name(plan.slug, role))
    return Step(f"{role}.create", Command(argv))


def render_host_rules(plan: DockerBottlePlan) -> tuple[Step, ...]:
    """The rules on the engine's host, once the bridges that they are about are there."""
    walls = containers.host_rules(plan.proxy)
    rules = Text(set_rules(plan.slug, plan.proxy.settings.private))
    return (
        Step("walls.create", Command(create(walls))),
        Step(
            "walls.set",
            Command(("docker", "start", "--attach", "--interactive", walls.name)),
            after=("walls.create", "internal.create", "egress.create"),
            stdin=rules,
        ),
    )


def render_proxy(
    plan: PipelockProxyPlan,
    *,
    internal: str = "",
    networks: tuple[str, ...] = (),
    before: tuple[str, ...] = (),
    runtime: bool = False,
) -> tuple[Step, ...]:
    """The bundle: its files into volumes, its container, its start.

    `networks` are the steps that make its networks, `before` those that come before its start; `internal` is for a plan
    without subnets of its own. With `runtime` the agent's interpreter is brought along.
    """
    stage, bundle = containers.stage(plan, runtime=runtime), containers.bundle(plan, internal)
    address = ("--ip", plan.subnets.bundle) if plan.subnets else ()
    connect = ("docker", "network", "connect", "--alias", SIDECARS, *address, plan.internal_network, bundle.name)
    return (
        Step("stage.create", Command(create(stage))),
        Step(
            "stage.fill",
            Command(("docker", "cp", "-", f"{stage.name}:/")),
            after=("stage.create",),
            stdin=Archive(policy_files(plan)),
        ),
        Step("sidecars.create", Command(create(bundle)), after=("stage.create", *networks)),
        Step("sidecars.connect", Command(connect), after=("sidecars.create",)),
        Step(
            "sidecars.start",
            Command(("docker", "start", bundle.name)),
            after=("sidecars.connect", "stage.fill", *before),
        ),
        *_hand_over(plan),
    )


def _hand_over(plan: PipelockProxyPlan) -> tuple[Step, ...]:
    """The secrets, by standard input into the bundle that runs: they rest on no disk of the engine's."""
    if not plan.settings.secrets:
        return ()
    command = Command(("docker", "exec", "--interactive", plan.name, "bottle-secrets"))
    sources = tuple((name, secret_path(plan.yaml_path.parent, name)) for name in plan.settings.secrets)
    return (Step("secrets.hand_over", command, after=("sidecars.start",), stdin=Secrets(sources)),)


def policy_files(plan: PipelockProxyPlan) -> tuple[File, ...]:
    """The files of the bundle's policy directory."""
    upstream_ca = plan.yaml_path.with_name("upstream-ca.pem")
    found = (File(plan.yaml_path, POLICY_TARGET),)
    return (*found, File(upstream_ca, UPSTREAM_CA_TARGET)) if upstream_ca.exists() else found


def render_runtime(plan: AgentPlan) -> tuple[Step, ...]:
    """The agent's interpreter, where no bundle's stage has brought it."""
    return (Step("stage.create", Command(create(containers.runtime(plan)))),)


def render_agent(
    plan: AgentPlan, bundle: str, *, networks: tuple[str, ...] = (), bundle_runs: bool = False
) -> tuple[Step, ...]:
    """The agent: its files into volumes, the gate in its place, and, once that has passed, its start."""
    gate, agent = containers.gate(plan), containers.agent(plan)
    made = ["gate.create", *(f"{role}.fill" for role, _ in _contents(plan))]
    made += ["home.fill"] if plan.home_archive is not None else []
    made += [] if bundle_runs else ["sidecars.start"]
    publish = Command(("docker", "exec", bundle, PUBLISH))
    run_gate = Command(("docker", "start", "--attach", "--interactive", gate.name))
    steps = [
        Step("gate.create", Command(create(gate)), after=("stage.create", *networks)),
        Step("gate.run", run_gate, after=tuple(made), source=publish),
        Step("agent.create", Command(create(agent)), after=("gate.create", *networks)),
    ]
    fill = Command(("docker", "cp", "-", f"{gate.name}:/"))
    steps += [
        Step(f"{role}.fill", fill, after=("gate.create",), stdin=Archive(files)) for role, files in _contents(plan)
    ]
    if plan.home_archive is not None:
        into = Command(("docker", "cp", "-", f"{gate.name}:{PurePosixPath(plan.home).parent}"))
        steps.append(Step("home.fill", into, after=("gate.create",), stdin=Stored(plan.home_archive)))
    if plan.clone is not None:
        clone = containers.clone(plan, plan.clone)
        steps.append(Step("clone.create", Command(create(clone)), after=("gate.create",)))
        start = Command(("docker", "start", "--attach", clone.name))
        steps.append(Step("clone.run", start, after=("clone.create", "gate.run")))
    before = ("agent.create", "clone.run" if plan.clone is not None else "gate.run")
    return (*steps, Step("agent.start", Command(("docker", "start", agent.name)), after=before))


def _contents(plan: AgentPlan) -> tuple[tuple[str, tuple[File, ...]], ...]:
    """What goes into the agent's volumes before the gate starts, the project apart, as it may be large."""
    project = () if plan.copied is None else (("project", (plan.copied,)), ("base", (base_of(plan.copied),)))
    return ((("config", plan.files),) if plan.files else ()) + project


def base_of(copied: File) -> File:
    """The same once more, out of the agent's reach: what a patch is made against."""
    return replace(copied, target=BASE_DIR, owner=(0, 0))


def render(plan: DockerBottlePlan) -> tuple[Step, ...]:
    """All that `launch` does to a plan whose networks are filled in; the start of the agent is the last."""
    networks = tuple(step.name for step in render_networks(plan))
    return (
        *render_networks(plan),
        *render_host_rules(plan),
        *render_proxy(plan.proxy, networks=networks, before=("walls.set",), runtime=True),
        *render_agent(plan.agent, plan.proxy.name, networks=networks),
    )


def early_steps(plan: DockerBottlePlan) -> tuple[Step, ...]:
    """The steps that need no network, and so no plan that is filled in."""
    unfilled = (*render_host_rules(plan), *render_proxy(plan.proxy, runtime=True))
    return tuple(step for step in unfilled if step.name in ("walls.create", "stage.create", "stage.fill"))


def without(steps: tuple[Step, ...], *done: str) -> tuple[Step, ...]:
    """What is left of steps of which some have been done."""
    return tuple(
        replace(step, after=tuple(name for name in step.after if name not in done))
        for step in steps
        if step.name not in done
    )
