"""git-gate: what an agent pushes is scanned, whatever the agent does about it, and forwarded or refused as a whole."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.support.git_gate import COMMIT, Gate, gate
from tests.integration.support.image import GITHUB_TOKEN, SECRET, check, eventually

pytestmark = pytest.mark.docker


@pytest.fixture(scope="module", name="gate")
def gate_fixture(bundle_image: str, agent_image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gate]:
    """One gate for this module; each test pushes to a branch of its own."""
    with gate(bundle_image, agent_image, tmp_path_factory.mktemp("stage")) as made:
        yield made


@pytest.fixture(scope="module")
def seeded(gate: Gate) -> Gate:
    """The gate once `alone` has a first commit."""
    gate.seed("alone")
    return gate


# Each leaves what a scan must not let through at HEAD, or names it in $PUSH.
BYPASSES = {
    "a file": f"echo token=$TOKEN > f; {COMMIT}",
    "an allow comment": f"echo token=$TOKEN '# gitleaks:allow' > f; {COMMIT}",
    "an allow comment in two halves": f"echo token=$TOKEN '# gitleaks:gitleaks:allowallow' > f; {COMMIT}",
    "gitleaks' own configuration": (
        f"printf '[allowlist]\\npaths = [\".*\"]\\n' > .gitleaks.toml; echo token=$TOKEN > f; {COMMIT}"
    ),
    "a file whose name gitleaks passes over": f"mkdir -p node_modules; echo token=$TOKEN > node_modules/f; {COMMIT}",
    "a merge": (
        f"git checkout -qb left; echo 1 > l; {COMMIT}; git checkout -qb right HEAD~1; echo 2 > r; {COMMIT};"
        f"git merge -q --no-commit left >/dev/null; echo token=$TOKEN > f; {COMMIT}"
    ),
    "a message": "git commit -q --allow-empty -m token=$TOKEN",
    "an author": "GIT_AUTHOR_NAME=$TOKEN git commit -q --allow-empty -m x",
    "a file's name": f"echo x > token-$TOKEN; {COMMIT}",
    "a file's name with a line end": f'echo x > "a\n$TOKEN"; {COMMIT}',
    "a directory's name": f"mkdir $TOKEN; echo x > $TOKEN/x; {COMMIT}",
    "a file that is removed again": f"echo token=$TOKEN > f; {COMMIT}; git rm -q f; git commit -qm y",
    "an attribute that calls it binary": f"echo '* -diff' > .gitattributes; echo token=$TOKEN > f; {COMMIT}",
    "bytes that make it binary": f"printf '\\0\\0token=%s\\n' $TOKEN > f; {COMMIT}",
    "glued to other bytes": f"printf 'x%sy' $TOKEN > f; {COMMIT}",
    "UTF-16": f"printf %s token=$TOKEN | iconv -t UTF-16 > f; {COMMIT}",
    "base64": f"printf '\\1\\2\\3%s' $TOKEN | base64 > f; {COMMIT}",
    "base64 in base64": f"printf %s $TOKEN | base64 | base64 > f; {COMMIT}",
    "hexadecimal digits": f"printf %s $TOKEN | od -An -tx1 | tr -d ' \\n' > f; {COMMIT}",
    "a message in another encoding": 'git -c i18n.commitEncoding=UTF-7 commit -q --allow-empty -m "token=$TOKEN"',
    "a header that a log does not show": (
        "{ echo tree $(git rev-parse HEAD^{tree}); echo parent $(git rev-parse HEAD); echo 'author a <a@b> 1 +0000';"
        "echo 'committer a <a@b> 1 +0000'; echo x-note token=$TOKEN; echo; echo x; } > /tmp/c;"
        "PUSH=$(git hash-object -t commit -w /tmp/c)"
    ),
    "an annotated tag": "git tag -a -m token=$TOKEN t; PUSH=t",
    "a tag of a tag": "git tag -a -m token=$TOKEN t1; git tag -a -m x t2 t1; PUSH=t2",
    "a tag of a blob": "PUSH=$(echo token=$TOKEN | git hash-object -w --stdin)",
    "what looks like an archive": (f"python3 -c \"print('x' * 106 + 'ustar')\" > f; echo token=$TOKEN >> f; {COMMIT}"),
    "the far end of a large file": (
        f"python3 -c \"print(('y' * 79 + '\\n') * 60000)\" > f; echo token=$TOKEN >> f; {COMMIT}"
    ),
    "a pattern of the policy's": f"echo ACME-123456 > f; {COMMIT}",
}
TAGS = ("an annotated tag", "a tag of a tag", "a tag of a blob")


@pytest.mark.parametrize("bypass", BYPASSES)
def test_a_secret_is_refused_whatever_is_done_about_it(seeded: Gate, bypass: str) -> None:
    directory = seeded.clone("alone")
    before, refused = seeded.refs("alone"), seeded.bundle.logs.count("git_gate.refused")
    code, said = seeded.shell(f"cd {directory}; {BYPASSES[bypass]}; git update-ref refs/push ${{PUSH:-HEAD}}")
    assert code == 0, said
    kind = "tags" if bypass in TAGS else "heads"
    code, said = seeded.shell(f"cd {directory}; git push origin refs/push:refs/{kind}/b")
    assert code != 0, said
    assert said.count("git-gate: what looks like a secret: ") >= 1, said
    assert seeded.refs("alone") == before
    eventually(lambda: seeded.bundle.logs.count("git_gate.refused") > refused, "the refusal in the bundle's log")
    assert GITHUB_TOKEN not in said + seeded.bundle.logs


@pytest.mark.parametrize("encoding", ["cat", "base64 -w 0", "od -An -v -tx1 | tr -d ' \\n'"])
def test_the_bottles_own_credentials_are_refused(gate: Gate, encoding: str) -> None:
    """The defence is known-secrets.json: no rule of gitleaks' knows this credential."""
    token = SECRET.split()[-1]
    make = f"printf 'xx%syy' {token} | {encoding} > f; {COMMIT}; git push origin HEAD:own"
    code, said = gate.shell(f"cd {gate.clone('alone')}; git checkout -qb own; {make}")
    assert code != 0
    assert 'git-gate: what looks like a secret: token: "f" line 1' in said


