"""Bottles on a Docker engine."""

from launcher.backend.docker.agent import Agent
from launcher.backend.docker.backend import DockerBottleBackend
from launcher.backend.docker.bottle_plan import DockerBottlePlan
from launcher.backend.docker.pipelock import PipelockProxy, pipelock_container_name
from launcher.plan import AgentPlan, PipelockProxyPlan
from launcher.staging import prepare_proxy

__all__ = [
    "Agent",
    "AgentPlan",
    "DockerBottleBackend",
    "DockerBottlePlan",
    "PipelockProxy",
    "PipelockProxyPlan",
    "pipelock_container_name",
    "prepare_proxy",
]
