"""git-gate as a server: how many clients it serves, for how long, with which limits, and how it ends."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import pytest

from tests.integration.support.git_gate import COMMIT, HEAD, Gate, gate
from tests.integration.support.image import check, eventually, run

pytestmark = pytest.mark.docker

PROGRESS_INTERVAL_S = 3

LIMITS = """
[git]
quota = "24MiB"
[git.repos.alone]
[git.repos.plain]
upstream = "git://git.test/plain"
private = true
[git.repos.held]
upstream = "git://git.test/held"
private = true
[git.repos.branches]
push = { branches = ["agent/*", "main"], tags = ["v*"], force = ["agent/*"], delete = true }
[limits]
git_connections = 2
git_idle = "1h"
push = "6MiB"
"""

# Clients that say what they want, read what they are told first, and then nothing more. They tell how each one ended.
IDLERS = """
import socket, sys
kind, count = sys.argv[1], int(sys.argv[2])
service = {"push": "receive-pack", "half": "receive-pack", "v0": "upload-pack", "v2": "upload-pack", "mute": ""}[kind]
line = f"git-{service} /alone\\0host=sidecars\\0" + ("\\0version=2\\0" if kind == "v2" else "")
open_ = []
for _ in range(count):
    client = socket.create_connection(("sidecars", 9418))
    if service:
        client.sendall(f"{len(line) + 4:04x}{line}".encode())
        said = b""
        while not said.endswith(b"0000"):
            piece = client.recv(65536)
            if not piece:
                break
            said += piece
    if kind == "half":
        client.sendall(b"00a0")
    open_.append(client)
print("READY", flush=True)
for client in open_:
    try:
        rest = client.recv(65536)
    except ConnectionResetError:
        rest = b"RESET"
    print("ENDED", rest, flush=True)
"""


@pytest.fixture(scope="module", name="gate")
def gate_fixture(bundle_image: str, agent_image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gate]:
    """Two places, a small quota, small pushes."""
    with gate(bundle_image, agent_image, tmp_path_factory.mktemp("stage"), HEAD + LIMITS) as made:
        check(made.agent, "sh", "-c", 'printf %s "$PROGRAM" > /tmp/idlers.py', environment={"PROGRAM": IDLERS})
        made.seed("alone")
        made.seed("branches")
        yield made


@contextmanager
def idlers(gate: Gate, kind: str, count: int) -> Iterator[str]:
    """Clients that hold their connections for as long as they may. Yields the file that they tell their ends in."""
    output = f"/tmp/{kind}-{count}-{gate.clones}"
    gate.clones += 1
    gate.start(f"python3 /tmp/idlers.py {kind} {count}", output)
    eventually(lambda: "READY" in run(gate.agent, "cat", output)[1], "idle clients")
    try:
        yield output
    finally:
        gate.kill(f"idlers.py {kind} {count}")
        eventually(lambda: gate.health()["connections"]["served"] == 0, "places that are free")


def test_idle_clients_give_way_to_those_that_wait(gate: Gate) -> None:
    """Two pushes that send nothing have both places. Whoever comes next waits, and is served."""
    with idlers(gate, "push", 2) as output:
        assert gate.health()["connections"]["served"] == 2
        assert "refs/heads/main" in gate.refs("alone")
        assert "ENDED b'RESET'" in run(gate.agent, "cat", output)[1]
    assert "others were waiting" in gate.bundle.logs


def test_who_waits_is_served_when_a_place_is_free(gate: Gate) -> None:
    with idlers(gate, "v2", 2):
        gate.start("git ls-remote git://sidecars/alone", "/tmp/waited")
        eventually(lambda: gate.health()["connections"]["waiting"] == 1, "a client that waits")
    assert "refs/heads/main" in gate.ended("/tmp/waited")


def test_only_the_agents_network_is_served(
    bundle_image: str, agent_image: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The defence is git-gate's own look at both ends of a connection: whoever is elsewhere gets a reset.

    Without the kernel rules, which would drop the connection before.
    """
    policy = f'walls = "without-kernel-rules"\n{HEAD}[git.repos.alone]\n'
    with gate(bundle_image, agent_image, tmp_path_factory.mktemp("stage"), policy, daemons="git-gate") as made:
        networks = made.bundle.docker.attrs["NetworkSettings"]["Networks"].values()
        upstream = made.upstream.get_wrapped_container()
        upstream.reload()
        theirs = network_ids(upstream.attrs["NetworkSettings"]["Networks"])
        (address,) = (network["IPAddress"] for network in networks if network["NetworkID"] in theirs)
        connect = f"import socket; s = socket.create_connection(('{address}', 9418)); s.sendall(b'GET '); s.recv(9)"
        code, said = run(made.upstream, "python3", "-c", connect)
        assert code != 0
        assert "ConnectionResetError" in said
        assert made.shell("git ls-remote git://sidecars/alone")[0] == 0


