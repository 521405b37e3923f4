"""`python -m benchmarks.bundle`: one bundle from its start until its ports answer, its memory, and what it uses idle.

Writes docs/benchmarks-bundle.md. Beside this tree's image the one of an earlier commit is measured, and the four
daemons of that image in a container each. It needs an engine on this machine, and root, which may enter the containers'
network. While it counts what an idle bundle costs the engine, nothing else may use the engine.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from benchmarks import table
from benchmarks.aims import Aim
from benchmarks.containers import cpu_s, used
from benchmarks.data_path import REPOSITORY, ROOT, Fault, docker, made_by, make_before
from benchmarks.figures import Samples
from benchmarks.interpreter import BEFORE_COMMIT
from benchmarks.schedule import rotated, say

DOCUMENT = ROOT / "docs/benchmarks-bundle.md"
OURS, BEFORE, FOUR = "bundle", f"bundle of {BEFORE_COMMIT}", "four containers"
ROUNDS, IDLE_S, SETTLE_S, PATIENCE_S = 5, 60.0, 10.0, 120.0
PORTS = {"egress": 9099, "pipelock": 8888, "git-gate": 9418, "supervise": 9100}

# Asks all ports until each takes a connection, then tells the time (ns of CLOCK_MONOTONIC). It runs in the bundle's
# network namespace as root, which the walls let through on loopback.
UNTIL_ANSWERED = """
import socket, sys, time
ports = sys.argv[1:]
while ports:
    try:
        socket.create_connection(("127.0.0.1", int(ports[0])), 1).close()
        ports.pop(0)
    except OSError:
        time.sleep(0.002)
print(time.monotonic_ns())
"""
# The old build's daemons without its init: the first container prepares what all of them share.
PREPARE = "python3 -I -m sidecars.prepare && touch /run/prepared"
PREPARED = "until [ -e /run/prepared ]; do sleep 0.02; done"
ASK = "import socket; socket.create_connection(('127.0.0.1', {port}), 5)"

AIMS = (
    Aim("`docker run` until all ports answer, ms", "start.ms", 0.5, "start.ms", (BEFORE,), contender=OURS),
    Aim("the same, beside four containers", "start.ms", 0.35, "start.ms", (FOUR,), contender=OURS),
    Aim("CPU of the daemons until then, ms", "start.cpu_ms", 0.6, "start.cpu_ms", (BEFORE,), contender=OURS),
    Aim("PSS with the shims, idle, MB", "idle.pss_mb", 0.6, "idle.pss_mb", (BEFORE,), contender=OURS),
    Aim("% of a core with health checks, idle", "idle.percent", 0.4, "idle.percent", (BEFORE,), contender=OURS),
)
LABELS = {
    "start.ms": "`docker run` until all ports answer, ms",
    "start.cpu_ms": "CPU of the daemons until then, ms",
    "idle.pss_mb": "PSS with the shims, idle, MB",
    "idle.percent": "% of a core with health checks and the engine's part, idle",
}


class Peer(NamedTuple):
    """Somebody who is measured: the arguments of `docker run` of each of its containers, the first one's first."""

    name: str
    containers: tuple[tuple[str, ...], ...]

    def start(self, stack: ExitStack, name: str) -> list[str]:
        """Run all of them at the same time, in the network namespace of the first; returns their ids."""

        def run(number: int) -> str:
            network = ("--network", f"container:{name}-0") if number else ()
            arguments = ("--name", f"{name}-{number}", *network, *self.containers[number])
            stack.callback(docker, "rm", "--force", "--volumes", f"{name}-{number}")
            return docker("run", "--detach", *arguments)

        with ThreadPoolExecutor(len(self.containers)) as pool:
            return [run(0), *pool.map(run, range(1, len(self.containers)))]


def contained(network: str, subnet: str, image: str, *options: str) -> tuple[str, ...]:
    """Arguments of `docker run` that the launcher gives a bundle too."""
    return (
        *("--network", network, "--read-only", "--tmpfs=/run", "--tmpfs=/tmp", "--cap-drop=ALL"),
        *(f"--cap-add={name}" for name in ("KILL", "SETUID", "SETGID", "SETPCAP", "NET_ADMIN")),
        *("--env", f"BOTTLE_INTERNAL={subnet}", "--sysctl", "net.ipv4.ip_unprivileged_port_start=0"),
        *(*options, image),
    )


