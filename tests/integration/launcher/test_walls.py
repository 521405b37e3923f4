"""A whole bottle, next to a small internet: what its agent reaches, and what it does not."""

import hashlib
import http.server
import ipaddress
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from launcher import state
from launcher.backend import get_bottle_backend
from launcher.demo import Internet, ask
from launcher.docker import docker, docker_json
from launcher.manifest import AgentSpec, BottleSpec, Credential
from launcher.plan import new_slug, object_name
from tests.integration.support.launching import leftovers

pytestmark = [pytest.mark.docker]

ALLOWED, DENIED = "api.walls.test", "elsewhere.walls.test"
SECRET = "made-up-secret-of-the-walls"
TOKEN = "ghp_" + "0123456789abcdefghijABCDEFGHIJ012345"
# Tries to connect once and says what came of it. Both images have Python and no other tool in common.
CONNECT = """
import socket, sys
try:
    socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=6).close()
    print("connected")
except OSError as error:
    print(type(error).__name__)
"""


@dataclass(frozen=True)
class Bottle:
    """One that runs, and what is around it."""

    slug: str
    agent: str
    bundle: str
    internet: Internet


@pytest.fixture(scope="module")
def bottle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bottle]:
    slug = new_slug("walls")
    backend = get_bottle_backend("docker")
    stage_dir = tmp_path_factory.mktemp("state") / slug
    state.create(stage_dir, slug)
    authority = stage_dir.parent / "authority.pem"
    secret = stage_dir.parent / "secret"
    secret.write_text(SECRET + "\n")
    internet = Internet(slug, stage_dir)
    try:
        authority.write_text(internet.start((ALLOWED, DENIED)))
        spec = BottleSpec(
            "walls",
            slug=slug,
            agent=AgentSpec(command=("sleep", "infinity")),
            allow=(ALLOWED,),
            private=(ALLOWED,),
            upstream_ca=authority,
            credentials=(Credential("walls", ALLOWED, prefix="Bearer ", from_file=secret),),
        )
        agent = backend.launch(backend.prepare(spec, stage_dir))
        bundle = object_name(slug, "sidecars")
        internet.connect(bundle)
        yield Bottle(slug, agent, bundle, internet)
    finally:
        backend.stop(slug)
        assert leftovers(slug) == []


