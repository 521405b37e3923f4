"""A plan as command lines for a Swarm: pure functions, whose values tests compare and `render --swarm` prints.

Services, and no stack: a stack's file drops tmpfs and no-new-privileges without a word, refuses `pids_limit` and
`dns_opt`, and knows no order; `docker service create` has the first, the last two, and the launcher's own order.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass

from launcher.backend.docker.argv import each_option
from launcher.backend.docker.bottle_plan import DockerBottlePlan
from launcher.backend.shared import refuse
from launcher.containers import GATE_CERTIFICATES, PYTHON, Container, agent, bundle, gate_order, labels, source_of
from launcher.docker import Command
from launcher.plan import (
    CERTIFICATES_DIR,
    CERTIFICATES_ELSEWHERE,
    CONFIG_DIR,
    POLICY_DIR,
    RUNTIME_DIR,
    SECRETS_DIR,
    SIDECARS,
    STATE_DIR,
    BottlePlan,
    File,
    Volume,
    object_name,
)
from launcher.policy import secret_path
from launcher.steps import Bytes, Step

NODE = "NODE"
"""Stands for the node that both services are pinned to, until `launch` has chosen one."""
PUBLISHED_TARGET = "/etc/bottle-published"

LOST = (
    (
        "W5",
        "a service takes neither no-new-privileges (moby#41371; daemon.json of each node does) nor a seccomp filter",
    ),
    (
        "W1",
        "nothing is set on the node: the bundle reaches it (the agent does not: an internal overlay has no gateway)",
    ),
    ("W18", "what the agent writes to /tmp cannot be executed: a service's tmpfs takes no `exec`"),
    ("W20", "the launcher's lease: a service has no standard input, and so no attach either"),
)
"""The walls of docs/walls.md that cannot stand here as they do on one engine, and why."""


@dataclass(frozen=True, slots=True)
class SwarmBottlePlan(DockerBottlePlan):
    """One bottle, and the node that it is pinned to."""

    node: str = NODE
    bundle_address: str = ""
    """The bundle's address on the internal network, once it has one."""


def render_networks(plan: BottlePlan) -> tuple[Step, ...]:
    """The two overlays: one for agent and bundle, with no way out, and one for the bundle alone."""
    subnets = plan.proxy.subnets
    steps = []
    for role, options in (("internal", ("--internal",)), ("egress", ())):
        subnet = ("--subnet", getattr(subnets, role)) if subnets else ()
        argv = (
            *("docker", "network", "create", "--driver", "overlay", *options, *subnet),
            *_labels(plan, role),
            object_name(plan.slug, role),
        )
        steps.append(Step(f"{role}.create", Command(argv)))
    return tuple(steps)


def render_bundle(plan: SwarmBottlePlan) -> tuple[Step, ...]:
    """The policy as a config, the credentials as secrets, and the bundle's service."""
    proxy = plan.proxy
    policy = {"policy.toml": proxy.yaml_path}
    if (upstream_ca := proxy.yaml_path.with_name("upstream-ca.pem")).exists():
        policy["upstream-ca.pem"] = upstream_ca
    steps = [
        _create("config", plan, f"policy-{number}", "policy", Bytes((path,)))
        for number, path in enumerate(policy.values())
    ]
    configs = [
        f"source={object_name(plan.slug, f'policy-{number}')},target={POLICY_DIR}/{name},mode=0444"
        for number, name in enumerate(policy)
    ]
    secrets = []
    for number, name in enumerate(proxy.settings.secrets):
        value = Bytes((secret_path(proxy.yaml_path.parent, name),))
        steps.append(_create("secret", plan, f"secret-{number}", "secret", value))
        secrets.append(f"source={object_name(plan.slug, f'secret-{number}')},target={SECRETS_DIR}/{name},mode=0400")
    container = bundle(proxy)
    volumes = (
        # What the image has there is copied into a volume that is new: so the interpreter gets to the agent's service.
        (object_name(plan.slug, "runtime"), Volume("runtime", RUNTIME_DIR)),
        (object_name(plan.slug, "state"), Volume("state", STATE_DIR)),
    )
    env = tuple((name, value) for name, value in container.env if name != "BOTTLE_SECRETS")
    argv = (
        *_service(plan, SIDECARS, container, env, volumes, configs),
        *each_option("--secret", secrets),
        *("--network", f"name={object_name(plan.slug, 'internal')},alias={SIDECARS}"),
        *("--network", object_name(plan.slug, "egress")),
        *("--health-interval", "1s"),
        proxy.settings.image,
    )
    after = ("internal.create", "egress.create", *(step.name for step in steps))
    return (*steps, Step("sidecars.create", Command(argv), after))


