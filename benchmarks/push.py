"""`python -m benchmarks.push`: a push through git-gate beside the same push to its upstream, in one run.

Three containers of the bundle's image: an upstream (git-daemon), a gate that forwards to it, and a client, which
measures. Each round pushes the same new commit to both, in an order that alternates. `make image` comes first.
"""

from __future__ import annotations

import argparse
import json
import secrets
import subprocess
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Self

from benchmarks.figures import spread

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.figures import Spread

POLICY = """
walls = "without-kernel-rules"
[git]
quota = "64GiB"
[git.repos.bench]
upstream = "git://upstream/bench"
private = true
"""
CAPABILITIES = ("KILL", "SETUID", "SETGID", "SETPCAP")

WORK = {
    "10 MB of text": "text 10000000",
    "50 MB of random bytes": "random 50000000",
    "2000 small files": "small 2000",
}
"""What is pushed, by its name in the table."""

# In the client's container. The text is the interpreter's own library, with a line that makes each round's new.
CLIENT = r"""
import os, pathlib, shutil, subprocess, sys, time
kind, amount, turn, first = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
sources = sorted(pathlib.Path("/usr/lib/python3.13").rglob("*.py"))
work = pathlib.Path("/tmp/work")
shutil.rmtree(work, ignore_errors=True)
work.mkdir()
def git(*arguments):
    subprocess.run(["git", "-C", work, *arguments], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
git("init", "-q")
if kind == "random":
    (work / "random").write_bytes(os.urandom(amount))
else:
    written, number = 0, 0
    while number < amount if kind == "small" else written < amount:
        text = f"# {turn} {number}\n" + sources[number % len(sources)].read_text(errors="replace")
        text = text[:500] if kind == "small" else text
        (work / f"{number}.py").write_text(text)
        written, number = written + len(text), number + 1
git("add", ".")
git("-c", "user.name=b", "-c", "user.email=b@test", "commit", "-qm", turn)
urls = {"direct": "git://upstream/direct", "gate": "git://gate/bench"}
for name in (first, *(urls.keys() - {first})):
    began = time.monotonic()
    git("push", "-q", urls[name], f"HEAD:refs/heads/{turn}")
    print(name, (time.monotonic() - began) * 1000)
"""

# In the gate's container: the most resident memory that all of git-gate's processes had at once, until it is killed.
WATCH = r"""
import os, pathlib, time
most = 0
while True:
    now = 0
    for each in pathlib.Path("/proc").iterdir():
        if each.name.isdigit():
            try:
                status = (each / "status").read_text()
            except OSError:
                continue
            if "\nUid:\t973\t" in status and "VmRSS:" in status:
                now += int(status.partition("VmRSS:")[2].split()[0])
    if now > most:
        most = now
        pathlib.Path("/tmp/most").write_text(str(most))
    time.sleep(0.02)
"""
CPU = r"""
import os, pathlib
ticks = 0
for each in pathlib.Path("/proc").iterdir():
    if each.name.isdigit():
        try:
            if "\nUid:\t973\t" in (each / "status").read_text():
                fields = (each / "stat").read_text().rpartition(")")[2].split()
                ticks += sum(map(int, fields[11:15]))
        except OSError:
            continue
print(ticks * 1000 // os.sysconf("SC_CLK_TCK"))
"""


def docker(*arguments: str) -> str:
    """Raises RuntimeError with docker's words."""
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"docker {arguments[0]}: {done.stderr.strip()}")
    return done.stdout.strip()


