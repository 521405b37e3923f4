"""git-gate: what an agent pushes is scanned, whatever the agent does about it, and forwarded or refused as a whole."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from testcontainers.core.container import DockerContainer
from testcontainers.core.network import Network

from tests.integration.support.image import GITHUB_TOKEN, SECRET, Bundle, bundle, check, eventually, run

pytestmark = pytest.mark.docker

POLICY = """
[egress]
allow = ["git.test"]
upstream_ca = "/etc/bottle/origins.pem"

[[egress.credentials]]
host = "git.test"
for = ["git"]
header = "Authorization"
value_file = "/run/secrets/token"

[[pipelock.patterns]]
name = "staff-id"
regex = 'ACME-[0-9]{6}'

[git.repos.alone]
[git.repos.plain]
upstream = "git://git.test/plain"
private = true
[git.repos.strict]
upstream = "git://git.test/strict"
private = true
[git.repos.secure]
upstream = "https://git.test/secure"
private = true
[git.repos.gone]
upstream = "git://git.test/gone"
private = true
"""

# The upstream: git-daemon for git://, and git's own CGI program behind TLS, for clients with the credential.
UPSTREAM = """
import http.server, os, ssl, subprocess, sys
secret = sys.argv[1]
subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "/tmp/key.pem", "-out",
    "/tmp/new.pem", "-days", "2", "-subj", "/CN=git.test", "-addext", "subjectAltName=DNS:git.test"], check=True)
os.environ.update(GIT_AUTHOR_NAME="u", GIT_AUTHOR_EMAIL="u@test", GIT_COMMITTER_NAME="u", GIT_COMMITTER_EMAIL="u@test")
for name in ("plain", "strict", "secure"):
    bare = f"/srv/upstream/{name}.git"
    subprocess.run(["git", "init", "-q", "--bare", "-b", "trunk", bare], check=True)
    subprocess.run(["git", "-C", bare, "config", "http.receivepack", "true"], check=True)
    tree = subprocess.run(["git", "-C", bare, "mktree"], input=b"", capture_output=True, check=True).stdout.strip()
    commit = ["git", "-C", bare, "commit-tree", "-m", "from upstream", tree]
    made = subprocess.run(commit, capture_output=True, check=True).stdout.strip()
    subprocess.run(["git", "-C", bare, "update-ref", "refs/heads/trunk", made], check=True)
with open("/srv/upstream/strict.git/hooks/pre-receive", "w") as hook:
    hook.write("#!/bin/sh\\necho 'the upstream wants a ticket' >&2\\nexit 1\\n")
os.chmod("/srv/upstream/strict.git/hooks/pre-receive", 0o755)
subprocess.Popen(["/usr/lib/git-core/git-daemon", "--export-all", "--enable=receive-pack", "--base-path=/srv/upstream"])

class Backend(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.headers["authorization"] != secret:
            self.send_error(401)
            return
        path, _, query = self.path.partition("?")
        body = self.rfile.read(int(self.headers.get("content-length", "0")))
        environment = {**os.environ, "GIT_PROJECT_ROOT": "/srv/upstream", "GIT_HTTP_EXPORT_ALL": "1",
            "REQUEST_METHOD": self.command, "PATH_INFO": path.replace("/secure/", "/secure.git/"),
            "QUERY_STRING": query, "CONTENT_TYPE": self.headers.get("content-type", ""),
            "CONTENT_LENGTH": str(len(body)), "HTTP_CONTENT_ENCODING": self.headers.get("content-encoding", ""),
            "GIT_PROTOCOL": self.headers.get("git-protocol", ""), "REMOTE_USER": "agent"}
        done = subprocess.run(["git", "http-backend"], input=body, capture_output=True, env=environment)
        head, _, content = done.stdout.partition(b"\\r\\n\\r\\n")
        fields = [line.split(": ", 1) for line in head.decode().split("\\r\\n")]
        self.send_response(int(dict(fields).get("Status", "200").split()[0]))
        for name, value in fields:
            if name != "Status":
                self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)
    do_POST = do_GET

