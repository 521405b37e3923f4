"""The allowlist: whatever a host is spelled like, only what the operator listed is allowed."""

from __future__ import annotations

import ipaddress
from operator import add
from string import ascii_lowercase, digits

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from sidecars.hosts import Address, Allowlist, Rule, as_address, normalize, same_host, split_port

LABEL = st.builds(
    "{}{}".format,
    st.sampled_from(ascii_lowercase),
    st.just("")
    | st.builds(add, st.text(ascii_lowercase + digits + "-", max_size=8), st.sampled_from(ascii_lowercase + digits)),
)
NAME = st.lists(LABEL, min_size=2, max_size=4).map(".".join)
PORT = st.integers(1, 65535)


def allowlist(*entries: str) -> Allowlist:
    """An allowlist of these entries."""
    return Allowlist(tuple(Rule.parse(entry) for entry in entries))


@given(NAME, NAME, PORT)
def test_a_name_allows_itself_and_no_other(listed: str, asked: str, port: int) -> None:
    assert allowlist(listed).allows(asked, port) == (asked == listed and port in (80, 443))


@given(NAME, NAME)
def test_a_wildcard_allows_what_is_below(domain: str, asked: str) -> None:
    """A wildcard allows what is below it and nothing else."""
    wildcard = allowlist(f"*.{domain}")
    assert not wildcard.allows(domain, 443)
    assert wildcard.allows(f"{asked}.{domain}", 443)
    assert wildcard.allows(asked, 443) == asked.endswith(f".{domain}")
    assert not wildcard.allows(f"x{domain}", 443)
    assert not wildcard.allows(f"{domain}.evil.test", 443)


@given(NAME, PORT, PORT)
def test_a_port_is_the_only_one(name: str, listed: int, asked: int) -> None:
    assert allowlist(f"{name}:{listed}").allows(name, asked) == (listed == asked)


@given(NAME, st.sampled_from([str.upper, str.title, lambda name: name + "."]))
def test_the_spelling_of_a_name_does_not_matter(name: str, spell: object) -> None:
    assert callable(spell)
    assert allowlist(name).allows(spell(name), 443)
    assert same_host(name, spell(name))


@given(st.text(max_size=40), PORT)
def test_an_empty_list_allows_nothing(text: str, port: int) -> None:
    """No text is allowed by an empty list, and none raises."""
    assert not Allowlist().allows(text, port)
    assert not allowlist("api.example.com").allows(text, port) or normalize(text) == "api.example.com"


@pytest.mark.parametrize(
    "host",
    [
        "api.example.com.evil.org",
        "api.example.com@evil.org",
        "api.example.com%00.evil.org",
        "api.example.com\x00",
        "api.example.com/",
        "api.example.com#",
        "api.example.com:443",
        " api.example.com",
        "api.example.com ",
        "аpi.example.com",  # noqa: RUF001 - the first letter is Cyrillic: that is the point.
        "api..example.com",
        "",
        ".",
    ],
)
def test_a_disguise_is_not_allowed(host: str) -> None:
    assert not allowlist("api.example.com").allows(host, 443)


@pytest.mark.parametrize("host", ["127.1", "2130706433", "0x7f000001", "0177.0.0.1", "1.2.3", "a.0x10"])
def test_an_address_in_disguise_is_no_host(host: str) -> None:
    """inet_aton(3) would read these as addresses."""
    with pytest.raises(ValueError, match=r"neither a host name nor an address|not a host name"):
        normalize(host)


@pytest.mark.parametrize("entry", ["*", "*.", "*.com", "*.10.0.0.1", "a.*.example.com", "a*.example.com", "x:0", "x:y"])
def test_what_is_no_rule_is_refused(entry: str) -> None:
    with pytest.raises(ValueError, match=r"wildcard|port|host name"):
        Rule.parse(entry)


@given(st.ip_addresses(), PORT)
def test_host_and_port_are_split_as_they_were_joined(address: Address, port: int) -> None:
    host = f"[{address}]" if address.version == 6 else str(address)
    assert split_port(f"{host}:{port}") == (host, port)
    assert split_port(host) == (host, None)


@given(st.ip_addresses())
def test_a_name_never_leads_to_this_machine(address: Address) -> None:
    """A name never leads to this machine or its link.

    Whether the name is listed itself or by a wildcard. Metadata services are link-local.
    """
    refused = address.is_loopback or address.is_link_local or address.is_multicast or address.is_unspecified
    assume(not (isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped))
    for entry in ("api.example.com", "*.example.com"):
        reason = allowlist(entry).refusal("api.example.com", 443, address)
        if refused:
            assert reason is not None
        elif address.is_global:
            assert reason is None


@pytest.mark.parametrize("address", ["10.0.0.1", "172.17.0.1", "192.168.1.1", "100.64.0.1", "fc00::1", "198.18.0.1"])
def test_a_private_address_needs_its_own_entry(address: str) -> None:
    """A private address needs a name that is itself listed."""
    parsed = as_address(address)
    assert parsed is not None
    assert allowlist("origin.example.com").refusal("origin.example.com", 443, parsed) is None
    assert allowlist("*.example.com").refusal("origin.example.com", 443, parsed) is not None
    assert allowlist("origin.example.com:80").refusal("origin.example.com", 443, parsed) is not None


@pytest.mark.parametrize("address", ["127.0.0.1", "169.254.169.254", "::1", "0.0.0.0", "fe80::1"])
def test_a_listed_address_is_the_operators_word(address: str) -> None:
    """An address that is listed as such is allowed: the operator has said so."""
    entry = f"[{address}]:8080" if ":" in address else f"{address}:8080"
    parsed = as_address(address)
    assert parsed is not None
    assert allowlist(entry).refusal(address, 8080, parsed) is None
    assert allowlist("api.example.com:8080").refusal("api.example.com", 8080, parsed) is not None


def test_an_ipv4_address_inside_an_ipv6_one() -> None:
    """An IPv4 address inside an IPv6 one is judged as the IPv4 address."""
    assert as_address("::ffff:127.0.0.1") == ipaddress.ip_address("127.0.0.1")
    mapped = ipaddress.ip_address("::ffff:169.254.169.254")
    assert allowlist("api.example.com").refusal("api.example.com", 443, mapped) is not None
