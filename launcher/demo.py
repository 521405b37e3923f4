"""A demonstration that needs nothing of the real internet: a bottle, a small internet, and an agent's requests."""

import time
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from rich.console import Console

from launcher import state
from launcher.backend.base import BottleBackend, Running, Tell
from launcher.backend.docker.facts import find_images
from launcher.docker import docker, docker_json, run
from launcher.errors import LauncherError
from launcher.interrupts import HeldSignals, hold_signals
from launcher.plan import BUNDLE_IMAGE, LABEL_ROLE, LABEL_SLUG, LABEL_STAGE, new_slug, object_name
from launcher.spec import BottleSpec, Credential, Host

NAME = "demo"
ALLOWED = "api.demo.test"
DENIED = "elsewhere.demo.test"
MADE_UP_CREDENTIAL = "made-up-credential-of-the-demonstration"
MADE_UP_TOKEN = "ghp_" + "0123456789abcdefghijABCDEFGHIJ012345"
ORIGIN_WITHIN_S = 60.0
SCRIPTS = "/tmp"  # noqa: S108 -- in a container of its own
ORIGIN_SCRIPT = f"{SCRIPTS}/demo_origin.py"
# Where the bundle says which one it chose.
ENGINE = "/run/bottle/engine"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a request of the agent got. `code` is HTTP's status, 0 where there was no answer at all."""

    code: int
    body: str


class Internet:
    """A network with one web server that answers to the names given. `stop` takes it down with its bottle."""

    def __init__(self, slug: str, stage_dir: Path, script: Path | None = None) -> None:
        """`script` serves in the place of demo_origin.py, which it may import."""
        self.name = object_name(slug, "internet")
        self._script = script
        self._labels = [
            *("--label", f"{LABEL_SLUG}={slug}", "--label", f"{LABEL_ROLE}=internet"),
            *("--label", f"{LABEL_STAGE}={stage_dir}"),
        ]

    def start(self, names: tuple[str, ...]) -> str:
        """Start it and return the certificate of its authority as PEM."""
        find_images(BUNDLE_IMAGE)
        docker("network", "create", "--internal", *self._labels, self.name)
        aliases = [word for name in names for word in ("--network-alias", name)]
        with as_file(files("launcher") / "demo_origin.py") as script:
            docker(
                *("create", "--name", self.name, *self._labels, "--pull", "never", "--network", self.name, *aliases),
                *(
                    "--no-healthcheck",
                    "--user",
                    "0:0",
                    "--entrypoint",
                    "python3",
                    BUNDLE_IMAGE,
                    ORIGIN_SCRIPT if self._script is None else f"{SCRIPTS}/{self._script.name}",
                    *names,
                ),
            )
            docker("cp", str(script), f"{self.name}:{ORIGIN_SCRIPT}")
            if self._script is not None:
                docker("cp", str(self._script), f"{self.name}:{SCRIPTS}/{self._script.name}")
        docker("start", self.name)
        return self._certificate()

    def _certificate(self) -> str:
        deadline = time.monotonic() + ORIGIN_WITHIN_S
        while time.monotonic() < deadline:
            logs = docker("logs", self.name)
            if "-----END CERTIFICATE-----" in logs.stdout:
                return logs.stdout
            if not docker_json("container", "inspect", self.name)[0]["State"]["Running"]:
                raise LauncherError(f"{self.name} ended: {(logs.stdout + logs.stderr).strip()}")
            time.sleep(0.2)
        raise LauncherError(f"{self.name} did not start within {ORIGIN_WITHIN_S:.0f} s")

    def connect(self, container: str) -> None:
        """Give a container a way to it."""
        docker("network", "connect", self.name, container)

    def logs(self) -> str:
        """What it has said of the requests that arrived."""
        said = docker("logs", self.name)
        return said.stdout + said.stderr

    @property
    def address(self) -> str:
        """Its IPv4 address."""
        networks: dict[str, Any] = docker_json("container", "inspect", self.name)[0]["NetworkSettings"]["Networks"]
        return str(networks[self.name]["IPAddress"])


