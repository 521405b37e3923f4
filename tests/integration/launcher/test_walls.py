"""The walls of a bottle, tried from its agent's container on every engine. What an agent may do is tried beside it.

Each test of a wall says which defence it holds; each was seen to fail with that defence taken away. Which of them runs
on which engine is in docs/engines.md, from the marks `not_on`.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from launcher.backend.kubernetes.kubectl import kubectl
from launcher.docker import docker, docker_json, run
from launcher.health import health_of
from launcher.host_rules import SHOW, remove_rules, table_name
from launcher.plan import BUNDLE_IMAGE, object_name
from launcher.sandbox import seccomp_profile
from launcher.spec import AgentSpec, BottleSpec, Credential, Host
from launcher.status import statuses
from tests.integration.support.engines import Engine
from tests.integration.support.init import eventually
from tests.integration.support.launching import Bottle, a_bottle

pytestmark = [pytest.mark.docker]

ALLOWED, DENIED = "api.walls.test", "elsewhere.walls.test"
SECRET = "made-up-secret-of-the-walls"
TOKEN = "ghp_" + "0123456789abcdefghijABCDEFGHIJ012345"
KUBELET = "10250"
METADATA, WORLD = "169.254.169.254", "192.0.2.1"
DOCKERS = ("docker", "remote", "ssh", "context", "docker29", "podman")
OTHERS = ("swarm", "kubernetes")
NO_HOST_RULES = "nothing is set on the node itself"


@pytest.fixture(scope="module")
def bottle(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bottle]:
    directory = tmp_path_factory.mktemp("walls")
    secret = directory / "secret"
    secret.write_text(SECRET + "\n")
    spec = BottleSpec(
        "walls",
        agent=AgentSpec(command=("sh", "-c", "echo the agent speaks; exec sleep infinity")),
        hosts=(Host(ALLOWED, private=True),),
        credentials=(Credential("walls", ALLOWED, prefix="Bearer ", from_file=secret),),
    )
    with a_bottle(engine, directory, spec, ALLOWED, DENIED) as bottle:
        yield bottle


def bundle_address(bottle: Bottle) -> str:
    """Where the agent finds the bundle."""
    (address,) = bottle.trial.agent("resolve", "sidecars")["addresses"]
    return str(address)


# What goes through.


def test_an_allowed_host_sees_the_credential(bottle: Bottle) -> None:
    """An allowed host answers, and sees the credential."""
    answer = bottle.ask(f"https://{ALLOWED}/path")
    assert answer.code == 200, answer.body
    assert hashlib.sha256(f"Bearer {SECRET}".encode()).hexdigest() in answer.body


def test_the_agent_never_has_the_credential(bottle: Bottle) -> None:
    """Nor has a label, an environment, or what else the engine tells of its containers."""
    look = "env; cat /proc/*/environ; find / -xdev -type f -size -64k -exec grep -l made-up-secret {} + 2>/dev/null"
    seen = bottle.in_agent("sh", "-c", look).stdout
    assert "sidecars:8888" in seen, "the look itself works"
    assert SECRET not in seen
    described = bottle.described()
    assert bottle.slug in described
    assert SECRET not in described


@pytest.mark.not_on("kubernetes", why="a pod's volumes are gone with it, and are seen by the pod alone")
def test_no_volume_has_the_credential(bottle: Bottle) -> None:
    """Nothing of it rests on a disk of the engine's. Defence: it goes by standard input, into memory."""
    volumes = docker("volume", "ls", "--quiet", "--filter", f"label=claude-bottle.slug={bottle.slug}").stdout.split()
    mounts = [word for name in volumes for word in ("--mount", f"type=volume,source={name},target=/v/{name},readonly")]
    grep = ("--entrypoint", "grep", BUNDLE_IMAGE, "-rl", SECRET, "/v")
    kept = docker("run", "--rm", "--pull", "never", "--user", "0:0", "--network", "none", *mounts, *grep, check=False)
    assert (kept.stdout, len(volumes) > 3) == ("", True)


def test_a_host_that_is_not_allowed_is_denied(bottle: Bottle) -> None:
    for scheme in ("https", "http"):
        answer = bottle.ask(f"{scheme}://{DENIED}/")
        assert answer.code == 403, answer.body
    assert DENIED not in bottle.internet.logs().partition("END CERTIFICATE")[2]