@pytest.mark.parametrize(
    ("push", "reason"),
    [
        ("HEAD:refs/replace/x", "only branches and tags are accepted"),
        ("HEAD:refs/notes/commits", "only branches and tags are accepted"),
        ("HEAD:refs/heads/$TOKEN", "what looks like a secret: github-token: the name of a ref"),
    ],
)
def test_what_could_hide_a_secret_is_refused(seeded: Gate, push: str, reason: str) -> None:
    code, said = seeded.shell(f"cd {seeded.clone('alone')}; git commit -q --allow-empty -m x; git push origin {push}")
    assert code != 0
    assert reason in said


def test_a_refusal_names_the_place(seeded: Gate) -> None:
    directory = seeded.clone("alone")
    script = (
        f"mkdir -p 'a b'; printf 'one\\ntwo\\ntoken=%s\\n' $TOKEN > 'a b/c.env'; {COMMIT}; git rev-parse --short HEAD"
    )
    code, said = seeded.shell(f"cd {directory}; {script}; git push origin HEAD:refs/heads/place")
    assert code != 0
    commit = said.splitlines()[0]
    assert f'git-gate: what looks like a secret: github-token: "a b/c.env" line 3 in commit {commit}' in said


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


def test_what_the_upstream_has_already_is_no_leak(gate: Gate) -> None:
    """A file with a token in it, of which another line is changed; and the token is taken out in the end."""
    tree = "blob=$(printf 'token=%s\\n' $TOKEN | git hash-object -w --stdin); "
    tree += 'tree=$(printf "100644 blob $blob\\tfixture\\n" | git mktree); '
    gate.upstream_git("plain", tree + "git update-ref refs/heads/old $(git commit-tree -m fixture -p trunk $tree)")
    directory = gate.clone("plain")
    edit = f"git checkout -q old; echo more >> fixture; {COMMIT}; git push origin HEAD:refs/heads/edited"
    code, said = gate.shell(f"cd {directory}; {edit}")
    assert code == 0, said
    code, said = gate.shell(f"cd {directory}; echo gone > fixture; {COMMIT}; git push origin HEAD:refs/heads/edited")
    assert code == 0, said
    copy = "{ echo; git show origin/old:fixture; } > other"
    code, said = gate.shell(f"cd {directory}; {copy}; {COMMIT}; git push origin HEAD:copied")
    assert code != 0
    assert 'github-token: "other" line 2' in said


