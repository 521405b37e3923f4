"""What an agent's requests meet on their way out, by real clients in a real agent container (docs/walls.md).

Each refusal of egress' is asked of egress itself, without pipelock before it, in images/bundle/proxy/internal/egress.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import pytest

from tests.integration.support.image import (
    ENGINES,
    GITHUB_TOKEN,
    POLICY,
    Bottle,
    bottle,
    check,
    eventually,
    run,
)

pytestmark = pytest.mark.docker

PROXY = {"https_proxy": "http://sidecars:8888", "http_proxy": "http://sidecars:8888", "SSL_CERT_FILE": "/tmp/ca.pem"}
PATHS = """
[[egress.hosts]]
host = "a.wild.test"
private = true
paths = ["/allowed/"]
"""


@pytest.fixture(scope="module", params=ENGINES)
def running(
    request: pytest.FixtureRequest, bundle_image: str, agent_image: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Bottle]:
    """A healthy bottle with one engine. Each test leaves it as it was."""
    stage = tmp_path_factory.mktemp("stage")
    with bottle(bundle_image, agent_image, stage, POLICY + PATHS, engine=request.param) as started:
        yield started


def real(running: Bottle) -> bool:
    """Whether pipelock is its project's own. docs/image.md has what it does in another way."""
    return check(running.bundle.container, "cat", "/run/bottle/engine") == "pipelock\n"


def origin_said(running: Bottle) -> str:
    """All that the origin has logged."""
    return str(running.origin.get_wrapped_container().logs().decode())


def origin_saw(running: Bottle) -> list[str]:
    """The requests that the origin has told of, as JSON; the engine may be late with the rest of a long line."""
    return [line.removeprefix("SEEN ") for line in origin_said(running).split("\n")[:-1] if line.startswith("SEEN ")]


@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
def test_an_upload_of_unknown_length_arrives_whole(running: Bottle, version: str) -> None:
    """`curl -T -` sends no length; the origin speaks HTTP/1.1 alone, and gets the body in chunks (W7)."""
    curl = f"curl -sS {version} -T - -o /dev/null -w '%{{http_version}} %{{http_code}}' https://origin.test/upload"
    made = "head -c 3000000 /dev/zero | tr '\\0' x"
    before = len(origin_saw(running))
    said = check(running.agent, "sh", "-c", f"{made} | {curl} --cacert /tmp/ca.pem", environment=PROXY)
    assert said == {"--http1.1": "1.1 200", "--http2": "2 200"}[version]
    seen = json.loads(eventually(lambda: origin_saw(running)[before:], "the request at the origin")[-1])
    assert len(seen["body"]) == 3_000_000
    assert seen["headers"].get("Transfer-Encoding") == "chunked"
    assert "Content-Length" not in seen["headers"]


def test_refusals_are_in_words_that_clients_show(running: Bottle) -> None:
    """A refused CONNECT has the reason in its reason phrase, another refusal in its body as well (W15)."""
    agent = running.agent
    if real(running):
        # A CONNECT that it refuses has no reason phrase; what is in its tunnels egress answers for.
        said = check(agent, "curl", "-sv", "--cacert", "/tmp/ca.pem", "https://a.wild.test/other", environment=PROXY)
        assert "egress: GET /other is not among the methods and paths that egress.hosts allows" in said
        return
    _, connect = run(agent, "curl", "-sv", "https://denied.test/", environment=PROXY)
    assert "HTTP/1.1 403 pipelock: denied.test:443 is not allowed by egress.allow" in connect
    _, body = run(agent, "curl", "-s", "--cacert", "/tmp/ca.pem", "https://a.wild.test/other", environment=PROXY)
    assert body.startswith("pipelock: GET /other is not among the methods and paths that egress.hosts allows")
    asks = "import urllib.request; urllib.request.urlopen('https://denied.test/')"
    _, python = run(agent, "python3", "-c", asks, environment=PROXY)
    assert "403 pipelock: denied.test:443 is not allowed by egress.allow" in python
    asks = "import urllib.request; urllib.request.urlopen('https://a.wild.test/other')"
    _, python = run(agent, "python3", "-c", asks, environment=PROXY)
    assert "HTTP Error 403: pipelock: GET /other is not among the methods and paths" in python
    git = {**PROXY, "GIT_SSL_CAINFO": "/tmp/ca.pem"}
    _, clone = run(agent, "git", "ls-remote", "https://a.wild.test/other", environment=git)
    assert "remote: pipelock: GET /other/info/refs is not among the methods and paths" in clone
    assert "The requested URL returned error: 403" in clone


