"""The walls on the engines that can be had here besides Docker: a swarm of one, and Podman where `docker` is that.

What these engines cannot have is in docs/engines.md; each test says which defence it holds.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from launcher import state
from launcher.backend import BottleBackend, get_bottle_backend
from launcher.backend.podman import docker_is_podman
from launcher.backend.swarm import SwarmBottleBackend
from launcher.docker import docker, docker_json, run
from launcher.errors import LauncherError
from launcher.plan import LABEL_SLUG, new_slug
from launcher.spec import AgentSpec, BottleSpec, Credential
from launcher.trial import Trial

pytestmark = [pytest.mark.docker, pytest.mark.slow]

SECRET = "made-up-secret-of-an-engine"
METADATA, WORLD = "169.254.169.254", "192.0.2.1"
REFUSED = ("EPERM", "EACCES", "ECONNREFUSED", "EHOSTUNREACH", "ENETUNREACH")


@dataclass(frozen=True)
class There:
    """A bottle on an engine."""

    backend: BottleBackend
    slug: str

    @property
    def trial(self) -> Trial:
        """Attempts from its places."""
        return Trial(self.backend, self.slug)


@pytest.fixture(scope="module")
def swarm() -> Iterator[None]:
    """This engine as the manager of a swarm of one, and as it was before."""
    if docker_is_podman():
        pytest.skip("Podman knows no swarm")
    if docker_json("info", "--format", "{{json .Swarm}}")["LocalNodeState"] != "inactive":
        yield
        return
    docker("swarm", "init", "--advertise-addr", "127.0.0.1")
    yield
    docker("swarm", "leave", "--force")


@pytest.fixture(scope="module", params=["swarm", "podman"])
def there(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[There]:
    if request.param == "swarm":
        request.getfixturevalue("swarm")
    elif not docker_is_podman():
        pytest.skip("the command `docker` is not Podman")
    home = tmp_path_factory.mktemp(request.param)
    secret = home / "secret"
    secret.write_text(SECRET + "\n")
    spec = BottleSpec(
        "engine",
        agent=AgentSpec(command=("sh", "-c", "echo the agent speaks; exec sleep infinity")),
        allow=("api.example.com",),
        credentials=(Credential("engine", "api.example.com", from_file=secret),),
        slug=new_slug("engine"),
    )
    backend = get_bottle_backend(request.param)
    assert spec.slug is not None
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(home))
        backend.launch(backend.prepare(spec, state.state_root() / spec.slug))
        try:
            yield There(backend, spec.slug)
        finally:
            assert backend.stop(spec.slug)
            assert backend.running(spec.slug) == ()
            assert not backend.stop(spec.slug), "it is idempotent"


def test_nothing_but_the_bundle_answers(there: There) -> None:
    """Holds the internal network: neither the host by any of its addresses, nor the metadata service, nor the world."""
    addresses = [*there.backend.host_addresses(there.slug), METADATA, WORLD]
    answers = {address: there.trial.agent("connect", address, "22", "1") for address in addresses}
    assert "connected" not in answers.values(), answers
    assert there.trial.agent("connect", "sidecars", "8888", "5") == "connected"


def test_nothing_arrives_at_the_host(there: There) -> None:
    """Holds the same for datagrams, broadcast and multicast included, by a listener on the host itself."""

    def attempt(port: int, text: str) -> None:
        for address in there.backend.host_addresses(there.slug):
            there.trial.agent("send", address, str(port), text)
            there.trial.agent("connect", address, str(port), "1")

    assert there.trial.while_listening(attempt) == []


def test_a_host_that_is_not_allowed_is_refused(there: There) -> None:
    """Holds the allowlist, and that the way out is the proxy: the refusal is pipelock's."""
    curl = ("curl", "-sS", "-m", "20", "-o", "/dev/null", "-w", "%{http_connect}", "https://elsewhere.example/")
    assert run(there.backend.in_agent(there.slug, *curl), check=False).stdout == "403"


def test_the_daemons_keep_their_own_reach(there: There) -> None:
    """Holds the rules in the bundle (W2), which need NET_ADMIN on this engine too."""
    for user in ("pipelock", "git-gate", "supervise"):
        assert there.trial.bundle(user, "connect", WORLD, "443", "1") in REFUSED


def test_the_host_cannot_use_the_bundle(there: There) -> None:
    """Holds W3: the agent's ports do not answer on the network by which egress goes out."""
    address = there.backend.bundle_address_outside(there.slug)
    assert there.trial.host("connect", address, "8888", "2") != "connected"


def test_the_agent_is_confined(there: There) -> None:
    """Holds the capabilities, and no-new-privileges where the engine knows it."""
    status = there.trial.agent("status")
    assert int(status["CapBnd"], 16) == 0
    assert status["Seccomp"] == "2"
    assert status["NoNewPrivs"] == ("0" if isinstance(there.backend, SwarmBottleBackend) else "1")
    made = there.trial.agent("sockets")
    assert [made[kind] for kind in ("packet", "raw", "ping")] == ["EPERM", "EPERM", "EACCES"]
    assert there.trial.agent("bind", "53") != "bound"


def test_names_of_the_outside_lead_nowhere(there: There) -> None:
    """Holds the nameserver that the agent is given: names that the policy does not know are answered at once."""
    found = there.trial.agent("resolve", "name.invalid")
    assert not any("." in each for each in found["addresses"])


def test_the_secret_is_in_no_description(there: There) -> None:
    """Holds the way of secrets: they are in no label, environment or command of any container."""
    names = docker("container", "ls", "--all", "--quiet", "--filter", f"label={LABEL_SLUG}={there.slug}").stdout.split()
    assert len(names) > 2
    assert SECRET not in docker("container", "inspect", *names).stdout


def test_what_the_agent_says_is_shown(there: There) -> None:
    """The logs of this engine have the agent's words."""
    assert "the agent speaks" in run(there.backend.logs(there.slug, "agent")).stdout


def test_an_engine_that_is_no_swarm_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In words, with what to do, and nothing is left."""
    if docker_is_podman() or docker_json("info", "--format", "{{json .Swarm}}")["LocalNodeState"] != "inactive":
        pytest.skip("this engine is in a swarm")
    monkeypatch.setenv("HOME", str(tmp_path))
    backend = SwarmBottleBackend()
    spec = BottleSpec("none", agent=AgentSpec(command=("true",)), slug=new_slug("none"))
    assert spec.slug is not None
    with pytest.raises(LauncherError, match="no manager of a swarm"):
        backend.launch(backend.prepare(spec, state.state_root() / spec.slug))
    assert backend.running(spec.slug) == ()
