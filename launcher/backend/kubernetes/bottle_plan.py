"""A bottle's plan on a Kubernetes cluster."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from launcher.errors import LauncherError
from launcher.plan import BottlePlan, object_name

PREFIX = "CLAUDE_BOTTLE_KUBERNETES_"
PULL_POLICIES = ("Never", "IfNotPresent", "Always")


@dataclass(frozen=True, slots=True)
class Cluster:
    """What only the operator of a cluster knows."""

    pod_addresses: str = "10.244.0.0/16"
    """Where pods have their addresses (CIDR): from there, and from loopback, the bundle takes connections."""
    runtime_class: str = ""
    """The RuntimeClass of the agent's pod: gVisor or Kata, where the cluster has one."""
    pull_policy: str = "IfNotPresent"
    forbidden: tuple[str, ...] = ()
    """Addresses (`IP:PORT`) that the gate tries besides its own: of the nodes, of the API server."""
    agent_sandbox: bool = False
    """Whether the agent's pod is a `Sandbox` of agent-sandbox (agents.x-k8s.io) and not a bare pod."""

    @classmethod
    def of_environment(cls, environment: Mapping[str, str] = os.environ) -> Self:
        """As the variables CLAUDE_BOTTLE_KUBERNETES_{POD_ADDRESSES,RUNTIME_CLASS,PULL_POLICY,FORBIDDEN,AGENT_SANDBOX}
        say; an empty one says nothing.

        Raises `LauncherError` for a value that cannot be meant.
        """

        default = cls()

        def said(name: str, otherwise: str) -> str:
            return environment.get(PREFIX + name) or otherwise

        pull_policy = said("PULL_POLICY", default.pull_policy)
        if pull_policy not in PULL_POLICIES:
            raise LauncherError(f"${PREFIX}PULL_POLICY: {pull_policy!r}", hint=f"one of {', '.join(PULL_POLICIES)}")
        return cls(
            pod_addresses=said("POD_ADDRESSES", default.pod_addresses),
            runtime_class=said("RUNTIME_CLASS", default.runtime_class),
            pull_policy=pull_policy,
            forbidden=tuple(said("FORBIDDEN", "").replace(",", " ").split()),
            agent_sandbox=said("AGENT_SANDBOX", "0") == "1",
        )


@dataclass(frozen=True, slots=True)
class KubernetesBottlePlan(BottlePlan):
    """One bottle, and the cluster that it is for."""

    cluster: Cluster = Cluster()
    bundle_address: str = ""
    """The address of the bundle's pod, once it has one."""

    @property
    def bundle_namespace(self) -> str:
        """Where the bundle's pod is."""
        return object_name(self.slug, "bundle")

    @property
    def agent_namespace(self) -> str:
        """Where the agent's pod is."""
        return object_name(self.slug, "agent")