def render_agent(plan: SwarmBottlePlan) -> tuple[Step, ...]:
    """The agent's files and what the bundle published as configs, the gate as a job in its place, and its service."""
    refuse_what_cannot_be(plan)
    wanted = plan.agent
    config_files = _config_files(wanted.files)
    steps = [
        _create("config", plan, f"config-{number}", "config", Bytes((file.source,)))
        for number, file in enumerate(config_files)
    ]
    configs = [
        f"source={object_name(plan.slug, f'config-{number}')},target={file.target},mode=0444"
        for number, file in enumerate(config_files)
    ]
    container = agent(wanted)
    store = "pipelock" in wanted.daemons
    runtime = (object_name(plan.slug, "runtime"), Volume("runtime", RUNTIME_DIR, read_only=True, copy=False))
    certificates = object_name(plan.slug, "certificates")
    internal = ("--network", object_name(plan.slug, "internal"))
    gate_volumes = [runtime]
    agent_volumes = [runtime, (object_name(plan.slug, "home"), Volume("home", wanted.home))]
    agent_volumes += [(object_name(plan.slug, each.role), each) for each in wanted.volumes]
    if store:
        gate_volumes.append((certificates, Volume("certificates", GATE_CERTIFICATES)))
        agent_volumes += [
            (certificates, Volume("certificates", place, read_only=True, copy=False))
            for place in (CERTIFICATES_DIR, CERTIFICATES_ELSEWHERE)
        ]
        gate_volumes += [(name, volume) for name, volume in agent_volumes if volume.role == "home"]
    order = gate_order(wanted) | {"certificates": GATE_CERTIFICATES if store else "", "published": PUBLISHED_TARGET}
    # The gateway of an overlay is its own network namespace's on the node: it refuses, and is nobody's host.
    gateways = wanted.subnets.gateways[:1] if wanted.subnets else ()
    order |= {"bundle": _address(plan), "may_refuse": [_address(plan), *gateways], "same": []}
    order["forbidden"] = [
        (_address(plan) if host == SIDECARS else host, port) for host, port in _pairs(order["forbidden"])
    ]
    gate = Container(
        name=object_name(plan.slug, "gate"),
        image=wanted.image,
        labels=labels(wanted, "gate"),
        network="",
        user="0:0",
        read_only=True,
        capabilities=("CHOWN", "DAC_OVERRIDE", "FOWNER"),
        sysctls=container.sysctls,
    )
    published = f"source={object_name(plan.slug, 'published')},target={PUBLISHED_TARGET},mode=0444"
    run_gate = (
        *_service(plan, "gate", gate, (), gate_volumes, [published], mode="replicated-job"),
        *internal,
        *("--entrypoint", PYTHON[0]),
        *(wanted.image, *PYTHON[1:], "-c", source_of("gate.py"), json.dumps(order)),
    )
    argv = (
        *_service(plan, "agent", container, container.env, agent_volumes, configs),
        *internal,
        *("--host", f"{SIDECARS}:{_address(plan)}"),
        *each_option("--dns", (_address(plan) if wanted.transparent else container.dns[0],)),
        *("--dns-search", "."),
        *each_option("--dns-option", container.dns_options),
        *(("--workdir", wanted.workdir) if wanted.workdir else ()),
        *(("--tty",) if wanted.tty else ()),
        *("--entrypoint", container.entrypoint),
        *(wanted.image, *container.command),
    )
    before = tuple(step.name for step in steps)
    return (
        *steps,
        Step("gate.run", Command(run_gate), before),
        Step("agent.create", Command(argv), ("gate.run",)),
    )


def render(plan: SwarmBottlePlan) -> tuple[Step, ...]:
    """All that `launch` does, in its order; the bundle's address and the node are filled in on the way."""
    return (*render_networks(plan), *render_bundle(plan), *render_agent(plan))


