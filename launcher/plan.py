"""What will be made, as values. Nothing in here touches the engine or the disk.

A plan says what a bottle is on any engine: two networks, the bundle's container, the agent's, and the short-lived ones
beside them. A backend renders it.
"""

import hashlib
import ipaddress
import re
import secrets
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Self

BUNDLE_IMAGE = "claude-bottle-sidecars"
AGENT_IMAGE = "claude-bottle-agent"
DAEMONS = ("egress", "pipelock", "git-gate", "supervise")

LABEL_SLUG = "claude-bottle.slug"
LABEL_ROLE = "claude-bottle.role"
LABEL_STAGE = "claude-bottle.stage"
LABEL_OPERATOR = "claude-bottle.operator"
LABEL_AGENT = "claude-bottle.agent"

# The bundle's name on the internal network, and what listens there.
SIDECARS = "sidecars"
PROXY_PORT, GIT_PORT, SUPERVISE_PORT = 8888, 9418, 9100
AGENT_PORTS = {"pipelock": PROXY_PORT, "git-gate": GIT_PORT, "supervise": SUPERVISE_PORT}
PROXY_URL = f"http://{SIDECARS}:{PROXY_PORT}"
GIT_URL = f"git://{SIDECARS}:{GIT_PORT}"
SUPERVISE_URL = f"http://{SIDECARS}:{SUPERVISE_PORT}/mcp"

# In the bundle.
SECRETS_DIR = "/run/secrets"
POLICY_DIR = "/etc/bottle/policy"
POLICY_TARGET = f"{POLICY_DIR}/policy.toml"
UPSTREAM_CA_TARGET = f"{POLICY_DIR}/upstream-ca.pem"
STATE_DIR = "/var/lib/bottle"

# In the agent's container.
RUNTIME_DIR = "/opt/bottle"
CONFIG_DIR = "/etc/bottle"
GIT_CONFIG = f"{CONFIG_DIR}/gitconfig"
PROMPT_FILE = f"{CONFIG_DIR}/prompt"
MCP_CONFIG = f"{CONFIG_DIR}/mcp.json"
CERTIFICATES_DIR = "/etc/ssl/certs"
CERTIFICATES_ELSEWHERE = "/etc/pki/ca-trust/extracted/pem"
CA_STORE = f"{CERTIFICATES_DIR}/ca-certificates.crt"
PIPELOCK_CA_TARGET = f"{CERTIFICATES_DIR}/bottle.pem"
JAVA_STORE = f"{CERTIFICATES_DIR}/bottle.p12"
JAVA_STORE_PASSWORD = "changeit"
PROJECT_DIR = "/workspace"
# In the containers beside it, which the agent never sees.
BASE_DIR = "/opt/bottle-base"

ADDRESS_POOL = "10.213.0.0/16"


@dataclass(frozen=True, slots=True)
class Limits:
    """What a container may take: bytes of memory (swap included), CPUs, processes, bytes of logs that are kept."""

    memory: int
    cpus: float
    pids: int
    log_size: int = 20 * 2**20


AGENT_LIMITS = Limits(memory=4 * 2**30, cpus=4.0, pids=2048)
BUNDLE_LIMITS = Limits(memory=2**30, cpus=2.0, pids=512)


@dataclass(frozen=True, slots=True)
class Volume:
    """A volume of the bottle's, named by its role, at a place in a container."""

    role: str
    target: str
    read_only: bool = False
    copy: bool = True
    """Whether what the image has in that place is copied into it while it is empty."""


@dataclass(frozen=True, slots=True)
class Bind:
    """A directory or file of the operator's machine in the agent's container: its project, or a mount."""

    source: Path
    target: str
    read_only: bool = True


@dataclass(frozen=True, slots=True)
class File:
    """A file for a volume, read from `source` when it is sent; a directory is sent with what is in it.

    Without a `mode` each keeps its own.
    """

    source: Path
    target: str
    mode: int | None = 0o644
    owner: tuple[int, int] = (0, 0)


@dataclass(frozen=True, slots=True)
class Clone:
    """A repository of git-gate's that is cloned into the project's volume before the agent starts."""

    repository: str
    upstream: str
    """Its URL, which the clone's remote keeps; git-gate's own where it has no upstream."""
    target: str


@dataclass(frozen=True, slots=True)
class Subnets:
    """The addresses of one bottle: two halves of a /27 of the pool."""

    internal: str
    egress: str

    @classmethod
    def drawn(cls, pool: str = ADDRESS_POOL) -> Self:
        """A pair at random; the engine says whether it is free.

        Raises `ValueError` for a pool that is no IPv4 network or has no room for a /27.
        """
        network = ipaddress.IPv4Network(pool)
        if network.prefixlen > 27:
            raise ValueError(f"{pool} has no room for a network of 32 addresses")
        start = int(network.network_address) + 32 * secrets.randbelow(1 << (27 - network.prefixlen))
        internal, egress = ipaddress.IPv4Network((start, 27)).subnets()
        return cls(str(internal), str(egress))

    @property
    def bundle(self) -> str:
        """The bundle's address on the internal network."""
        return str(ipaddress.IPv4Network(self.internal)[2])

    @property
    def agent(self) -> str:
        """The agent's address."""
        return str(ipaddress.IPv4Network(self.internal)[3])

    @property
    def bundle_outside(self) -> str:
        """The bundle's address on the egress network."""
        return str(ipaddress.IPv4Network(self.egress)[2])

    @property
    def gateways(self) -> tuple[str, str]:
        """What would be, or is, the host's address on either network."""
        return str(ipaddress.IPv4Network(self.internal)[1]), str(ipaddress.IPv4Network(self.egress)[1])


