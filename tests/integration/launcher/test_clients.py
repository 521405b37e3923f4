"""Clients that agents use, in a bottle: by the variables for a proxy, without them, and what each shows of a refusal.

docs/image.md has the table of what they show.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from launcher.demo import Internet
from launcher.docker import docker
from launcher.spec import AgentSpec, BottleSpec, Host
from tests.integration.support.engines import NotHad, running
from tests.integration.support.launching import Bottle, a_bottle
from tools.engines import images_build

pytestmark = pytest.mark.docker

IMAGE = "bottle-test-clients"
DIRECTORY = "tests/integration/support/clients"
WITHIN_S = 600
"""How long the image may take where nothing of it is cached: what comes from registries may be slow."""
ALLOWED, DENIED = "api.clients.test", "elsewhere.clients.test"
REASON = f"pipelock: {DENIED}:443 is not allowed by egress.allow"


@dataclass(frozen=True)
class Client:
    """One that asks a host for something, and what it shows."""

    name: str
    command: str
    """For a shell; HOST is the host."""
    shows: str
    """Is in what it prints where all is well."""
    refused: str
    """Matches what it prints where the proxy refuses the host."""
    unknown: str
    """Matches what it prints where it asks no proxy, and there is no such name."""
    without_proxy: str = ""
    """What it takes besides to know no proxy."""

    def __str__(self) -> str:
        return self.name


CLIENTS = [
    Client("curl", "curl -sS https://HOST/hello", "hello", "response 403", "Could not resolve host"),
    Client("wget", "wget -nv -O - -t 1 https://HOST/hello", "hello", REASON, "unable to resolve"),
    Client(
        "git", "git ls-remote https://HOST/git/greeting.git", "refs/heads/main", "response 403", "Could not resolve"
    ),
    Client(
        "pip",
        "pip download --no-deps --retries 1 --no-cache-dir -d /tmp/pip --index-url https://HOST/simple greeting",
        "Successfully downloaded greeting",
        REASON,
        "Name or service not known|Failed to resolve",
    ),
    Client(
        "npm",
        "npm view --fetch-retries 0 --registry https://HOST/npm/ greeting dist-tags.latest",
        "1.0.0",
        "403",
        "ENOTFOUND",
    ),
    Client(
        "node",
        "node -e 'fetch(process.argv[1]).then(async a => console.log(await a.text()))' https://HOST/hello",
        "hello",
        "403",
        "ENOTFOUND",
        without_proxy="NODE_USE_ENV_PROXY=0",
    ),
    Client("go", "fetch https://HOST/hello", "hello", REASON, "no such host"),
    Client(
        "java",
        "java -cp /clients Fetch https://HOST/hello proxy",
        "hello",
        "403",
        "ConnectException|UnresolvedAddress",
        without_proxy="JAVA_TOOL_OPTIONS=\"$(echo $JAVA_TOOL_OPTIONS | sed 's/-Dhttps*.proxy[^ ]*//g')\"",
    ),
    Client(
        "grpc",
        "python3 /clients/call.py HOST /greeting.Greeter/Say hello",
        "hello",
        "403",
        "UNAVAILABLE .*Domain name not found",
    ),
]
VARIABLES = " ".join(
    f"-u {name}" for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
)


class Origin(Internet):
    """An internet whose one server is that of the clients' image."""

    def start(self, names: tuple[str, ...]) -> str:
        """Start it and return the certificate of its authority as PEM."""
        docker("network", "create", "--internal", *self._labels, self.name)
        aliases = [word for name in names for word in ("--network-alias", name)]
        place = ("--name", self.name, "--network", self.name, *aliases, *self._labels)
        docker("run", "--detach", "--pull", "never", *place, "--entrypoint", "origin", IMAGE, *names)
        return self._certificate()


def build_image() -> str:
    """The clients' image, up to date. Returns what the build said where it failed."""
    builder = images_build()
    try:
        context = builder.context((DIRECTORY,), builder.extra_cas())
        base = {"BASE": builder.choose_base()}
        builder.build(IMAGE, f"{DIRECTORY}/Dockerfile", context, base, verbose=False, timeout_s=WITHIN_S)
    except builder.BuildError as error:
        return str(error)
    return ""


@pytest.fixture(scope="module")
def clients(
    once: Callable[[str, Callable[[], str]], str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Bottle]:
    """A bottle whose agent has them. They are the same on every engine, and so run on one."""
    directory: Path = tmp_path_factory.mktemp("clients")
    agent = AgentSpec(image=IMAGE, command=("sleep", "infinity"))
    spec = BottleSpec("clients", agent=agent, hosts=(Host(ALLOWED, private=True),))
    with ExitStack() as stack:
        try:
            engine = stack.enter_context(running("docker", directory))
        except NotHad as error:
            pytest.skip(f"docker cannot be had here: {error}")
        if said := once("clients", build_image):
            pytest.skip(f"the clients cannot be had here: {said[-600:]}")
        yield stack.enter_context(a_bottle(engine, directory, spec, ALLOWED, DENIED, of=Origin))


def said_by(bottle: Bottle, client: Client, host: str, *, proxy: bool) -> tuple[int, str]:
    """How it ended, and what it printed."""
    command = client.command.replace("HOST", host)
    if not proxy:
        command = f"env {VARIABLES} {client.without_proxy} {command}"
    done = bottle.in_agent("sh", "-c", f"cd /tmp; {command} 2>&1")
    return done.code, done.stdout


@pytest.mark.parametrize("client", CLIENTS, ids=str)
def test_by_the_variables(clients: Bottle, client: Client) -> None:
    """The agent's variables lead each client to the proxy, and to the authority that it has to trust."""
    code, said = said_by(clients, client, ALLOWED, proxy=True)
    assert (code, client.shows in said) == (0, True), said


@pytest.mark.parametrize("client", CLIENTS, ids=str)
def test_by_names(clients: Bottle, client: Client) -> None:
    """Without them, the name leads to the bundle, which takes the client by its server name."""
    code, said = said_by(clients, client, ALLOWED, proxy=False)
    assert (code, client.shows in said) == (0, True), said


@pytest.mark.parametrize("client", CLIENTS, ids=str)
def test_a_refusal_is_shown(clients: Bottle, client: Client) -> None:
    """Each client fails, and says what it can: the proxy's reason phrase, or its status."""
    code, said = said_by(clients, client, DENIED, proxy=True)
    assert code != 0
    assert re.search(client.refused, said), said


@pytest.mark.parametrize("client", CLIENTS, ids=str)
def test_a_refused_name_is_not_known(clients: Bottle, client: Client) -> None:
    """Each client fails at once: the bundle's resolver says that there is no such name."""
    code, said = said_by(clients, client, DENIED, proxy=False)
    assert code != 0
    assert re.search(client.unknown, said), said