def network_ids(networks: Mapping[str, Mapping[str, str]]) -> set[str]:
    return {network["NetworkID"] for network in networks.values()}


def test_more_connections_than_can_wait_are_told_so(gate: Gate) -> None:
    """And the health check gets through."""
    program = "import select, socket\nopen_ = [socket.create_connection(('sidecars', 9418)) for _ in range(16)]\n"
    program += "while True:\n for each in select.select(open_, [], [])[0]:\n  open_.remove(each)\n"
    program += "  open_.append(socket.create_connection(('sidecars', 9418)))\n"
    gate.start(f'python3 -c "{program}"', "/tmp/flood")
    try:
        words = "fatal: remote error: git-gate: 16 connections are open already (limits.git_connections)"
        eventually(lambda: words in gate.shell("git ls-remote git://sidecars/alone")[1], "the words")
        assert gate.health()["status"] == "healthy"
    finally:
        gate.kill("range(16)")
        eventually(lambda: gate.shell("git ls-remote git://sidecars/alone")[0] == 0, "an open door")


@pytest.mark.parametrize("kind", ["push", "v0", "v2", "half"])
def test_a_silent_client_is_let_go_in_every_phase(gate: Gate, kind: str) -> None:
    """A client that says nothing is let go, in every phase.

    Before its commands, in the middle of them, and in both protocols of a fetch. The limit is what they are idle for
    before the policy has such a short one, so that no pace matters.
    """
    words = "nothing came for 1s (limits.git_idle)"
    before = gate.bundle.logs.count(words)
    with idlers(gate, kind, 2) as output:
        gate.obey(HEAD + LIMITS.replace('git_idle = "1h"', 'git_idle = "1s"'))
        assert gate.ended(output).count("ENDED b'RESET'") == 2
    gate.obey(HEAD + LIMITS)
    eventually(lambda: gate.bundle.logs.count(words) == before + 2, "the reason in the log")


def test_a_push_that_is_too_large_names_the_limit(gate: Gate) -> None:
    """The defence is receive.maxInputSize."""
    directory = gate.clone("alone")
    script = f"head -c 7000000 /dev/urandom > large; {COMMIT}; git push origin HEAD:refs/heads/large"
    code, said = gate.shell(f"cd {directory}; {script}")
    assert code != 0
    assert "pack exceeds maximum allowed size (6.00 MiB)" in said
    assert "refs/heads/large" not in gate.refs("alone")


def test_too_much_content_names_the_limit(gate: Gate) -> None:
    """More content than can be scanned is refused, and the limit is named.

    A small pack that unfolds to more than 32 times limits.push.
    """
    directory = gate.clone("alone")
    script = f"head -c 220000000 /dev/zero > zeros; {COMMIT}; git push origin HEAD:refs/heads/zeros"
    code, said = gate.shell(f"cd {directory}; {script}")
    assert code != 0
    assert "git-gate: refused: more than 192 MiB of content at once can't be scanned" in said