def test_a_secret_in_a_url_does_not_arrive(bottle: Bottle) -> None:
    """A request with a secret in its URL is denied, and does not arrive."""
    answer = bottle.ask(f"https://{ALLOWED}/?key={TOKEN}")
    assert answer.code == 403, answer.body
    assert bottle.ask(f"https://{ALLOWED}/?key=arrives").code == 200
    logs = bottle.internet.logs()
    assert "key=arrives" in logs, "what arrives is logged"
    assert TOKEN not in logs


def test_a_program_that_knows_no_proxy_just_works(bottle: Bottle) -> None:
    """Its name leads to the bundle, which takes it by its server name; a name that is not allowed leads nowhere."""
    answer = bottle.ask(f"https://{ALLOWED}/path", "--noproxy", "*")
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
    interfaces = bottle.in_agent("cat", "/proc/net/dev").stdout.splitlines()[2:]
    assert len([line for line in interfaces if "lo:" not in line and "tunl0:" not in line]) == 1


@pytest.mark.not_on("kubernetes", why="a pod's network is every pod's, and a policy is what fences it")
def test_the_agents_network_is_internal(bottle: Bottle) -> None:
    """Defence: the agent has one network, which the engine itself calls internal."""
    networks = docker_json("container", "inspect", bottle.container("agent"))[0]["NetworkSettings"]["Networks"]
    assert list(networks) == [object_name(bottle.slug, "internal")]
    (network,) = docker_json("network", "inspect", *networks)
    assert network["internal" if "internal" in network else "Internal"] is True


def test_the_agent_reaches_its_own_ports_alone(bottle: Bottle) -> None:
    """Of all ports on which something in the bundle listens. Defence: the others listen on loopback alone."""
    listening = bottle.in_bundle("cat", "/proc/net/tcp", "/proc/net/tcp6").stdout.splitlines()
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
def bare(engine: Engine, tmp_path: Path) -> Iterator[Bottle]:
    """A bottle of the same kind whose rules on the host have been taken away."""
    spec = BottleSpec("bare", agent=AgentSpec(command=("sleep", "infinity")))
    with a_bottle(engine, tmp_path, spec, ALLOWED) as bottle:
        assert table_name(bottle.slug) in nft(SHOW)
        without_host_rules(bottle)
        yield bottle


def test_nothing_of_the_agents_arrives_at_the_host(bottle: Bottle) -> None:
    """Datagrams to it, to everybody, to a group; connections. Defence: the rule at the internal bridge's ingress."""
    assert arrivals(bottle) == []


@pytest.mark.not_on(*OTHERS, wall="W1", why=NO_HOST_RULES)
@pytest.mark.not_on("remote", "ssh", "context", "docker29", why="nothing was seen to arrive without them either")
@pytest.mark.not_on("podman", why="on 5.4 nothing was seen to arrive without them either")
def test_without_the_hosts_rules_something_arrives(bare: Bottle) -> None:
    """The negative control: an internal network of the engine's alone is none to datagrams."""
    assert set(arrivals(bare)) & {"broadcast", "multicast", "directed"}


@pytest.mark.not_on(*OTHERS, why="an agent runs there under our own init alone, and ends with its bundle")
def test_nothing_arrives_once_the_bundle_is_dead(engine: Engine, tmp_path: Path) -> None:
    """An agent whose init is the engine's outlives its bundle, and its walls stand all the same."""
    spec = BottleSpec("dead", agent=AgentSpec(command=("sleep", "infinity"), init="engine"))
    with a_bottle(engine, tmp_path, spec, ALLOWED) as bottle:
        docker("kill", bottle.container("sidecars"))
        assert bottle.in_agent("true").code == 0
        source = (Path(__file__).parents[3] / "launcher/probes.py").read_text()

        def attempt(port: int, text: str) -> None:
            for address in bottle.backend.host_addresses(bottle.slug):
                assert bottle.in_agent("python3", "-I", "-c", source, "send", address, str(port), text).code == 0

        assert bottle.trial.while_listening(attempt) == []


@pytest.mark.not_on("swarm", wall="W1", why=NO_HOST_RULES)
def test_the_bundle_reaches_nothing_of_the_hosts(bottle: Bottle) -> None:
    """A service on every address of the host's, from the bundle: dropped, but for what the manifest calls private.

    Defence: the rule on the egress bridge (and, for the internal one, the bridge without an address); in a cluster the
    bundle's policy.
    """
    answers = []

    def attempt(port: int, text: str) -> None:
        del text
        for address in bottle.backend.host_addresses(bottle.slug):
            answers.append(bottle.trial.bundle("egress", "connect", address, str(port), "2"))
            answers.append(bottle.trial.agent("connect", address, str(port), "2"))

    assert bottle.trial.while_listening(attempt) == []
    assert "connected" not in answers
    assert len(answers) >= 4


