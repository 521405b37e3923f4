"""A plan for smolmachines: the bundle on the Docker engine as ever, and the agent in a machine without any network.

The machine gets three sockets of the host's. They lead to a container that stands in the agent's place on the internal
network, so every wall is where it is on Docker, and forwards each to the port of the bundle's that it is for.

`smolvm`'s own parser holds its command line in the tests. That a machine boots and that its sockets carry bytes is not
proved: it takes KVM, and was never tried.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path

from launcher.backend.docker.argv import create
from launcher.backend.docker.bottle_plan import DockerBottlePlan
from launcher.backend.docker.render import render as render_docker
from launcher.backend.shared import refuse
from launcher.containers import PYTHON, Container, labels, source_of
from launcher.docker import Command
from launcher.plan import (
    AGENT_PORTS,
    CERTIFICATES_DIR,
    CERTIFICATES_ELSEWHERE,
    CONFIG_DIR,
    RUNTIME_DIR,
    SIDECARS,
    SUPERVISE_PORT,
    AgentPlan,
    Bind,
    object_name,
)
from launcher.sandbox import AGENT_SYSCTLS
from launcher.steps import Step

SOCKETS_DIR = "/run/bottle-sockets"
LOOPBACK = "127.0.0.1"

LOST = (
    ("W1", "names and TLS without a proxy (`transparent`): the machine has no network, and no resolver"),
    ("W18", "the machine's root can be written to; it is thrown away with the machine"),
)
"""The walls of docs/walls.md that stand differently here, and how."""


@dataclass(frozen=True, slots=True)
class SmolBottlePlan(DockerBottlePlan):
    """One bottle whose agent is a machine."""

    @property
    def sockets_dir(self) -> Path:
        """The directory on the host that holds the machine's sockets."""
        return self.stage_dir / "sockets"

    @property
    def machine(self) -> str:
        """The machine's name."""
        return object_name(self.slug, "agent")


def sockets(plan: AgentPlan) -> dict[str, int]:
    """The daemons that the agent talks to, and their ports."""
    return {daemon: port for daemon, port in AGENT_PORTS.items() if daemon in plan.daemons}


def render_bundle(plan: SmolBottlePlan) -> tuple[Step, ...]:
    """What Docker does: all of a bottle but its agent's container, and the forwarder in its place."""
    steps = [step for step in render_docker(plan) if step.name not in ("agent.create", "agent.start")]
    forwarder = create(forwarder_of(plan))
    return (
        *steps,
        Step("sockets.create", Command(forwarder), ("gate.run",)),
        Step("sockets.start", Command(("docker", "start", object_name(plan.slug, "sockets"))), ("sockets.create",)),
    )


def forwarder_of(plan: SmolBottlePlan) -> Container:
    """The container in the agent's place, between its sockets and the bundle's ports."""
    wanted = plan.agent
    bundle = wanted.subnets.bundle if wanted.subnets else SIDECARS
    routes = [(f"unix:{SOCKETS_DIR}/{daemon}.sock", f"tcp:{bundle}:{port}") for daemon, port in sockets(wanted).items()]
    return Container(
        name=object_name(plan.slug, "sockets"),
        image=wanted.bundle_image,
        labels=labels(wanted, "sockets"),
        network=wanted.internal_network,
        address=wanted.subnets.agent if wanted.subnets else "",
        user=wanted.user,
        entrypoint="python3",
        command=("-I", "-S", "-c", source_of("forward.py"), json.dumps(routes)),
        sysctls=AGENT_SYSCTLS,
        binds=(Bind(plan.sockets_dir, SOCKETS_DIR, read_only=False),),
        limits=replace(wanted.limits, memory=256 * 2**20, cpus=1.0),
        healthcheck=False,
    )


def render_machine(plan: SmolBottlePlan, state_dir: Path, archive: Path) -> tuple[Step, ...]:
    """The machine: what it is made of is in the stage directory, where `launch` has put it."""
    create_machine = Command(("smolvm", "--state-dir", str(state_dir), *machine_argv(plan, archive)))
    start = Command(("smolvm", "--state-dir", str(state_dir), "machine", "start", "--name", plan.machine))
    return (
        Step("machine.create", create_machine, ("sockets.start",)),
        Step("machine.start", start, ("machine.create",)),
    )


def machine_argv(plan: SmolBottlePlan, archive: Path) -> tuple[str, ...]:
    """`machine create`, without the program's name and its own options.

    Raises `LauncherError` for what a machine cannot be given.
    """
    _refuse_what_cannot_be(plan)
    wanted, stage = plan.agent, plan.stage_dir
    routes = [
        (f"tcp:{LOOPBACK}:{port}", f"unix:{SOCKETS_DIR}/{daemon}.sock") for daemon, port in sockets(wanted).items()
    ]
    words = ["machine", "create", "--name", plan.machine, "--image", str(archive)]
    for key, value in labels(wanted, "agent"):
        words += ["--label", f"{key}={value}"]
    words += ["--cpus", str(max(1, round(wanted.limits.cpus))), "--mem", str(wanted.limits.memory // 2**20)]
    words += ["--user", wanted.user]
    for daemon in sockets(wanted):
        words += ["--mount-socket", f"{plan.sockets_dir / daemon}.sock:{SOCKETS_DIR}/{daemon}.sock"]
    mounts = [(stage / "runtime", RUNTIME_DIR, True)]
    if "pipelock" in wanted.daemons:
        mounts += [(stage / "certificates", place, True) for place in (CERTIFICATES_DIR, CERTIFICATES_ELSEWHERE)]
    if wanted.files:
        mounts.append((stage / "agent", CONFIG_DIR, True))
    mounts += [(bind.source, bind.target, bind.read_only) for bind in wanted.binds]
    for source, target, read_only in mounts:
        words += ["--volume", f"{source}:{target}{':ro' if read_only else ''}"]
    for name, value in wanted.env:
        words += ["--env", f"{name}={value.replace(f'//{SIDECARS}:', f'//{LOOPBACK}:')}"]
    if wanted.workdir:
        words += ["--workdir", wanted.workdir]
    lease = ("--lease", f"tcp:{LOOPBACK}:{SUPERVISE_PORT}") if wanted.lease else ()
    forward = (*PYTHON, "-c", source_of("forward.py"), json.dumps(routes), "--")
    return (*words, "--", *forward, *PYTHON, "-m", "bottle_init", *lease, "--", *wanted.command)


def _refuse_what_cannot_be(plan: SmolBottlePlan) -> None:
    wanted = plan.agent
    files_elsewhere = [file.target for file in wanted.files if not file.target.startswith(f"{CONFIG_DIR}/")]
    single = [str(bind.source) for bind in wanted.binds if not bind.source.is_dir()]
    faults = {
        f"single files cannot be mounted into a machine: {', '.join(single)}": bool(single),
        f"files cannot be brought to {', '.join(files_elsewhere)}": bool(files_elsewhere),
        "a copy or a clone of a project has no volume in a machine": bool(wanted.copied or wanted.clone),
        "a home that was kept cannot be brought into a machine": wanted.home_archive is not None,
        "the command of the agent's image is not known here: say agents.NAME.command": not wanted.command,
    }
    refuse(faults, 'a project comes by mode = "bind" there')
