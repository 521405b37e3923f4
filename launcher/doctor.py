"""`bottle doctor`: what the engine has, and every wall of the network and of the containers tried for real."""

import platform
import sys
from collections.abc import Iterator
from contextlib import suppress

from launcher import bottles
from launcher.backend import BottleBackend
from launcher.backend.base import Tell
from launcher.errors import LauncherError
from launcher.finding import Finding
from launcher.interrupts import HeldSignals
from launcher.spec import AgentSpec, BottleSpec
from launcher.trial import Trial

METADATA = "169.254.169.254"
WORLD = "192.0.2.1"


def examine(backend: BottleBackend, held: HeldSignals, tell: Tell) -> Iterator[Finding]:
    """Look at everything, one after the other."""
    yield Finding("launcher", True, f"Python {platform.python_version()} on {platform.machine()}, {sys.platform}")
    if not (yield from backend.look(tell)):
        return
    held.check()
    spec, stage_dir = bottles.fresh(BottleSpec("doctor", agent=AgentSpec(command=("sleep", "infinity"))))
    tell("starting a bottle to try its walls")
    try:
        plan = backend.prepare(spec, stage_dir)
        backend.launch(plan, tell)
    except LauncherError as error:
        yield Finding("bottle", False, str(error), error.hint)
        return
    try:
        yield Finding("gate", True, "the bundle answers in the agent's place, and nothing that is forbidden does")
        for wall in (_w1, _w2, _w3, _w4, _w5):
            held.check()
            yield from wall(Trial(backend, plan.slug))
        for name, why in backend.lost:
            yield Finding(name, True, f"cannot stand on this engine: {why}")
    finally:
        backend.stop(plan.slug, tell)


def _w1(trial: Trial) -> Iterator[Finding]:
    gateways = trial.backend.host_addresses(trial.slug)

    def attempt(port: int, text: str) -> None:
        for address in gateways:
            trial.agent("send", address, str(port), text)
            trial.agent("connect", address, str(port), "1")

    arrived = trial.while_listening(attempt)
    words = (
        f"of all that the agent sent to {', '.join(gateways)}, broadcast and to a group, nothing arrived at the host"
    )
    told = ", ".join(
        sorted({f"{each.get('as') or 'tcp'} from {each.get('udp') or each.get('tcp')}" for each in arrived})
    )
    yield Finding(
        "W1",
        not arrived,
        words if not arrived else f"the host got: {told}",
        "the rules on the host do not stand: see docs/launcher.md",
    )
    for address, port in ((METADATA, "80"), (WORLD, "443")):
        answer = trial.agent("connect", address, port, "1")
        yield Finding(
            "W1",
            answer != "connected",
            f"{address}:{port} from the agent: {answer}",
            "the agent's network is not closed",
        )


def _w2(trial: Trial) -> Iterator[Finding]:
    for user in ("pipelock", "git-gate", "supervise"):
        answer = trial.bundle(user, "connect", "192.0.2.1", "443", "1")
        yield Finding(
            "W2",
            answer in ("EPERM", "EACCES", "ECONNREFUSED", "EHOSTUNREACH"),
            f"{user} to the world: {answer}",
            "the bundle's own rules do not stand",
        )


def _w3(trial: Trial) -> Iterator[Finding]:
    address = trial.backend.bundle_address_outside(trial.slug)
    answer = trial.host("connect", address, "8888", "2")
    yield Finding(
        "W3",
        answer != "connected",
        f"the host to the agent's proxy by the egress network: {answer}",
        "any user of the host may use the bundle",
    )


def _w4(trial: Trial) -> Iterator[Finding]:
    found = trial.bundle("root", "status")
    bounding = int(found.get("CapBnd", "0"), 16)
    net_admin = bounding >> 12 & 1
    yield Finding(
        "W4",
        not net_admin,
        "after its rules have been set the bundle has NET_ADMIN no more"
        if not net_admin
        else "the bundle's init still has NET_ADMIN",
        "the image is older than the launcher: build it anew",
    )


def _w5(trial: Trial) -> Iterator[Finding]:
    made = trial.agent("sockets")
    bad = [word for word in ("packet", "raw", "ping", "vsock", "alg") if made.get(word) == "made"]
    yield Finding(
        "W5",
        not bad and made.get("stream") == "made",
        f"the agent's sockets: {_pairs(made)}",
        "the filter of system calls does not hold",
    )
    bound = trial.agent("bind", "53")
    yield Finding(
        "W5", bound != "bound", f"port 53 of the agent's loopback: {bound}", "the engine does not take --sysctl"
    )
    name = trial.agent("resolve", "name.invalid")
    yield Finding(
        "W5",
        not any("." in each for each in name["addresses"]),
        f"a name of the outside: {name['addresses'][0]} after {name['after_s']} s",
    )
    with suppress(TypeError):
        addresses = trial.agent("ipv6")
        yield Finding("W5", not addresses, "the agent has no IPv6 address" if not addresses else f"IPv6 on {addresses}")


def _pairs(found: dict[str, str]) -> str:
    return ", ".join(f"{key} {value}" for key, value in found.items())
