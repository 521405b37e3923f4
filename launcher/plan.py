"""What will be made, as values. Nothing in here touches the engine or the disk."""

import re
import secrets
from dataclasses import dataclass
from pathlib import Path

BUNDLE_IMAGE = "claude-bottle-sidecars"
AGENT_IMAGE = "claude-bottle-agent"
DAEMONS = ("egress", "pipelock", "git-gate", "supervise")

LABEL_SLUG = "claude-bottle.slug"
LABEL_ROLE = "claude-bottle.role"
LABEL_STAGE = "claude-bottle.stage"

# The bundle's name on the internal network, and what listens there.
SIDECARS = "sidecars"
PROXY_URL = f"http://{SIDECARS}:8888"
GIT_URL = f"git://{SIDECARS}"
SUPERVISE_URL = f"http://{SIDECARS}:9100/mcp"

SECRETS_DIR = "/run/secrets"
POLICY_TARGET = "/etc/bottle/policy.toml"
UPSTREAM_CA_TARGET = "/etc/bottle/ca/origins.pem"
PIPELOCK_CA_SOURCE = "/run/bottle/ca/pipelock-ca.pem"
PIPELOCK_CA_TARGET = "/etc/bottle/pipelock-ca.pem"


@dataclass(frozen=True, slots=True)
class Mount:
    """A file of the stage directory inside a container, always read-only."""

    source: Path
    target: str


@dataclass(frozen=True, slots=True)
class BundlePlan:
    """The container of the four daemons."""

    name: str
    image: str
    env: tuple[tuple[str, str], ...]
    mounts: tuple[Mount, ...]
    engine: str
    """Which pipelock engine: `auto`, `pipelock` or `portable`."""
    redirect: bool
    """Whether it may set the redirect that the real pipelock engine needs (NET_ADMIN); `launch` knows it of `auto`."""


@dataclass(frozen=True, slots=True)
class AgentPlan:
    """The container of the agent."""

    name: str
    image: str
    user: str
    command: tuple[str, ...]
    env: tuple[tuple[str, str], ...]
    mounts: tuple[Mount, ...]
    tty: bool


@dataclass(frozen=True, slots=True)
class BottlePlan:
    """One bottle. `prepare` leaves the two networks empty; `launch` fills them once they exist."""

    slug: str
    stage_dir: Path
    yaml_path: Path
    bundle: BundlePlan
    agent: AgentPlan
    internal_network: str = ""
    egress_network: str = ""

    def labels(self, role: str) -> tuple[tuple[str, str], ...]:
        """The labels of every object made for this bottle: clean-up finds leftovers by them and by nothing else."""
        return ((LABEL_SLUG, self.slug), (LABEL_ROLE, role), (LABEL_STAGE, str(self.stage_dir)))


def new_slug(name: str) -> str:
    """A name for a bottle that is free: `demo-3f9a1c`.

    It is valid as part of the name of a container or network (`[a-zA-Z0-9][a-zA-Z0-9_.-]+`), and short enough for a
    DNS label of 63 bytes with a role before or after it.
    """
    words = re.sub(r"[^a-z0-9]+", "-", name.lower())[:32].strip("-")
    return f"{words or 'bottle'}-{secrets.token_hex(3)}"


def object_name(slug: str, role: str) -> str:
    """The name of a bottle's container or network."""
    return f"bottle-{slug}-{role}"


def slug_of(target: str) -> str:
    """The slug in a container's name as `start` returns it; a slug is taken as it is."""
    match = re.fullmatch(r"bottle-(?P<slug>.+)-(?:agent|sidecars)", target)
    return match["slug"] if match else target
