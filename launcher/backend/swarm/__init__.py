"""Bottles on a Docker Swarm: services that are pinned to one node, with configs and secrets."""

from launcher.backend.swarm.backend import SwarmBottleBackend
from launcher.backend.swarm.render import SwarmBottlePlan, render

__all__ = ["SwarmBottleBackend", "SwarmBottlePlan", "render"]
