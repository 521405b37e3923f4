"""Git LFS through git-gate: objects wait for the push that names them, and are scanned and forwarded with it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import pytest

from tests.integration.support.git_gate import COMMIT, HEAD, REPOSITORIES, Gate, gate, git_image
from tests.integration.support.image import check, eventually, run

pytestmark = pytest.mark.docker

LIMITS = """
[limits]
push = "2MiB"
"""
WAITING = "/run/bottle/state/git/{}.git/lfs"
# What the launcher's configuration has, and what `git lfs install` writes.
CONFIGURE = (
    "export GIT_CONFIG_GLOBAL=/tmp/gitconfig; git lfs install --skip-repo >/dev/null;"
    "git config --global lfs.gitprotocol http;"
)


@pytest.fixture(scope="module")
def lfs(bundle_image: str, agent_image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gate]:
    policy = HEAD + REPOSITORIES + LIMITS
    with gate(bundle_image, git_image(agent_image), tmp_path_factory.mktemp("stage"), policy) as made:
        made.seed("alone")
        yield made


def push(lfs: Gate, name: str, content: str, branch: str) -> tuple[int, str]:
    """A push of one object, which a shell command writes."""
    directory = lfs.clone(name)
    track = "git lfs update >/dev/null; git lfs track '*.bin' >/dev/null"
    return lfs.shell(f"{CONFIGURE} cd {directory}; {track}; {content} > a.bin; {COMMIT}; git push origin HEAD:{branch}")


def checked_out(lfs: Gate, name: str, branch: str) -> str:
    """The object as a fresh clone has it."""
    lfs.clones += 1
    directory = f"/tmp/fresh-{lfs.clones}"
    clone = f"git clone -q -b {branch} git://sidecars:9418/{name} {directory}"
    code, said = lfs.shell(f"{CONFIGURE} {clone}; cat {directory}/a.bin")
    assert code == 0, said
    return said


def waiting(lfs: Gate, name: str) -> list[str]:
    """The objects in git-gate's store."""
    return run(lfs.bundle.container, "ls", WAITING.format(name), user="git-gate")[1].split()


def upstreams(lfs: Gate) -> list[str]:
    """The objects in the upstream."""
    return check(lfs.upstream, "ls", "/srv/upstream/lfs").split()


def oid(content: str) -> str:
    return hashlib.sha256(content.encode()).hexdigest()


def test_an_object_is_forwarded_with_its_push(lfs: Gate) -> None:
    code, said = push(lfs, "secure", "echo large", "objects")
    assert code == 0, said
    assert oid("large\n") in upstreams(lfs)
    assert waiting(lfs, "secure") == []
    assert checked_out(lfs, "secure", "objects") == "large\n"
    code, said = push(lfs, "secure", "echo large", "again")
    assert code == 0, said


def test_a_secret_in_an_object_is_refused(lfs: Gate) -> None:
    """git-gate keeps the object, and forwards it with no push but one that is let through."""
    code, said = push(lfs, "secure", "printf 'one\ntoken=%s\n' $TOKEN", "leak")
    assert code != 0
    assert 'git-gate: what looks like a secret: github-token: "a.bin" (Git LFS) line 2' in said
    assert len(waiting(lfs, "secure")) == 1
    assert waiting(lfs, "secure")[0] not in upstreams(lfs)
    assert lfs.upstream_log("secure", "leak")[0] != 0


def test_without_an_upstream_objects_stay_here(lfs: Gate) -> None:
    code, said = push(lfs, "alone", "echo ours", "objects")
    assert code == 0, said
    assert waiting(lfs, "alone") == [oid("ours\n")]
    assert checked_out(lfs, "alone", "objects") == "ours\n"


def test_an_object_that_is_too_large_names_the_limit(lfs: Gate) -> None:
    code, said = push(lfs, "alone", "head -c 3000000 /dev/zero", "large")
    assert code != 0
    assert "git-gate: an object may have 2 MiB (limits.push)" in said


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("plain", "Git LFS needs an upstream that is reached by https, http or ssh"),
        ("empty", "the upstream's Git LFS server: 404"),
    ],
)
def test_an_upstream_without_git_lfs_is_said(lfs: Gate, name: str, reason: str) -> None:
    code, said = push(lfs, name, "echo nowhere", "nowhere")
    assert code != 0
    assert reason in said


def test_what_an_object_is_called_is_what_it_holds(lfs: Gate) -> None:
    """The defence is the digest: an object under another's name would be scanned for one push and sent for another."""
    url = f"http://sidecars:9418/alone.git/info/lfs/objects/{oid('one')}"
    put = f"import urllib.request as u; u.urlopen(u.Request('{url}', b'two', method='PUT'))"
    code, said = run(lfs.agent, "python3", "-c", put)
    assert code != 0
    assert "HTTP Error 422" in said
    assert oid("one") not in waiting(lfs, "alone")


def test_the_kill_switch_stops_objects_too(lfs: Gate) -> None:
    check(lfs.bundle.container, "bottle-kill-switch", "on")
    try:
        url = f"http://sidecars:9418/alone.git/info/lfs/objects/{oid('x')}"
        get = f"import urllib.request as u; u.urlopen('{url}')"
        eventually(lambda: "HTTP Error 503" in run(lfs.agent, "python3", "-c", get)[1], "a refusal")
    finally:
        check(lfs.bundle.container, "bottle-kill-switch", "off")
        eventually(lambda: not lfs.health()["kill_switch_active"], "the switch's end")