@pytest.mark.not_on(*OTHERS, wall="W1", why=NO_HOST_RULES)
def test_without_the_rules_the_bundle_reaches_the_host(bare: Bottle) -> None:
    """The negative control of the egress bridge's rule."""
    answers: list[str] = []
    addresses = bare.backend.host_addresses(bare.slug)

    def attempt(port: int, text: str) -> None:
        del text
        answers.extend(bare.trial.bundle("egress", "connect", address, str(port), "2") for address in addresses)

    assert {each.get("tcp") for each in bare.trial.while_listening(attempt)} == {
        bare.backend.bundle_address_outside(bare.slug)
    }
    assert "connected" in answers


# W2: each daemon's own reach.


@pytest.mark.parametrize("user", ["pipelock", "git-gate", "supervise"])
def test_the_daemons_keep_their_own_reach(bottle: Bottle, user: str) -> None:
    """None of these gets out by itself. Defence: the rules in the bundle, which need NET_ADMIN on every engine."""
    refused = ("EPERM", "EACCES", "ECONNREFUSED", "EHOSTUNREACH", "ENETUNREACH")
    for address in (bottle.internet.address, WORLD, METADATA):
        assert bottle.trial.bundle(user, "connect", address, "443", "1") in refused


def test_nobody_can_change_the_rules(bottle: Bottle) -> None:
    """Once they stand, the bundle has NET_ADMIN no more, its first process included. Defence: `setup` gives it up."""
    status = bottle.trial.bundle("root", "status")
    assert not int(status["CapBnd"], 16) >> 12 & 1
    assert not int(status["CapEff"], 16) >> 12 & 1


# W3: the agent's ports answer the agent.


@pytest.mark.not_on("kubernetes", wall="W3", why="a node reaches its pods, from an address of theirs")
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
    said = run(bottle.backend.on_host(bottle.slug, "python3", "-I", "-c", source, outside), check=False)
    return "HTTP" not in said.stdout


# W5: sockets, names, IPv6.


@pytest.mark.not_on("swarm", wall="W5", why="a service takes no filter of ours: AF_VSOCK is the engine's choice")
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
    assert trial.agent("connect", bundle_address(bottle), "8888") == "connected"
    assert trial.agent("resolve", ALLOWED)["addresses"] == [bundle_address(bottle)]
    for name in ("name.invalid", DENIED):
        assert trial.agent("resolve", name)["addresses"] == ["gaierror"]


@pytest.mark.not_on("kubernetes", wall="W5", why="a pod has a link-local address")
def test_there_is_no_way_by_ipv6(bottle: Bottle) -> None:
    """The bridge has a link-local address at the host's end, which an agent with one of its own would reach."""
    assert bottle.trial.agent("ipv6") == []


@pytest.mark.not_on(*DOCKERS, "swarm", why="its container has no address of IPv6")
def test_the_node_does_not_answer_by_ipv6(bottle: Bottle) -> None:
    """At its own end of the pods' bridge, where the kubelet listens. Defence: the filter of sockets in the pod."""
    shown = docker("exec", bottle.engine.node, "ip", "-6", "-json", "address", "show", "scope", "link", "dev", "cni0")
    addresses = [each["local"] for link in json.loads(shown.stdout) for each in link.get("addr_info", ())]
    if not addresses:
        pytest.skip("the node has no IPv6")
    unfiltered = ("exec", "agent", "--container", "agent", "--", "python3", "-I", "-c")
    source = (Path(__file__).parents[3] / "launcher/probes.py").read_text()
    for address in addresses:
        place = f"{address}%eth0"
        assert bottle.trial.agent("connect", place, KUBELET) == "EAFNOSUPPORT"
        said = kubectl(object_name(bottle.slug, "agent"), *unfiltered, source, "connect", place, KUBELET)
        assert json.loads(said.stdout) == "connected", "without the filter it answers"


