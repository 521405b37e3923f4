"""Host names and addresses: how they are written, which of them the policy allows."""

from __future__ import annotations

import ipaddress
import re

from bottle_init.core.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
_WEB_PORTS = frozenset({80, 443})


def as_address(host: str) -> Address | None:
    """The address that `host` spells, with or without brackets; `None` for a name.

    An IPv4 address inside an IPv6 one (`::ffff:10.0.0.1`) is the IPv4 address: the kernel connects to that.
    """
    try:
        address = ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address):
        return address.ipv4_mapped or address
    return address


def normalize(host: str) -> str:
    """`host` as the allowlist compares it: lower case, A-labels, no final dot, no brackets.

    Raises `ValueError` for what is neither a host name (RFC 1123, underscores tolerated) nor an address.
    """
    address = as_address(host)
    if address is not None:
        return str(address)
    name = host.removesuffix(".")
    if not name.isascii():
        name = name.encode("idna").decode("ascii")
    name = name.lower()
    labels = name.split(".")
    if len(name) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise ValueError(f"{host!r} is not a host name")
    if labels[-1].isdigit() or labels[-1].startswith("0x"):
        # inet_aton(3) reads 127.1, 2130706433 and 0x7f000001 as addresses, and so would whoever connects.
        raise ValueError(f"{host!r} is neither a host name nor an address in its usual form")
    return name


def split_port(text: str) -> tuple[str, int | None]:
    """`HOST[:PORT]` as host and port. Raises `ValueError` for a port that is none."""
    if text.count(":") > 1 and not text.startswith("["):
        return text, None
    host, colon, port = text.rpartition(":")
    if not colon or port.endswith("]"):
        return text, None
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise ValueError(f"{port!r} is not a port (1 to 65535)")
    return host, int(port)


class Rule(Value):
    """One entry of `egress.allow`."""

    host: str
    wildcard: bool = False
    port: int | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises `ValueError`, with words for the operator, where `text` is no `HOST[:PORT]` or `*.DOMAIN[:PORT]`."""
        host, port = split_port(text)
        if host.startswith("*."):
            if as_address(host[2:]) is not None:
                raise ValueError("a wildcard stands before a domain, not before an address")
            domain = normalize(host[2:]) if host[2:] else ""
            if "." not in domain:
                raise ValueError("a wildcard has the form *.DOMAIN, and DOMAIN has at least two labels")
            return cls(domain, wildcard=True, port=port)
        if "*" in host:
            raise ValueError("a wildcard has the form *.DOMAIN")
        return cls(normalize(host), port=port)

    def matches(self, host: str, port: int) -> bool:
        """Whether the rule allows `host` (normalized) at `port`."""
        if port != self.port and (self.port is not None or port not in _WEB_PORTS):
            return False
        return host.endswith("." + self.host) if self.wildcard else host == self.host


class Allowlist(Value):
    """`egress.allow`. What no rule allows is denied."""

    rules: tuple[Rule, ...] = ()

    def _matching(self, host: str, port: int) -> list[Rule]:
        try:
            name = normalize(host)
        except ValueError:
            return []
        return [rule for rule in self.rules if rule.matches(name, port)]

    def allows(self, host: str, port: int) -> bool:
        """Whether a connection to `host` at `port` is allowed. What is not a host name never is."""
        return bool(self._matching(host, port))

    def refusal(self, host: str, port: int, address: Address) -> str | None:
        """Why `host`, which resolved to `address`, must not be connected to; `None` if it may be.

        The rules are those of docs/policy.md: an address that is listed as such is the operator's own word; a
        loopback, link-local, multicast or unspecified one is never what a name may lead to; any other that is not
        global is accepted for a name that is listed itself, and refused where only a wildcard allows it.
        """
        if isinstance(address, ipaddress.IPv6Address):
            address = address.ipv4_mapped or address
        matching = self._matching(host, port)
        if not matching:
            return f"{host}:{port} is not allowed by egress.allow"
        if any(rule.host == str(address) for rule in matching):
            return None
        if address.is_loopback or address.is_link_local or address.is_multicast or address.is_unspecified:
            return f"{host} resolves to {address}, which no name may lead to"
        if not address.is_global and all(rule.wildcard for rule in matching):
            return f"{host} resolves to {address}, a private address, and is allowed by a wildcard only"
        return None


def same_host(one: str, other: str) -> bool:
    """Whether both spell the same host. What is not a host's name is the same as nothing."""
    try:
        return normalize(one) == normalize(other)
    except ValueError:
        return False