def refuse_what_cannot_be(plan: SwarmBottlePlan) -> None:
    """Raises `LauncherError` for what a service cannot be given."""
    wanted = plan.agent
    elsewhere = [file.target for file in wanted.files if file not in _config_files(wanted.files)]
    faults = {
        "a directory of this machine cannot be mounted into a service": bool(wanted.binds),
        "a copy of this machine's directory cannot be brought into a service": wanted.copied is not None,
        "a clone cannot be made before a service starts": wanted.clone is not None,
        f"files cannot be brought to {', '.join(elsewhere)}": bool(elsewhere),
        "a home that was kept cannot be brought into a service": wanted.home_archive is not None,
        "an agent of a swarm runs under our own init": wanted.init != "bottle",
        "the command of the agent's image is not known here: say agents.NAME.command": not wanted.command,
        "a service has no runtime of its own: the node's default runs it": bool(wanted.runtime)
        and wanted.runtime not in ("auto", "runc"),
    }
    refuse(faults, "let the agent clone its project through git-gate itself")


def _pairs(value: object) -> list[tuple[str, int]]:
    assert isinstance(value, list)
    return [(str(host), int(port)) for host, port in value]


def _address(plan: SwarmBottlePlan) -> str:
    return plan.bundle_address or SIDECARS


def _config_files(wanted: Iterable[File]) -> list[File]:
    return [file for file in wanted if file.target.startswith(f"{CONFIG_DIR}/")]


def _create(kind: str, plan: SwarmBottlePlan, name: str, role: str, content: Bytes) -> Step:
    argv = ("docker", kind, "create", *_labels(plan, role), object_name(plan.slug, name), "-")
    return Step(f"{name}.create", Command(argv), stdin=content)


def _labels(plan: BottlePlan, role: str) -> tuple[str, ...]:
    return tuple(word for key, value in labels(plan.proxy, role) for word in ("--label", f"{key}={value}"))


def _service(
    plan: SwarmBottlePlan,
    role: str,
    container: Container,
    env: tuple[tuple[str, str], ...],
    volumes: Iterable[tuple[str, Volume]],
    configs: Iterable[str],
    *,
    mode: str = "replicated",
) -> tuple[str, ...]:
    """The options that every service has."""
    own = [f"{key}={value}" for key, value in labels(plan.proxy, role)]
    limits = container.limits
    bounds = (
        (
            *("--limit-memory", str(limits.memory), "--limit-cpu", f"{limits.cpus:g}"),
            *("--limit-pids", str(limits.pids), "--log-driver", "json-file"),
            *("--log-opt", f"max-size={limits.log_size // 2}", "--log-opt", "max-file=2"),
        )
        if limits
        else ()
    )
    return (
        *("docker", "service", "create", "--quiet", "--detach", "--no-resolve-image"),
        *("--name", object_name(plan.slug, role), "--mode", mode),
        *each_option("--label", own),
        *each_option("--container-label", own),
        # Whoever comes back has another authority and another address: a bottle is made anew instead.
        *("--restart-condition", "none", "--constraint", f"node.id=={plan.node}"),
        *(("--endpoint-mode", "dnsrr") if mode == "replicated" else ()),
        *(("--read-only",) if container.read_only else ()),
        *each_option("--mount", map(_tmpfs, container.tmpfs)),
        *each_option("--mount", (_volume(name, volume, plan, volume.role) for name, volume in volumes)),
        *each_option("--config", configs),
        *("--cap-drop", "ALL", *each_option("--cap-add", container.capabilities)),
        *(("--user", container.user) if container.user else ()),
        *each_option("--sysctl", (f"{key}={value}" for key, value in container.sysctls)),
        *each_option("--env", (f"{key}={value}" for key, value in env)),
        *bounds,
    )


def _tmpfs(words: str) -> str:
    """Docker's short form of a tmpfs in the words of --mount."""
    target, _, options = words.partition(":")
    given = dict(option.partition("=")[::2] for option in options.split(",") if option)
    fields = ["type=tmpfs", f"target={target}"]
    fields += [f"tmpfs-mode={given['mode']}"] if "mode" in given else []
    fields += [f"tmpfs-size={_bytes(given['size'])}"] if "size" in given else []
    return ",".join(fields)


def _bytes(size: str) -> int:
    units = {"k": 2**10, "m": 2**20, "g": 2**30}
    return int(size[:-1]) * units[size[-1]] if size[-1] in units else int(size)


def _volume(name: str, volume: Volume, plan: SwarmBottlePlan, role: str) -> str:
    fields = ["type=volume", f"source={name}", f"target={volume.target}"]
    fields += ["readonly"] if volume.read_only else []
    fields += [] if volume.copy else ["volume-nocopy"]
    fields += [f"volume-label={key}={value}" for key, value in labels(plan.proxy, role)]
    return ",".join(fields)
