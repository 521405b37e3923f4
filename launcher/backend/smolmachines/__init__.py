"""Bottles whose agent is a microVM of smolmachines, behind the same bundle."""

from launcher.backend.smolmachines.backend import SmolmachinesBottleBackend
from launcher.backend.smolmachines.render import SmolBottlePlan, machine_argv

__all__ = ["SmolBottlePlan", "SmolmachinesBottleBackend", "machine_argv"]
