"""The kernel rules: in the bundle each user has its own reach, and the agent's ports have the agent (docs/walls.md).

nft(8) sets them: one table of the family `inet` holds the rules of IPv4 and IPv6 both, is replaced in one transaction,
and is listed in a form that can be compared line by line. iptables-restore would take two transactions, and its rules
match no address family together. The rules are written here exactly as `nft list` shows them, for that comparison.
"""

from __future__ import annotations

import ipaddress
import re

from bottle_init.core.values import Value
from sidecars import layout
from sidecars.identity import user_ids
from sidecars.processes import run

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

TABLE: Final = "bottle"
INTERNAL: Final = "BOTTLE_INTERNAL"
"""The environment variable with the agent's network: CIDRs, separated by commas."""

_NFT: Final = "/usr/sbin/nft"
# Numbers for priorities, as for users by default, and no counters: nothing that depends on traffic or on files.
_LIST: Final = (_NFT, "--numeric-priority", "--stateless", "list", "table", "inet", TABLE)
_RESOLVER: Final = "127.0.0.11"
"""Docker's resolver, in every container on a network of its own. Docker rewrites the port before the filter sees it."""

_OF_REAL_PIPELOCK: Final = (layout.TRANSPARENT_PORT, layout.PIPELOCK_PORT)
_DNS: Final = "meta l4proto { tcp, udp } th dport 53"
_REAL_NAMES: Final = f"meta l4proto {{ tcp, udp }} th dport {layout.REAL_NAMES_PORT}"
_NEIGHBOURS: Final = "nd-router-solicit, nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert"
_REJECT: Final = {"ip": "reject with icmp port-unreachable", "ip6": "reject with icmpv6 port-unreachable"}
_EXTERNAL: Final = re.compile(r"#\s*ExtServers:\s*\[(.*)\]")


class WallsError(Exception):
    """Why the rules do not stand, in words for the operator."""


class Nameservers(Value):
    """Where names are asked for, from resolv.conf."""

    addresses: tuple[str, ...] = ()
    engine: bool = False
    """Whether the container asks the engine's resolver, which asks others in turn from inside this namespace."""
    forwarded: tuple[str, ...] | None = None
    """Whom that asks from here; `None` where the engine does not say."""


class Reach(Value):
    """What the rules depend on, besides the users."""

    internal: tuple[str, ...] = ()
    nameservers: Nameservers = Nameservers()
    transparent: bool = True
    engine: str = "portable"


def internal_networks(text: str) -> tuple[str, ...]:
    """The networks of `BOTTLE_INTERNAL`, normalized. Raises `WallsError`."""
    found = []
    for word in filter(None, (word.strip() for word in text.split(","))):
        try:
            found.append(str(ipaddress.ip_network(word)))
        except ValueError as error:
            raise WallsError(f"{INTERNAL}: {error}") from None
    return tuple(found)


def nameservers(resolv_conf: str) -> Nameservers:
    """Whom resolv.conf(5) names. Docker adds in a comment whom its own resolver asks, since version 24."""
    addresses = []
    forwarded = None
    for line in resolv_conf.splitlines():
        words = line.split()
        if len(words) > 1 and words[0] == "nameserver":
            addresses.append(words[1].partition("%")[0])
        elif match := _EXTERNAL.match(line):
            # host(ADDRESS) is asked from the host's namespace.
            forwarded = tuple(word for word in match[1].split() if not word.startswith("host("))
    engine = _RESOLVER in addresses
    return Nameservers(
        tuple(address for address in addresses if _family(address) and address != _RESOLVER),
        engine,
        tuple(word for word in forwarded if _family(word)) if engine and forwarded is not None else None,
    )


def _family(address: str) -> str:
    """nft's word for an address's family; "" for what is no address."""
    try:
        return "ip6" if ipaddress.ip_network(address).version == 6 else "ip"
    except ValueError:
        return ""


def ruleset(reach: Reach, users: dict[str, int]) -> str:
    """The table, in the form in which nft lists it. `users` are the daemons' uids."""
    chains: dict[str, tuple[str, str, tuple[str, ...]]] = {
        "output": ("filter hook output priority 0", "drop", _output(reach, users)),
        "input": ("filter hook input priority 0", "drop", _input(reach)),
        "forward": ("filter hook forward priority 0", "drop", ()),
    }
    if reach.engine == "pipelock":
        # It connects to origins itself, and knows no parent proxy: the kernel sends it to egress instead. It looks up
        # names first, and needs nobody outside for that. Before Docker's own rules for 127.0.0.11, which have -100.
        pipelock = f"meta skuid {users['pipelock']}"
        redirected = (
            f"{pipelock} {_DNS} redirect to :{layout.REAL_NAMES_PORT}",
            f"{pipelock} ip daddr != 127.0.0.0/8 meta l4proto tcp redirect to :{layout.TRANSPARENT_PORT}",
        )
        chains["to_egress"] = ("nat hook output priority -101", "accept", redirected)
    lines = [f"table inet {TABLE} {{"]
    for name, (kind, policy, rules) in chains.items():
        lines += [
            f"\tchain {name} {{",
            f"\t\ttype {kind}; policy {policy};",
            *(f"\t\t{rule}" for rule in rules),
            "\t}",
            "",
        ]
    return "\n".join([*lines[:-1], "}", ""])


