"""The containers of a bottle as values, the same on every engine.

What they are made of is in the plan and in `launcher.sandbox`; how an engine calls it is the backend's affair.
"""

import json
from dataclasses import dataclass, replace
from importlib.resources import files

from launcher.host_rules import APPLY
from launcher.plan import (
    AGENT_PORTS,
    BASE_DIR,
    CERTIFICATES_DIR,
    CERTIFICATES_ELSEWHERE,
    CONFIG_DIR,
    DAEMONS,
    GIT_URL,
    LABEL_ROLE,
    LABEL_SLUG,
    LABEL_STAGE,
    POLICY_DIR,
    RUNTIME_DIR,
    SIDECARS,
    STATE_DIR,
    SUPERVISE_PORT,
    AgentPlan,
    Bind,
    Clone,
    Limits,
    PipelockProxyPlan,
    Volume,
    object_name,
)
from launcher.sandbox import (
    AGENT_DNS,
    AGENT_DNS_OPTIONS,
    AGENT_SYSCTLS,
    AGENT_TMPFS,
    BUNDLE_SYSCTLS,
    GATE_CAPABILITIES,
    KERNEL_RULES_CAPABILITY,
    TMPFS,
    capabilities,
)

START_INTERVAL_S = 1
GATE_WITHIN_S = 90
GATE_ROUNDS = 3
GATE_WINDOW_S = 0.12
GATE_CERTIFICATES = "/opt/bottle-certificates"
METADATA_SERVICE = "169.254.169.254"
OUTSIDE = "192.0.2.1"
"""An address of TEST-NET-1 (RFC 5737), which stands for the world: nothing answers there, and no packet should go."""
PYTHON = (f"{RUNTIME_DIR}/bin/python3", "-I", "-S")
LEASE_OF_BUNDLE = ("--lease", "fd:0")


def source_of(name: str) -> str:
    """A program of the launcher's that runs by itself inside a container, by the name of its file."""
    return (files("launcher") / name).read_text()


@dataclass(frozen=True, slots=True)
class Container:
    """What an engine is told of a container. An empty value is not told, and the image's own holds."""

    name: str
    image: str
    labels: tuple[tuple[str, str], ...]
    network: str
    address: str = ""
    user: str = ""
    entrypoint: str = ""
    command: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    workdir: str = ""
    read_only: bool = True
    tmpfs: tuple[str, ...] = ()
    capabilities: tuple[str, ...] = ()
    sysctls: tuple[tuple[str, str], ...] = ()
    hosts: tuple[tuple[str, str], ...] = ()
    dns: tuple[str, ...] = ()
    dns_options: tuple[str, ...] = ()
    volumes: tuple[tuple[str, Volume], ...] = ()
    binds: tuple[Bind, ...] = ()
    limits: Limits | None = None
    runtime: str = ""
    interactive: bool = False
    tty: bool = False
    engine_init: bool = False
    healthcheck: bool = True
    start_interval_s: int = 0
    """Between two health checks until the first good one, where the engine knows of that; else the image's interval."""


def labels(plan: PipelockProxyPlan | AgentPlan, role: str) -> tuple[tuple[str, str], ...]:
    """The labels of an object made for a bottle: clean-up finds leftovers by them and by nothing else."""
    own = plan.settings.labels if isinstance(plan, PipelockProxyPlan) else plan.labels
    stage = ((LABEL_STAGE, str(plan.yaml_path.parent)),) if isinstance(plan, PipelockProxyPlan) else ()
    return ((LABEL_SLUG, plan.slug), (LABEL_ROLE, role), *dict((*stage, *own)).items())


def volumes(slug: str, *which: Volume) -> tuple[tuple[str, Volume], ...]:
    """Volumes with their names on the engine."""
    return tuple((object_name(slug, volume.role), volume) for volume in which)