@pytest.mark.not_on("swarm", wall="W5", why="no-new-privileges is the choice of each node's daemon.json there")
def test_both_containers_are_filtered(bottle: Bottle) -> None:
    """A filter of system calls, and no new privileges, for each of the two, by what the kernel says of them."""
    for status in (bottle.trial.agent("status"), bottle.trial.bundle("root", "status")):
        assert (status["Seccomp"], status["NoNewPrivs"]) == ("2", "1")


@pytest.mark.not_on("swarm", wall="W5", why="a service takes no filter of ours")
@pytest.mark.not_on("kubernetes", why="the runtime's own filter stands there: RuntimeDefault")
@pytest.mark.not_on("podman", why="Podman tells of a filter by the name of its file alone")
def test_the_filter_is_our_own(bottle: Bottle) -> None:
    """For both. Defence: `--security-opt seccomp=`."""
    for role in ("agent", "sidecars"):
        (found,) = docker_json("container", "inspect", bottle.container(role))
        (filter_,) = (each for each in found["HostConfig"]["SecurityOpt"] if each.startswith("seccomp="))
        assert json.loads(filter_.removeprefix("seccomp=")) == json.loads(seccomp_profile().read_text())


@pytest.mark.not_on("remote", "ssh", "context", "docker29", "podman", why="its runtime's files are on another machine")
@pytest.mark.not_on(*OTHERS, why="the filter there is the engine's own")
def test_our_filter_is_no_wider_than_the_engines(engine: Engine) -> None:
    """What the engine's own filter of a container without capabilities refuses, ours refuses too."""
    assert engine.is_here
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
    """A user without capabilities. Defences: `--user`, `--cap-drop ALL`, or a pod's security context."""
    status = bottle.trial.agent("status")
    assert status["Uid"].split() == ["1000"] * 4
    assert {status[name] for name in ("CapPrm", "CapEff", "CapBnd")} == {"0" * 16}


def test_the_agents_first_process_is_our_init(bottle: Bottle) -> None:
    """Orphans are reaped: one that ends is no zombie. Its interpreter is on a volume that nothing can write to."""
    cmdline = bottle.in_agent("cat", "/proc/1/cmdline").stdout.split("\0")
    assert cmdline[:5] == ["/opt/bottle/bin/python3", "-I", "-S", "-m", "bottle_init"]
    orphan = "(sh -c 'true & echo $!' & wait)"
    pid = bottle.in_agent("sh", "-c", orphan).stdout.strip()
    wait = f"n=0; while [ -e /proc/{pid} ] && [ $n -lt 300 ]; do n=$((n+1)); sleep 0.1; done; [ ! -e /proc/{pid} ]"
    assert bottle.in_agent("sh", "-c", wait).code == 0


WRITABLE = ("/home/agent", "/tmp", "/var/tmp")


def test_the_agents_root_is_read_only(bottle: Bottle) -> None:
    """But for its home and its tmpfs."""
    closed = [f"{each}/bottle-probe" for each in ("/opt/bottle", "/etc/ssl/certs", "/etc/bottle", "/usr", "/var/lib")]
    answers = bottle.trial.agent("write", *closed)
    assert set(answers.values()) <= {"EROFS", "EACCES"}
    open_ = bottle.trial.agent("write", *(f"{each}/bottle-probe" for each in WRITABLE))
    assert set(open_.values()) == {"written"}


@pytest.mark.not_on("kubernetes", why="nobody can be root in a pod that runs as another user: an exec has no user")
def test_nor_can_root_write_there(bottle: Bottle) -> None:
    """Root of the agent's own container, whom the operator alone can be."""
    command = ("touch", "/usr/x", "/opt/bottle/x")
    root = docker("exec", "--user", "0:0", bottle.container("agent"), *command, check=False)
    assert root.stderr.count("Read-only file system") == 2


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
    said = bottle.in_agent(*command)
    assert "certificate" not in said.stderr.lower(), said.stderr
    assert said.code == 0 or "not found" in said.stderr.lower() or "valid" in said.stderr.lower(), said.stderr


def test_the_bundle_is_healthy_on_a_read_only_root(bottle: Bottle) -> None:
    assert bottle.in_bundle("python3", "-I", "-m", "bottle_init", "health").code == 0
    assert bottle.in_bundle("touch", "/usr/x").code != 0


# W17: bounds.

# What the kernel bounds the container with, by either version of control groups.
BOUNDS = (
    "cd /sys/fs/cgroup; cat memory/memory.limit_in_bytes memory.max 2>/dev/null | head -1; "
    "{ cat cpu/cpu.cfs_quota_us; cut -d' ' -f1 cpu.max; } 2>/dev/null | head -1; "
    "cat pids/pids.max pids.max 2>/dev/null | head -1"
)