def test_old_secrets_do_not_hide_a_new_one(gate: Gate) -> None:
    """A file with more old tokens than a scan names gets one more."""
    lines = "for i in $(seq 100 140); do echo ghp_0123456789abcdefghijABCDEFGHIJ012$i; done"
    tree = f"blob=$({{ {lines}; }} | git hash-object -w --stdin); "
    tree += 'tree=$(printf "100644 blob $blob\\tfixtures\\n" | git mktree); '
    gate.upstream_git("plain", tree + "git update-ref refs/heads/many $(git commit-tree -m fixture -p trunk $tree)")
    directory = gate.clone("plain")
    more = f"git checkout -q many; echo fine >> fixtures; {COMMIT}; git push origin HEAD:more"
    code, said = gate.shell(f"cd {directory}; {more}")
    assert code == 0, said
    code, said = gate.shell(f"cd {directory}; echo $TOKEN >> fixtures; {COMMIT}; git push origin HEAD:more")
    assert code != 0
    assert said.count("what looks like a secret: ") == said.count('"fixtures" line 43 in commit') > 0


@pytest.mark.parametrize("name", ["plain", "secure", "empty"])
def test_what_is_accepted_is_in_the_upstream(gate: Gate, name: str) -> None:
    """`secure` and `empty` want a credential, which egress has and the agent has not."""
    directory = gate.clone(name)
    script = "echo x > x; git add .; git commit -qm agents; git push origin HEAD:refs/heads/trunk"
    code, said = gate.shell(f"cd {directory}; {script}")
    assert code == 0, said
    before = "" if name == "empty" else "from upstream\n"
    assert gate.upstream_log(name, "trunk") == (0, "agents\n" + before)
    assert SECRET not in said + gate.bundle.logs
    assert '"event":"git_gate.accepted"' in gate.bundle.logs
    assert f'"repository":"{name}"' in gate.bundle.logs


def test_a_large_push_reaches_an_http_1_1_upstream(gate: Gate) -> None:
    """An upstream that speaks HTTP/1.1 alone gets what git sends without a length: more than http.postBuffer."""
    directory = gate.clone("secure")
    make = f"head -c 3000000 /dev/urandom > large; {COMMIT}; git push origin HEAD:large"
    code, said = gate.shell(f"cd {directory}; {make}")
    assert code == 0, said
    assert gate.upstream_log("secure", "large")[1].startswith("x\n")
    posts = [line.split() for line in gate.upstream.get_logs()[0].decode().splitlines() if "REQUEST POST" in line]
    assert max((int(size), version) for *_, version, size in posts) > (3_000_000, "HTTP/1.1")


def test_an_upstream_that_is_a_path_gets_the_push(gate: Gate) -> None:
    """The defence is that GIT_QUARANTINE_PATH is not handed on: the upstream's git would refuse to change its refs."""
    make = "git init -q --bare -b trunk /tmp/local.git"
    check(gate.bundle.container, "sh", "-c", make, user="git-gate")
    directory = gate.clone("local")
    code, said = gate.shell(f"cd {directory}; echo x > x; {COMMIT}; git push origin HEAD:trunk")
    assert code == 0, said
    log = ["git", "-C", "/tmp/local.git", "log", "--format=%s", "trunk"]
    assert check(gate.bundle.container, *log, user="git-gate") == "x\n"


def test_the_default_branch_is_the_upstreams(gate: Gate) -> None:
    directory = gate.clone("strict")
    code, said = gate.shell(f"cd {directory}; git branch --show-current; git log --format=%s")
    assert (code, said) == (0, "trunk\nfrom upstream\n")


def test_a_repository_with_sha_256_is_served_as_such(gate: Gate) -> None:
    directory = gate.clone("sum256")
    script = "git rev-parse --show-object-format; git commit -q --allow-empty -m agents; git push origin HEAD:trunk"
    code, said = gate.shell(f"cd {directory}; {script}")
    assert code == 0, said
    assert said.startswith("sha256\n")
    assert gate.upstream_log("sum256", "trunk") == (0, "agents\nfrom upstream\n")


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


def test_the_agent_hears_what_the_upstream_says(gate: Gate) -> None:
    """What an upstream says of a push reaches the agent."""
    directory = gate.clone("talking")
    code, said = gate.shell(f"cd {directory}; git commit -q --allow-empty -m x; git push origin HEAD:new")
    assert code == 0, said
    assert "git-gate: upstream: open a merge request at https://git.test/new" in said