def _output(reach: Reach, users: dict[str, int]) -> tuple[str, ...]:
    egress, pipelock, git_gate = (f"meta skuid {users[name]}" for name in ("egress", "pipelock", "git-gate"))
    loopback = "ip daddr 127.0.0.1 tcp dport"
    return (
        # Resets, and what the kernel answers by itself, have no owner; RELATED are errors about what is established.
        "ct state established,related accept",
        f"icmpv6 type {{ {_NEIGHBOURS} }} ip6 hoplimit 255 accept",
        # The checks of the init and of the operator.
        'meta skuid 0 oifname "lo" accept',
        # What the agent may send to, only its own ports may answer.
        *(f"{_family(network)} daddr {network} {_REJECT[_family(network)]}" for network in reach.internal),
        *_lookups(reach.nameservers),
        # By the port before it was rewritten: everything else in the bundle listens at this address too.
        f"{egress} ip daddr {_RESOLVER} ct original proto-dst 53 accept",
        # Its own addresses are behind the loopback interface as well.
        f'{egress} oifname != "lo" meta l4proto tcp accept',
        f'{egress} oifname != "lo" udp dport 53 accept',
        f"{pipelock} {loopback} {layout.EGRESS_PORT} accept",
        # The real one is sent to egress by the kernel, and clients without a proxy to it by its parent.
        *(f"{pipelock} {loopback} {port} accept" for port in _OF_REAL_PIPELOCK if reach.engine == "pipelock"),
        *((f'{pipelock} oifname "lo" {_REAL_NAMES} accept',) if reach.engine == "pipelock" else ()),
        f"{git_gate} {loopback} {layout.EGRESS_GIT_PORT} accept",
        "meta l4proto tcp reject with tcp reset",
        "reject",
    )


def _lookups(found: Nameservers) -> tuple[str, ...]:
    """Of uid 0: the engine's resolver sends as that, from inside this namespace."""
    if not found.engine:
        return ()
    if found.forwarded is None:
        return (f'meta skuid 0 oifname != "lo" {_DNS} accept',)
    return tuple(f"meta skuid 0 {_family(address)} daddr {address} {_DNS} accept" for address in found.forwarded)


def _input(reach: Reach) -> tuple[str, ...]:
    ports = sorted({layout.PIPELOCK_PORT, layout.GIT_GATE_PORT, layout.SUPERVISE_PORT})
    if reach.transparent:
        ports = [53, 80, 443, *ports]
    listed = ", ".join(map(str, ports))
    from_agent = [f"{_family(network)} saddr {network}" for network in reach.internal]
    return (
        'iifname "lo" accept',
        "ct state established accept",
        "ct state related meta l4proto { icmp, ipv6-icmp } accept",
        f"icmpv6 type {{ {_NEIGHBOURS} }} ip6 hoplimit 255 accept",
        *(f"{source} tcp dport {{ {listed} }} accept" for source in from_agent),
        *(f"{source} udp dport 53 accept" for source in from_agent if reach.transparent),
    )


def raise_walls(reach: Reach) -> None:
    """Sets the rules in place of whatever this table held, and reads them back. Raises `WallsError`."""
    users = {name: user_ids(name)[0] for name in ("egress", "pipelock", "git-gate", "supervise")}
    wanted = ruleset(reach, users)
    # `add` first, so that `delete` finds something; the three are one transaction.
    replaced = f"add table inet {TABLE}\ndelete table inet {TABLE}\n{wanted}"
    done = run((_NFT, "-f", "-"), replaced.encode())
    if done.code:
        raise WallsError(_why(done.errors))
    listed = run(_LIST)
    if listed.code:
        raise WallsError(_why(listed.errors))
    if difference := compare(wanted, listed.output.decode("utf-8", "replace")):
        raise WallsError(difference)


def compare(wanted: str, listed: str) -> str:
    """The first rule that does not stand as it was set, in words; "" where all do."""
    expected, found = (list(filter(None, (line.strip() for line in text.splitlines()))) for text in (wanted, listed))
    for position in range(max(len(expected), len(found))):
        ours = expected[position] if position < len(expected) else "nothing"
        theirs = found[position] if position < len(found) else "nothing"
        if ours != theirs:
            return f"the kernel holds {theirs!r} where {ours!r} was set"
    return ""


def _why(errors: bytes) -> str:
    said = " ".join(errors.decode("utf-8", "replace").split())
    if "Operation not permitted" in said:
        return "the container may not set them (NET_ADMIN)"
    return said or "nft failed without a word"
