"""W1 on the host's side, in nftables: two tables of rules a bottle, set by a container that has the host's network.

What comes in from the internal bridge is dropped at the bridge's own ingress, before the host's network stack sees it:
every protocol and every kind of frame, ARP included, whether the bundle lives or not. What agent and bundle send each
other passes from port to port and never gets there. New connections from the egress bridge to one of the host's own
addresses are dropped before Docker's rewriting of destinations (priority -100), so published ports are among them, but
for the host's own resolvers and for what the manifest calls private.
"""

from launcher.plan import bridge_name, short_id

PREFIX = "bottle_"
NAMESERVERS = "@nameservers@"
"""Stands in the rules for what only the engine's host knows: the addresses in its resolv.conf."""

# Reads the rules from standard input. No bridge reaches an address of the loopback.
APPLY = (
    'addresses=$(awk \'$1 == "nameserver" && $2 ~ /^[0-9.]+$/ { printf ", %s", $2 }\' /etc/resolv.conf); '
    f'sed "s/{NAMESERVERS}/127.0.0.1$addresses/" | exec nft -f -'
)
# Removes the tables of bridges that are not there any more, and says their names.
SWEEP = (
    "nft list tables | while read -r _ family name; do "
    f'case $name in {PREFIX}*) ls /sys/class/net | grep -q "^bo${{name#{PREFIX}}}[ie]$" '
    '|| { nft delete table "$family" "$name" && echo "$family $name"; } ;; esac; done'
)
# Says the tables of one bottle, or nothing.
SHOW = "nft list ruleset"


def table_name(slug: str) -> str:
    """The name of both tables of a bottle."""
    return PREFIX + short_id(slug)


def set_rules(slug: str, private: tuple[tuple[str, int], ...] = ()) -> str:
    """The rules of a bottle as one transaction, in the place of those that it may have already."""
    table, internal, egress = table_name(slug), bridge_name(slug, "internal"), bridge_name(slug, "egress")
    exceptions = [
        f"    {f'ip daddr {address} ' if address else ''}tcp dport {port} accept" for address, port in private
    ]
    return "\n".join((
        remove_rules(slug),
        f"table netdev {table} {{",
        "  chain internal {",
        f'    type filter hook ingress device "{internal}" priority 0; policy drop;',
        "    counter drop",
        "  }",
        "}",
        f"table inet {table} {{",
        "  chain egress {",
        "    type filter hook prerouting priority -150; policy accept;",
        f'    iifname "{egress}" ct state new fib daddr type {{ local, broadcast, multicast, anycast }} jump host',
        "  }",
        "  chain host {",
        f"    ip daddr {{ {NAMESERVERS} }} meta l4proto {{ tcp, udp }} th dport 53 accept",
        *exceptions,
        "    counter drop",
        "  }",
        "}",
        "",
    ))  # fmt: skip


def remove_rules(slug: str) -> str:
    """The removal of a bottle's rules, whether there are any or not: a table that is added may always be deleted."""
    table = table_name(slug)
    return "\n".join(f"add table {family} {table}\ndelete table {family} {table}" for family in ("netdev", "inet"))