def test_a_refusal_reaches_a_client_that_still_sends(running: Bottle) -> None:
    """A body that nobody wants is read all the same: the answer is not lost to a reset (W15)."""
    refuses = "egress" if real(running) else "pipelock"
    make = "head -c 20000000 /dev/zero > /tmp/large"
    check(running.agent, "sh", "-c", make)
    for version in ("--http1.1", "--http2"):
        status, body = running.curl(version, "-T", "/tmp/large", "https://a.wild.test/other")
        assert status == 403, body
        assert body.startswith(f"{refuses}: PUT /other is not among the methods and paths")


def test_a_streamed_answer_arrives_as_it_is_sent(running: Bottle) -> None:
    """The origin holds the second event back until the first one has arrived.

    Held, with the real pipelock, by TLS that it does not open.
    """
    fetch = (
        "curl -sN --max-time 300 --cacert /tmp/ca.pem https://origin.test/events > /tmp/events; echo $? > /tmp/ended"
    )
    check(running.agent, "rm", "-f", "/tmp/events", "/tmp/ended")
    running.agent.get_wrapped_container().exec_run(["sh", "-c", fetch], environment=PROXY, detach=True)
    eventually(lambda: check(running.agent, "cat", "/tmp/events") == f"data: {'a' * 100_000}\n\n", "the first event")
    assert running.curl("https://origin.test/go")[0] == 200
    eventually(lambda: run(running.agent, "cat", "/tmp/ended")[1].strip().isdigit(), "the stream's end")
    assert check(running.agent, "cat", "/tmp/ended") == "0\n"
    assert check(running.agent, "cat", "/tmp/events") == "".join(f"data: {letter * 100_000}\n\n" for letter in "ab")


def test_a_download_of_60_mb_arrives_whole(running: Bottle) -> None:
    """Held, with the real pipelock, by TLS that it does not open: what it does, it holds as a whole, for minutes."""
    fetch = "curl -sSf --max-time 300 --cacert /tmp/ca.pem https://origin.test/large | sha256sum"
    arrived = check(running.agent, "sh", "-c", fetch, environment=PROXY).split()[0]
    assert f"LARGE {arrived}\n" in origin_said(running)


def test_patterns_change_while_it_runs(running: Bottle) -> None:
    """A pattern that is added holds after a reload, and one that is gone does not.

    Held, with the real pipelock, by its restart: it refuses both while it runs.
    """
    policy = running.bundle.stage / "policy.toml"
    added, there = "https://origin.test/?order=ORD-1234", "https://origin.test/?staff=ACME-123456"
    assert running.curl(added)[0] == 200
    policy.write_text((POLICY + PATHS).replace("ACME-[0-9]{6}", "ORD-[0-9]{4}"))
    try:
        running.bundle.docker.kill(signal="SIGHUP")
        eventually(lambda: running.curl(added)[0] == 403, "the new pattern")
        eventually(lambda: running.curl(there)[0] == 200, "the old pattern's end")
    finally:
        policy.write_text(POLICY + PATHS)
        running.bundle.docker.kill(signal="SIGHUP")
    eventually(lambda: running.curl(there)[0] == 403, "the old pattern")
    assert running.curl(added)[0] == 200


@contextmanager
def endless(running: Bottle, url: str) -> Iterator[None]:
    """A download that goes on, whose exit code is in /tmp/code once it has ended."""
    before = origin_said(running).count("ENDLESS begins")
    curl = f"curl -sf --max-time 300 --cacert /tmp/ca.pem -o /dev/null {url}; echo $? > /tmp/code"
    check(running.agent, "rm", "-f", "/tmp/code")
    running.agent.get_wrapped_container().exec_run(["sh", "-c", curl], environment=PROXY, detach=True)
    eventually(lambda: origin_said(running).count("ENDLESS begins") > before, "the download")
    yield