@dataclass(frozen=True, slots=True)
class BundleSettings:
    """The bundle as its bottle wants it."""

    image: str = BUNDLE_IMAGE
    daemons: tuple[str, ...] = DAEMONS
    engine: str = "auto"
    net_admin: bool = True
    """Whether it may set rules in its own network namespace: those of the walls, and the real pipelock's redirect."""
    secrets: tuple[str, ...] = ()
    limits: Limits = BUNDLE_LIMITS
    lease: bool = False
    """Whether its standard input is the launcher's lease: it stops when that ends."""
    agent_lease: bool = False
    """Whether it stops when its agent has gone."""
    host_rules_may_lack: bool = False
    """Whether the bottle starts where the rules on the engine's host cannot be set."""
    private: tuple[tuple[str, int], ...] = ()
    """What of the host's own the bundle may reach: addresses (`""` for any, where the manifest has a name), ports."""
    checked_from_the_start: bool = False
    """Whether the engine and its client know a shorter interval of health checks until the first good one."""
    labels: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class PipelockProxyPlan:
    """The bundle of one bottle. `prepare_proxy` fills the first two, `launch` the networks once they have been made."""

    yaml_path: Path
    """The policy of the proxy, as rendered."""
    slug: str
    internal_network: str = ""
    egress_network: str = ""
    subnets: Subnets | None = None
    settings: BundleSettings = BundleSettings()

    @property
    def name(self) -> str:
        """The container's name."""
        return pipelock_container_name(self.slug)


@dataclass(frozen=True, slots=True)
class AgentPlan:
    """The agent of one bottle. `launch` fills the network, and the command where the image's own is meant."""

    slug: str
    image: str = AGENT_IMAGE
    user: str = "1000:1000"
    command: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    home: str = "/home/agent"
    workdir: str = ""
    tty: bool = False
    init: str = "bottle"
    runtime: str = ""
    limits: Limits = AGENT_LIMITS
    daemons: tuple[str, ...] = DAEMONS
    """Those of the bundle: what the agent may count on."""
    transparent: bool = False
    volumes: tuple[Volume, ...] = ()
    binds: tuple[Bind, ...] = ()
    tmpfs: tuple[str, ...] = ()
    files: tuple[File, ...] = ()
    copied: File | None = None
    """The project's directory, where a copy of it goes into a volume."""
    clone: Clone | None = None
    home_archive: Path | None = None
    """A home that was kept (`bottle commit`), for the home's volume."""
    bundle_image: str = BUNDLE_IMAGE
    """The bundle's image, whose git clones."""
    lease: bool = False
    """Whether its init holds a connection to the bundle, and ends with it."""
    internal_network: str = ""
    subnets: Subnets | None = None
    labels: tuple[tuple[str, str], ...] = ()

    @property
    def name(self) -> str:
        """The container's name."""
        return object_name(self.slug, "agent")

    @property
    def ids(self) -> tuple[int, int]:
        """The numbers in `user`; a group that is not given is that of the same number."""
        uid, _, gid = self.user.partition(":")
        return int(uid), int(gid or uid)


@dataclass(frozen=True, slots=True)
class BottlePlan:
    """One bottle. `prepare` leaves the networks empty; `launch` fills them once they exist."""

    slug: str
    stage_dir: Path
    proxy: PipelockProxyPlan
    agent: AgentPlan

    def with_networks(self, subnets: Subnets) -> Self:
        """As `launch` fills it in."""
        internal, egress = (object_name(self.slug, role) for role in ("internal", "egress"))
        proxy = replace(self.proxy, internal_network=internal, egress_network=egress, subnets=subnets)
        return replace(self, proxy=proxy, agent=replace(self.agent, internal_network=internal, subnets=subnets))


def new_slug(name: str) -> str:
    """A name for a bottle that is free: `demo-3f9a1c`.

    It is valid as part of the name of a container or network (`[a-zA-Z0-9][a-zA-Z0-9_.-]+`), and short enough for a
    DNS label of 63 bytes with a role before or after it.
    """
    words = re.sub(r"[^a-z0-9]+", "-", name.lower())[:32].strip("-")
    return f"{words or 'bottle'}-{secrets.token_hex(3)}"


def object_name(slug: str, role: str) -> str:
    """The name of a bottle's container, network or volume."""
    return f"bottle-{slug}-{role}"


def pipelock_container_name(slug: str) -> str:
    """The name of the container that pipelock runs in: the bundle's."""
    return object_name(slug, SIDECARS)


def slug_of(target: str) -> str:
    """The slug in a container's name as `start` returns it; a slug is taken as it is."""
    match = re.fullmatch(r"bottle-(?P<slug>.+)-(?:agent|sidecars)", target)
    return match["slug"] if match else target


def short_id(slug: str) -> str:
    """What stands for a slug where names are short: of bridges (15 bytes, IFNAMSIZ) and of tables of rules."""
    return hashlib.sha256(slug.encode()).hexdigest()[:10]


def bridge_name(slug: str, role: str) -> str:
    """The host's interface of a bottle's network `internal` or `egress`."""
    return f"bo{short_id(slug)}{role[0]}"


def inside(path: str, directory: str) -> bool:
    """Whether a path in a container is a directory or below it."""
    return PurePosixPath(path).is_relative_to(directory)