def ask(backend: BottleBackend, slug: str, url: str, *options: str) -> Answer:
    """Let a bottle's agent ask for a URL, as any program of its would: curl with the variables that it was given.

    A proxy that refuses the tunnel itself has answered too: then its code counts.
    """
    curl = ("curl", "--silent", "--show-error", "--max-time", "20", "--write-out", "\n%{http_code} %{http_connect}")
    result = run(backend.in_agent(slug, *curl, *options, url), check=False)
    body, _, codes = result.stdout.rpartition("\n")
    answered, connected = (int(code) for code in codes.split() or (0, 0))
    return Answer(answered or connected, body.strip() or result.stderr.strip())


def run_demo(backend: BottleBackend, screen: Console, tell: Tell) -> int:
    """Start the demonstration anew and show what happens; returns 0 if all went as it should."""
    stage_dir = state.state_root() / new_slug(NAME)
    bundle = object_name(stage_dir.name, "sidecars")
    with hold_signals() as held:
        for earlier in {each.slug for each in backend.running() if _is_earlier_demo(each)}:
            backend.stop(earlier)
        try:
            agent = _start(backend, stage_dir, tell)
            screen.print(f"pipelock's engine: {docker('exec', bundle, 'cat', ENGINE).stdout.strip()}")
            good = _show_requests(backend, stage_dir.name, Internet(stage_dir.name, stage_dir), screen, held)
        except BaseException:
            backend.stop(stage_dir.name, tell)
            raise
    screen.print(f"\nThe bottle is up. Look around: docker exec -it {agent} bash. `make down` takes it down.")
    return 0 if good else 1


def _is_earlier_demo(running: Running) -> bool:
    """Whether it is of a demonstration of this operator's: others may have theirs on the same engine."""
    return running.stage_dir.parent == state.state_root() and running.slug.startswith(f"{NAME}-")


def _start(backend: BottleBackend, stage_dir: Path, tell: Tell) -> str:
    slug = stage_dir.name
    state.create(stage_dir, slug)
    internet = Internet(slug, stage_dir)
    authority = stage_dir / "demo-authority.pem"
    state.write(authority, internet.start((ALLOWED, DENIED)), mode=0o600)
    secret = stage_dir / "demo-credential"
    state.write(secret, MADE_UP_CREDENTIAL, mode=0o600)
    spec = BottleSpec(
        name=NAME,
        slug=slug,
        hosts=(Host(ALLOWED, private=True),),
        upstream_ca=authority,
        credentials=(Credential("demo", ALLOWED, prefix="Bearer ", from_file=secret),),
    )
    agent = backend.launch(backend.prepare(spec, stage_dir), tell)
    internet.connect(object_name(slug, "sidecars"))
    return agent


def _show_requests(backend: BottleBackend, slug: str, internet: Internet, screen: Console, held: HeldSignals) -> bool:
    """Show what the agent tried and got; returns whether all of it is as it should be."""
    rows = (
        ("an allowed host", f"https://{ALLOWED}/", 200, ()),
        ("a host that is not allowed", f"https://{DENIED}/", 403, ()),
        ("a token in the URL of an allowed host", f"https://{ALLOWED}/?key={MADE_UP_TOKEN}", 403, ()),
        ("an address, past the proxy", f"https://{internet.address}/", 0, ("--noproxy", "*", "--max-time", "5")),
    )
    screen.print("\n[bold]The agent asks for                       and gets[/]")
    good = True
    for what, url, expected, options in rows:
        held.check()
        answer = ask(backend, slug, url, *options)
        good &= answer.code == expected
        got = f"{answer.code or 'nothing'}"
        mark = (
            f"[green]{got:8}[/]" if answer.code == expected else f"[red]{got:8} {expected} expected: {answer.body}[/]"
        )
        screen.print(f"{what:40} {mark} {url.replace(MADE_UP_TOKEN, MADE_UP_TOKEN[:8] + '…')}")
    held.check()
    return good
