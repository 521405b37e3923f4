"""Manifests: what the operator writes about bottles and agents, and what comes of it (docs/launcher.md)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from launcher.manifest.resolve import Wishes, again, find, from_document, load, own_sources
from launcher.spec import AgentSpec, BottleSpec, Credential, Host, Project, Repository

__all__ = [
    "AgentSpec",
    "BottleSpec",
    "Credential",
    "Host",
    "Project",
    "Repository",
    "Wishes",
    "again",
    "find",
    "load",
    "own_sources",
    "parse",
]


def parse(document: Mapping[str, Any], path: Path) -> BottleSpec:
    """The bottle of the only agent of a manifest that was read from `path`; raises `ManifestError` with every fault."""
    return from_document(dict(document), path)
