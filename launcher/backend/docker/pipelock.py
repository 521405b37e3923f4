"""The bundle's container: started from a plan, stopped by its name."""

from launcher.backend.docker.removal import stop_with_volumes
from launcher.backend.docker.render import render_proxy
from launcher.docker import Command, docker_json
from launcher.interrupts import hold_signals
from launcher.plan import PipelockProxyPlan, object_name, pipelock_container_name
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
        stop_with_volumes(proxy_target)


def _addresses_of(network: str) -> str:
    return str(docker_json("network", "inspect", network)[0]["IPAM"]["Config"][0]["Subnet"])