def bundle(plan: PipelockProxyPlan, internal: str = "") -> Container:
    """The container of the daemons. `internal` is the internal network's addresses where the plan has none."""
    settings, subnets = plan.settings, plan.subnets
    internal = subnets.internal if subnets else internal
    env = [("BOTTLE_SECRETS", "stdin")] if settings.secrets else []
    env += [("BOTTLE_INTERNAL", internal)] if internal else []
    env += [("BOTTLE_LEASE", "agent")] if settings.agent_lease and subnets else []
    if settings.daemons != DAEMONS:
        env.append(("CLAUDE_BOTTLE_SIDECAR_DAEMONS", ",".join(settings.daemons)))
    return Container(
        name=plan.name,
        image=settings.image,
        labels=labels(plan, SIDECARS),
        network=plan.egress_network,
        address=subnets.bundle_outside if subnets else "",
        command=LEASE_OF_BUNDLE if settings.lease else (),
        env=tuple(env),
        tmpfs=TMPFS,
        capabilities=capabilities(net_admin=settings.net_admin),
        sysctls=BUNDLE_SYSCTLS,
        volumes=volumes(plan.slug, Volume("policy", POLICY_DIR, read_only=True), Volume("state", STATE_DIR)),
        limits=settings.limits,
        interactive=settings.lease,
        start_interval_s=START_INTERVAL_S if settings.checked_from_the_start else 0,
    )


def stage(plan: PipelockProxyPlan, *, runtime: bool) -> Container:
    """A container of the bundle's image that is never started: through it files get into volumes."""
    runtimes = (Volume("runtime", RUNTIME_DIR),) if runtime else ()
    return Container(
        name=object_name(plan.slug, "stage"),
        image=plan.settings.image,
        labels=labels(plan, "stage"),
        network="none",
        read_only=False,
        volumes=volumes(plan.slug, Volume("policy", POLICY_DIR), *runtimes),
        healthcheck=False,
    )


def runtime(plan: AgentPlan) -> Container:
    """The same for an agent whose bundle another hand has started: what it brings is the agent's interpreter."""
    return Container(
        name=object_name(plan.slug, "stage"),
        image=plan.bundle_image,
        labels=labels(plan, "stage"),
        network="none",
        read_only=False,
        volumes=volumes(plan.slug, Volume("runtime", RUNTIME_DIR)),
        healthcheck=False,
    )


def host_rules(plan: PipelockProxyPlan) -> Container:
    """The container that sets the rules on the engine's host and, started again, removes them."""
    return Container(
        name=object_name(plan.slug, "walls"),
        image=plan.settings.image,
        labels=labels(plan, "walls"),
        network="host",
        entrypoint="sh",
        command=("-c", APPLY),
        capabilities=(KERNEL_RULES_CAPABILITY,),
        interactive=True,
        healthcheck=False,
    )


def agent(plan: AgentPlan) -> Container:
    """The agent's container."""
    own_init = plan.init == "bottle"
    init = (*PYTHON[1:], "-m", "bottle_init", *_lease(plan), "--") if own_init else plan.command[1:]
    return Container(
        name=plan.name,
        image=plan.image,
        labels=labels(plan, "agent"),
        network=plan.internal_network,
        address=plan.subnets.agent if plan.subnets else "",
        hosts=((SIDECARS, plan.subnets.bundle),) if plan.subnets else (),
        dns=(plan.subnets.bundle if plan.transparent and plan.subnets else AGENT_DNS,),
        dns_options=AGENT_DNS_OPTIONS,
        user=plan.user,
        entrypoint=PYTHON[0] if own_init else (plan.command[0] if plan.command else ""),
        command=(*init, *plan.command) if own_init else init,
        env=plan.env,
        workdir=plan.workdir,
        tmpfs=(*AGENT_TMPFS, *plan.tmpfs),
        sysctls=AGENT_SYSCTLS,
        volumes=volumes(plan.slug, *_agent_volumes(plan)),
        binds=plan.binds,
        limits=plan.limits,
        runtime=_runtime(plan),
        interactive=plan.tty,
        tty=plan.tty,
        engine_init=not own_init,
        healthcheck=False,
    )


def _lease(plan: AgentPlan) -> tuple[str, ...]:
    """The agent ends with its bundle: with the connection to supervise that its init holds."""
    if not plan.lease or plan.subnets is None:
        return ()
    return ("--lease", f"tcp:{plan.subnets.bundle}:{SUPERVISE_PORT}")


def _agent_volumes(plan: AgentPlan) -> tuple[Volume, ...]:
    found = [Volume("runtime", RUNTIME_DIR, read_only=True)] if plan.init == "bottle" else []
    if "pipelock" in plan.daemons:
        places = (CERTIFICATES_DIR, CERTIFICATES_ELSEWHERE)
        found += [Volume("certificates", place, read_only=True, copy=False) for place in places]
    found += [Volume("config", CONFIG_DIR, read_only=True)] if plan.files else []
    return (*found, Volume("home", plan.home), *plan.volumes)


