"""`python -m benchmarks.data_path`: what requests cost through a bundle, beside other bundles and no proxy at all.

Writes docs/benchmarks-data-path.md. Everything runs in containers on networks of its own; the peers' images are made
once and kept.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
import uuid
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from benchmarks import table
from benchmarks.aims import Aim
from benchmarks.figures import Samples
from benchmarks.interpreter import BEFORE_COMMIT
from benchmarks.schedule import rotated, say

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).resolve().parents[1]
DOCUMENT = ROOT / "docs/benchmarks-data-path.md"
REPOSITORY = "claude-bottle-sidecars"
LOAD = "claude-bottle-load"

DIRECT, BEFORE, MINIMAL, OURS = "no proxy", f"mitmproxy ({BEFORE_COMMIT})", "mitmproxy, minimal", "bottle-proxy"
BASES = ("debian:trixie-slim", "bottle-base:trixie")
CREDENTIAL = "Bearer what-the-agent-must-not-see-0123456789"
PATIENCE_S = 300.0
STAGE = "/srv"
"""Where files of ours are in every container."""

MB = 1_000_000

PROXY_MODULE = "/usr/local/lib/python3.13/dist-packages/sidecars/proxy.py"
# mitmproxy with what a proxy needs of its addons, in place of all of them.
FEWER_ADDONS = {
    "master = DumpMaster(Options(confdir=str(confdir), mode=modes), with_dumper=False)": (
        """from mitmproxy.addons import core, next_layer, proxyserver, termlog, tlsconfig
    from mitmproxy.master import Master
    master = Master(Options(confdir=str(confdir), mode=modes))
    few = core.Core(), proxyserver.Proxyserver(), next_layer.NextLayer(), tlsconfig.TlsConfig(), termlog.TermLog()
    master.addons.add(*few)"""
    ),
    '    "onboarding": False,\n': "",
}

HOSTS = ("origin.test", "origin.test:8443", "keyed.test")
CREDENTIALS = """
[[egress.credentials]]
host = "keyed.test"
header = "Authorization"
value_file = "/run/secrets/key"
"""
POLICIES = {
    BEFORE: f'[egress]\nallow = {json.dumps([*HOSTS, "pass.test"])}\nupstream_ca = "/srv/origin.pem"\n{CREDENTIALS}',
    OURS: '[egress]\nupstream_ca = "/srv/origin.pem"\n'
    + "".join(f'[[egress.hosts]]\nhost = "{host}"\nprivate = true\n' for host in HOSTS)
    + f'[[egress.hosts]]\nhost = "pass.test"\nprivate = true\non_secret = "pass"\n{CREDENTIALS}',
}
POLICIES[MINIMAL] = POLICIES[BEFORE]

# What a process has used and holds, of the daemon whose user asks.
OF_ITSELF = """
import json, os
found = {"cpu_s": 0.0, "pss_mb": 0.0}
for pid in filter(str.isdigit, os.listdir("/proc")):
    try:
        if int(pid) == os.getpid() or os.stat("/proc/" + pid).st_uid != os.getuid():
            continue
        fields = open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()
        rollup = open(f"/proc/{pid}/smaps_rollup").read().splitlines()
    except OSError:
        continue
    found["cpu_s"] += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    found["pss_mb"] += sum(int(line.split()[1]) for line in rollup if line.startswith("Pss:")) / 1000
