"""A bundle whose git-gate has upstreams of several kinds, an agent with git, and the upstreams: a container each."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import docker
from testcontainers.core.container import DockerContainer
from testcontainers.core.network import Network

from tests.integration.support.image import GITHUB_TOKEN, SECRET, Bundle, bundle, check, eventually, run

# With an ssh server and git-lfs, which an agent's and a bundle's image have no use for.
_DOCKERFILE = """
FROM {agent}
USER root
RUN apt-get update \\
    && apt-get install -y --no-install-recommends git-lfs openssh-server openssl \\
    && rm -rf /var/lib/apt/lists/* \\
    && useradd --create-home --shell /bin/sh --password '*' git
USER agent
"""

HEAD = """
[egress]
upstream_ca = "/etc/bottle/origins.pem"

[[pipelock.patterns]]
name = "staff-id"
regex = 'ACME-[0-9]{6}'
"""

REPOSITORIES = """
[[egress.credentials]]
host = "git.test"
for = ["git"]
header = "Authorization"
value_file = "/run/secrets/token"

[git.repos.alone]
[git.repos.plain]
upstream = "git://git.test/plain"
private = true
[git.repos.strict]
upstream = "git://git.test/strict"
private = true
[git.repos.talking]
upstream = "git://git.test/talking"
private = true
[git.repos.held]
upstream = "git://git.test/held"
private = true
[git.repos.secure]
upstream = "https://git.test/secure"
private = true
[git.repos.moved]
upstream = "https://git.test/moved"
private = true
[git.repos.empty]
upstream = "https://git.test/empty"
private = true
[git.repos.sum256]
upstream = "git://git.test/sum256"
private = true
[git.repos.local]
upstream = "/tmp/local.git"
[git.repos.gone]
upstream = "git://git.test/gone"
private = true
"""

IDENTITY = {
    "GIT_AUTHOR_NAME": "agent",
    "GIT_AUTHOR_EMAIL": "agent@test",
    "GIT_COMMITTER_NAME": "agent",
    "GIT_COMMITTER_EMAIL": "agent@test",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "TOKEN": GITHUB_TOKEN,
}

COMMIT = "git add .; git commit -qm x"

# Puts a FIFO where every hook reads a file before it scans, tells which hook waits there, and releases it when asked.
_HOLD = """
import errno, os, sys, time
known, original, told, release = (sys.argv[1] + end for end in ("", ".original", ".told", ".release"))
content = '{"key": "1", "window": 8, "needles": []}'
if os.path.exists(known):
    content = open(known).read()
    os.rename(known, original)
os.mkfifo(known, 0o644)
writer = None
while writer is None and not os.path.exists(release):
    try:
        writer = os.open(known, os.O_WRONLY | os.O_NONBLOCK)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        time.sleep(0.01)
if writer is not None:
    hooks = [pid for pid in filter(str.isdigit, os.listdir("/proc")) if
             open(f"/proc/{pid}/cmdline", "rb").read().split(b"\\0")[0].endswith(b"/pre-receive")]
    with open(told + ".new", "w") as file:
        print(*hooks, file=file)
    os.rename(told + ".new", told)
while not os.path.exists(release):
    time.sleep(0.01)
os.unlink(known)
if os.path.exists(original):
    os.rename(original, known)
try:
    writer is None or os.write(writer, content.encode())
except BrokenPipeError:
    pass
for path in (told, release):
    if os.path.exists(path):
        os.unlink(path)
"""
_HELD = "/run/bottle/known-secrets.json"


_KILL = """
import os, signal, sys
for pid in set(filter(str.isdigit, os.listdir("/proc"))) - {"1", str(os.getpid())}:
    try:
        if sys.argv[1] in open(f"/proc/{pid}/cmdline").read().replace("\\0", " "):
            os.kill(int(pid), signal.SIGKILL)
    except OSError:
        continue
"""


@dataclass
class Gate:
    """One git-gate and its neighbours."""

    bundle: Bundle
    agent: DockerContainer
    upstream: DockerContainer
    clones: int = field(default=0)

    def shell(self, script: str, environment: Mapping[str, str] | None = None) -> tuple[int, str]:
        """A script in the agent's container."""
        return run(self.agent, "sh", "-ec", script, environment={**IDENTITY, **(environment or {})})

    def clone(self, name: str) -> str:
        """A fresh clone's directory."""
        self.clones += 1
        directory = f"/home/agent/{name}-{self.clones}"
        code, said = self.shell(f"git clone -q git://sidecars:9418/{name} {directory}")
        assert code == 0, said
        return directory

    def refs(self, name: str) -> str:
        """What the gate has, as the agent sees it."""
        code, said = self.shell(f"git ls-remote git://sidecars/{name}")
        assert code == 0, said
        return said

    def seed(self, name: str) -> None:
        """A first commit, for a repository that has no upstream."""
        code, said = self.shell(f"cd {self.clone(name)}; echo hi > readme; {COMMIT}; git push -q origin HEAD:main")
        assert code == 0, said

    def start(self, script: str, output: str) -> None:
        """A script in the agent's container, in the background. Its output, and at last its exit code, is in a file."""
        wrapped = f"{{ {script}; }} > {output} 2>&1; echo exit $? >> {output}"
        self.agent.get_wrapped_container().exec_run(["sh", "-c", wrapped], detach=True, environment=IDENTITY)

    def ended(self, output: str) -> str:
        """What that script wrote, once it has ended."""
        return str(eventually(lambda: (said := run(self.agent, "cat", output)[1]) and "exit " in said and said, output))

    def kill(self, words: str) -> None:
        """Kills what runs in the agent's container with these words in its command line."""
        run(self.agent, "python3", "-c", _KILL, words)

    @contextmanager
    def held_hook(self) -> Iterator[Callable[[], int]]:
        """The next push waits before it is scanned, until the end of the context. Yields what tells the hook's pid."""
        container = self.bundle.container
        container.get_wrapped_container().exec_run(["python3", "-I", "-c", _HOLD, _HELD], detach=True)
        eventually(lambda: run(container, "test", "-p", _HELD)[0] == 0, "a FIFO")
        try:
            yield lambda: int(
                eventually(lambda: run(container, "sh", "-c", f"cat {_HELD}.told 2>/dev/null")[1], "a hook at work")
            )
        finally:
            check(container, "touch", f"{_HELD}.release")
            eventually(lambda: run(container, "test", "-e", f"{_HELD}.release")[0] != 0, "a hook that goes on")

    def upstream_log(self, name: str, ref: str) -> tuple[int, str]:
        """The subjects of a ref in the upstream, newest first."""
        directory = f"/srv/upstream/{name}.git"
        return run(self.upstream, "git", "-c", "safe.directory=*", "-C", directory, "log", "--format=%s", ref, "--")

    def upstream_git(self, name: str, script: str) -> str:
        """A script in a repository of the upstream's."""
        return check(self.upstream, "sh", "-ec", f"cd /srv/upstream/{name}.git; {script}", environment=IDENTITY)

    def health(self) -> dict[str, Any]:
        """git-gate's own word for its state."""
        code = "import http.client as h; c = h.HTTPConnection('127.0.0.1', 9418); c.request('GET', '/health'); "
        code += "print(c.getresponse().read().decode())"
        answer: dict[str, Any] = json.loads(check(self.bundle.container, "python3", "-I", "-c", code))
        return answer

    def reload(self) -> None:
        """git-gate reads its policy again."""
        reloads = self.health()["reloads"]
        self.bundle.docker.kill(signal="HUP")
        eventually(lambda: self.health()["reloads"] > reloads, "a reload")
        assert "reload_error" not in self.health()

    def obey(self, policy: str) -> None:
        """Another policy, in the place of the file that is mounted."""
        (self.bundle.stage / "policy.toml").write_text(policy)
        self.reload()

    def audit(self, event: str) -> list[dict[str, Any]]:
        """The audit's lines of an event."""
        said = check(self.bundle.container, "cat", "/run/bottle/state/audit/git-gate/audit.jsonl", user="git-gate")
        return [line for line in map(json.loads, said.splitlines()) if line["event"] == event]


def git_image(agent_image: str) -> str:
    """An image with the servers that an upstream needs, made once."""
    tag = agent_image.replace("agent", "test-git")
    docker.from_env().images.build(fileobj=io.BytesIO(_DOCKERFILE.format(agent=agent_image).encode()), tag=tag, rm=True)
    return tag


@contextmanager
def gate(
    bundle_image: str,
    agent_image: str,
    stage: Path,
    policy: str = HEAD + REPOSITORIES,
    *,
    image: str = "",
    secrets: Mapping[str, str] | None = None,
    daemons: str = "egress,git-gate",
) -> Iterator[Gate]:
    """A gate, healthy. `{host_key}` in the policy is the upstream's. `secrets` name files in its container.

    The upstream is in `image`, by default the bundle's: without an ssh server then.
    """
    with ExitStack() as stack:
        inside = stack.enter_context(Network(docker_network_kw={"internal": True}))
        internet = stack.enter_context(Network())
        program = Path(__file__).with_name("git_upstream.py")
        upstream = DockerContainer(image or bundle_image).with_network(internet).with_network_aliases("git.test")
        upstream = upstream.with_volume_mapping(str(program), "/upstream.py", "ro")
        upstream = upstream.with_kwargs(entrypoint=["python3", "/upstream.py", SECRET], init=True, user="root")
        stack.callback(upstream.stop)
        upstream.start()
        eventually(lambda: run(upstream, "test", "-e", "/tmp/cert.pem")[0] == 0, "the upstream")

        def made(path: str) -> str:
            """A file of the upstream's. An exec's output is lost at times on a busy engine."""
            return str(eventually(lambda: run(upstream, "cat", path)[1], path))

        files = {name: made(path) for name, path in (secrets or {}).items()}
        if "{host_key}" in policy:
            policy = policy.replace("{host_key}", " ".join(made("/tmp/host.pub").split()[:2]))
        running = stack.enter_context(
            bundle(
                bundle_image,
                stage,
                policy,
                network=inside,
                origins=made("/tmp/cert.pem"),
                secrets=files,
                environment={"CLAUDE_BOTTLE_SIDECAR_DAEMONS": daemons},
            )
        )
        internet.connect(running.docker.id)
        agent = DockerContainer(agent_image).with_network(inside).with_kwargs(cap_drop=["ALL"], init=True)
        stack.callback(agent.stop)
        agent.start()
        running.wait_healthy()
        yield Gate(running, agent, upstream)
