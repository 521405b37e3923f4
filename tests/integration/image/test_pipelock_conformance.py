"""What pipelock and egress owe the agent and the operator, whichever engine fills pipelock's slot.

"The internet" is a container of the test's own, on a network of the test's own.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.integration.support.image import (
    ENGINES,
    GITHUB_TOKEN,
    POLICY,
    SECRET,
    Bottle,
    bottle,
    check,
    eventually,
    run,
    skip_without,
)

pytestmark = pytest.mark.docker


@pytest.fixture(scope="module", params=ENGINES)
def conforming(
    request: pytest.FixtureRequest,
    bundle_image: str,
    agent_image: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Bottle]:
    """A healthy bottle with one engine. Each test leaves it as it was."""
    engine = str(request.param)
    with bottle(bundle_image, agent_image, tmp_path_factory.mktemp("stage"), engine=engine) as started:
        assert check(started.bundle.container, "cat", "/run/bottle/engine") == f"{engine}\n"
        yield started


def test_both_engines_conform(bundle_image: str) -> None:
    """Says it once, and aloud, where only one of them is put to the tests below."""
    skip_without("pipelock", bundle_image)
    assert ENGINES == ["portable", "pipelock"]


def health(conforming: Bottle) -> dict[str, object]:
    """pipelock's health as the agent sees it."""
    _, said = run(conforming.agent, "curl", "-s", "--max-time", "60", "http://sidecars:8888/health")
    answer: dict[str, object] = json.loads(said)
    return answer


def healthy(conforming: Bottle) -> bool:
    """Whether the bundle is, by the init's word."""
    return run(conforming.bundle.container, "python3", "-I", "-m", "bottle_init", "health")[0] == 0


def requests_seen(conforming: Bottle) -> int:
    """How many requests have reached the origin, those that it did not understand included."""
    return int(conforming.origin.get_wrapped_container().logs().decode().count("REQUEST "))


def test_an_allowed_host_gets_the_credential(conforming: Bottle) -> None:
    """An allowed host gets the credential, and the agent never sees it."""
    seen = conforming.seen_by_origin("https://origin.test/hello?x=1")
    assert seen["path"] == "/hello?x=1"
    assert seen["headers"]["Authorization"] == SECRET
    assert SECRET not in check(conforming.agent, "env")


def test_a_repeated_credential_is_blotted_out(conforming: Bottle) -> None:
    """An origin that repeats the credential does not show it to the agent.

    Held by egress' look through answers: the origin sends back every header that it got.
    """
    status, body = conforming.curl("https://origin.test/echo")
    assert status == 200
    assert SECRET not in body
    assert SECRET.split()[1] not in body
    assert json.loads(body)["headers"]["Authorization"] == "*" * len(SECRET)


def test_what_the_agent_sends_in_its_place_is_replaced(conforming: Bottle) -> None:
    seen = conforming.seen_by_origin("-H", "Authorization: Bearer forged", "https://origin.test/")
    assert seen["headers"]["Authorization"] == SECRET
    assert "forged" not in json.dumps(seen)


def test_the_credential_goes_nowhere_else(conforming: Bottle) -> None:
    """The credential is sent neither in the clear nor to another host."""
    plain = conforming.seen_by_origin("-H", "Authorization: Bearer forged", "http://origin.test/")
    other = conforming.seen_by_origin("https://git.test/")
    assert "authorization" not in {name.lower() for name in plain["headers"]}
    assert "authorization" not in {name.lower() for name in other["headers"]}


def test_a_body_arrives_whole(conforming: Bottle) -> None:
    body = "x" * 200_000
    check(conforming.agent, "sh", "-c", f"head -c {len(body)} /dev/zero | tr '\\0' x > /tmp/body")
    seen = conforming.seen_by_origin("--data-binary", "@/tmp/body", "https://origin.test/upload")
    assert seen["body"] == body


@pytest.mark.parametrize(
    "url",
    [
        "https://denied.test/",
        "http://denied.test/",
        "https://origin.test:8443/",
        "http://127.0.0.1:9099/",
        "http://169.254.169.254/latest/meta-data/",
        "http://localhost:9100/health",
        "https://origin.test.denied.test/",
    ],
)
def test_any_other_host_is_denied(conforming: Bottle, url: str) -> None:
    before = requests_seen(conforming)
    status, body = conforming.curl(url)
    assert status == 403, body
    assert requests_seen(conforming) == before