print(json.dumps(found))
"""


class Work(NamedTuple):
    """What `load` is asked to do in one round, and how often."""

    name: str
    words: str
    options: str
    requests: int
    rounds: int
    directly: str = ""
    """What is asked for without a proxy, where that differs."""


H1, H2 = "-url https://origin.test:8443/", "-h2 -url https://origin.test/"
UP = f"-up {200 * MB}"
WORKS = (
    Work("h1", "one request, HTTP/1.1, kept alive", f"{H1} -n 500", 500, 5),
    Work("h2", "one request, HTTP/2", f"{H2} -n 500", 500, 5),
    Work("mixed", "one request by HTTP/2, to an origin of HTTP/1.1", f"{H1} -h2 -n 200", 200, 5, f"{H1} -n 200"),
    Work("fresh", "one request, a new connection with TLS", f"{H1} -fresh -n 100", 100, 5),
    Work("parallel", "one request of 200 in parallel, HTTP/1.1", f"{H1} -n 3000 -c 200", 3000, 5),
    Work("down", "1 GB down, HTTP/1.1", f"{H1}?n={1000 * MB}", 1, 3),
    Work("up", "200 MB up, HTTP/1.1", f"{H1} {UP}", 1, 3),
    Work("unscanned", 'the same to a host with `on_secret = "pass"`', f"-url https://pass.test/ {UP}", 1, 3),
    Work("websocket", "150 MiB through one websocket", "-url https://origin.test:8443/ -websocket 150", 1, 3),
)

AIMS = (
    Aim("CPU of both proxies for a request, HTTP/1.1", "h1.cpu_ms", 0.6, "h1.cpu_ms", (BEFORE,), contender=OURS),
    Aim("CPU of both proxies for a request, HTTP/2", "h2.cpu_ms", 0.6, "h2.cpu_ms", (BEFORE,), contender=OURS),
    Aim("the same to an origin of HTTP/1.1 alone", "mixed.cpu_ms", 0.25, "mixed.cpu_ms", (BEFORE,), contender=OURS),
    Aim("a new connection with TLS, p50", "fresh.p50_ms", 0.6, "fresh.p50_ms", (BEFORE,), contender=OURS),
    Aim("200 in parallel, requests a second", "parallel.per_s", 2.5, "parallel.per_s", (BEFORE,), True, OURS),
    Aim("1 GB down", "down.ms", 2, "down.ms", (DIRECT,), contender=OURS),
    Aim("200 MB up", "up.ms", 2, "up.ms", (DIRECT,), contender=OURS),
    Aim("scanning, MB a CPU second", "scan.mb_per_cpu_s", 100, at_least=True, contender=OURS),
    Aim("memory of both proxies after 150 MiB through one websocket, MB", "websocket.grown_mb", 10, contender=OURS),
)


class Fault(Exception):
    """What stands in the way, in words for whoever runs this."""


def docker(*arguments: str, given: bytes = b"") -> str:
    """What a docker command writes. Raises `Fault` where it fails."""
    done = subprocess.run(["docker", *arguments], input=given, capture_output=True, check=False)
    if done.returncode:
        raise Fault(f"docker {shlex.join(arguments[:6])}: {done.stderr.decode(errors='replace').strip()[-3000:]}")
    return done.stdout.decode().strip()


def slug(name: str) -> str:
    """A name that can be a file's."""
    return re.sub(r"\W+", "-", name)


def have(image: str) -> bool:
    """Whether the engine has the image."""
    return subprocess.run(["docker", "image", "inspect", image], capture_output=True, check=False).returncode == 0


def write_before(directory: Path) -> None:
    """Write the sources of the old build into a directory. Raises `Fault` where this clone does not have them."""
    archive = subprocess.run(["git", "-C", ROOT, "archive", BEFORE_COMMIT], capture_output=True, check=False)
    if archive.returncode:
        raise Fault(f"{BEFORE_COMMIT} is not in this clone's history (a shallow one? `git fetch --unshallow`)")
    subprocess.run(["tar", "-xC", directory], input=archive.stdout, check=True)


