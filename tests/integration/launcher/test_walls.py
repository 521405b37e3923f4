"""The walls of a bottle, tried from its agent's container on every backend. What an agent may do is tried beside it.

Each test of a wall says which defence it holds; each was seen to fail with that defence taken away.
"""

import hashlib
import ipaddress
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from launcher.backend.podman import docker_is_podman
from launcher.demo import ask
from launcher.docker import docker, docker_json
from launcher.host_rules import SHOW, remove_rules, table_name
from launcher.plan import BUNDLE_IMAGE, object_name
from launcher.sandbox import seccomp_profile
from launcher.spec import AgentSpec, BottleSpec, Credential, Host
from tests.integration.support.launching import Bottle, a_bottle

pytestmark = [pytest.mark.docker]

ALLOWED, DENIED = "api.walls.test", "elsewhere.walls.test"
SECRET = "made-up-secret-of-the-walls"
TOKEN = "ghp_" + "0123456789abcdefghijABCDEFGHIJ012345"
METADATA, WORLD = "169.254.169.254", "192.0.2.1"
ENGINE = "podman" if docker_is_podman() else "docker"


@pytest.fixture(scope="module", params=[ENGINE])
def bottle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bottle]:
    directory = tmp_path_factory.mktemp("walls")
    secret = directory / "secret"
    secret.write_text(SECRET + "\n")
    spec = BottleSpec(
        "walls",
        agent=AgentSpec(command=("sleep", "infinity")),
        hosts=(Host(ALLOWED, private=True),),
        credentials=(Credential("walls", ALLOWED, prefix="Bearer ", from_file=secret),),
    )
    with a_bottle(request.param, directory, spec, ALLOWED, DENIED) as bottle:
        yield bottle


def addresses(bottle: Bottle, role: str) -> ipaddress.IPv4Network:
    """The addresses of one of its networks."""
    (network,) = docker_json("network", "inspect", object_name(bottle.slug, role))
    return ipaddress.IPv4Network(network["IPAM"]["Config"][0]["Subnet"])


def bundle_address(bottle: Bottle) -> str:
    return str(addresses(bottle, "internal")[2])


# What goes through.


def test_an_allowed_host_sees_the_credential(bottle: Bottle) -> None:
    """An allowed host answers, and sees the credential."""
    answer = ask(bottle.agent, f"https://{ALLOWED}/path")
    assert answer.code == 200, answer.body
    assert hashlib.sha256(f"Bearer {SECRET}".encode()).hexdigest() in answer.body


def test_the_agent_never_has_the_credential(bottle: Bottle) -> None:
    """Nor has a label, an environment, or a disk of the engine's."""
    described = docker("container", "inspect", bottle.agent, bottle.bundle).stdout
    look = "env; cat /proc/*/environ; find / -xdev -type f -size -64k -exec grep -l made-up-secret {} + 2>/dev/null"
    seen = docker("exec", bottle.agent, "sh", "-c", look, check=False).stdout
    assert "sidecars:8888" in seen, "the look itself works"
    assert SECRET not in seen + described
    volumes = docker("volume", "ls", "--quiet", "--filter", f"label=claude-bottle.slug={bottle.slug}").stdout.split()
    mounts = [word for name in volumes for word in ("--mount", f"type=volume,source={name},target=/v/{name},readonly")]
    grep = ("--entrypoint", "grep", BUNDLE_IMAGE, "-rl", SECRET, "/v")
    kept = docker("run", "--rm", "--user", "0:0", "--network", "none", *mounts, *grep, check=False)
    assert (kept.stdout, len(volumes) > 3) == ("", True)


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


def test_a_program_that_knows_no_proxy_just_works(bottle: Bottle) -> None:
    """Its name leads to the bundle, which takes it by its server name; a name that is not allowed leads nowhere."""
    answer = ask(bottle.agent, f"https://{ALLOWED}/path", "--noproxy", "*")
    assert answer.code == 200, answer.body
    assert hashlib.sha256(f"Bearer {SECRET}".encode()).hexdigest() in answer.body
    found = bottle.trial.agent("resolve", DENIED)
    assert found["addresses"] == ["gaierror"]


# W1: the network.


def test_past_the_proxy_there_is_no_way(bottle: Bottle) -> None:
    """Defence: the agent's network is internal, and its only other member is the bundle, which forwards nothing."""
    trial = bottle.trial
    assert trial.bundle("egress", "connect", bottle.internet.address, "443") == "connected", "the bundle has one"
    for address in (bottle.internet.address, METADATA, WORLD):
        assert trial.agent("connect", address, "443", "1") != "connected"
    networks = docker_json("container", "inspect", bottle.agent)[0]["NetworkSettings"]["Networks"]
    assert list(networks) == [object_name(bottle.slug, "internal")]
    assert docker_json("network", "inspect", *networks)[0]["Internal"] is True