def test_a_wildcard_reaches_no_private_address(conforming: Bottle) -> None:
    """A private address behind a wildcard is not reached.

    The test's internet has private addresses: an exact name may lead there, one below a wildcard may not.
    """
    before = requests_seen(conforming)
    status, _ = conforming.curl("https://a.wild.test/")
    assert status in (403, 502)
    assert requests_seen(conforming) == before


@pytest.mark.parametrize("where", ["path", "query", "percent", "base64", "header", "pattern"])
def test_a_secret_is_refused_and_goes_nowhere(conforming: Bottle, where: str) -> None:
    before = requests_seen(conforming)
    arguments = {
        "path": (f"https://origin.test/x/{GITHUB_TOKEN}/y",),
        "query": (f"https://origin.test/?token={GITHUB_TOKEN}",),
        "percent": ("https://origin.test/?token=" + "".join(f"%{byte:02x}" for byte in GITHUB_TOKEN.encode()),),
        "base64": ("https://origin.test/?token=Z2hwXzAxMjM0NTY3ODlhYmNkZWZnaGlqQUJDREVGR0hJSjAxMjM0NQ",),
        "header": ("-H", f"X-Note: {GITHUB_TOKEN}", "https://origin.test/"),
        "pattern": ("https://origin.test/?staff=ACME-123456",),
    }[where]
    status, body = conforming.curl(*arguments)
    assert status == 403, body
    assert GITHUB_TOKEN not in body
    assert requests_seen(conforming) == before


def test_in_the_clear_it_is_refused_as_well(conforming: Bottle) -> None:
    before = requests_seen(conforming)
    assert conforming.curl(f"http://origin.test/?token={GITHUB_TOKEN}")[0] == 403
    assert requests_seen(conforming) == before


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_the_host_header_can_not_lead_elsewhere(conforming: Bottle, scheme: str) -> None:
    """What reaches the origin, if anything does, is for the host that was judged."""
    status, body = conforming.curl("--http1.1", "-H", "Host: denied.test", f"{scheme}://origin.test/")
    assert status == 403 or json.loads(body)["host"] == "origin.test"


def test_the_tls_server_name_can_not_lead_elsewhere(conforming: Bottle) -> None:
    """A tunnel to an allowed host, and TLS inside it for another one."""
    before = requests_seen(conforming)
    elsewhere = ("--connect-to", "denied.test:443:origin.test:443", "https://denied.test/")
    for arguments in (elsewhere, ("-H", "Host: origin.test", *elsewhere)):
        status, _ = conforming.curl("--http1.1", *arguments)
        assert status in (0, 403)
    assert requests_seen(conforming) == before


def test_what_is_not_http_goes_nowhere(conforming: Bottle) -> None:
    """A tunnel to an allowed host that then carries neither TLS nor HTTP."""
    before = requests_seen(conforming)
    script = (
        "import socket\n"
        "tunnel = socket.create_connection(('sidecars', 8888), timeout=20)\n"
        "tunnel.sendall(b'CONNECT origin.test:80 HTTP/1.1\\r\\nHost: origin.test:80\\r\\n\\r\\n')\n"
        "tunnel.recv(4096)\n"
        "tunnel.sendall(b'\\x00\\x01 exfiltrate \\r\\n\\r\\n')\n"
        "try: tunnel.recv(4096)\n"
        "except OSError: pass\n"
    )
    check(conforming.agent, "python3", "-c", script)
    assert requests_seen(conforming) == before
    assert "exfiltrate" not in conforming.origin.get_wrapped_container().logs().decode()


_WEBSOCKET = """
import os, socket, sys
connection = socket.create_connection(("sidecars", 8888), timeout=60)
stream = connection.makefile("rwb")

def head(*lines):
    stream.write("".join(line + "\\r\\n" for line in (*lines, "")).encode())
    stream.flush()
    status = stream.readline().split()[1]
    while stream.readline().strip():
        pass
    return int(status)

assert head("CONNECT origin.test:80 HTTP/1.1", "Host: origin.test:80") == 200
fields = ("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13")
key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
assert head("GET /chat HTTP/1.1", "Host: origin.test", *fields, key) == 101
for text in map(str.encode, sys.argv[1:]):
    mask = os.urandom(4)
    stream.write(bytes([0x81, 0x80 | len(text)]) + mask + bytes(byte ^ mask[i % 4] for i, byte in enumerate(text)))
    stream.flush()
    opcode, length = stream.read(2)
    payload = stream.read(length)
    if opcode == 0x88:
        print("closed", int.from_bytes(payload[:2], "big"), payload[2:].decode(), flush=True)
        break
    text = payload.decode()
    print(text, flush=True)
"""