def test_a_full_store_says_so_and_serves_what_it_has(gate: Gate) -> None:
    """The quota is git-gate's own: an upstream that does not fit fills no disk, and shuts the door for nobody else."""
    large = "blob=$(head -c 30000000 /dev/urandom | git hash-object -w --stdin); "
    large += 'tree=$(printf "100644 blob $blob\\tlarge\\n" | git mktree); '
    gate.upstream_git("plain", large + "git update-ref refs/heads/large $(git commit-tree -m large -p trunk $tree)")
    code, said = gate.shell("git clone -q git://sidecars/plain /tmp/plain")
    assert code != 0
    assert "git-gate: what the upstream has does not fit" in said
    assert "of 24 MiB (git.quota)" in said
    health = gate.health()
    assert (health["status"], health["store"]["full"]) == ("unhealthy", True)
    assert "git.quota" in health["reason"]
    left = check(gate.bundle.container, "find", "/run/bottle/state/git", "-name", "tmp_*", user="git-gate")
    assert left == "", "temporary packs are removed"
    assert health["store"]["used"] < 24 << 20
    assert "refs/heads/main" in gate.refs("alone")
    gate.upstream_git("plain", "git update-ref -d refs/heads/large")
    directory = gate.clone("plain")
    assert gate.health()["status"] == "healthy"
    assert gate.shell(f"cd {directory}; git log --format=%s")[1] == "from upstream\n"


def test_what_may_be_pushed_is_the_policys(gate: Gate) -> None:
    directory = gate.clone("branches")
    code, said = gate.shell(f"cd {directory}; git commit -q --allow-empty -m x; git push origin HEAD:feature")
    assert code != 0
    assert "refs/heads/feature: only these branches may be pushed: agent/*, main (push.branches)" in said
    code, said = gate.shell(f"cd {directory}; git tag t; git push origin t")
    assert code != 0
    assert "refs/tags/t: only these tags may be pushed: v* (push.tags)" in said
    code, said = gate.shell(f"cd {directory}; git tag v1; git push origin HEAD:agent/a HEAD:main v1")
    assert code == 0, said
    rewrite = "git commit -q --amend --allow-empty -m y"
    code, said = gate.shell(f"cd {directory}; {rewrite}; git push -f origin HEAD:main")
    assert code != 0
    assert "refs/heads/main: only these branches may be rewritten: agent/* (push.force)" in said
    code, said = gate.shell(f"cd {directory}; git push -f origin HEAD:agent/a; git push origin :agent/a")
    assert code == 0, said
    assert "agent/a" not in gate.refs("branches")


def test_the_default_rules_of_pushes(gate: Gate) -> None:
    """By default nothing is deleted, and the default branch is not rewritten."""
    directory = gate.clone("plain")
    code, said = gate.shell(f"cd {directory}; git commit -q --allow-empty -m x; git tag t; git push origin HEAD:a t")
    assert code == 0, said
    rewrite = "git commit -q --amend --allow-empty -m y"
    code, said = gate.shell(f"cd {directory}; {rewrite}; git push -f origin HEAD:a")
    assert code == 0, said
    for push, reason in {
        ":a": "refs/heads/a: nothing may be deleted here (push.delete)",
        ":t": "refs/tags/t: nothing may be deleted here (push.delete)",
        "-f HEAD:refs/tags/t": "refs/tags/t: the tag is there already, and may not be moved",
        "-f HEAD~1^{tree}:refs/tags/t": "refs/tags/t: the tag is there already, and may not be moved",
    }.items():
        code, said = gate.shell(f"cd {directory}; git push origin {push}")
        assert code != 0, push
        assert reason in said
    orphan = "git commit-tree -m orphan HEAD^{tree}"
    code, said = gate.shell(f"cd {directory}; git push -f origin $({orphan}):trunk")
    assert code != 0
    assert "refs/heads/trunk: the upstream's default branch may not be rewritten (push.force)" in said
    # The upstream has chosen another default since the gate last looked, and nothing else has changed there.
    gate.upstream_git("plain", "git symbolic-ref HEAD refs/heads/a")
    code, said = gate.shell(f"cd {directory}; git push -f origin $({orphan}):a")
    gate.upstream_git("plain", "git symbolic-ref HEAD refs/heads/trunk")
    assert code != 0
    assert "refs/heads/a: the upstream's default branch may not be rewritten" in said