def test_the_agent_reaches_its_own_ports_alone(bottle: Bottle) -> None:
    """Of all ports on which something in the bundle listens. Defence: the others listen on loopback alone."""
    listening = docker("exec", bottle.bundle, "cat", "/proc/net/tcp", "/proc/net/tcp6").stdout.splitlines()
    ports = {int(line.split()[1].rpartition(":")[2], 16) for line in listening if line.split()[3] == "0A"}
    assert {9098, 9099} < ports, "egress listens"
    found = {port for port in ports if bottle.trial.agent("connect", bundle_address(bottle), str(port)) == "connected"}
    assert found == {53, 80, 443, 8888, 9100}


def arrivals(bottle: Bottle) -> list[str]:
    """What of all that the agent can send arrives at a listener on every address of the engine's host."""

    def attempt(port: int, text: str) -> None:
        for address in bottle.backend.host_addresses(bottle.slug):
            bottle.trial.agent("send", address, str(port), text)
            bottle.trial.agent("connect", address, str(port), "1")

    return sorted({each.get("as", "tcp") for each in bottle.trial.while_listening(attempt)})


def nft(script: str) -> str:
    """Run nft on the engine's host."""
    alone = ("--cap-drop", "ALL", "--cap-add", "NET_ADMIN", "--read-only", "--no-healthcheck", "--network", "host")
    command = ("run", "--rm", "--pull", "never", *alone, "--interactive", "--entrypoint", "sh", BUNDLE_IMAGE, "-c")
    return docker(*command, script).stdout


def without_host_rules(bottle: Bottle) -> None:
    """Take the rules away that the launcher has set."""
    nft(f"nft -f - <<'END'\n{remove_rules(bottle.slug)}\nEND")


@pytest.fixture
def bare(tmp_path: Path) -> Iterator[Bottle]:
    """A bottle of the same kind whose rules on the host have been taken away."""
    spec = BottleSpec("bare", agent=AgentSpec(command=("sleep", "infinity")))
    with a_bottle(ENGINE, tmp_path, spec, ALLOWED) as bottle:
        assert table_name(bottle.slug) in nft(SHOW)
        without_host_rules(bottle)
        yield bottle


def test_nothing_of_the_agents_arrives_at_the_host(bottle: Bottle) -> None:
    """Datagrams to it, to everybody, to a group; connections. Defence: the rule at the internal bridge's ingress."""
    assert arrivals(bottle) == []


def test_without_the_hosts_rules_something_arrives(bare: Bottle) -> None:
    """The negative control: an internal network of the engine's alone is none to datagrams."""
    assert set(arrivals(bare)) & {"broadcast", "multicast", "directed"}


def test_nothing_arrives_once_the_bundle_is_dead(tmp_path: Path) -> None:
    """An agent whose init is the engine's outlives its bundle, and its walls stand all the same."""
    spec = BottleSpec("dead", agent=AgentSpec(command=("sleep", "infinity"), init="engine"))
    with a_bottle(ENGINE, tmp_path, spec, ALLOWED) as bottle:
        docker("kill", bottle.bundle)
        assert docker("exec", bottle.agent, "true").code == 0
        source = (Path(__file__).parents[3] / "launcher/probes.py").read_text()

        def attempt(port: int, text: str) -> None:
            for address in bottle.backend.host_addresses(bottle.slug):
                docker("exec", bottle.agent, "python3", "-I", "-c", source, "send", address, str(port), text)

        assert bottle.trial.while_listening(attempt) == []


@pytest.mark.parametrize("role", ["internal", "egress"])
def test_the_bundle_reaches_nothing_of_the_hosts(bottle: Bottle, role: str) -> None:
    """A service on every address of the host's, from the bundle: dropped, but for what the manifest calls private.

    Defence: the rule on the egress bridge (and, for the internal one, the bridge without an address).
    """
    answers = []

    def attempt(port: int, text: str) -> None:
        del text
        answers.append(bottle.trial.bundle("egress", "connect", str(addresses(bottle, role)[1]), str(port), "2"))
        answers.append(bottle.trial.agent("connect", str(addresses(bottle, role)[1]), str(port), "2"))

    assert bottle.trial.while_listening(attempt) == []
    assert "connected" not in answers


def test_without_the_rules_the_bundle_reaches_the_host(bare: Bottle) -> None:
    """The negative control of the egress bridge's rule."""
    answers = []

    def attempt(port: int, text: str) -> None:
        del text
        answers.append(bare.trial.bundle("egress", "connect", str(addresses(bare, "egress")[1]), str(port), "5"))

    assert {each.get("tcp") for each in bare.trial.while_listening(attempt)} == {str(addresses(bare, "egress")[2])}
    assert answers == ["connected"]