def separate(network: str, run: str, image: str) -> tuple[tuple[str, ...], ...]:
    """The old build's daemons in a container each, under the engine's init, each asked for its health as often."""
    found: list[tuple[str, ...]] = []
    for daemon, port in PORTS.items():
        module = f"sidecars.{daemon.replace('-', '_')}"
        become = f"setpriv --reuid={daemon} --regid={daemon} --clear-groups" if daemon != "supervise" else ""
        script = f"{PREPARE if not found else PREPARED}; exec {become} python3 -I -m {module}"
        first = ("--network", network, "--sysctl", "net.ipv4.ip_unprivileged_port_start=0") if not found else ()
        found.append((
            *first,
            *("--init", "--read-only", "--tmpfs=/tmp", "--volume", f"{run}:/run", "--cap-drop=ALL"),
            *(f"--cap-add={name}" for name in ("KILL", "SETUID", "SETGID", "SETPCAP")),
            *("--health-cmd", f'python3 -I -c "{ASK.format(port=port)}"', "--health-interval=5s"),
            *("--entrypoint", "sh", image, "-c", script),
        ))  # fmt: skip
    return tuple(found)


def measure(peer: Peer, name: str, idle_s: float) -> dict[str, float]:
    """One life. Raises `Fault` where it does not start."""
    with ExitStack() as stack:
        began_ns = time.monotonic_ns()
        ids = peer.start(stack, name)
        pids = [int(docker("inspect", "--format", "{{.State.Pid}}", id_)) for id_ in ids]
        enter = ["nsenter", "--net", "--target", str(pids[0]), sys.executable, "-I", "-S", "-c", UNTIL_ANSWERED]
        try:
            done = subprocess.run(
                [*enter, *map(str, PORTS.values())],
                check=True, capture_output=True, text=True, timeout=PATIENCE_S,
            )  # fmt: skip
        except (subprocess.TimeoutExpired, subprocess.CalledProcessError) as problem:
            logs = "\n".join(docker("logs", "--tail", "20", id_) for id_ in ids)
            raise Fault(f"{peer.name} did not start: {problem}\n{logs}") from None
        found = {"start.ms": (int(done.stdout) - began_ns) / 1e6, "start.cpu_ms": cpu_s(pids) * 1e3}
        time.sleep(min(SETTLE_S, idle_s))
        before, began = used(), time.monotonic()
        time.sleep(idle_s)
        found["idle.percent"] = 100 * (used()["cpu_s"] - before["cpu_s"]) / (time.monotonic() - began)
        found["idle.pss_mb"] = before["pss_mb"]
        return found


def report(samples: Samples, names: list[str], facts: list[str]) -> str:
    """Everything that was measured, as Markdown."""
    body = [[words, *(table.cell(samples.spread(metric, name)) for name in names)] for metric, words in LABELS.items()]
    return table.page(
        facts,
        table.MEDIANS,
        "## Aims\n\n" + table.of_aims(samples, AIMS, OURS),
        "## All of it\n\n" + table.rows(("", *names), body),
    )


def main() -> int:
    """Returns 0 if all of them got through it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bundle", description=__doc__)
    parser.add_argument("--short", action="store_true", help="once, and hardly idle, to see that all of it runs")
    parser.add_argument("--alone", action="store_true", help="without the build that came before")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="(%(default)s)")
    parser.add_argument("--image", default=REPOSITORY, help="the bundle's image (%(default)s)")
    parser.add_argument("--out", type=Path, help="the document to write into")
    chosen = parser.parse_args()
    rounds, idle_s = (1, 1.0) if chosen.short else (chosen.rounds, IDLE_S)
    began, samples = time.monotonic(), Samples()
    run = f"bottle-bench-{uuid.uuid4().hex[:8]}"
    try:
        docker("image", "inspect", chosen.image)
        with ExitStack() as stack:
            docker("network", "create", run)
            stack.callback(docker, "network", "rm", run)
            subnet = docker("network", "inspect", "--format", "{{(index .IPAM.Config 0).Subnet}}", run)
            peers = [Peer(OURS, (contained(run, subnet, chosen.image),))]
            if not chosen.alone:
                before = make_before()
                peers += [Peer(BEFORE, (contained(run, subnet, before),)), Peer(FOUR, separate(run, run, before))]
            for number in range(rounds):
                say(f"round {number + 1} of {rounds}")
                for peer in rotated(peers, number):
                    try:
                        samples.add(str(number), peer.name, measure(peer, run, idle_s))
                    finally:
                        subprocess.run(["docker", "volume", "rm", "--force", run], capture_output=True, check=False)
    except Fault as fault:
        print(f"benchmarks.bundle: {fault}", file=sys.stderr)
        return 1
    text = report(samples, [peer.name for peer in peers], made_by("benchmarks.bundle", began))
    table.publish(text, chosen.out or (None if chosen.short else DOCUMENT))
    return 0


if __name__ == "__main__":
    sys.exit(main())