def test_several_refs_are_forwarded_as_a_whole(gate: Gate) -> None:
    """A push of several refs is forwarded as a whole or not at all.

    The defence is --atomic: without it, the upstream takes the one ref that nothing is the matter with.
    """
    hook = "case $1 in refs/heads/taken) echo 'not that one' >&2; exit 1;; esac"
    gate.upstream_git(
        "plain",
        f"printf '#!/bin/sh\\n%s\\n' \"{hook.replace('$', chr(92) + '$')}\" > hooks/update; chmod 755 hooks/update",
    )
    try:
        directory = gate.clone("plain")
        script = "git commit -q --allow-empty -m x; git push origin HEAD:refs/heads/free HEAD:refs/heads/taken"
        code, said = gate.shell(f"cd {directory}; {script}")
        assert code != 0
        assert "not that one" in said
        assert gate.upstream_log("plain", "free")[0] != 0
        assert "refs/heads/free" not in gate.refs("plain")
    finally:
        gate.upstream_git("plain", "rm hooks/update")


def test_unseen_upstream_commits_are_kept(gate: Gate) -> None:
    """What the agent has not seen is not overwritten.

    The upstream moves on while a forced push is being scanned.

    The defence is the lease: without it, the gate would force the upstream to what the agent has.
    """
    directory = gate.clone("plain")
    code, said = gate.shell(f"cd {directory}; git push -q origin HEAD:shared")
    assert code == 0, said
    push = f"cd {directory}; git commit -q --amend --allow-empty -m mine; git push -f origin HEAD:shared"
    with gate.held_hook() as held:
        gate.start(push, "/tmp/unseen")
        held()
        moved = "git update-ref refs/heads/shared $(git commit-tree -p shared -m elsewhere shared^{tree})"
        gate.upstream_git("plain", moved)
    assert "exit 0" not in gate.ended("/tmp/unseen")
    assert gate.upstream_log("plain", "shared")[1].startswith("elsewhere\n")


def test_an_object_that_is_malformed_is_refused(seeded: Gate) -> None:
    """The defence is receive.fsckObjects: git itself would store a commit whose author has no address."""
    made = (
        "{ echo tree $(git rev-parse HEAD^{tree}); echo 'author a 1 +0000'; echo 'committer a 1 +0000'; echo; echo x; }"
    )
    script = "git hash-object -t commit -w --literally --stdin"
    code, said = seeded.shell(
        f"cd {seeded.clone('alone')}; c=$({made} | {script}); git push origin $c:refs/heads/malformed"
    )
    assert code != 0
    assert "missingEmail" in said
    assert "refs/heads/malformed" not in seeded.refs("alone")


def test_an_upstream_that_is_not_there_is_said(gate: Gate) -> None:
    code, said = gate.shell("git clone -q git://sidecars/gone /tmp/gone")
    assert code != 0
    assert "git-gate: the upstream can't be fetched" in said


def test_an_upstream_does_not_send_the_gate_elsewhere(gate: Gate) -> None:
    """The defence is http.followRedirects=false: the place that `moved` names would serve the gate."""
    code, said = gate.shell("git clone -q git://sidecars/moved /tmp/moved")
    assert code != 0
    assert "git-gate: the upstream can't be fetched" in said
    assert "302" in said


def test_only_the_policys_repositories_are_served(gate: Gate) -> None:
    for path in ("other", "../../etc", "alone/../../supervise", "demo.github.io"):
        code, said = gate.shell(f"git ls-remote git://sidecars/{path}")
        assert code != 0
        assert "is not a repository of this bottle (git.repos)" in said


def test_an_archive_can_be_made(seeded: Gate) -> None:
    code, said = seeded.shell(
        "git archive --remote=git://sidecars/alone main | python3 -c 'import sys, tarfile; "
        'print(tarfile.open(fileobj=sys.stdin.buffer, mode="r|").getnames())\''
    )
    assert (code, "readme" in said) == (0, True), said


def test_push_options_are_refused_in_words(seeded: Gate) -> None:
    """An option could have the upstream merge what may only be proposed."""
    directory = seeded.clone("alone")
    code, said = seeded.shell(f"cd {directory}; git push -o merge_request.create origin HEAD:refs/heads/options")
    assert code != 0
    assert "does not support push options" in said


def test_health_checks_leave_nothing_in_the_log(gate: Gate) -> None:
    before = gate.bundle.logs
    assert gate.health()["status"] == "healthy"
    assert gate.bundle.logs == before


def test_the_agents_hooks_stay_with_the_agent(seeded: Gate) -> None:
    """The agent's hooks and configuration never reach the gate.

    git never transfers them; that the gate's own are not in the repository is what makes sure.
    """
    listed = check(
        seeded.bundle.container,
        *("sh", "-c", "cd /run/bottle/state/git/alone.git; ls hooks 2>&1; cat config"),
        user="git-gate",
    )
    assert "hooksPath" not in listed
    assert "pre-receive" not in listed
