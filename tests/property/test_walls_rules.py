"""The kernel rules as text: what they are made of, and how one that does not stand is found."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecars import walls
from sidecars.walls import Nameservers, Reach, WallsError

USERS = {"egress": 971, "pipelock": 972, "git-gate": 973, "supervise": 974}
INTERNAL = st.sampled_from([(), ("172.30.5.0/28",), ("fd00:5::/64",), ("172.30.5.0/28", "fd00:5::/64")])
NAMESERVERS = st.sampled_from(
    [Nameservers(("192.0.2.53",)), Nameservers((), True), Nameservers((), True, ("192.0.2.53", "2001:db8::53"))]
)
REACHES = st.builds(Reach, INTERNAL, NAMESERVERS, st.booleans(), st.sampled_from(["portable", "pipelock"]))


def rules(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


@given(REACHES)
def test_both_ends_drop_what_no_rule_speaks_of(reach: Reach) -> None:
    """Whatever the rules depend on, the three chains drop by policy, and only named users send."""
    text = walls.ruleset(reach, USERS)
    for hook in ("input", "output", "forward"):
        assert f"type filter hook {hook} priority 0; policy drop;" in text
    senders = [line for line in rules(text) if "skuid" in line]
    assert not [line for line in senders if "skuid 974" in line], "supervise sends nothing"
    accepted = [line for line in rules(text) if line.endswith("accept") and "saddr" in line]
    assert all(any(f"saddr {network} " in line for network in reach.internal) for line in accepted)
    assert bool(accepted) == bool(reach.internal)


@given(REACHES)
def test_the_real_pipelock_asks_nobody_outside(reach: Reach) -> None:
    """Its queries go to a resolver of the bundle's own, before Docker's rules for 127.0.0.11 (-100) see them."""
    lines = rules(walls.ruleset(reach, USERS))
    if reach.engine == "portable":
        assert not [line for line in lines if "redirect" in line]
        return
    assert "type nat hook output priority -101; policy accept;" in lines
    redirected = [line for line in lines if "redirect" in line]
    assert redirected[0] == "meta skuid 972 meta l4proto { tcp, udp } th dport 53 redirect to :18053"
    # Nothing that its user may send leaves the loopback interface.
    accepted = [line for line in lines if line.startswith("meta skuid 972") and line.endswith("accept")]
    assert all("ip daddr 127.0.0.1 " in line or 'oifname "lo"' in line for line in accepted)


@given(REACHES, st.data())
def test_one_rule_that_differs_is_named(reach: Reach, data: st.DataObject) -> None:
    """One that is missing, another one, or one more."""
    wanted = walls.ruleset(reach, USERS)
    assert walls.compare(wanted, wanted) == ""
    lines = wanted.splitlines(keepends=True)
    at = data.draw(st.sampled_from([number for number, line in enumerate(lines) if line.strip() not in ("", "}")]))
    changed = data.draw(st.sampled_from([[], [lines[at], lines[at]], [lines[at].rstrip("\n") + " comment\n"]]))
    listed = "".join([*lines[:at], *changed, *lines[at + 1 :]])
    assert walls.compare(wanted, listed).startswith("the kernel holds '")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nameserver 192.0.2.1\n", Nameservers(("192.0.2.1",))),
        ("nameserver fe80::1%eth0\nnameserver nonsense\n", Nameservers(("fe80::1",))),
        ("nameserver 127.0.0.11\noptions ndots:0\n", Nameservers((), True)),
        ("nameserver 127.0.0.11\n# ExtServers: [host(127.0.0.53) 192.0.2.9]\n", Nameservers((), True, ("192.0.2.9",))),
        ("nameserver 127.0.0.11\n# ExtServers: [host(127.0.0.53)]\n", Nameservers((), True, ())),
        ("", Nameservers()),
    ],
)
def test_nameservers_are_read_from_resolv_conf(text: str, expected: Nameservers) -> None:
    assert walls.nameservers(text) == expected


def test_networks_are_cidrs() -> None:
    assert walls.internal_networks("172.30.5.0/28, fd00:5::/64,") == ("172.30.5.0/28", "fd00:5::/64")
    assert walls.internal_networks("") == ()
    for wrong in ("172.30.5.1/28", "sidecars", "172.30.5.0/33"):
        with pytest.raises(WallsError, match="BOTTLE_INTERNAL"):
            walls.internal_networks(wrong)