def test_a_websocket_is_scanned_like_all_else(conforming: Bottle) -> None:
    real = check(conforming.bundle.container, "cat", "/run/bottle/engine") == "pipelock\n"
    refuses = "egress" if real else "pipelock"
    said = check(conforming.agent, "python3", "-c", _WEBSOCKET, "hello", f"token {GITHUB_TOKEN}", "bye")
    assert said == f"hello\nclosed 1008 {refuses}: a message holds what looks like a secret (github-token)\n"
    received = conforming.origin.get_wrapped_container().logs().decode()
    assert "WEBSOCKET b'hello'" in received
    assert GITHUB_TOKEN not in received


def test_trace_shows_nothing(conforming: Bottle) -> None:
    assert conforming.curl("-X", "TRACE", "https://origin.test/")[0] in (403, 405)


def test_the_agent_reaches_nothing_without_pipelock(conforming: Bottle) -> None:
    for target in ("https://origin.test/", "http://sidecars:9099/health", "http://sidecars:18082/"):
        code, _ = run(conforming.agent, "curl", "-s", "--noproxy", "*", "--max-time", "5", target)
        assert code != 0, target


def test_the_kill_switch_stops_everything(conforming: Bottle) -> None:
    """The kill switch stops every request, and health shows it."""
    assert health(conforming)["kill_switch_active"] is False
    assert healthy(conforming)
    before = requests_seen(conforming)
    check(conforming.bundle.container, "bottle-kill-switch", "on")
    try:
        eventually(lambda: health(conforming)["kill_switch_active"], "pipelock's word of the kill switch")
        eventually(lambda: not healthy(conforming), "an unhealthy bundle")
        assert conforming.curl("https://origin.test/")[0] == 503
        assert conforming.curl("http://origin.test/")[0] == 503
        assert requests_seen(conforming) == before
    finally:
        check(conforming.bundle.container, "bottle-kill-switch", "off")
    eventually(lambda: not health(conforming)["kill_switch_active"], "its end")
    eventually(lambda: healthy(conforming), "a healthy bundle")
    assert conforming.curl("https://origin.test/")[0] == 200


def test_usr1_toggles_it_too(conforming: Bottle) -> None:
    """Sent to pipelock itself; the bundle passes none on."""
    toggle = ("sh", "-c", f"kill -USR1 {conforming.bundle.daemons()['pipelock'].pid}")
    check(conforming.bundle.container, *toggle)
    try:
        eventually(lambda: health(conforming)["kill_switch_active"], "the kill switch")
        assert conforming.curl("https://origin.test/")[0] == 503
    finally:
        check(conforming.bundle.container, *toggle)
    eventually(lambda: not health(conforming)["kill_switch_active"], "its end")


def test_a_hup_reads_the_policy_again(conforming: Bottle) -> None:
    """In place: a file is mounted by its inode. Both daemons read it, so both have to allow it."""
    policy = conforming.bundle.stage / "policy.toml"
    assert conforming.curl("https://denied.test/")[0] == 403
    policy.write_text(POLICY.replace('host = "git.test"', 'host = "denied.test"'))
    try:
        conforming.bundle.docker.kill(signal="SIGHUP")
        eventually(lambda: conforming.curl("https://denied.test/")[0] == 200, "the new policy")
        assert conforming.seen_by_origin("https://origin.test/")["headers"]["Authorization"] == SECRET
    finally:
        policy.write_text(POLICY)
        conforming.bundle.docker.kill(signal="SIGHUP")
    eventually(lambda: conforming.curl("https://denied.test/")[0] == 403, "the old policy")


def test_a_policy_with_faults_changes_nothing(conforming: Bottle) -> None:
    policy = conforming.bundle.stage / "policy.toml"
    policy.write_text('[egress]\nallow = ["denied.test", "*."]\n')
    try:
        conforming.bundle.docker.kill(signal="SIGHUP")
        eventually(lambda: "pipelock.reload_refused" in conforming.bundle.logs, "pipelock's refusal")
        eventually(lambda: "egress.reload_refused" in conforming.bundle.logs, "egress's refusal")
    finally:
        policy.write_text(POLICY)
    assert "a wildcard has the form *.DOMAIN" in conforming.bundle.logs
    assert conforming.curl("https://denied.test/")[0] == 403
    assert conforming.curl("https://origin.test/")[0] == 200


def test_both_end_cleanly(conforming: Bottle) -> None:
    """The last test of an engine: a stop is a success."""
    assert conforming.bundle.stop() == 0, conforming.bundle.logs[-3000:]
