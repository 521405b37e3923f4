"""The Swarm backend: services on the manager that the `docker` command reaches, pinned to one node.

The engine's own client reaches the containers of its own node alone, so that is the node: a swarm of one, or a manager
that also works. `--context` leads to another manager.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from launcher import history, state
from launcher.backend.base import ENDED, Tell
from launcher.backend.docker.backend import DockerBottleBackend
from launcher.backend.docker.bottle_plan import DockerBottlePlan
from launcher.backend.docker.listing import listed
from launcher.backend.docker.removal import attempt
from launcher.backend.docker.render import PUBLISH
from launcher.backend.shared import each_second, recast
from launcher.backend.swarm.render import (
    LOST,
    SwarmBottlePlan,
    refuse_what_cannot_be,
    render,
    render_agent,
    render_bundle,
    render_networks,
)
from launcher.docker import Command, docker, docker_json, foreground
from launcher.errors import LauncherError
from launcher.interrupts import HeldSignals, hold_signals
from launcher.plan import (
    LABEL_ROLE,
    LABEL_SLUG,
    SIDECARS,
    BottlePlan,
    new_slug,
    object_name,
    slug_of,
)
from launcher.planning import labelled
from launcher.spec import BottleSpec
from launcher.staging import staged
from launcher.steps import LOOK_S, Step, Text, in_turn

WITHIN_S = 180
GONE_WITHIN_S = 60
SERVICES = ("agent", "gate", SIDECARS)
"""Their containers are the swarm's to remove; what else bears a bottle's label is not."""
# What a task is called once it will not run any more.
OVER = ("Complete", "Failed", "Rejected", "Shutdown", "Orphaned", "Remove")


class SwarmBottleBackend(DockerBottleBackend):
    """A bottle of two services."""

    name = "swarm"
    LEASES = False
    lost = LOST

    def plan(self, spec: BottleSpec, stage_dir: Path) -> SwarmBottlePlan:
        return recast(SwarmBottlePlan, super().plan(spec, stage_dir))

    def prepare(self, spec: BottleSpec, stage_dir: Path) -> SwarmBottlePlan:
        spec = replace(spec, slug=spec.slug or new_slug(spec.name))
        plan = labelled(self.plan(spec, stage_dir), spec)
        with staged(spec, plan, self.name):
            refuse_what_cannot_be(plan)
        return plan

    def networks(self, plan: DockerBottlePlan) -> tuple[Step, ...]:
        return render_networks(plan)

    def steps(self, plan: BottlePlan) -> tuple[Step, ...]:
        assert isinstance(plan, SwarmBottlePlan)
        return render(plan)

    def launch(self, plan: BottlePlan, tell: Tell = lambda _line: None, *, start: bool = True) -> str:
        """As every backend's. A service starts by itself: `start` changes nothing."""
        del start
        assert isinstance(plan, SwarmBottlePlan)
        with hold_signals() as held:
            try:
                with state.held(plan.stage_dir):
                    self._launch_services(plan, tell, held)
            except BaseException:
                _remove(plan.slug)
                state.discard(plan.stage_dir, plan.slug)
                raise
        return object_name(plan.slug, "agent")

    def _launch_services(self, plan: SwarmBottlePlan, tell: Tell, held: HeldSignals) -> None:
        began = time.monotonic()
        plan = self.with_free_networks(_on_this_node(plan), held)
        in_turn(render_bundle(plan), held.check)
        _wait_for(plan.slug, SIDECARS, ("Running",), held.check)
        tell(f"the bundle is healthy after {time.monotonic() - began:.1f} s")
        state.discard_secrets(plan.stage_dir)
        published = docker("exec", _container(plan.slug, SIDECARS), PUBLISH).stdout
        name = object_name(plan.slug, "published")
        labels = ("--label", f"{LABEL_SLUG}={plan.slug}", "--label", f"{LABEL_ROLE}=published")
        Step(
            "published", Command(("docker", "config", "create", *labels, name, "-")), stdin=Text(published)
        ).carry_out()
        plan = replace(plan, bundle_address=_address_of(plan))
        for step in render_agent(plan):
            held.check()
            step.carry_out()
            if step.name == "gate.run":
                _wait_for(plan.slug, "gate", ("Complete",), held.check)
        _wait_for(plan.slug, "agent", ("Running", "Complete"), held.check)
        tell(f"the walls stand, and the agent runs after {time.monotonic() - began:.1f} s")

    def attach(self, target: str, tty: bool, sleep: Callable[[float], None], *, started: bool = True) -> int:
        """As every backend's, but that nothing goes in: a service has no standard input."""
        del tty, started
        slug = slug_of(target)
        command = Command(("docker", "service", "logs", "--raw", "--follow", object_name(slug, "agent")))
        foreground(command, each_second(sleep, partial(_look_for_bundle, slug)))
        return self.wait(target, sleep)

    def wait(self, target: str, sleep: Callable[[float], None]) -> int:
        slug = slug_of(target)
        return _wait_ended(slug, each_second(sleep, partial(_look_for_bundle, slug)))

    def stop(self, target: str, tell: Tell = lambda _line: None) -> bool:
        slug = slug_of(target)
        with hold_signals():
            there = _remove(slug, keep=True)
            state.discard(state.state_root() / slug, slug)
            if there:
                tell(f"{slug} is gone from the swarm")
            return there

    def in_bundle(self, slug: str, *command: str, stdin: bool = False, tty: bool = False, user: str = "") -> Command:
        options = (*(("--interactive",) if stdin or tty else ()), *(("--tty",) if tty else ()))
        options = (*options, *(("--user", user) if user else ()))
        return Command(("docker", "exec", *options, _container(slug, SIDECARS), *command))

    def in_agent(self, slug: str, *command: str, tty: bool = False) -> Command:
        options = ("--interactive", "--tty") if tty else ("--interactive",)
        return Command(("docker", "exec", *options, _container(slug, "agent"), *command))

    def archive(self, slug: str, place: str) -> Command:
        return Command(("docker", "cp", f"{_container(slug, 'agent')}:{place}", "-"))

    def host_addresses(self, slug: str) -> tuple[str, ...]:
        names = (object_name(slug, "internal"), object_name(slug, "egress"), "docker_gwbridge", "bridge")
        found = docker_json("network", "inspect", *names)
        gateways = [config.get("Gateway", "") for each in found for config in each["IPAM"]["Config"]]
        return tuple(gateway.partition("/")[0] for gateway in gateways if gateway)

    def bundle_address_outside(self, slug: str) -> str:
        (found,) = docker_json("container", "inspect", _container(slug, SIDECARS))
        bridge = docker_json("network", "inspect", "docker_gwbridge")[0]["Containers"]
        return str(bridge[found["Id"]]["IPv4Address"]).partition("/")[0]

    def logs(self, slug: str, role: str, *, follow: bool = False) -> Command:
        options = ("--raw", "--timestamps", *(("--follow",) if follow else ()))
        return Command(("docker", "service", "logs", *options, object_name(slug, role)))