# W3: the agent's ports answer the agent.


def test_the_hosts_users_do_not_reach_the_proxy(bottle: Bottle) -> None:
    """Not by the address that the bundle has on its way out. Defence: it answers on BOTTLE_INTERNAL alone."""
    outside = bottle.backend.bundle_address_outside(bottle.slug)
    assert bottle.trial.host("connect", outside, "8888", "3") != "connected" or refused_by_proxy(bottle, outside)


def refused_by_proxy(bottle: Bottle, outside: str) -> bool:
    """Whether a connection that was accepted gets no answer to a request."""
    source = (
        "import socket, sys; s = socket.create_connection((sys.argv[1], 8888), 5); "
        f"s.sendall(b'GET http://{ALLOWED}/ HTTP/1.1\\r\\nhost: {ALLOWED}\\r\\n\\r\\n'); print(s.recv(100))"
    )
    said = bottle.backend.on_host(bottle.slug, "python3", "-I", "-c", source, outside)
    return "HTTP" not in docker(*said.argv[1:], check=False).stdout


# W5: sockets, names, IPv6.


def test_the_agents_sockets_are_of_few_kinds(bottle: Bottle) -> None:
    """Defences: the filter of system calls (vsock, alg), no capability (packet, raw), ping_group_range."""
    made = bottle.trial.agent("sockets")
    assert made.pop("stream") == "made"
    assert not [kind for kind, answer in made.items() if answer == "made"], made


def test_the_agent_cannot_answer_the_engines_queries(bottle: Bottle) -> None:
    """Port 53 of its own loopback. Defence: net.ipv4.ip_unprivileged_port_start."""
    for kind in ("udp", "tcp"):
        assert bottle.trial.agent("bind", "53", kind) == "EACCES"
        assert bottle.trial.agent("bind", "1053", kind) == "bound"


def test_names_of_the_outside_do_not_resolve(bottle: Bottle) -> None:
    trial = bottle.trial
    assert trial.agent("resolve", "sidecars")["addresses"] == [bundle_address(bottle)]
    assert trial.agent("resolve", ALLOWED)["addresses"] == [bundle_address(bottle)]
    for name in ("name.invalid", DENIED):
        assert trial.agent("resolve", name)["addresses"] == ["gaierror"]


def test_there_is_no_way_by_ipv6(bottle: Bottle) -> None:
    """The bridge has a link-local address at the host's end, which an agent with one of its own would reach."""
    assert bottle.trial.agent("ipv6") == []


def test_both_containers_are_filtered(bottle: Bottle) -> None:
    """Our own filter of system calls, and no new privileges, for each of the two."""
    assert bottle.trial.agent("status")["Seccomp"] == "2"
    for container in (bottle.agent, bottle.bundle):
        (found,) = docker_json("container", "inspect", container)
        (filter_,) = (each for each in found["HostConfig"]["SecurityOpt"] if each.startswith("seccomp="))
        assert json.loads(filter_.removeprefix("seccomp=")) == json.loads(seccomp_profile().read_text())
        assert "no-new-privileges" in found["HostConfig"]["SecurityOpt"]


def test_our_filter_is_no_wider_than_the_engines() -> None:
    """What the engine's own filter of a container without capabilities refuses, ours refuses too."""
    engines, ours = rules_of(()), rules_of(("--security-opt", f"seccomp={seccomp_profile()}"))
    assert engines["defaultAction"] == ours["defaultAction"] == "SCMP_ACT_ERRNO"
    allowed = conditions(engines)
    for name, wanted in conditions(ours).items():
        assert name in allowed, f"{name} is refused by the engine"
        assert [] in allowed[name] or all(each in allowed[name] for each in wanted), name
    assert len(conditions(ours)) > 200


def rules_of(options: tuple[str, ...]) -> dict[str, object]:
    """The filter that the engine gives a container, as its runtime reads it."""
    container = docker("run", "--detach", "--rm", "--cap-drop", "ALL", *options, "claude-bottle-agent", "sleep", "60")
    identity = container.stdout.strip()
    try:
        found = [Path(root) / "config.json" for root, _, _ in os.walk("/run") if root.endswith(identity)]
        files = [path for path in found if path.exists()]
        if not files:
            pytest.skip("the engine's runtime keeps its files where this test may not look")
        rules: dict[str, object] = json.loads(files[0].read_text())["linux"]["seccomp"]
        return rules
    finally:
        docker("rm", "--force", identity)


