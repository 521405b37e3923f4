"""Upstreams by ssh: a deploy key that git-gate alone has, pinned host keys, and a tunnel to nowhere else."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.support.git_gate import COMMIT, HEAD, Gate, gate, git_image
from tests.integration.support.image import GITHUB_TOKEN, check, run

pytestmark = pytest.mark.docker

OTHER_HOST_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
POLICY = (
    HEAD
    + f"""
[[egress.hosts]]
host = "git.test"
for = ["git"]
private = true
[git.repos.keyed]
upstream = "ssh://git@git.test/srv/upstream/plain.git"
private = true
ssh_key = "/run/secrets/deploy"
known_hosts = "git.test {{host_key}}"
[git.repos.short]
upstream = "git@git.test:strict.git"
private = true
ssh_key = "/run/secrets/deploy"
known_hosts = "git.test {{host_key}}"
[git.repos.elsewhere]
upstream = "ssh://git@git.test:2222/srv/upstream/talking.git"
private = true
ssh_key = "/run/secrets/deploy"
known_hosts = "[git.test]:2222 {{host_key}}"
[git.repos.impostor]
upstream = "ssh://git@git.test/srv/upstream/plain.git"
private = true
ssh_key = "/run/secrets/deploy"
known_hosts = "git.test {OTHER_HOST_KEY}"
[git.repos.stranger]
upstream = "ssh://git@git.test/srv/upstream/plain.git"
private = true
ssh_key = "/run/secrets/other"
known_hosts = "git.test {{host_key}}"
"""
)
KEYS = {"deploy": "/tmp/deploy", "other": "/tmp/other"}


@pytest.fixture(scope="module")
def keyed(bundle_image: str, agent_image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gate]:
    image = git_image(agent_image)
    with gate(bundle_image, image, tmp_path_factory.mktemp("stage"), POLICY, image=image, secrets=KEYS) as made:
        yield made


@pytest.mark.parametrize(("name", "upstream"), [("keyed", "plain"), ("elsewhere", "talking")])
def test_a_push_arrives_by_ssh(keyed: Gate, name: str, upstream: str) -> None:
    directory = keyed.clone(name)
    code, said = keyed.shell(f"cd {directory}; git commit -q --allow-empty -m agents; git push origin HEAD:by-ssh")
    assert code == 0, said
    assert keyed.upstream_log(upstream, "by-ssh") == (0, "agents\nfrom upstream\n")
    code, said = keyed.shell(f"cd {directory}; git commit -q --allow-empty -m $TOKEN; git push origin HEAD:leak")
    assert code != 0
    assert GITHUB_TOKEN not in keyed.upstream_log(upstream, "leak")[1]


def test_the_short_form_of_an_ssh_upstream(keyed: Gate) -> None:
    code, said = keyed.shell(f"git -C {keyed.clone('short')} log --format=%s")
    assert (code, said) == (0, "from upstream\n")


def test_another_host_key_is_refused(keyed: Gate) -> None:
    """The defence is StrictHostKeyChecking: without it the gate would talk to whoever answers."""
    code, said = keyed.shell("git ls-remote git://sidecars/impostor")
    assert code != 0
    assert "the upstream's host key is not the one in known_hosts" in said


def test_another_key_is_refused_by_the_upstream(keyed: Gate) -> None:
    code, said = keyed.shell("git ls-remote git://sidecars/stranger")
    assert code != 0
    assert "the upstream does not take the deploy key: ssh_key" in said


@pytest.mark.parametrize("port", ["9418", "23"])
def test_a_tunnel_leads_to_repositories_alone(keyed: Gate, port: str) -> None:
    """egress refuses all but the hosts and ports of upstreams: git-gate itself can't go elsewhere."""
    tunnel = ["/usr/local/libexec/bottle/git-tunnel", "git.test", port]
    code, said = run(keyed.bundle.container, *tunnel, user="git-gate")
    assert code != 0
    assert "egress: 403" in said


def test_the_deploy_key_is_git_gates_alone(keyed: Gate) -> None:
    listed = check(
        keyed.bundle.container, "sh", "-c", "cd /run/bottle/git-gate; stat -c '%a %U %n' keyed.*", user="git-gate"
    )
    assert listed.splitlines() == ["600 git-gate keyed.key", "600 git-gate keyed.known_hosts"]


def test_objects_go_where_the_ssh_server_says(keyed: Gate) -> None:
    """Git LFS over ssh: git-lfs-authenticate names the server and its credential."""
    configure = (
        "export GIT_CONFIG_GLOBAL=/tmp/gitconfig; git lfs install --skip-repo >/dev/null;"
        "git config --global lfs.gitprotocol http;"
    )
    track = "git lfs update >/dev/null; git lfs track '*.bin' >/dev/null; echo by-ssh > a.bin"
    push = f"cd {keyed.clone('keyed')}; {track}; {COMMIT}; git push origin HEAD:objects"
    code, said = keyed.shell(configure + push)
    assert code == 0, said
    assert "by-ssh\n" in check(keyed.upstream, "sh", "-c", "cat /srv/upstream/lfs/*")
