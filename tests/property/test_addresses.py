"""The addresses that no name may lead to: egress's tables beside Python's registry, and beside docs/policy.md."""

from __future__ import annotations

import ipaddress
import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

ROOT = Path(__file__).resolve().parents[2]
SOURCE = (ROOT / "images/bundle/proxy/internal/judge/address.go").read_text("utf-8")
Networks = list[IPv4Network | IPv6Network]


def table(name: str) -> list[tuple[str, str]]:
    """The rows of one of address.go's tables: a prefix, and its name."""
    found = re.search(rf"^var {name} = blocks\((.*?)^\)", SOURCE, re.DOTALL | re.MULTILINE)
    assert found, name
    return re.findall(r'\[2\]string\{"([^"]+)", "([^"]+)"\}', found.group(1))


def networks(*names: str) -> Networks:
    """The prefixes of these tables."""
    return [ipaddress.ip_network(prefix) for name in names for prefix, _ in table(name)]


REFUSED, EXCEPTIONS = networks("notGlobal", "never", "metadata"), networks("global")


def covered(address: IPv4Address | IPv6Address, by: Networks) -> bool:
    """Whether one of the prefixes has it."""
    return any(address.version == network.version and address in network for network in by)


def special(strategy: st.SearchStrategy[IPv4Address | IPv6Address]) -> st.SearchStrategy[IPv4Address | IPv6Address]:
    """Addresses that Python does not call globally reachable; those that embed another one are another rule's."""
    return strategy.filter(lambda a: not a.is_global and not (isinstance(a, IPv6Address) and a.ipv4_mapped))


# Hypothesis draws from the registry's special blocks as often as from all the rest.
@given(special(st.ip_addresses()))
def test_what_python_calls_not_global_is_refused(address: IPv4Address | IPv6Address) -> None:
    """`ipaddress.is_global` is the standard library's copy of the registries. Later registries have exceptions."""
    assert covered(address, REFUSED) or covered(address, EXCEPTIONS), address


@pytest.mark.parametrize("prefix", [prefix for prefix, _ in table("global")])
def test_exceptions_lie_in_what_is_refused(prefix: str) -> None:
    """An exception that is one of nothing would be an error in the tables."""
    assert covered(ipaddress.ip_network(prefix)[0], networks("notGlobal"))


def test_the_documented_clouds_are_those_of_the_code() -> None:
    """docs/policy.md has the table of metadata services, row by row."""
    page = (ROOT / "docs/policy.md").read_text("utf-8").partition("| address | cloud |")[2].partition("\n\n")[0]
    rows = [
        tuple(cell.strip() for cell in line.strip("| ").split(" | ")) for line in page.splitlines() if "---" not in line
    ]
    assert [row for row in rows if row != ("",)] == table("metadata")