def approve(gate: Gate, *entries: dict[str, object]) -> None:
    """What the operator's command writes and does."""
    name = "/run/bottle/approvals"
    code = f"import os, sys; open('{name}.new', 'w').write(sys.argv[1]); os.chmod('{name}.new', 0o644); "
    code += f"os.rename('{name}.new', '{name}.json')"
    check(gate.bundle.container, "python3", "-I", "-c", code, json.dumps(entries))
    gate.reload()


def push_entry(push: str, until: int = 4_000_000_000) -> dict[str, object]:
    return {"id": "1", "kind": "push", "reason": "ours", "at": 1, "until": until, "push": push, "repository": "alone"}


def test_an_approval_lets_exactly_that_push_through(gate: Gate) -> None:
    """What the operator approved lets exactly that push through."""
    directory = gate.clone("alone")
    make = f"git checkout -qb released; echo token=$TOKEN > f; {COMMIT}"
    code, said = gate.shell(f"cd {directory}; {make}; git push origin released")
    assert code != 0
    push = said.partition("ask for push ")[2].split()[0]
    approve(gate, push_entry(push, until=1))
    assert gate.shell(f"cd {directory}; git push origin released")[0] != 0, "the approval has ended"
    approve(gate, push_entry(push))
    for other in ("released:elsewhere", "released HEAD~1:refs/heads/more"):
        assert gate.shell(f"cd {directory}; git push origin {other}")[0] != 0, "another push"
    code, said = gate.shell(f"cd {directory}; git push origin released")
    assert code == 0, said
    assert "refs/heads/released" in gate.refs("alone")
    code, said = gate.shell(f"cd {directory}; git commit -q --allow-empty -m token=$TOKEN; git push origin released")
    assert code != 0, "the next one"
    line = next(line for line in gate.audit("push") if line.get("push") == push and line["verdict"] == "allowed")
    assert line["rule"] == "approval"


def test_an_approved_repository_until_it_is_revoked(gate: Gate) -> None:
    """A repository that was approved is served until it is revoked."""
    assert gate.shell("git ls-remote git://sidecars/later")[0] != 0
    entry = {
        "id": "2",
        "kind": "repository",
        "reason": "",
        "at": 1,
        "until": 4_000_000_000,
        "name": "later",
        "repository": {},
    }
    approve(gate, entry)
    assert gate.shell("git ls-remote git://sidecars/later")[0] == 0
    approve(gate)
    assert gate.shell("git ls-remote git://sidecars/later")[0] != 0


def test_fetches_and_pushes_are_in_the_audit(gate: Gate) -> None:
    directory = gate.clone("alone")
    gate.shell(f"cd {directory}; git commit -q --allow-empty -m audited; git push origin HEAD:audited")
    gate.shell(f"cd {directory}; git commit -q --allow-empty -m $TOKEN; git push origin HEAD:leak")
    fetches, pushes = gate.audit("fetch"), gate.audit("push")
    assert {"daemon": "git-gate", "verdict": "allowed", "repository": "alone"}.items() <= fetches[-1].items()
    accepted, refused = pushes[-2:]
    assert (accepted["verdict"], accepted["refs"]) == ("allowed", ["refs/heads/audited"])
    assert (refused["verdict"], refused["refs"]) == ("refused", ["refs/heads/leak"])
    assert refused["rule"] == "secret: github-token"
    assert refused["sent_bytes"] > 0