def _on_this_node(plan: SwarmBottlePlan) -> SwarmBottlePlan:
    """The plan, pinned to the node that the client talks to, with no more CPUs than it has: more is refused.

    Raises `LauncherError` where that is no manager of a swarm.
    """
    info = docker_json("info", "--format", "{{json .}}")
    swarm, cpus = info["Swarm"], float(info["NCPU"])
    if not swarm.get("ControlAvailable"):
        raise LauncherError(
            "this engine is no manager of a swarm",
            hint="docker swarm init --advertise-addr 127.0.0.1 makes one of it alone",
        )
    settings = plan.proxy.settings
    bounded = replace(settings, limits=replace(settings.limits, cpus=min(settings.limits.cpus, cpus)))
    agent = replace(plan.agent, limits=replace(plan.agent.limits, cpus=min(plan.agent.limits.cpus, cpus)))
    return replace(plan, node=str(swarm["NodeID"]), proxy=replace(plan.proxy, settings=bounded), agent=agent)


def _container(slug: str, role: str) -> str:
    """The container of a service's task, which is on this node. Raises `LauncherError` where there is none."""
    filters = [word for key, value in ((LABEL_SLUG, slug), (LABEL_ROLE, role)) for word in
               ("--filter", f"label={key}={value}")]  # fmt: skip
    found = docker("container", "ls", "--all", "--quiet", "--no-trunc", *filters).stdout.split()
    if not found:
        raise LauncherError(f"{slug} has no container of its {role} on this node")
    return found[0]