class Bench:
    """The three containers; they are gone at the end of the context."""

    def __init__(self, image: str) -> None:
        self.image = image
        self.name = f"bottle-bench-{secrets.token_hex(4)}"
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        stage = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
        for side in ("inside", "outside"):
            docker("network", "create", f"{self.name}-{side}")
            self._stack.callback(docker, "network", "rm", f"{self.name}-{side}")
        subnet = docker("network", "inspect", "-f", "{{(index .IPAM.Config 0).Subnet}}", f"{self.name}-inside")
        serve = "git init -q --bare /srv/bench; git init -q --bare /srv/direct; touch /srv/ready;"
        serve += "exec /usr/lib/git-core/git-daemon --export-all --enable=receive-pack --base-path=/srv"
        self._run("upstream", "outside", "--tmpfs", "/srv", command=("sh", "-c", serve))
        policy = stage / "policy.toml"
        policy.write_text(POLICY)
        policy.chmod(0o644)
        self._run(
            *("gate", "outside", "--read-only", "--tmpfs", "/run", "--tmpfs", "/tmp", "--cap-drop", "ALL"),
            *(word for each in CAPABILITIES for word in ("--cap-add", each)),
            *("-e", f"BOTTLE_INTERNAL={subnet}", "-e", "CLAUDE_BOTTLE_SIDECAR_DAEMONS=egress,git-gate"),
            *("-v", f"{policy}:/etc/bottle/policy.toml:ro"),
        )
        docker("network", "connect", "--alias", "gate", f"{self.name}-inside", f"{self.name}-gate")
        self._run("client", "inside", "--tmpfs", "/tmp", command=("sleep", "infinity"))
        docker("network", "connect", f"{self.name}-outside", f"{self.name}-client")
        docker("exec", f"{self.name}-upstream", "sh", "-c", "while [ ! -e /srv/ready ]; do sleep 0.1; done")
        wait = "until python3 -I -m bottle_init health --strict >/dev/null 2>&1; do sleep 0.2; done"
        docker("exec", f"{self.name}-gate", "timeout", "120", "sh", "-c", wait)
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def _run(self, name: str, network: str, *options: str, command: Sequence[str] = ()) -> None:
        entrypoint = ("--entrypoint", command[0]) if command else ()
        place = ("--network", f"{self.name}-{network}", "--network-alias", name)
        full = f"{self.name}-{name}"
        docker("run", "-d", "--name", full, *place, *entrypoint, *options, self.image, *command[1:])
        self._stack.callback(docker, "rm", "-f", "-v", full)

    def round(self, work: str, turn: str, first: str) -> dict[str, float]:
        """One new commit, pushed to both: milliseconds for each, and the CPU time of git-gate in milliseconds."""
        before = self.cpu_ms()
        said = docker("exec", f"{self.name}-client", "python3", "-c", CLIENT, *work.split(), turn, first)
        times = {name: float(value) for name, value in (line.split() for line in said.splitlines())}
        return {**times, "cpu": self.cpu_ms() - before}

    def cpu_ms(self) -> float:
        """What git-gate and the children that it waited for have computed."""
        return float(docker("exec", f"{self.name}-gate", "python3", "-I", "-c", CPU))

    def watch(self) -> None:
        """Begins to look at git-gate's memory."""
        docker("exec", "-d", f"{self.name}-gate", "python3", "-I", "-c", WATCH)

    def most_mb(self) -> float:
        """The most that all its processes took at once, in MB."""
        return int(docker("exec", f"{self.name}-gate", "cat", "/tmp/most")) / 1000


def row(name: str, rounds: Sequence[dict[str, float]]) -> str:
    """One row of the table."""

    def words(found: Spread, form: str) -> str:
        return f"{found.median:{form}} ({found.low:{form}} to {found.high:{form}})"

    ratio = spread([each["gate"] / each["direct"] for each in rounds])
    seconds = [words(spread([each[key] / 1000 for each in rounds]), ".2f") for key in ("direct", "gate", "cpu")]
    return f"| {name} | {' | '.join(seconds)} | {words(ratio, '.2f')} |"


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.push", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--image", default="claude-bottle-sidecars")
    parser.add_argument("--json", action="store_true", help="every sample")
    chosen = parser.parse_args()
    samples: dict[str, list[dict[str, float]]] = {name: [] for name in WORK}
    with Bench(chosen.image) as bench:
        bench.watch()
        for turn in range(chosen.rounds + 1):
            for name, work in WORK.items():
                found = bench.round(work, f"{work.split()[0]}-{turn}", ("direct", "gate")[turn % 2])
                if turn:  # The first round is to warm up.
                    samples[name].append(found)
        most_mb = bench.most_mb()
    if chosen.json:
        print(json.dumps(samples))
        return
    print("| push | direct, s | through git-gate, s | its CPU, s | ratio |\n| --- | --- | --- | --- | --- |")
    for name, rounds in samples.items():
        print(row(name, rounds))
    print(f"\nThe most memory that git-gate and its gits took at once: {most_mb:.0f} MB.")


if __name__ == "__main__":
    main()