def make_before() -> str:
    """The image of the old build, made by its own script out of this repository's history unless it is there."""
    image = f"{REPOSITORY}:{BEFORE_COMMIT}"
    if have(image):
        return image
    say(f"building {image}, once")
    with tempfile.TemporaryDirectory(prefix="bottle-before-") as directory:
        write_before(Path(directory))
        build = [f"{directory}/images/bundle/build", "--tag", BEFORE_COMMIT]
        done = subprocess.run(build, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Fault(f"building {image}: {done.stderr[-3000:]}")
    return image


def make_minimal(before: str) -> str:
    """The old build's image, with the fewest addons that a proxy of mitmproxy's can do with."""
    image = f"{before}-minimal"
    patch = f"""
import compileall, py_compile
path = {PROXY_MODULE!r}
text = open(path).read()
for old, new in {FEWER_ADDONS!r}.items():
    assert text.count(old) == 1, old
    text = text.replace(old, new)
open(path, "w").write(text)
compileall.compile_file(path, force=True, quiet=1, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
"""
    script = json.dumps(["python3", "-c", patch])
    docker("build", "--tag", image, "-", given=f"FROM {before}\nUSER root\nRUN {script}\n".encode())
    return image


def make_load() -> str:
    """The image of both ends."""
    base = next((base for base in BASES if have(base)), BASES[0])
    docker("build", "--tag", LOAD, "--build-arg", f"BASE={base}", str(ROOT / "benchmarks/load"))
    return LOAD


class Container(NamedTuple):
    """A running container."""

    id: str

    def run(self, *command: str, user: str = "0", given: bytes = b"") -> str:
        """What a command in it writes."""
        return docker("exec", "--interactive", "--user", user, self.id, *command, given=given)

    def wait_for(self, *command: str) -> str:
        """What a command writes once it succeeds."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                return self.run(*command)
            except Fault as fault:
                if time.monotonic() > deadline:
                    raise Fault(f"{fault}\n{docker('logs', self.id)[-3000:]}") from None
                time.sleep(0.3)


class Peer(NamedTuple):
    """Somebody who is measured."""

    name: str
    bundle: Container | None

    def used(self) -> dict[str, float]:
        """CPU seconds and PSS (MB) of both proxies so far."""
        total = {"cpu_s": 0.0, "pss_mb": 0.0}
        for user in ("egress", "pipelock") if self.bundle else ():
            assert self.bundle
            for key, value in json.loads(self.bundle.run("python3", "-I", "-c", OF_ITSELF, user=user)).items():
                total[key] += value
        return total


class Field:
    """The networks, the origin, and whoever asks. All of it is gone when the stack ends."""

    def __init__(self, stack: ExitStack, stage: Path) -> None:
        self._stack, self._stage = stack, stage
        self._name = f"bottle-bench-{uuid.uuid4().hex[:8]}"
        self.inside = self._network("inside", "--internal")
        self.outside = self._network("outside")
        self._origin = self._start("--network", self.outside, "--entrypoint", "load", LOAD, "origin", STAGE)
        address = self._address(self._origin, self.outside)
        # No name is resolved by the engine: its resolver would be measured too.
        self._hosts = [f"--add-host={name}:{address}" for name in ("origin.test", "pass.test", "keyed.test")]
        certificate = self._origin.wait_for("cat", f"{STAGE}/origin.pem")
        (stage / "origin.pem").write_text(certificate)
        sleep = ("--init", "--entrypoint", "sleep", LOAD, "infinity")
        self.asker = self._start("--network", self.inside, *self._hosts, *sleep)
        docker("network", "connect", self.outside, self.asker.id)
        self._trust(DIRECT, certificate)

    def _network(self, kind: str, *options: str) -> str:
        name = f"{self._name}-{kind}"
        docker("network", "create", *options, name)
        self._stack.callback(docker, "network", "rm", name)
        return name

    def _start(self, *arguments: str) -> Container:
        container = Container(docker("run", "--detach", *arguments))
        self._stack.callback(docker, "rm", "--force", container.id)
        return container

    @staticmethod
    def _address(container: Container, network: str) -> str:
        template = f'{{{{(index .NetworkSettings.Networks "{network}").IPAddress}}}}'
        return docker("inspect", "--format", template, container.id)

    def _trust(self, peer: str, certificate: str) -> None:
        self.asker.run("sh", "-c", f"cat > {self._authorities(peer)}", given=certificate.encode())

    def _authorities(self, peer: str) -> str:
        return f"{STAGE}/{slug(peer)}.pem"

    def bundle(self, name: str, image: str) -> Peer:
        """A bundle of that image, with both proxies up."""
        stage = self._stage / slug(name)
        stage.mkdir(mode=0o755)
        for file, content, mode in (
            ("policy.toml", POLICIES[name], 0o644),
            ("key", CREDENTIAL, 0o600),
            ("origin.pem", (self._stage / "origin.pem").read_text(), 0o644),
        ):
            (stage / file).write_text(content)
            (stage / file).chmod(mode)
        subnet = docker("network", "inspect", "--format", "{{(index .IPAM.Config 0).Subnet}}", self.inside)
        container = self._start(
            *("--network", self.inside, "--read-only", "--tmpfs=/run", "--tmpfs=/tmp", "--no-healthcheck"),
            *("--cap-drop=ALL", *self._hosts),
            *(f"--cap-add={name}" for name in ("KILL", "SETUID", "SETGID", "SETPCAP", "NET_ADMIN")),
            *("--env", f"BOTTLE_INTERNAL={subnet}", "--env", "CLAUDE_BOTTLE_SIDECAR_DAEMONS=egress,pipelock"),
            *("--sysctl", "net.ipv4.ip_unprivileged_port_start=0"),
            *("--volume", f"{stage}:{STAGE}:ro", "--volume", f"{stage}/policy.toml:/etc/bottle/policy.toml:ro"),
            *("--volume", f"{stage}/key:/run/secrets/key:ro", image),
        )
        docker("network", "connect", self.outside, container.id)
        self._trust(name, container.wait_for("cat", "/run/bottle/ca/pipelock-ca.pem"))
        container.wait_for("python3", "-I", "-m", "bottle_init", "health")
        return Peer(name, container)

    def load(self, peer: Peer, options: str) -> subprocess.Popen[str]:
        """Begins the work through that peer."""
        where: list[str] = []
        if peer.bundle:
            where = ["-proxy", f"http://{self._address(peer.bundle, self.inside)}:8888"]
        command = [
            "docker",
            "exec",
            "--interactive",
            self.asker.id,
            "load",
            "-ca",
            self._authorities(peer.name),
            *where,
        ]
        return subprocess.Popen([*command, *options.split()], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def measure(field: Field, peer: Peer, work: Work) -> dict[str, float]:
    """One piece of work through one peer. Raises `Fault` where a request failed."""
    before = peer.used()
    running = field.load(peer, work.options if peer.bundle or not work.directly else work.directly)
    assert running.stdin
    assert running.stdout
    lines = [running.stdout.readline()]
    after = peer.used()
    if lines[0] == "sent\n":
        running.stdin.close()
        lines.append(running.stdout.readline())
    if running.wait(PATIENCE_S):
        raise Fault(f"load {work.options} ended with {running.returncode}")
    got = json.loads(lines[-1])
    if got["errors"]:
        raise Fault(f"{got['errors']} of {work.requests} failed: {got['first_error']}")
    found = {"ms": got["seconds"] * 1e3 / work.requests, "per_s": work.requests / got["seconds"]}
    if got["p50_ms"]:
        found["p50_ms"] = got["p50_ms"]
    if peer.bundle:
        found["cpu_ms"] = (after["cpu_s"] - before["cpu_s"]) * 1e3 / work.requests
        found["pss_mb"] = after["pss_mb"]
        if work.name == "websocket":
            found["grown_mb"] = after["pss_mb"] - before["pss_mb"]
    return {f"{work.name}.{figure}": value for figure, value in found.items()}


def scanning(samples: Samples, number: int, metrics: dict[str, dict[str, float]]) -> None:
    """Adds what scanning alone costs both proxies: the CPU that a body takes more than it takes unscanned."""
    for peer, of in metrics.items():
        if "up.cpu_ms" in of and "unscanned.cpu_ms" in of and peer == OURS:
            more_s = (of["up.cpu_ms"] - of["unscanned.cpu_ms"]) / 1e3
            if more_s > 0:
                samples.add(str(number), peer, {"scan.mb_per_cpu_s": 2 * 200 / more_s})


def run(field: Field, peers: Sequence[Peer], works: Sequence[Work]) -> tuple[Samples, dict[str, str]]:
    """All the work, interleaved; the samples, and what went wrong."""
    samples, problems = Samples(), {}
    rounds = max(work.rounds for work in works)
    for number in range(rounds):
        say(f"round {number + 1} of {rounds}")
        metrics: dict[str, dict[str, float]] = {peer.name: {} for peer in peers}
        for work in works:
            if number >= work.rounds:
                continue
            for peer in rotated(peers, number):
                try:
                    metrics[peer.name].update(measure(field, peer, work))
                except (Fault, ValueError, subprocess.TimeoutExpired) as fault:
                    problems[f"{peer.name}, {work.words}"] = str(fault)
        for name, figures in metrics.items():
            samples.add(str(number), name, figures)
        scanning(samples, number, metrics)
    return samples, problems


def report(samples: Samples, works: Sequence[Work], problems: dict[str, str], facts: Sequence[str]) -> str:
    """Everything that was measured, as Markdown."""
    names = [DIRECT, BEFORE, MINIMAL, OURS]

    def figures(figure: str, wanted: Sequence[str]) -> str:
        body = []
        for work in works:
            cells = [samples.spread(f"{work.name}.{figure}", name) for name in wanted]
            if any(cells):
                body.append([work.words, *(table.cell(cell) for cell in cells)])
        return table.rows(("", *wanted), body)

    return table.page(
        facts,
        table.MEDIANS,
        "## Aims\n\n" + table.of_aims(samples, AIMS, OURS),
        "## CPU of both proxies, ms\n\n" + figures("cpu_ms", names[1:]),
        "## Time, ms\n\n" + figures("ms", names),
        "## PSS of both proxies afterwards, MB\n\n" + figures("pss_mb", names[1:]),
        problems=problems,
    )


def made_by(module: str, began: float) -> list[str]:
    """What a reader must know of a run of this module that began at that moment of the monotonic clock, in seconds."""
    git = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
    command = shlex.join(["python", "-m", module, *sys.argv[1:]])
    when = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    minutes = (time.monotonic() - began) / 60
    return [
        f"Made by `{command}` at {when} in {minutes:.1f} minutes, at commit {commit}.",
        f"{os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f} at the end.",
    ]


def main() -> int:
    """Returns 0 if the bundle of this tree got through all of it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.data_path", description=__doc__)
    parser.add_argument("--short", action="store_true", help="once, with little work, to see that all of it runs")
    parser.add_argument("--alone", action="store_true", help="without the builds that came before")
    parser.add_argument("--image", default=REPOSITORY, help="the bundle's image (%(default)s)")
    parser.add_argument("--out", type=Path, help="the document to write into (%(default)s)")
    chosen = parser.parse_args()
    works: tuple[Work, ...] = WORKS
    if chosen.short:
        fewer = {"-n 500": "-n 20", "-n 3000": "-n 400", f"n={1000 * MB}": f"n={10 * MB}", UP: f"-up {10 * MB}"}
        works = tuple(_less(work, fewer) for work in works)
    began = time.monotonic()
    try:
        with ExitStack() as stack:
            stage = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bottle-bench-")))
            stage.chmod(0o755)
            images = {OURS: chosen.image}
            if not chosen.alone:
                images = {BEFORE: make_before(), **images}
                images[MINIMAL] = make_minimal(images[BEFORE])
            make_load()
            field = Field(stack, stage)
            peers = [Peer(DIRECT, None), *(field.bundle(name, image) for name, image in images.items())]
            samples, problems = run(field, peers, works)
    except Fault as fault:
        print(f"benchmarks.data_path: {fault}", file=sys.stderr)
        return 1
    text = report(samples, works, problems, made_by("benchmarks.data_path", began))
    table.publish(text, chosen.out or (None if chosen.short else DOCUMENT))
    for where, what in problems.items():
        print(f"{where}: {what}", file=sys.stderr)
    return 1 if any(where.startswith(OURS) for where in problems) else 0


def _less(work: Work, fewer: dict[str, str]) -> Work:
    options, count = work.options, work.requests
    for much, little in fewer.items():
        if much in options and little.startswith("-n"):
            count = int(little.split()[1])
        options = options.replace(much, little)
    return work._replace(options=options, requests=count, rounds=1)


if __name__ == "__main__":
    sys.exit(main())