server = http.server.ThreadingHTTPServer(("", 443), Backend)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("/tmp/new.pem", "/tmp/key.pem")
server.socket = context.wrap_socket(server.socket, server_side=True)
os.rename("/tmp/new.pem", "/tmp/cert.pem")
server.serve_forever()
"""

IDENTITY = {
    "GIT_AUTHOR_NAME": "agent",
    "GIT_AUTHOR_EMAIL": "agent@test",
    "GIT_COMMITTER_NAME": "agent",
    "GIT_COMMITTER_EMAIL": "agent@test",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "TOKEN": GITHUB_TOKEN,
}


@dataclass
class Gate:
    """A bundle whose git-gate serves five repositories, an agent with git, and the upstream."""

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
        code, said = self.shell(f"git clone -q git://sidecars/{name} {directory}")
        assert code == 0, said
        return directory

    def refs(self, name: str) -> str:
        """What the gate has, as the agent sees it."""
        code, said = self.shell(f"git ls-remote git://sidecars/{name}")
        assert code == 0, said
        return said

    def upstream_log(self, name: str, ref: str) -> tuple[int, str]:
        """The subjects of a ref in the upstream, newest first."""
        return run(self.upstream, "git", "-C", f"/srv/upstream/{name}.git", "log", "--format=%s", ref, "--")


@pytest.fixture(scope="module")
def gate(bundle_image: str, agent_image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gate]:
    """One gate for this module; each test pushes to another branch."""
    with ExitStack() as stack:
        inside = stack.enter_context(Network(docker_network_kw={"internal": True}))
        internet = stack.enter_context(Network())
        upstream = DockerContainer(bundle_image).with_network(internet).with_network_aliases("git.test")
        upstream = upstream.with_kwargs(entrypoint=["python3", "-c", UPSTREAM, SECRET], init=True)
        stack.callback(upstream.stop)
        upstream.start()
        eventually(lambda: run(upstream, "test", "-e", "/tmp/cert.pem")[0] == 0, "the upstream")
        authority = check(upstream, "cat", "/tmp/cert.pem")
        stage = tmp_path_factory.mktemp("stage")
        running = stack.enter_context(bundle(bundle_image, stage, POLICY, network=inside, origins=authority))
        internet.connect(running.docker.id)
        agent = DockerContainer(agent_image).with_network(inside).with_kwargs(cap_drop=["ALL"], init=True)
        stack.callback(agent.stop)
        agent.start()
        running.wait_healthy()
        yield Gate(running, agent, upstream)


@pytest.fixture(scope="module")
def seeded(gate: Gate) -> Gate:
    """The gate once `alone` has a first commit."""
    directory = gate.clone("alone")
    code, said = gate.shell(
        f"cd {directory}; echo hi > readme; git add .; git commit -qm first; git push -q origin HEAD:main"
    )
    assert code == 0, said
    return gate


COMMIT = "git add .; git commit -qm x"

# Each leaves what a scan must not let through at HEAD, or names it in $PUSH.
BYPASSES = {
    "a file": f"echo token=$TOKEN > f; {COMMIT}",
    "an allow comment": f"echo token=$TOKEN '# gitleaks:allow' > f; {COMMIT}",
    "an allow comment in two halves": f"echo token=$TOKEN '# gitleaks:gitleaks:allowallow' > f; {COMMIT}",
    "gitleaks' own configuration": (
        f"printf '[allowlist]\\npaths = [\".*\"]\\n' > .gitleaks.toml; echo token=$TOKEN > f; {COMMIT}"
    ),
    "a merge": (
        f"git checkout -qb left; echo 1 > l; {COMMIT}; git checkout -qb right HEAD~1; echo 2 > r; {COMMIT};"
        f"git merge -q --no-commit left >/dev/null; echo token=$TOKEN > f; {COMMIT}"
    ),
    "a message": "git commit -q --allow-empty -m token=$TOKEN",
    "an author": "GIT_AUTHOR_NAME=$TOKEN git commit -q --allow-empty -m x",
    "a file's name": f"echo x > token-$TOKEN; {COMMIT}",
    "a file that is removed again": f"echo token=$TOKEN > f; {COMMIT}; git rm -q f; git commit -qm y",
    "an attribute that calls it binary": f"echo '* -diff' > .gitattributes; echo token=$TOKEN > f; {COMMIT}",
    "bytes that make it binary": f"printf '\\0\\0token=%s\\n' $TOKEN > f; {COMMIT}",
    "a message in another encoding": 'git -c i18n.commitEncoding=UTF-7 commit -q --allow-empty -m "token=$TOKEN"',
    "a header that a log does not show": (
        "{ echo tree $(git rev-parse HEAD^{tree}); echo parent $(git rev-parse HEAD); echo 'author a <a@b> 1 +0000';"
        "echo 'committer a <a@b> 1 +0000'; echo x-note token=$TOKEN; echo; echo x; } > /tmp/c;"
        "PUSH=$(git hash-object -t commit -w /tmp/c)"
    ),
    "an annotated tag": "git tag -a -m token=$TOKEN t; PUSH=t",
    "a tag of a tag": "git tag -a -m token=$TOKEN t1; git tag -a -m x t2 t1; PUSH=t2",
    # 151 bytes of `git log` before it put the magic number at 257, where gitleaks looks for a tar archive to skip.
    "what looks like an archive": (f"python3 -c \"print('x' * 106 + 'ustar')\" > f; echo token=$TOKEN >> f; {COMMIT}"),
    "the far end of a large file": (
        f"python3 -c \"print(('y' * 79 + '\\n') * 60000)\" > f; echo token=$TOKEN >> f; {COMMIT}"
    ),
    "a pattern of the policy's": f"echo ACME-123456 > f; {COMMIT}",
}
KINDS = {"an annotated tag": "tags", "a tag of a tag": "tags"}


@pytest.mark.parametrize("bypass", BYPASSES)
def test_a_secret_is_refused_whatever_is_done_about_it(seeded: Gate, bypass: str) -> None:
    directory = seeded.clone("alone")
    before, refused = seeded.refs("alone"), seeded.bundle.logs.count("git_gate.refused")
    code, said = seeded.shell(f"cd {directory}; {BYPASSES[bypass]}; git update-ref refs/push ${{PUSH:-HEAD}}")
    assert code == 0, said
    code, said = seeded.shell(f"cd {directory}; git push origin refs/push:refs/{KINDS.get(bypass, 'heads')}/b")
    assert code != 0, said
    assert said.count("git-gate: what looks like a secret: ") >= 1, said
    assert seeded.refs("alone") == before
    eventually(lambda: seeded.bundle.logs.count("git_gate.refused") > refused, "the refusal in the bundle's log")
    assert GITHUB_TOKEN not in said + seeded.bundle.logs


@pytest.mark.parametrize(
    ("push", "reason"),
    [
        ("HEAD:refs/replace/x", "only branches and tags are accepted"),
        ("HEAD:refs/heads/$TOKEN", "the name of a ref holds what looks like a secret"),
        ("$(echo token=$TOKEN | git hash-object -w --stdin):refs/tags/blob", "only commits, and tags of commits"),
    ],
)
def test_what_could_hide_a_secret_is_refused(seeded: Gate, push: str, reason: str) -> None:
    code, said = seeded.shell(f"cd {seeded.clone('alone')}; git push origin {push}")
    assert code != 0
    assert reason in said


def test_one_secret_refuses_the_whole_push(seeded: Gate) -> None:
    directory = seeded.clone("alone")
    code, said = seeded.shell(
        f"cd {directory}; git checkout -qb clean; git commit -q --allow-empty -m ok; git checkout -qb dirty;"
        "git commit -q --allow-empty -m token=$TOKEN; git push origin clean dirty"
    )
    assert code != 0, said
    assert "refs/heads/clean" not in seeded.refs("alone")


@pytest.mark.parametrize(
    "make",
    [
        "echo fine > ok; git add .; git commit -qm clean",
        "git tag -a -m 'release' r; git checkout -q r",
        "python3 -c \"print(('y' * 79 + '\\n') * 60000)\" > large; git add .; git commit -qm large",
        "head -c 300000 /dev/urandom > binary; git add .; git commit -qm binary",
    ],
)
def test_what_is_clean_is_accepted(seeded: Gate, make: str) -> None:
    directory = seeded.clone("alone")
    branch = Path(directory).name
    code, said = seeded.shell(f"cd {directory}; {make}; git push origin HEAD:refs/heads/{branch}")
    assert code == 0, said
    assert f"refs/heads/{branch}" in seeded.refs("alone")


def test_a_branch_can_be_deleted(seeded: Gate) -> None:
    code, said = seeded.shell(
        f"cd {seeded.clone('alone')}; git push -q origin HEAD:refs/heads/old; git push -q origin :old"
    )
    assert code == 0, said
    assert "refs/heads/old" not in seeded.refs("alone")


@pytest.mark.parametrize("name", ["plain", "secure"])
def test_what_is_accepted_is_in_the_upstream(gate: Gate, name: str) -> None:
    """`secure` wants a credential, which egress has and the agent has not."""
    directory = gate.clone(name)
    assert gate.shell(f"cd {directory}; git log --format=%s; git branch --show-current")[1] == "from upstream\ntrunk\n"
    code, said = gate.shell(f"cd {directory}; echo x > x; git add .; git commit -qm agents; git push origin trunk")
    assert code == 0, said
    assert gate.upstream_log(name, "trunk") == (0, "agents\nfrom upstream\n")
    assert SECRET not in said + gate.bundle.logs
    assert f'{{"event": "git_gate.accepted", "repository": "{name}", "refs": 1}}' in gate.bundle.logs


def test_a_secret_does_not_reach_the_upstream(gate: Gate) -> None:
    code, _ = gate.shell(f"cd {gate.clone('plain')}; git commit -q --allow-empty -m $TOKEN; git push origin HEAD:leak")
    assert code != 0
    assert gate.upstream_log("plain", "leak")[0] != 0


def test_an_upstreams_refusal_is_the_agents(gate: Gate) -> None:
    before = gate.refs("strict")
    code, said = gate.shell(f"cd {gate.clone('strict')}; git commit -q --allow-empty -m x; git push origin HEAD:trunk")
    assert code != 0
    assert "the upstream wants a ticket" in said
    assert gate.refs("strict") == before


def test_unseen_upstream_commits_are_kept(gate: Gate) -> None:
    """What the agent has not seen is not overwritten.

    A forced push against an upstream that has moved on, of which the agent knows nothing.
    """
    directory = gate.clone("plain")
    moved = "c=$(git commit-tree -p trunk -m elsewhere trunk^{tree}); git update-ref refs/heads/trunk $c"
    check(gate.upstream, "sh", "-ec", f"cd /srv/upstream/plain.git; {moved}", environment=IDENTITY)
    script = "git commit -q --amend --allow-empty -m mine; git push --force-with-lease=trunk:HEAD@{1} origin HEAD:trunk"
    code, said = gate.shell(f"cd {directory}; {script}")
    assert code != 0, said
    assert gate.upstream_log("plain", "trunk")[1].startswith("elsewhere\n")


def test_an_upstream_that_is_not_there_is_said(gate: Gate) -> None:
    code, said = gate.shell("git clone -q git://sidecars/gone /tmp/gone")
    assert code != 0
    assert "git-gate: the upstream can't be fetched" in said


def test_only_the_policys_repositories_are_served(gate: Gate) -> None:
    for path in ("other", "../../etc", "alone/../../supervise"):
        assert gate.shell(f"git ls-remote git://sidecars/{path}")[0] != 0


def test_health_checks_leave_nothing_in_the_log(gate: Gate) -> None:
    check(gate.bundle.container, "python3", "-I", "-m", "sidecars.git_gate.health")
    assert "hung up unexpectedly" not in gate.bundle.logs


def test_the_agents_hooks_stay_with_the_agent(seeded: Gate) -> None:
    """The agent's hooks and configuration never reach the gate.

    git never transfers them; that the gate's own are not in the repository is what makes sure.
    """
    look = "cd /run/bottle/state/git/alone.git; ls hooks 2>&1; cat config"
    listed = check(seeded.bundle.container, "sh", "-c", look, user="git-gate")
    assert "hooksPath" not in listed
    assert "pre-receive" not in listed