def was_reset(running: Bottle, ended: int) -> None:
    """The client's download failed, and the origin's connection did."""
    code = eventually(lambda: run(running.agent, "cat", "/tmp/code")[1].strip().isdigit(), "the download's end")
    assert code
    # Partial, recv failed, a stream reset.
    assert check(running.agent, "cat", "/tmp/code").strip() in ("18", "56", "92")
    eventually(lambda: origin_said(running).count("ENDLESS ended") > ended, "the end at the origin")


def test_a_revoked_host_loses_what_is_open(running: Bottle) -> None:
    """A reload cuts a download from a host that it no longer allows, and no other one (W10).

    Held by Live.Review: without it, and without the sweep each second, the download goes on.
    """
    policy = running.bundle.stage / "policy.toml"
    ended = origin_said(running).count("ENDLESS ended")
    with endless(running, "https://git.test/endless"):
        policy.write_text((POLICY + PATHS).replace('host = "git.test"', 'host = "other.test"'))
        try:
            running.bundle.docker.kill(signal="SIGHUP")
            was_reset(running, ended)
        finally:
            policy.write_text(POLICY + PATHS)
            running.bundle.docker.kill(signal="SIGHUP")
    eventually(lambda: running.curl("https://git.test/")[0] == 200, "the old policy")


def test_the_kill_switch_resets_what_is_open(running: Bottle) -> None:
    """A download is cut on both sides, and not ended as if it were whole (W16). Held by Live.Close."""
    ended = origin_said(running).count("ENDLESS ended")
    with endless(running, "https://origin.test/endless"):
        check(running.bundle.container, "bottle-kill-switch", "on")
        try:
            was_reset(running, ended)
        finally:
            check(running.bundle.container, "bottle-kill-switch", "off")
    eventually(lambda: running.curl("https://origin.test/")[0] == 200, "the end of the kill switch")


def test_the_audit_has_a_line_for_each_request(running: Bottle) -> None:
    """Let through or refused, with the rule and the name of the credential, without the query and the secret."""
    assert running.curl("https://origin.test/audited?key=not-in-the-audit")[0] == 200
    assert running.curl(f"https://origin.test/leak?token={GITHUB_TOKEN}")[0] == 403
    assert running.curl("https://denied.test/")[0] == 403

    def lines(daemon: str) -> list[dict[str, object]]:
        text = check(running.bundle.container, "cat", f"/run/bottle/state/audit/{daemon}/audit.jsonl", user=daemon)
        return [json.loads(line) for line in text.splitlines()]

    def audited(daemon: str, wanted: dict[str, object]) -> bool:
        return any(wanted.items() <= line.items() for line in lines(daemon))

    expected: list[tuple[str, dict[str, object]]] = [
        ("egress", {"verdict": "allowed", "path": "/audited", "credential": "token", "status": 200}),
    ]
    if real(running):
        # It writes what it refuses into the bundle's log, and into no file.
        eventually(lambda: '"event":"blocked"' in running.bundle.logs, "its word of the refused CONNECT")
        expected += [("egress", {"verdict": "refused", "path": "/leak", "status": 403})]
    else:
        expected += [
            ("pipelock", {"verdict": "allowed", "path": "/audited", "status": 200}),
            ("pipelock", {"verdict": "refused", "path": "/leak", "status": 403}),
            ("pipelock", {"event": "connect", "verdict": "refused", "host": "denied.test", "status": 403}),
        ]
    for daemon, wanted in expected:
        eventually(partial(audited, daemon, wanted), f"{daemon}'s line {wanted}")
    said = json.dumps([lines(daemon) for daemon in {daemon for daemon, _ in expected}])
    assert "not-in-the-audit" not in said
    assert GITHUB_TOKEN not in said
    assert GITHUB_TOKEN not in running.bundle.logs