def _runtime(plan: AgentPlan) -> str:
    """`auto` is for `launch` to fill, which asks the engine; until then none is named."""
    return "" if plan.runtime == "auto" else plan.runtime


def gate(plan: AgentPlan) -> Container:
    """The short-lived container in the agent's place that asks whether the walls stand, and prepares it."""
    certificates = GATE_CERTIFICATES if "pipelock" in plan.daemons else ""
    mounts = [Volume("runtime", RUNTIME_DIR, read_only=True), Volume("home", plan.home), *plan.volumes]
    mounts += [Volume("certificates", certificates)] if certificates else []
    mounts += [Volume("config", CONFIG_DIR)] if plan.files else []
    mounts += [Volume("base", BASE_DIR)] if plan.copied is not None or plan.clone is not None else []
    return Container(
        name=object_name(plan.slug, "gate"),
        image=plan.image,
        labels=labels(plan, "gate"),
        network=plan.internal_network,
        address=plan.subnets.agent if plan.subnets else "",
        user="0:0",
        entrypoint=PYTHON[0],
        command=(*PYTHON[1:], "-c", source_of("gate.py"), json.dumps(gate_order(plan))),
        # Files are put into its volumes before it starts, which an engine refuses where the root is read-only.
        read_only=False,
        capabilities=GATE_CAPABILITIES,
        sysctls=AGENT_SYSCTLS,
        volumes=volumes(plan.slug, *mounts),
        binds=tuple(replace(bind, read_only=True) for bind in plan.binds),
        interactive=True,
        runtime=_runtime(plan),
        healthcheck=False,
    )


def clone(plan: AgentPlan, wanted: Clone) -> Container:
    """The short-lived container that clones a repository of git-gate's as the agent's user."""
    url = f"{GIT_URL}/{wanted.repository}"
    instead = ("-c", f"url.{url}.insteadOf={wanted.upstream}") if wanted.upstream != url else ()
    return Container(
        name=object_name(plan.slug, "clone"),
        image=plan.bundle_image,
        labels=labels(plan, "clone"),
        network=plan.internal_network,
        hosts=((SIDECARS, plan.subnets.bundle),) if plan.subnets else (),
        dns=(AGENT_DNS,),
        user=plan.user,
        entrypoint="sh",
        # What a patch is made against at the end is set aside, where the agent cannot change it.
        command=(
            *("-c", 'git "$@" && cd "$0" && find . -mindepth 1 -maxdepth 1 ! -name .git -exec cp -a {} "$BASE" \\;'),
            *(wanted.target, *instead, "clone", "--quiet", "--", wanted.upstream, wanted.target),
        ),
        env=(("HOME", "/tmp"), ("BASE", BASE_DIR)),  # noqa: S108 -- its own
        tmpfs=AGENT_TMPFS,
        sysctls=AGENT_SYSCTLS,
        volumes=volumes(plan.slug, *plan.volumes, Volume("base", BASE_DIR)),
        limits=plan.limits,
        healthcheck=False,
    )


def gate_order(plan: AgentPlan) -> dict[str, object]:
    """What the gate is asked to look at and to do."""
    bundle_address = plan.subnets.bundle if plan.subnets else SIDECARS
    forbidden = [(METADATA_SERVICE, 80), (OUTSIDE, 443), (OUTSIDE, 53), (bundle_address, 9099), (bundle_address, 22)]
    forbidden += [(address, port) for address in (plan.subnets.gateways if plan.subnets else ()) for port in (53, 22)]
    return {
        "bundle": bundle_address,
        "ports": [port for daemon, port in AGENT_PORTS.items() if daemon in plan.daemons],
        "forbidden": forbidden,
        # The bundle refuses by itself what it does not serve. A refusal of anybody else is an answer.
        "may_refuse": [bundle_address],
        "rounds": GATE_ROUNDS,
        "window_s": GATE_WINDOW_S,
        "within_s": GATE_WITHIN_S,
        "certificates": GATE_CERTIFICATES if "pipelock" in plan.daemons else "",
        "owner": plan.ids,
        "give": [plan.home, *(volume.target for volume in plan.volumes), *((BASE_DIR,) if plan.clone else ())],
        # What the operator's machine says of what is mounted: an engine elsewhere shows something else under the name.
        "same": [(bind.target, bind.source.stat().st_ino) for bind in plan.binds if bind.source.exists()],
    }
