"""What is measured: each function runs one supervisor through one life and returns its figures.

Metrics are named `scenario.figure`, with the unit last.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import processes
from benchmarks.figures import percentile
from benchmarks.processes import Running

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from benchmarks.contenders import Contender, Init
    from benchmarks.wire import Probe

    Metrics = dict[str, float]

LINE_BYTES = 100
STALL_S = 1.5
"""Longer than the second after which the init drops lines (contract 8): the worst of both worlds."""


class Bench:
    """What all scenarios share: the probe, a directory for configurations, and how much work there is."""

    def __init__(self, probe: Probe, directory: Path, *, short: bool) -> None:
        self.probe = probe
        self.directory = directory
        self.signals = 50 if short else 200
        self.orphans = 500 if short else 20_000
        self.lines = 20_000 if short else 400_000  # More than the reader's pipe holds at once.
        self.slow_lines = 20_000 if short else 40_000
        self.simulated_s = 0.5 if short else 5.0
        self.idle_s = 1.0 if short else 10.0

    def commands(self, mode: str, number: int, count: int = 0) -> dict[str, list[str]]:
        """So many probes, by name."""
        return {f"p{index}": self.probe.command(mode, f"p{index}", count) for index in range(number)}

    def many(self, contender: Contender, commands: Mapping[str, list[str]]) -> Running:
        """Start a supervisor with these children."""
        directory = Path(tempfile.mkdtemp(dir=self.directory))
        return self._start(contender, contender.many(directory, commands))

    def one(self, contender: Contender, mode: str) -> Running:
        """Start a supervisor with one child."""
        return self._start(contender, contender.one(self.probe.command(mode, "one")))

    def _start(self, contender: Contender, argv: list[str]) -> Running:
        self.probe.wire.clear()
        return Running(argv, contender.environ)


def bare(_bench: Bench, contender: Contender) -> Metrics:
    """From exec to the end of it."""
    with Running(contender.one([])) as running:
        return {"bare.run_ms": running.since_start_ms(running.wait())}


def bare_asleep(_bench: Bench, contender: Contender) -> Metrics:
    """Asleep, until a TERM ends it as the kernel does by default: that is what the end of such a process costs."""
    with Running(contender.many(Path(), {})) as running:
        processes.settle(lambda: [running.pid])
        return {"bare.pss_mb": processes.pss_mb([running.pid]), "bare.stop_ms": running.end(contender.stop)}


def one(bench: Bench, contender: Contender) -> Metrics:
    """One child that sleeps, and dies of a TERM at once."""
    with bench.one(contender, "sleep") as running:
        said = bench.probe.wire.next("start", running)
        processes.settle(lambda: running.supervisors([said.pid]))
        return {"one.start_ms": running.since_start_ms(said.ns), "one.stop_ms": running.end(contender.stop)}


def signals(bench: Bench, contender: Contender) -> Metrics:
    """USR1 at the supervisor, until the child's handler runs."""
    wire = bench.probe.wire
    with bench.one(contender, "catch") as running:
        said = wire.next("start", running)
        processes.settle(lambda: running.supervisors([said.pid]))
        delays = []
        for _ in range(bench.signals):
            time.sleep(0.0005)  # Both have gone back to sleep.
            sent_ns = time.monotonic_ns()
            os.kill(running.pid, signal.SIGUSR1)
            delays.append((wire.next("signal", running).ns - sent_ns) / 1e3)
        return {"signal.p50_us": percentile(delays, 0.5), "signal.p99_us": percentile(delays, 0.99)}


def several(number: int) -> Callable[[Bench, Contender], Metrics]:
    """So many children that sleep, and die of a TERM at once: start, memory, stop."""

    def measure(bench: Bench, contender: Contender) -> Metrics:
        with bench.many(contender, bench.commands("sleep", number)) as running:
            said = bench.probe.wire.all("start", number, running)
            pids = [one.pid for one in said]
            processes.settle(lambda: running.supervisors(pids), least_s=contender.settles_s)
            return {
                f"{number}.start_ms": running.since_start_ms(max(one.ns for one in said)),
                f"{number}.pss_mb": processes.pss_mb(running.supervisors(pids)),
                f"{number}.stop_ms": running.end(contender.stop),
            }

    return measure


def uncompiled(bench: Bench, init: Init) -> Metrics:
    """Four children of a bundle file that was never compiled."""
    directory = Path(tempfile.mkdtemp(dir=bench.directory))
    bench.probe.wire.clear()
    with Running(init.uncompiled(directory, bench.commands("sleep", 4)), init.environ) as running:
        said = bench.probe.wire.all("start", 4, running)
        return {"uncompiled.start_ms": running.since_start_ms(max(one.ns for one in said))}


def health(bench: Bench, init: Init) -> Metrics:
    """A HEALTHCHECK, once, with four daemons that are ready."""
    with bench.many(init, bench.commands("sleep", 4)) as running:
        pids = [one.pid for one in bench.probe.wire.all("start", 4, running)]
        processes.settle(lambda: running.supervisors(pids))
        with Running(init.health()) as asked:
            ended_ns = asked.wait()
            if asked.status:
                raise RuntimeError(f"health: {asked.last_words()}, wait status {asked.status}")
            return {"health.run_ms": asked.since_start_ms(ended_ns)}


