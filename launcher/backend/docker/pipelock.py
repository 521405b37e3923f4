"""The bundle's container: started from a plan, stopped by its name."""

import json

from launcher.backend.docker.removal import attempt
from launcher.backend.docker.render import render_proxy
from launcher.docker import Command, docker, docker_json
from launcher.errors import LauncherError
from launcher.interrupts import hold_signals
from launcher.plan import LABEL_SLUG, PipelockProxyPlan, object_name, pipelock_container_name
from launcher.steps import Hands, Step

__all__ = ["PipelockProxy", "pipelock_container_name"]

# Asks until the answer is good, for two minutes; the container's end ends it too.
WAIT = (
    'n=0; until bottle-health >/dev/null 2>&1; do n=$((n+1)); [ "$n" -lt 600 ] || exec bottle-health; sleep 0.2; done'
)


class PipelockProxy:
    """What the agent talks to: the container in which pipelock, egress and their fellows run."""

    @staticmethod
    def start(plan: PipelockProxyPlan, hands: Hands | None = None) -> str:
        """Start a plan whose networks exist, and return the container's name.

        With `hands` that have been given its steps already this waits for them alone, and the gate tells whether it
        answers; without, the steps are done here, and it is healthy when this returns.

        Raises `ValueError` for a plan without networks, `LauncherError` where it cannot be started.
        """
        if not (plan.internal_network and plan.egress_network):
            raise ValueError("a plan is started once `launch` has made its networks and filled them in")
        if hands is not None:
            hands.finish("sidecars.start")
            return plan.name
        internal = "" if plan.subnets else _addresses_of(plan.internal_network)
        stage = object_name(plan.slug, "stage")
        with hold_signals() as held, Hands(held) as own:
            own.begin((
                *render_proxy(plan, internal=internal),
                Step("stage.rm", Command(("docker", "rm", stage)), ("stage.fill", "sidecars.create")),
                Step("sidecars.wait", Command(("docker", "exec", plan.name, "sh", "-c", WAIT)), ("sidecars.start",)),
            ))  # fmt: skip
            own.finish()
        return plan.name

    @staticmethod
    def stop(proxy_target: str) -> None:
        """Stop and remove the container that `start` named, with the volumes that were its alone. Idempotent.

        Raises `LauncherError` where the engine refuses.
        """
        described = docker("container", "inspect", proxy_target, check=False)
        faults = attempt("container", "stop", proxy_target)
        faults += attempt("container", "rm", "--force", "--volumes", proxy_target)
        if described.code == 0 and (volumes := _own_volumes(json.loads(described.stdout)[0])):
            faults += attempt("volume", "rm", "--force", *volumes)
        if faults:
            raise LauncherError("\n".join(faults))


def _addresses_of(network: str) -> str:
    return str(docker_json("network", "inspect", network)[0]["IPAM"]["Config"][0]["Subnet"])


def _own_volumes(container: dict[str, object]) -> list[str]:
    """The volumes in a container that were made for its bottle: those that its label tells."""
    config, mounts = container["Config"], container["Mounts"]
    assert isinstance(config, dict) and isinstance(mounts, list)  # noqa: PT018 -- what the engine always writes
    if LABEL_SLUG not in (config.get("Labels") or {}):
        return []
    return [str(mount["Name"]) for mount in mounts if mount["Type"] == "volume"]