@pytest.fixture(scope="module")
def host_service() -> Iterator[int]:
    """A service of the host on all its addresses; the value is its port."""
    server = http.server.ThreadingHTTPServer(("0.0.0.0", 0), http.server.BaseHTTPRequestHandler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    thread.join()
    server.server_close()


def connect(container: str, address: str, port: int) -> str:
    """What a connection from a container comes to: `connected`, or the name of the error."""
    return docker("exec", container, "python3", "-c", CONNECT, address, str(port)).stdout.strip()


def gateway(bottle: Bottle, role: str) -> str:
    """The address that the host has, or by Docker's account would have, on one of the bottle's networks."""
    (network,) = docker_json("network", "inspect", object_name(bottle.slug, role))
    subnet = ipaddress.ip_network(network["IPAM"]["Config"][0]["Subnet"])
    return str(network["IPAM"]["Config"][0].get("Gateway") or next(subnet.hosts()))


def test_an_allowed_host_sees_the_credential(bottle: Bottle) -> None:
    """An allowed host answers, and sees the credential."""
    answer = ask(bottle.agent, f"https://{ALLOWED}/path")
    assert answer.code == 200, answer.body
    assert hashlib.sha256(f"Bearer {SECRET}".encode()).hexdigest() in answer.body


def test_the_agent_never_has_the_credential(bottle: Bottle) -> None:
    described = docker("container", "inspect", bottle.agent, bottle.bundle).stdout
    seen = docker("exec", bottle.agent, "sh", "-c", "env; cat /proc/*/environ; cat /etc/bottle/*").stdout
    assert ALLOWED not in seen
    assert "sidecars:8888" in seen, "the look itself works"
    assert SECRET not in seen + described


def test_a_host_that_is_not_allowed_is_denied(bottle: Bottle) -> None:
    for scheme in ("https", "http"):
        answer = ask(bottle.agent, f"{scheme}://{DENIED}/")
        assert answer.code == 403, answer.body
    assert DENIED not in docker("logs", bottle.internet.name).stdout


def test_a_secret_in_a_url_does_not_arrive(bottle: Bottle) -> None:
    """A request with a secret in its URL is denied, and does not arrive."""
    answer = ask(bottle.agent, f"https://{ALLOWED}/?key={TOKEN}")
    assert answer.code == 403, answer.body
    assert ask(bottle.agent, f"https://{ALLOWED}/?key=arrives").code == 200
    logs = docker("logs", bottle.internet.name)
    assert "key=arrives" in logs.stdout + logs.stderr, "what arrives is logged"
    assert TOKEN not in logs.stdout + logs.stderr


def test_past_the_proxy_there_is_no_way(bottle: Bottle) -> None:
    assert connect(bottle.bundle, bottle.internet.address, 443) == "connected", "the bundle has one"
    assert connect(bottle.agent, bottle.internet.address, 443) != "connected"


def test_egress_itself_is_out_of_the_agents_reach(bottle: Bottle) -> None:
    assert connect(bottle.bundle, "127.0.0.1", 9099) == "connected"
    assert connect(bottle.agent, "sidecars", 8888) == "connected"
    assert connect(bottle.agent, "sidecars", 9099) != "connected"


@pytest.mark.parametrize("role", ["internal", "egress"])
def test_the_host_is_out_of_the_agents_reach(bottle: Bottle, host_service: int, role: str) -> None:
    assert connect(bottle.bundle, gateway(bottle, "egress"), host_service) == "connected", "the service is there"
    assert connect(bottle.agent, gateway(bottle, role), host_service) != "connected"


def test_the_agents_network_is_internal(bottle: Bottle) -> None:
    """The engine itself calls the agent's network internal.

    The second wall behind the first: by itself, a bridge without an address leads nowhere either.
    """
    networks = docker_json("container", "inspect", bottle.agent)[0]["NetworkSettings"]["Networks"]
    assert list(networks) == [object_name(bottle.slug, "internal")]
    assert docker_json("network", "inspect", *networks)[0]["Internal"] is True


def test_names_of_the_outside_do_not_resolve(bottle: Bottle) -> None:
    assert docker("exec", bottle.agent, "getent", "hosts", "sidecars").stdout
    for name in (ALLOWED, "name.invalid"):
        assert docker("exec", bottle.agent, "getent", "hosts", name, check=False).code != 0


def test_the_agent_is_nobody(bottle: Bottle) -> None:
    status = dict(
        line.split(":\t", 1) for line in docker("exec", bottle.agent, "cat", "/proc/1/status").stdout.splitlines()
    )
    assert status["Uid"].split() == ["1000"] * 4
    assert {status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    assert status["NoNewPrivs"] == "1"


def test_there_is_no_way_by_ipv6(bottle: Bottle) -> None:
    """The bridge has a link-local address at the host's end, which an agent with such an address would reach."""
    addresses = docker("exec", bottle.agent, "cat", "/proc/net/if_inet6", check=False).stdout.splitlines()
    assert {line.split()[-1] for line in addresses} <= {"lo"}


def test_the_bundle_is_healthy_on_a_read_only_root(bottle: Bottle) -> None:
    assert docker("exec", bottle.bundle, "python3", "-I", "-m", "bottle_init", "health").code == 0
    assert docker("exec", bottle.bundle, "touch", "/usr/x", check=False).code != 0


def test_the_operators_files_are_his_alone(bottle: Bottle) -> None:
    label = docker_json("container", "inspect", bottle.agent)[0]["Config"]["Labels"]["claude-bottle.stage"]
    stage_dir = Path(label)
    assert stage_dir.stat().st_mode & 0o077 == 0
    assert (stage_dir / "secrets" / "walls").stat().st_mode & 0o177 == 0