def bounds(bottle: Bottle, role: str) -> list[str]:
    """Of memory, CPU and processes."""
    said = (bottle.in_agent if role == "agent" else bottle.in_bundle)("sh", "-c", BOUNDS).stdout.split()
    assert len(said) == 3, said
    return said


@pytest.mark.parametrize("role", ["agent", "sidecars"])
def test_nothing_grows_without_end(bottle: Bottle, role: str) -> None:
    """W17: memory and CPU have limits, for both containers, by what the kernel says."""
    memory, cpu, _ = bounds(bottle, role)
    assert 0 < int(memory) < 2**40
    assert int(cpu) > 0


@pytest.mark.not_on("kubernetes", wall="W17", why="the kubelet alone has a limit (podPidsLimit)")
@pytest.mark.parametrize("role", ["agent", "sidecars"])
def test_processes_have_a_limit(bottle: Bottle, role: str) -> None:
    """W17. Defence: `--pids-limit`."""
    assert int(bounds(bottle, role)[2]) > 0


@pytest.mark.not_on("kubernetes", why="the kubelet rotates what containers say (containerLogMaxSize)")
@pytest.mark.not_on("podman", why="Podman tells of the size of a log in no word of Docker's")
@pytest.mark.parametrize("role", ["agent", "sidecars"])
def test_the_log_has_a_size(bottle: Bottle, role: str) -> None:
    """W17. Defence: `--log-opt`."""
    (found,) = docker_json("container", "inspect", bottle.container(role))
    log = found["HostConfig"]["LogConfig"]
    assert (log["Type"], set(log["Config"])) == ("json-file", {"max-size", "max-file"})


def test_the_operators_files_are_his_alone(bottle: Bottle) -> None:
    """And the secrets are gone from them once they have been handed over."""
    assert bottle.stage_dir.stat().st_mode & 0o077 == 0
    assert not (bottle.stage_dir / "secrets").exists()


# W20: together.


def test_the_agent_ends_with_its_bundle(engine: Engine, tmp_path: Path) -> None:
    """Defence: the lease of the agent's init, a connection to the bundle. Nothing starts either anew."""
    spec = BottleSpec("together", agent=AgentSpec(command=("sleep", "infinity")))
    with a_bottle(engine, tmp_path, spec, ALLOWED) as bottle:
        assert bottle.in_bundle("sh", "-c", "kill -TERM 1").code == 0
        # A swarm may have removed what has ended by then.
        eventually(lambda: set(states(bottle).values()) <= {"exited"}, "the end of both")


def states(bottle: Bottle) -> dict[str, str]:
    """How the two containers are."""
    found = bottle.backend.running(bottle.slug, containers_alone=True)
    return {each.role: each.state for each in found if each.role in ("agent", "sidecars")}


# The operator's commands.


def test_what_the_agent_says_is_shown(bottle: Bottle) -> None:
    assert "the agent speaks" in run(bottle.backend.logs(bottle.slug, "agent")).stdout


def test_status_tells_of_it(bottle: Bottle) -> None:
    """What the bundle says of itself, whether or not the engine runs its health check."""

    def told() -> list[str]:
        found = bottle.backend.running(bottle.slug, containers_alone=True)
        return [each.state for each in statuses(found, health_of(found, bottle.backend.in_bundle))]

    eventually(lambda: told() == ["healthy"], "the word of a bottle that is up")


def test_a_reload_takes_a_policy_by_standard_input(bottle: Bottle) -> None:
    """No file need be changed in place: the new policy goes by the standard input of an exec, and holds at once."""
    command = bottle.backend.in_bundle(bottle.slug, "bottle-reload", "-", stdin=True)
    before = (bottle.stage_dir / "policy.toml").read_text()
    try:
        assert run(command, stdin=before.replace(ALLOWED, "nobody.walls.test").encode(), check=False).code == 0
        assert bottle.ask(f"https://{ALLOWED}/").code == 403
        refused = run(command, stdin=b"[egress]\nallow = 1\n", check=False)
        assert (refused.code, "allow" in refused.stderr + refused.stdout) == (78, True)
    finally:
        assert run(command, stdin=before.encode(), check=False).code == 0
    assert bottle.ask(f"https://{ALLOWED}/").code == 200