class TestTheKillSwitch:
    """Nothing gets out, in whatever state the switch finds it."""

    @pytest.fixture
    def switch(self, gate: Gate) -> Iterator[Gate]:
        yield gate
        check(gate.bundle.container, "bottle-kill-switch", "off")
        eventually(lambda: not gate.health()["kill_switch_active"], "the switch's end")

    def test_a_push_that_is_being_scanned_does_not_arrive(self, switch: Gate) -> None:
        directory = switch.clone("plain")
        push = f"cd {directory}; git commit -q --allow-empty -m x; git push origin HEAD:switched"
        with switch.held_hook() as held:
            switch.start(push, "/tmp/switched")
            hook = held()
            check(switch.bundle.container, "bottle-kill-switch", "on")
            assert "exit 0" not in switch.ended("/tmp/switched")
            eventually(lambda: hook not in {p.pid for p in switch.bundle.processes()}, "the hook's end")
        assert switch.upstream_log("plain", "switched")[0] != 0
        check(switch.bundle.container, "bottle-kill-switch", "off")
        eventually(lambda: not switch.health()["kill_switch_active"], "the switch's end")
        assert "switched" not in switch.refs("plain")

    def test_a_push_that_is_being_forwarded_is_cut(self, switch: Gate) -> None:
        directory = switch.clone("held")
        check(switch.upstream, "sh", "-c", "rm -f /tmp/held-*")
        switch.start(f"cd {directory}; git commit -q --allow-empty -m x; git push origin HEAD:trunk", "/tmp/cut")
        eventually(lambda: run(switch.upstream, "test", "-e", "/tmp/held-arrived")[0] == 0, "the upstream's hook")
        check(switch.bundle.container, "bottle-kill-switch", "on")
        assert "exit 0" not in switch.ended("/tmp/cut")
        check(switch.upstream, "touch", "/tmp/held-go")

    def test_what_is_open_is_reset_and_nothing_new_begins(self, switch: Gate) -> None:
        with idlers(switch, "v2", 1) as output:
            check(switch.bundle.container, "bottle-kill-switch", "on")
            assert "ENDED b'RESET'" in switch.ended(output)
            code, said = switch.shell("git ls-remote git://sidecars/alone")
            assert code != 0
            assert "git-gate: the operator's kill switch is on" in said
        health = switch.health()
        assert (health["status"], health["kill_switch_active"]) == ("unhealthy", True)


def test_a_push_whose_client_is_gone_does_not_arrive(gate: Gate) -> None:
    directory = gate.clone("plain")
    with gate.held_hook() as held:
        push = f"cd {directory}; git commit -q --allow-empty -m x; git push origin HEAD:abandoned"
        gate.start(push, "/tmp/abandoned")
        hook = held()
        gate.kill("HEAD:abandoned")
        eventually(lambda: hook not in {p.pid for p in gate.bundle.processes()}, "the hook's end")
    assert gate.upstream_log("plain", "abandoned")[0] != 0
    assert "abandoned" not in gate.refs("plain")
    eventually(lambda: "the client is gone" in gate.bundle.logs, "the reason in the log")


def test_a_push_that_takes_long_says_how_far_it_is(gate: Gate) -> None:
    """It takes long because the hook is held for longer than the interval at which it speaks."""
    directory = gate.clone("alone")
    script = f"head -c 2000000 /dev/urandom > r; {COMMIT}; git push origin HEAD:slow"
    with gate.held_hook() as held:
        gate.start(f"cd {directory}; {script}", "/tmp/slow")
        held()
        time.sleep(PROGRESS_INTERVAL_S + 1)
    said = gate.ended("/tmp/slow")
    assert "exit 0" in said
    assert "git-gate: scanning: " in said


@pytest.mark.parametrize("kind", ["push", "v2", "mute"])
def test_a_stop_is_clean_whatever_is_open(
    bundle_image: str, agent_image: str, tmp_path_factory: pytest.TempPathFactory, kind: str
) -> None:
    """git-gate ends with 0 before the init has to kill it."""
    policy = HEAD + "[git.repos.alone]\n"
    stage = tmp_path_factory.mktemp("stage")
    with gate(bundle_image, agent_image, stage, policy, daemons="git-gate") as made:
        check(made.agent, "sh", "-c", 'printf %s "$PROGRAM" > /tmp/idlers.py', environment={"PROGRAM": IDLERS})
        made.seed("alone")
        made.start(f"python3 /tmp/idlers.py {kind} 3", "/tmp/open")
        eventually(lambda: "READY" in run(made.agent, "cat", "/tmp/open")[1], "open connections")
        made.bundle.docker.stop(timeout=10)
        assert made.bundle.wait_ended() == 0
        ended = [json.loads(line) for line in made.bundle.logs.splitlines() if '"child_exited"' in line]
        assert [line["code"] for line in ended if line["child"] == "git-gate"] == [0]
