"""The kernel rules of the bundle: each user's reach, and from where the agent's ports answer.

Every promise is asked of the kernel from inside, as the user that it is about, and once more with the rule that it
stands on taken away: what then changes shows that no other wall stood before this one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from docker.models.containers import Container
from docker.types import Mount
from testcontainers.core.container import DockerContainer
from testcontainers.core.network import Network

from tests.integration.support.image import (
    CAPABILITIES,
    POLICY,
    Bottle,
    Bundle,
    bottle,
    bundle,
    check,
    eventually,
    run,
    subnet,
)

pytestmark = pytest.mark.docker

_UIDS = {"root": 0, "egress": 971, "pipelock": 972, "git-gate": 973, "supervise": 974, "nobody": 65534}

# One line of JSON: what became of each target, `KIND HOST PORT`. Silence is waited out for the given number of seconds,
# and much longer where an answer is expected.
_REACH = """
import json, socket, sys
found = {}
patience, expected = float(sys.argv[1]), json.loads(sys.argv[2])
for target in sys.argv[3:]:
    kind, host, port = target.split()
    timeout = 60 if target in expected else patience
    try:
        if kind == "tcp":
            socket.create_connection((host, int(port)), timeout=timeout).close()
        elif kind == "udp":
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            connection = socket.socket(family, socket.SOCK_DGRAM)
            connection.settimeout(timeout)
            connection.connect((host, int(port)))
            connection.send(b"x")
            connection.recv(9)
        else:
            socket.getaddrinfo(host, 80)
        found[target] = "reached"
    except OSError as error:
        found[target] = type(error).__name__
print(json.dumps(found))
"""

# Answers everything that comes to these ports, by TCP and UDP. As a nameserver it says 192.0.2.55 to everything.
_LISTENER = """
import socket, socketserver, threading
class Udp(socketserver.BaseRequestHandler):
    def handle(self):
        query, connection = self.request
        if len(query) < 12:
            connection.sendto(b"y", self.client_address)
            return
        end = query.index(0, 12) + 5
        is_a = query[end - 4:end - 2] == b"\\0\\1"
        answer = b"\\xc0\\x0c\\0\\1\\0\\1\\0\\0\\0\\1\\0\\4\\xc0\\0\\2\\x37" if is_a else b""
        head = query[:2] + b"\\x81\\x80\\0\\1" + (b"\\0\\1" if is_a else b"\\0\\0") + b"\\0\\0\\0\\0"
        connection.sendto(head + query[12:end] + answer, self.client_address)
class Tcp(socketserver.BaseRequestHandler):
    def handle(self):
        pass
class V6(socketserver.ThreadingTCPServer):
    address_family = socket.AF_INET6
class V6Udp(socketserver.ThreadingUDPServer):
    address_family = socket.AF_INET6
for port in (53, 7000):
    threading.Thread(target=V6(("::", port), Tcp).serve_forever).start()
    threading.Thread(target=V6Udp(("::", port), Udp).serve_forever).start()
print("listening", flush=True)
"""


@dataclass(frozen=True)
class Place:
    """A bottle, something that listens on its internal network, and something on the bundle's other one."""

    bottle: Bottle
    inside: str
    """The address of a listener on the internal network, beside the agent."""
    outside: str
    outside_6: str
    stranger: DockerContainer
    """A container on the bundle's other network."""

    @property
    def bundle(self) -> Bundle:
        return self.bottle.bundle

    def own(self, network: int) -> str:
        """The bundle's own address on its internal (0) or its other network (1)."""
        networks = self.bundle.docker.attrs["NetworkSettings"]["Networks"].values()
        inside = subnet_of(self.inside)
        addresses = sorted((n["IPAddress"] for n in networks), key=lambda address: subnet_of(address) != inside)
        return str(addresses[network])

    def reach(self, user: str, *targets: str, expected: AbstractSet[str] = frozenset()) -> dict[str, str]:
        """What becomes of each target, as this user of the bundle."""
        return reach(self.bundle.container, *targets, user=str(_UIDS[user]), expected=expected)


def subnet_of(address: str) -> str:
    """The first two bytes: the engine's networks differ in those."""
    return ".".join(address.split(".")[:2])