def orphans(bench: Bench, contender: Contender) -> Metrics:
    """As PID 1: orphans a second, from the first to the last reaped, and the CPU time that each costs.

    One that is no subreaper gets orphans only so. What makes them, the probe, costs far more than any reaping.
    """
    command = bench.probe.command("orphans", "one", bench.orphans)
    namespace = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "--"]
    bench.probe.wire.clear()
    with Running([*namespace, *contender.one(command)]) as running:
        started_ns = bench.probe.wire.next("start", running).ns
        (init,) = processes.children(running.pid)
        before_ms = processes.cpu_ms(init)
        bench.probe.wire.next("done", running, patience_s=300)
        while len(processes.children(init)) > 1:
            time.sleep(0.001)
        seconds = (time.monotonic_ns() - started_ns) / 1e9
        cpu_us = (processes.cpu_ms(init) - before_ms) * 1e3
        return {"orphans.per_s": bench.orphans / seconds, "orphans.cpu_us": cpu_us / bench.orphans}


def lines(writers: int) -> Callable[[Bench, Contender], Metrics]:
    """Lines that writers write at full speed, until each has come out with a tag; every one is looked for."""

    def measure(bench: Bench, contender: Contender) -> Metrics:
        count = bench.slow_lines if contender.slow else bench.lines
        expected = count // writers * writers
        with bench.many(contender, bench.commands("lines", writers, count // writers)) as running:
            first_ns, last_ns, text = read_lines(running.reader, expected)
        came = len(tagged(text))
        if first_ns == last_ns:
            raise ValueError(f"{came} lines came at once, which is no pace")
        return {f"lines{writers}.per_s": came / (last_ns - first_ns) * 1e9, f"lines{writers}.lost": expected - came}

    return measure


def read_lines(fd: int, expected: int) -> tuple[int, int, bytes]:
    """Read until so many of the probe's lines have come, or nothing has for two seconds.

    Returns when the first and the last piece came (ns of CLOCK_MONOTONIC), and the text.
    """
    pieces: list[bytes] = []
    seen = 0
    first_ns = last_ns = 0
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    while seen < expected and poll.poll(2_000 if pieces else 60_000):
        piece = os.read(fd, 1 << 20)
        if not piece:
            break
        pieces.append(piece)
        marks = piece.count(b"@")
        if marks:
            last_ns = time.monotonic_ns()
            first_ns = first_ns or last_ns
        seen += marks
    while poll.poll(50) and (piece := os.read(fd, 1 << 20)):
        pieces.append(piece)  # The rest of the last line.
    return first_ns, last_ns, b"".join(pieces)


def tagged(text: bytes) -> set[bytes]:
    """The different lines of the probes that came out whole, with something before them."""
    whole = set()
    for line in text.split(b"\n"):
        tag, mark, payload = line.partition(b"@")
        if mark and tag and len(payload.rstrip(b"\r")) == LINE_BYTES - 2:
            whole.add(payload[: payload.index(b" ")])
    return whole


def stalled(bench: Bench, contender: Contender) -> Metrics:
    """TERM until the last of four children has it: four that are quiet, and four whose lines are no longer read."""
    return {
        "stall.quiet_ms": _until_told(bench, contender, "catch"),
        "stall.stalled_ms": _until_told(bench, contender, "drip"),
    }


def _until_told(bench: Bench, contender: Contender, mode: str) -> float:
    with bench.many(contender, bench.commands(mode, 4)) as running:
        bench.probe.wire.all("start", 4, running)
        time.sleep(STALL_S)
        sent_ns = time.monotonic_ns()
        os.kill(running.pid, contender.stop)
        return (max(one.ns for one in bench.probe.wire.all("term", 4)) - sent_ns) / 1e6


def idle(bench: Bench, contenders: list[Contender]) -> dict[str, Metrics]:
    """Wake-ups a minute with four sleeping children, of all supervisors at the same time."""
    lives: list[tuple[Contender, Running, list[int]]] = []
    try:
        for contender in contenders:
            running = bench.many(contender, bench.commands("sleep", 4))
            pids = [one.pid for one in bench.probe.wire.all("start", 4, running)]
            lives.append((contender, running, pids))
        time.sleep(2 * bench.idle_s if bench.idle_s < 5 else bench.idle_s)
        before = [processes.switches(running.supervisors(pids)) for _, running, pids in lives]
        time.sleep(bench.idle_s)
        after = [processes.switches(running.supervisors(pids)) for _, running, pids in lives]
    finally:
        for _, running, _ in lives:
            running.close()
    minutes = bench.idle_s / 60
    return {
        contender.name: {"idle.wakeups_per_min": (late - early) / minutes}
        for (contender, _, _), early, late in zip(lives, before, after, strict=True)
    }


def simulated(bench: Bench, init: Init) -> Metrics:
    """Events a minute in the simulated kernel: bundles and mishaps drawn by chance, every promise checked."""
    seed = str(time.monotonic_ns())
    done = subprocess.run(init.simulate(seed, bench.simulated_s), stdout=subprocess.PIPE, text=True, check=True)
    events, seconds, broken = done.stdout.split()
    if int(broken):
        raise RuntimeError(f"a promise was broken in the simulated kernel, seed {seed}")
    return {"simulated.per_min": int(events) / float(seconds) * 60}


def can_unshare_pids() -> bool:
    """Whether a PID namespace can be made here."""
    if os.geteuid() or not shutil.which("unshare"):
        return False
    return (
        subprocess.run(
            ["unshare", "--pid", "--fork", "--mount-proc", "true"], capture_output=True, check=False
        ).returncode
        == 0
    )
