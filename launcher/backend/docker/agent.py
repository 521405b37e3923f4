"""The agent's container: started from a plan, stopped by its name."""

from launcher.backend.docker.removal import attempt, stop_with_volumes
from launcher.backend.docker.render import render_agent, render_runtime
from launcher.interrupts import hold_signals
from launcher.plan import AgentPlan, object_name, pipelock_container_name
from launcher.steps import Hands

HELPERS = ("gate", "stage", "clone")
"""The containers that are there for the start alone."""


class Agent:
    """The container that the walls are about."""

    @staticmethod
    def start(plan: AgentPlan, hands: Hands | None = None) -> str:
        """Start a plan whose network exists and whose bundle runs, and return the container's name.

        The gate asks first, in the agent's place. With `hands` that have been given its steps already this waits for
        them alone.

        Raises `ValueError` for a plan without a network, `LauncherError` where it cannot be started.
        """
        if not plan.internal_network:
            raise ValueError("a plan is started once `launch` has made its networks and filled them in")
        if hands is not None:
            hands.finish("agent.start")
            return plan.name
        steps = (*render_runtime(plan), *render_agent(plan, pipelock_container_name(plan.slug), bundle_runs=True))
        try:
            with hold_signals() as held, Hands(held) as own:
                own.begin(steps)
                own.finish()
        finally:
            attempt("container", "rm", "--force", *(object_name(plan.slug, role) for role in HELPERS))
        return plan.name

    @staticmethod
    def stop(target: str) -> None:
        """Stop and remove the container that `start` named, with the volumes that were its alone. Idempotent.

        Raises `LauncherError` where the engine refuses.
        """
        stop_with_volumes(target, grace=False)