def conditions(rules: dict[str, object]) -> dict[str, list[list[object]]]:
    """Under which conditions each system call is allowed: none at all is the empty list."""
    found: dict[str, list[list[object]]] = {}
    assert isinstance(rules["syscalls"], list)
    for rule in rules["syscalls"]:
        if rule["action"] == "SCMP_ACT_ALLOW":
            for name in rule["names"]:
                found.setdefault(name, []).append(rule.get("args") or [])
    return found


# W18: what the agent runs on.


def test_the_agent_is_nobody(bottle: Bottle) -> None:
    status = bottle.trial.agent("status")
    assert status["Uid"].split() == ["1000"] * 4
    assert {status[name] for name in ("CapPrm", "CapEff", "CapBnd")} == {"0" * 16}
    assert status["NoNewPrivs"] == "1"


def test_the_agents_first_process_is_our_init(bottle: Bottle) -> None:
    """Orphans are reaped: one that ends is no zombie. Its interpreter is on a volume that nothing can write to."""
    cmdline = docker("exec", bottle.agent, "cat", "/proc/1/cmdline").stdout.split("\0")
    assert cmdline[:5] == ["/opt/bottle/bin/python3", "-I", "-S", "-m", "bottle_init"]
    orphan = "(sh -c 'true & echo $!' & wait)"
    pid = docker("exec", bottle.agent, "sh", "-c", orphan).stdout.strip()
    wait = f"n=0; while [ -e /proc/{pid} ] && [ $n -lt 300 ]; do n=$((n+1)); sleep 0.1; done; [ ! -e /proc/{pid} ]"
    assert docker("exec", bottle.agent, "sh", "-c", wait, check=False).code == 0


WRITABLE = ("/home/agent", "/tmp", "/var/tmp")


def test_the_agents_root_is_read_only(bottle: Bottle) -> None:
    """But for its home and its tmpfs."""
    closed = [f"{each}/bottle-probe" for each in ("/opt/bottle", "/etc/ssl/certs", "/etc/bottle", "/usr", "/var/lib")]
    answers = bottle.trial.agent("write", *closed)
    assert set(answers.values()) <= {"EROFS", "EACCES"}
    root = docker("exec", "--user", "0:0", bottle.agent, "touch", "/usr/x", "/opt/bottle/x", check=False)
    assert root.stderr.count("Read-only file system") == 2
    open_ = bottle.trial.agent("write", *(f"{each}/bottle-probe" for each in WRITABLE))
    assert set(open_.values()) == {"written"}


@pytest.mark.parametrize(
    "command",
    [
        ("curl", "--silent", "--show-error", "--output", "/dev/null", f"https://{ALLOWED}/"),
        ("env", "-u", "SSL_CERT_FILE", "-u", "CURL_CA_BUNDLE", "curl", "-sS", "-o", "/dev/null", f"https://{ALLOWED}/"),
        ("python3", "-c", f"import urllib.request; urllib.request.urlopen('https://{ALLOWED}/')"),
        ("git", "ls-remote", f"https://{ALLOWED}/nothing.git"),
    ],
    ids=["curl", "curl without variables", "python", "git"],
)
def test_the_agents_programs_trust_the_bundle(bottle: Bottle, command: tuple[str, ...]) -> None:
    """The certificates are mounted over the image's own store; git then fails by what the origin says."""
    said = docker("exec", bottle.agent, *command, check=False)
    assert "certificate" not in said.stderr.lower(), said.stderr
    assert said.code == 0 or "not found" in said.stderr.lower() or "valid" in said.stderr.lower(), said.stderr


def test_the_bundle_is_healthy_on_a_read_only_root(bottle: Bottle) -> None:
    assert docker("exec", bottle.bundle, "python3", "-I", "-m", "bottle_init", "health").code == 0
    assert docker("exec", bottle.bundle, "touch", "/usr/x", check=False).code != 0


@pytest.mark.parametrize("role", ["agent", "sidecars"])
def test_nothing_grows_without_end(bottle: Bottle, role: str) -> None:
    """W17: memory with swap, CPU, processes and the size of the log have limits, for both containers."""
    (found,) = docker_json("container", "inspect", object_name(bottle.slug, role))
    host = found["HostConfig"]
    assert host["Memory"] == host["MemorySwap"] > 0
    assert host["CpuQuota"] > 0 < host["PidsLimit"]
    assert host["LogConfig"]["Type"] == "json-file"
    assert set(host["LogConfig"]["Config"]) == {"max-size", "max-file"}


def test_the_operators_files_are_his_alone(bottle: Bottle) -> None:
    """And the secrets are gone from them once they have been handed over."""
    label = docker_json("container", "inspect", bottle.agent)[0]["Config"]["Labels"]["claude-bottle.stage"]
    assert Path(label).stat().st_mode & 0o077 == 0
    assert not (Path(label) / "secrets").exists()