def _address_of(plan: SwarmBottlePlan) -> str:
    (found,) = docker_json("container", "inspect", _container(plan.slug, SIDECARS))
    return str(found["NetworkSettings"]["Networks"][object_name(plan.slug, "internal")]["IPAddress"])


def _task(slug: str, role: str) -> tuple[str, str]:
    """The state of a service's task, and its error."""
    template = "{{.CurrentState}}\t{{.Error}}"
    lines = docker("service", "ps", "--no-trunc", "--format", template, object_name(slug, role)).stdout.splitlines()
    words, _, error = (lines[0] if lines else "New\t").partition("\t")
    return words.split(" ")[0], error


def _wait_for(slug: str, role: str, wanted: tuple[str, ...], check: Callable[[], None]) -> None:
    """Until the task is as wanted: `Running` comes with its health check. Raises `LauncherError` with its error."""
    deadline = time.monotonic() + WITHIN_S
    while True:
        check()
        words, error = _task(slug, role)
        if words in wanted:
            return
        if words in OVER or time.monotonic() > deadline:
            what = f"{object_name(slug, role)}: {words.lower()}: {error or 'not in time'}"
            raise LauncherError(what, hint=_last_words(slug, role))
        time.sleep(LOOK_S)


def _last_words(slug: str, role: str) -> str:
    """What a task's container said last, where it got one."""
    try:
        said = docker("logs", "--tail", "25", _container(slug, role), check=False)
    except LauncherError:
        return ""
    return (said.stdout + said.stderr).strip()


def _look_for_bundle(slug: str) -> None:
    """Raises `LauncherError` once the bundle has ended."""
    words, error = _task(slug, SIDECARS)
    if words in OVER:
        raise LauncherError(f"the bundle of {slug} has ended: {error}", hint=f"`bottle why {slug}` tells why")


def _wait_ended(slug: str, look: Callable[[float], None]) -> int:
    while _task(slug, "agent")[0] not in OVER:
        look(LOOK_S)
    state_of = docker("container", "inspect", "--format", "{{.State.ExitCode}}", _container(slug, "agent"))
    return int(state_of.stdout)


def _names(kind: str, slug: str) -> list[str]:
    return docker(kind, "ls", "--quiet", "--filter", f"label={LABEL_SLUG}={slug}").stdout.split()


def _remove(slug: str, *, keep: bool = False) -> bool:
    """The agent's service first, so that it never runs without its bundle; whether there was anything.

    Raises `LauncherError` with every fault.
    """
    found = listed(f"{LABEL_SLUG}={slug}")
    services = _names("service", slug)
    if keep and services:
        _remember(slug)
    faults = []
    for role in SERVICES:
        faults += attempt("service", "rm", object_name(slug, role))
    others = [each.name for each in found if each.kind == "container" and each.role not in SERVICES]
    faults += attempt("container", "rm", "--force", "--volumes", *others) if others else []
    deadline = time.monotonic() + GONE_WITHIN_S
    while left := listed(f"{LABEL_SLUG}={slug}", kinds=("container",)):
        # The containers of tasks that have ended are the swarm's to remove, in its own time.
        over = [each.name for each in left if each.state in ENDED or time.monotonic() > deadline]
        faults += attempt("container", "rm", "--force", *over) if over else []
        if time.monotonic() > deadline:
            break
        time.sleep(LOOK_S)
    for kind in ("config", "secret"):
        if names := _names(kind, slug):
            faults += attempt(kind, "rm", *names)
    for each in found:
        if each.kind != "container":
            faults += attempt(each.kind, "rm", each.name)
    if faults:
        raise LauncherError("\n".join(faults), hint=f"`bottle down {slug}` tries again")
    return bool(found or services)


def _remember(slug: str) -> None:
    """Keep what agent and bundle have said: what cannot be had is left out."""
    logs = {}
    for role, name in (("agent", history.AGENT_LOG), (SIDECARS, history.BUNDLE_LOG)):
        said = docker("service", "logs", "--raw", "--timestamps", object_name(slug, role), check=False)
        logs[name] = said.stdout + said.stderr
    history.remember(slug, logs)
