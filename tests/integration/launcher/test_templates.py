"""The real Claude Code and Codex, from npm and unmodified, in their templates' bottles, before a pretended API."""

import hashlib
import json
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from launcher import bottles, history, state
from launcher.backend import BottleBackend, get_bottle_backend
from launcher.cli.lifecycle import spec_of
from launcher.demo import Internet
from launcher.docker import docker
from launcher.errors import LauncherError
from launcher.plan import new_slug, object_name
from tests.integration.support import pretended_api as api
from tests.integration.support.launching import DEADLINE_S, cli, finish, leftovers

pytestmark = [pytest.mark.docker, pytest.mark.slow]

KEY = "made-up-key-of-the-operators-0123456789"
SCRIPT = Path(api.__file__)
REGISTRY = ("npm error", "npm ERR!", "Unable to locate package", "Failed to fetch", "Temporary failure resolving")
"""What a build says where the package registries are out of reach."""
HOSTS = {"claude": "api.anthropic.com", "codex": "api.openai.com"}
VARIABLES = {"claude": "ANTHROPIC_API_KEY", "codex": "OPENAI_API_KEY"}
SENT = {"claude": ("x-api-key", KEY), "codex": ("authorization", f"Bearer {KEY}")}


@dataclass
class Run:
    """An agent that works on its own, and what it says."""

    backend: BottleBackend
    slug: str
    code: int | None = None
    fault: LauncherError | None = None
    thread: threading.Thread = field(init=False)

    def start(self) -> None:
        self.thread = threading.Thread(target=self._work)
        self.thread.start()

    def _work(self) -> None:
        try:
            self.code = self.backend.attach(object_name(self.slug, "agent"), False, time.sleep, started=False)
        except LauncherError as error:
            self.fault = error

    @property
    def said(self) -> str:
        found = docker("logs", object_name(self.slug, "agent"), check=False)
        return found.stdout + found.stderr


@pytest.fixture(params=sorted(HOSTS))
def agent(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A template's agent in an operator's home, its image built."""
    name = str(request.param)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv(VARIABLES[name], KEY)
    monkeypatch.chdir(tmp_path)
    assert finish(cli(tmp_path, "init", name))[0] == 0
    building = cli(tmp_path, "build", name)
    try:
        code, said = finish(building)
    except subprocess.TimeoutExpired:
        building.send_signal(signal.SIGINT)
        building.wait(DEADLINE_S)
        pytest.skip(f"the package of {name}, which is large, did not come within {DEADLINE_S} s")
    if code and any(words in said for words in REGISTRY):
        pytest.skip(f"the package of {name} cannot be had here: {said.strip().splitlines()[-1]}")
    assert code == 0, said
    return name


@pytest.fixture
def running(agent: str, tmp_path: Path) -> Iterator[tuple[str, Run, Internet]]:
    """It runs on a prompt, in a bottle that differs from the template's in where its API is, and in a repository."""
    project = tmp_path / "src"
    project.mkdir()
    path = tmp_path / f".claude-bottle/{agent}.toml"
    slug = new_slug(agent)
    internet = Internet(slug, tmp_path, SCRIPT)
    backend = get_bottle_backend()
    try:
        (tmp_path / "authority.pem").write_text(internet.start((HOSTS[agent],)))
        allowed = f'egress.allow = ["{HOSTS[agent]}"]'
        text = path.read_text()
        assert allowed in text
        here = f'egress = {{ hosts = [{{ host = "{HOSTS[agent]}", private = true }}], '
        here += f'upstream_ca = "{tmp_path}/authority.pem" }}\ngit.repos.demo = {{}}'
        path.write_text(text.replace(allowed, here))
        spec = replace(spec_of(agent, headless=True, prompt="Do as you are told.", project=project), slug=slug)
        backend.launch(backend.prepare(spec, state.state_root() / slug), start=False)
        internet.connect(object_name(slug, "sidecars"))
        run = Run(backend, slug)
        run.start()
        yield agent, run, internet
        run.thread.join(DEADLINE_S)
    finally:
        backend.stop(slug)
        assert leftovers(slug) == []


def requests_in(run: Run) -> list[dict[str, Any]]:
    """What waits for the operator; nothing where the bundle has ended."""
    try:
        return bottles.requests_of(run.backend, run.slug)
    except LauncherError:
        return []


def heard(internet: Internet) -> list[dict[str, Any]]:
    """The requests that the API got."""
    lines = docker("logs", internet.name).stdout.splitlines()
    return [json.loads(line) for line in lines if line.startswith("{")]


def test_it_asks_is_answered_and_pushes(running: tuple[str, Run, Internet]) -> None:
    """The program registers supervise and works behind the walls; the API gets the real key, which the agent lacks."""
    agent, run, internet = running
    deadline = time.monotonic() + DEADLINE_S
    while not (waiting := requests_in(run)):
        assert run.thread.is_alive(), f"{run.code} {run.fault}\n{run.said}\n{heard(internet)}"
        assert time.monotonic() < deadline, f"{run.said}\n{heard(internet)}"
        time.sleep(0.2)
    assert waiting[0]["text"] == api.QUESTION["question"]
    bottles.in_bundle(run.backend, run.slug, "supervise-operator", "answer", waiting[0]["id"], "left, of course")
    run.thread.join(DEADLINE_S)
    said = run.said
    assert (run.code, run.fault) == (0, None), said
    assert api.LAST_WORDS in said
    requests = heard(internet)
    results = {key: value for each in requests for key, value in each.get("results", {}).items()}
    assert "left, of course" in results[api.ASK]
    assert "refs/heads/made" in results[api.WORK]
    header, value = SENT[agent]
    assert {each[header] for each in requests if header in each} == {hashlib.sha256(value.encode()).hexdigest()}
    run.backend.stop(run.slug)
    audit = (history.history_root() / run.slug / history.AUDIT).read_bytes()
    pushes = [line for line in audit.splitlines() if b'"event":"push"' in line.replace(b'": "', b'":"')]
    assert [line for line in pushes if b'"allowed"' in line], pushes