def reach(
    container: DockerContainer, *targets: str, user: str = "", expected: AbstractSet[str] = frozenset()
) -> dict[str, str]:
    """What becomes of each target, from this container. An answer of the `expected` ones is waited for."""
    command = ("python3", "-I", "-c", _REACH, "2", json.dumps(sorted(expected)))
    found: dict[str, str] = json.loads(check(container, *command, *targets, user=user))
    return found


def reached(results: dict[str, str]) -> set[str]:
    return {target for target, result in results.items() if result == "reached"}


def _listener(stack: ExitStack, image: str, network: Network, **options: Any) -> tuple[DockerContainer, Any]:
    container = DockerContainer(image).with_network(network)
    container = container.with_kwargs(entrypoint=["python3", "-I", "-c", _LISTENER], **options)
    stack.callback(container.stop)
    container.start()
    wrapped: Container = container.get_wrapped_container()
    eventually(lambda: b"listening" in wrapped.logs(), "a listener")
    wrapped.reload()
    (attributes,) = wrapped.attrs["NetworkSettings"]["Networks"].values()
    return container, attributes


@pytest.fixture(scope="module")
def place(bundle_image: str, agent_image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """One for the module: a test that changes the rules puts them back."""
    with ExitStack() as stack:
        ipam = {"Config": [{"Subnet": "10.251.61.0/24"}, {"Subnet": "fd00:251:61::/64"}]}
        internet = stack.enter_context(Network(docker_network_kw={"enable_ipv6": True, "ipam": ipam}))
        stranger, outside = _listener(stack, bundle_image, internet)
        made = stack.enter_context(
            bottle(
                *(bundle_image, agent_image, tmp_path_factory.mktemp("stage"), POLICY),
                internet=internet,
                nameserver=outside["IPAddress"],
                # The other one's user is sent to egress whatever it connects to.
                engine="portable",
            )
        )
        _, inside = _listener(stack, bundle_image, made.inside)
        yield Place(made, inside["IPAddress"], outside["IPAddress"], outside["GlobalIPv6Address"], stranger)


def test_each_user_has_its_own_reach_and_no_more(place: Place) -> None:
    """W2, all of it at once: seven users' worth of targets, and what of them each may reach."""
    ports = (9098, 9099, 8888, 9418, 9100)
    targets = {
        *(f"tcp 127.0.0.1 {port}" for port in ports),
        # pipelock does not listen at its outer address.
        *(f"tcp {place.own(network)} {port}" for network, port in ((0, 8888), (0, 9100), (1, 9100))),
        *(f"{kind} {host} 7000" for kind in ("tcp", "udp") for host in (place.inside, place.outside, place.outside_6)),
        *(f"{kind} {place.outside} 53" for kind in ("tcp", "udp")),
        *("tcp 127.0.0.11 8888", "name no-container-has-this.test 0", "tcp ::1 9099"),
    }
    loopback = {target for target in targets if " 127.0.0.1 " in target or " 127.0.0.11 " in target}
    loopback |= {target for target in targets if place.own(0) in target or place.own(1) in target}
    may = {
        "root": {*loopback, "name no-container-has-this.test 0", f"tcp {place.outside} 53", f"udp {place.outside} 53"},
        "egress": {
            *(f"tcp {host} 7000" for host in (place.outside, place.outside_6)),
            *(f"{kind} {place.outside} 53" for kind in ("tcp", "udp")),
            "name no-container-has-this.test 0",
        },
        "pipelock": {"tcp 127.0.0.1 9099"},
        "git-gate": {"tcp 127.0.0.1 9098"},
        "supervise": set(),
        "nobody": set(),
    }
    for user, expected in may.items():
        assert reached(place.reach(user, *sorted(targets), expected=expected)) == expected, user


def test_what_may_not_be_reached_is_refused_at_once(place: Place) -> None:
    """A daemon that goes astray gets an error, and does not hang until it times out."""
    assert set(place.reach("supervise", f"tcp {place.outside} 7000", "tcp 127.0.0.1 9099").values()) == {
        "ConnectionRefusedError"
    }


def test_the_agents_ports_answer_the_agent_alone(place: Place) -> None:
    """W3: the same ports, asked from the internal network and from the bundle's other one."""
    ports = (8888, 9100, 9418)
    inside, outside = (
        {f"tcp {place.own(network)} {port}" for port in (*ports, 9098, 9099, 18082)} for network in (0, 1)
    )
    open_to_it = {f"tcp {place.own(0)} {port}" for port in ports}
    assert reached(reach(place.bottle.agent, *sorted(inside), expected=open_to_it)) == open_to_it
    assert reached(reach(place.stranger, *sorted(outside))) == set()
    # A stranger who knows the other address sends to it by the bundle: nothing is forwarded.
    assert reached(reach(place.bottle.agent, *sorted(outside))) == set()


@dataclass(frozen=True)
class Rule:
    """A rule, and what of the world depends on it alone."""

    says: str
    chain: str
    user: str
    target: str
    with_it: bool

    def __str__(self) -> str:
        return f"{self.chain}-{self.says}".replace(" ", "-")


_RULES = [
    Rule("ct state established,related accept", "output", "agent", "tcp {own} 8888", True),
    Rule("icmpv6 type", "output", "egress", "tcp {outside_6} 7000", True),
    Rule('meta skuid 0 oifname "lo" accept', "output", "root", "tcp 127.0.0.1 9099", True),
    Rule("ip daddr {internal} reject", "output", "egress", "tcp {inside} 7000", False),
    Rule('meta skuid 0 oifname != "lo" meta l4proto', "output", "egress", "name no-container-has-this.test 0", True),
    Rule("meta skuid 971 ip daddr 127.0.0.11", "output", "egress", "name no-container-has-this.test 0", True),
    Rule('meta skuid 971 oifname != "lo" meta l4proto tcp', "output", "egress", "tcp {outside} 7000", True),
    Rule('meta skuid 971 oifname != "lo" udp', "output", "egress", "udp {outside} 53", True),
    Rule("meta skuid 972 ip daddr 127.0.0.1 tcp dport 9099", "output", "pipelock", "tcp 127.0.0.1 9099", True),
    Rule("meta skuid 973 ip daddr 127.0.0.1 tcp dport 9098", "output", "git-gate", "tcp 127.0.0.1 9098", True),
    Rule('iifname "lo" accept', "input", "root", "tcp 127.0.0.1 9099", True),
    Rule("ct state established accept", "input", "egress", "tcp {outside} 7000", True),
    Rule("icmpv6 type", "input", "egress", "tcp {outside_6} 7000", True),
    Rule("ip saddr {internal} tcp dport", "input", "agent", "tcp {own} 8888", True),
]


@pytest.mark.parametrize("rule", _RULES, ids=str)
def test_each_rule_is_what_its_promise_stands_on(place: Place, rule: Rule) -> None:
    """The rule is taken away, what it promised changes, and it is put back."""
    facts = {
        "own": place.own(0),
        "inside": place.inside,
        "outside": place.outside,
        "outside_6": place.outside_6,
        "internal": subnet(place.bottle.inside),
    }
    target, says = rule.target.format(**facts), rule.says.format(**facts)

    def holds() -> bool:
        if "outside_6" in rule.target:
            # What is known of a neighbour is forgotten, so that it has to be asked for.
            check(place.bundle.container, "python3", "-I", "-c", _FORGET_NEIGHBOURS)
        of = place.bottle.agent if rule.user == "agent" else place.bundle.container
        user = "" if rule.user == "agent" else str(_UIDS[rule.user])
        return reached(reach(of, target, user=user)) == {target}

    before = nft(place, "list", "table", "inet", "bottle")
    eventually(lambda: holds() == rule.with_it, "what the rule promises")
    nft(place, "delete", "rule", "inet", "bottle", rule.chain, "handle", handle(place, rule.chain, says))
    try:
        eventually(lambda: holds() != rule.with_it, "the loss of what the rule promises")
    finally:
        restore(place, before)
    eventually(lambda: holds() == rule.with_it, "what the rule promises, again")


_FORGET_NEIGHBOURS = """
import socket, struct
# RTM_DELNEIGH has no wildcard: RTM_GETNEIGH lists them first (rtnetlink(7)).
route = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
body = struct.pack("=BxHiHBB", socket.AF_INET6, 0, 0, 0, 0, 0)
route.send(struct.pack("=IHHII", 16 + len(body), 30, 0x301, 1, 0) + body)
found, data = [], b""
while True:
    data = route.recv(1 << 16)
    done = False
    while data:
        length, kind = struct.unpack_from("=IH", data)
        if kind == 3:
            done = True
        elif kind == 28:
            found.append(data[16:length])
        data = data[(length + 3) & ~3:]
    if done:
        break
for neighbour in found:
    route.send(struct.pack("=IHHII", 16 + len(neighbour), 29, 5, 2, 0) + neighbour)
    route.recv(1 << 16)
"""


def nft(place: Place, *arguments: str) -> str:
    """A command of the operator's, who has what the container was granted."""
    return check(place.bundle.container, "nft", *arguments)


def handle(place: Place, chain: str, says: str) -> str:
    """The kernel's number of the one rule that begins so."""
    listed = nft(place, "--handle", "list", "chain", "inet", "bottle", chain)
    (found,) = (line for line in listed.splitlines() if line.strip().startswith(says))
    return found.rpartition("# handle ")[2]


def restore(place: Place, table: str) -> None:
    """The whole table again, as setup sets it."""
    text = f"delete table inet bottle\n{table}"
    check(place.bundle.container, "sh", "-c", 'printf %s "$T" | nft -f -', environment={"T": text})


_LISTEN = "python3 -I -c 'import signal, socket; held = socket.create_server((\"\", 7001)); signal.pause()'"


@pytest.mark.parametrize("chain", ["output", "input"])
def test_what_no_rule_speaks_of_is_dropped(place: Place, chain: str) -> None:
    """The policies of the two chains: with `accept` (and, on the way out, without the refusals) everything passes.

    What listens is the test's own, since the daemons look at the address that they were called by themselves.
    """
    target = f"tcp {place.own(1)} 7001" if chain == "input" else "tcp 127.0.0.1 9099"
    if chain == "input":
        check(place.bundle.container, "sh", "-c", f"{_LISTEN} > /dev/null 2>&1 &")
        eventually(lambda: reached(place.reach("root", "tcp 127.0.0.1 7001")), "a listener in the bundle")

    def passes() -> bool:
        if chain == "input":
            return reached(reach(place.stranger, target)) != set()
        return reached(place.reach("supervise", target)) != set()

    before = nft(place, "list", "table", "inet", "bottle")
    assert not passes()
    open_up = before.replace(
        f"hook {chain} priority filter; policy drop", f"hook {chain} priority filter; policy accept"
    )
    assert open_up != before
    restore(place, open_up.replace("\t\treject\n", "").replace("\t\tmeta l4proto tcp reject with tcp reset\n", ""))
    try:
        eventually(passes, "what no rule stops any more")
    finally:
        restore(place, before)
    assert not passes()


def test_without_net_admin_the_bundle_does_not_start(bundle_image: str, tmp_path: Path) -> None:
    """W4: it says why, what to grant, and what the policy may accept instead."""
    poor = [name for name in CAPABILITIES if name != "NET_ADMIN"]
    with bundle(bundle_image, tmp_path, capabilities=poor) as started:
        assert started.wait_ended() == 69, started.logs
        assert "the kernel rules do not stand: the container may not set them (NET_ADMIN)" in started.logs
        assert "grant NET_ADMIN (--cap-add NET_ADMIN), or accept it by the policy" in started.logs
        assert '"event": "child_started", "level": "info", "child": "egress"' not in started.logs


# In the place of nft(8): it says that the rules are set, and sets none.
_IDLE_NFT = """#!/bin/sh
[ "$1" = -f ] || echo "table inet bottle {\n}"
"""


def test_rules_that_do_not_stand_start_no_daemon(bundle_image: str, tmp_path: Path) -> None:
    """W2: what nft says does not count, but what the kernel holds. The defence is the comparison in `raise_walls`."""
    idle = tmp_path / "nft"
    idle.write_text(_IDLE_NFT)
    idle.chmod(0o755)
    mounts = [Mount("/usr/sbin/nft", str(idle), type="bind", read_only=True)]
    with bundle(bundle_image, tmp_path, mounts=mounts) as started:
        assert started.wait_ended() == 69, started.logs
        assert "the kernel rules do not stand: the kernel holds" in started.logs
        assert '"event": "child_started", "level": "info", "child": "egress"' not in started.logs


def test_a_policy_may_do_without_the_rules(bundle_image: str, tmp_path: Path) -> None:
    """A policy may do without the kernel rules, and the log says so."""
    poor = [name for name in CAPABILITIES if name != "NET_ADMIN"]
    policy = f'walls = "without-kernel-rules"\n{POLICY}'
    with bundle(bundle_image, tmp_path, policy, capabilities=poor) as started:
        started.wait_healthy()
        assert "walls: without-kernel-rules, as the policy accepts" in started.logs
        assert check(started.container, "cat", "/run/bottle/walls") == "without-kernel-rules\n"
        assert reached(reach(started.container, "tcp 127.0.0.1 9099", user="974")), "nothing stops supervise"


def test_without_an_internal_network_loopback_alone(bundle_image: str, tmp_path: Path) -> None:
    """W3: no BOTTLE_INTERNAL, no guess. Loopback answers, so the daemons are there."""
    with bundle(bundle_image, tmp_path) as started:
        started.wait_healthy()
        own = str(started.docker.attrs["NetworkSettings"]["IPAddress"])
        with ExitStack() as stack:
            neighbour = DockerContainer(bundle_image).with_kwargs(entrypoint=["sleep", "600"])
            stack.callback(neighbour.stop)
            neighbour.start()
            assert reached(reach(neighbour, f"tcp {own} 8888", f"tcp {own} 9100", f"tcp {own} 9418")) == set()
        assert reached(reach(started.container, "tcp 127.0.0.1 8888"))


def test_a_network_that_is_none_starts_no_daemon(bundle_image: str, tmp_path: Path) -> None:
    with bundle(bundle_image, tmp_path, environment={"BOTTLE_INTERNAL": "10.0.0.1/8"}) as started:
        assert started.wait_ended() == 69, started.logs
        assert "BOTTLE_INTERNAL: 10.0.0.1/8 has host bits set" in started.logs


@pytest.mark.parametrize("name", ["bottle-health", "bottle-kill-switch", "bottle-policy", "supervise-operator"])
def test_what_the_engine_executes_drops_net_admin(place: Place, name: str) -> None:
    """W2: the rules could be undone with it. strace shows the capset(2), and what the sets are at the end."""
    watched = (
        "import runpy, sys\n"
        "sys.argv = ['x', 'status']\n"
        "sys.addaudithook(lambda event, arguments: None)\n"
        "import atexit\n"
        "def told():\n"
        "    lines = open('/proc/self/status').read().splitlines()\n"
        "    print('SETS', [l.split()[1] for l in lines if l.startswith('Cap')], file=sys.stderr)\n"
        "import posix\n"
        "posix._exit = lambda code: (told(), sys.stderr.flush())\n"
        "atexit.register(told)\n"
        f"runpy.run_path('/usr/local/bin/{name}')\n"
    )
    _, said = run(place.bundle.container, "python3", "-I", "-c", watched)
    sets = [line for line in said.splitlines() if line.startswith("SETS")]
    assert sets, said
    for held in json.loads(sets[0].removeprefix("SETS ").replace("'", '"')):
        assert not int(held, 16) & 1 << 12, said


def test_setup_runs_once(place: Place) -> None:
    """W2: a second run would put new keys under running daemons. The init refuses it, and so does setup itself."""
    before = check(place.bundle.container, "cat", "/run/bottle/ca/pipelock-ca.pem")
    for verb in ("start", "restart"):
        code, said = run(place.bundle.container, "python3", "-I", "-m", "bottle_init", "ctl", verb, "setup")
        assert (code, "NET_ADMIN" in said) == (1, True), said
    code, said = run(place.bundle.container, "python3", "-I", "-m", "sidecars.prepare")
    assert (code, "setup: it has run already" in said) == (69, True), said
    assert check(place.bundle.container, "cat", "/run/bottle/ca/pipelock-ca.pem") == before
    place.bundle.wait_healthy()
