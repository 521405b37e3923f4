"""The benchmark's short form runs through, so that it can't rot. What it measures is asserted nowhere."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from benchmarks import bottles, bundle, data_path, figures, table, wire
from benchmarks.aims import AIMS, LABELS, Aim
from benchmarks.contenders import INIT
from benchmarks.plot import METRICS
from benchmarks.scenarios import tagged
from tests.integration.support.init import ROOT

pytestmark = pytest.mark.real


def run(*options: str, compiler: bool = True) -> subprocess.CompletedProcess[str]:
    """`python -m benchmarks --short`, and whatever it prints."""
    extra = () if compiler else ("--no-compiler",)
    command = [sys.executable, "-m", "benchmarks", "--short", *extra, *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The document that a short run with all peers that happen to be here writes."""
    document = tmp_path_factory.mktemp("benchmarks") / "benchmarks.md"
    document.write_text(f"before\n\n{table.BEGIN}\nold\n{table.END}\n\nafter\n")
    done = run("--peers", "tini,s6", "--out", str(document))
    assert done.returncode == 0, done.stderr + done.stdout
    assert "<svg" in document.with_suffix(".svg").read_text()
    return document.read_text()


def test_every_aim_of_the_inits_own_is_measured(printed: str) -> None:
    """Each line of the first table has a figure of the init's, whatever other contenders are here."""
    judged = printed.partition("## Aims")[2].partition("## ")[0]
    lines = [line.split(" | ") for line in judged.splitlines()]
    for aim in AIMS:
        if aim.metric.startswith("orphans") and "orphans a second" not in printed:
            continue  # No PID namespaces here: no orphans were counted.
        rows = [cells for cells in lines if cells[0] == f"| {aim.work}"]
        assert rows, aim.work
        assert all(any(letter.isdigit() for letter in cells[1]) for cells in rows), aim.work


def test_only_the_text_between_the_marks_is_replaced(printed: str) -> None:
    """What people have written around it stays."""
    assert printed.startswith("before\n")
    assert printed.endswith("\nafter\n")
    assert "\nold\n" not in printed


def test_no_line_of_a_log_is_lost(printed: str) -> None:
    """Not a time, and true on any machine: the reader reads."""
    rows = [line for line in printed.splitlines() if line.startswith("| lines lost, ") and "of process" not in line]
    judged = [row for row in rows if "≤ 0" in row]
    assert len(judged) == 2
    assert all(row.endswith("| yes |") for row in judged), judged


def test_runs_without_a_compiler() -> None:
    """The children are then Python's, and the document says so."""
    done = run("--only", "one command,signals,lines,stalled stdout", "--peers", "none", compiler=False)
    assert done.returncode == 0, done.stderr + done.stdout
    assert "there is no C compiler" in done.stdout
    assert f"| {INIT} |" in done.stdout


def test_a_broken_init_fails_the_benchmark(tmp_path: Path) -> None:
    """A failure of the init is a failure of the benchmark. An interpreter without the init can't start anything."""
    broken = tmp_path / "python"
    broken.write_text(
        '#!/bin/sh\ncase "$*" in *" -m bottle_init -- "*) exit 1 ;; esac\nexec /usr/bin/env python3 "$@"\n'
    )
    broken.chmod(0o755)
    done = run("--only", "one command", "--peers", "none", "--python", str(broken))
    assert done.returncode == 1, done.stdout
    assert INIT in done.stderr


def judged(module: str, image: str, document: Path, aims: Iterable[Aim]) -> None:
    """A short run of the module, in which each of these aims has a figure."""
    command = [sys.executable, "-m", module, "--short", "--alone", "--image", image, "--out", str(document)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:] + done.stdout[-3000:]
    table = document.read_text().partition("## Aims")[2].partition("## ")[0]
    for aim in aims:
        rows = [line.split(" | ") for line in table.splitlines() if line.startswith(f"| {aim.work} |")]
        assert rows, aim.work
        assert all(any(letter.isdigit() for letter in cells[1]) for cells in rows), aim.work


@pytest.mark.docker
def test_the_data_path_is_measured(bundle_image: str, tmp_path: Path) -> None:
    """Each aim that needs no earlier build has a figure, and no request has failed."""
    # The pace of scanning is a difference of two short figures, which may be none.
    aims = [aim for aim in data_path.AIMS if not aim.metric.startswith("scan")]
    judged("benchmarks.data_path", bundle_image, tmp_path / "data-path.md", aims)


@pytest.mark.docker
def test_bottles_are_measured(bundle_image: str, tmp_path: Path) -> None:
    """Each aim that needs no earlier build has a figure, and nothing of the bottles is left."""
    judged("benchmarks.bottles", bundle_image, tmp_path / "bottles.md", bottles.AIMS)


@pytest.mark.docker
def test_a_bundle_is_measured(bundle_image: str, tmp_path: Path) -> None:
    """Each aim that needs no earlier build has a figure, and nothing of the bundle is left."""
    judged("benchmarks.bundle", bundle_image, tmp_path / "bundle.md", bundle.AIMS)


def test_figures_are_named() -> None:
    """Each metric that is judged or drawn has its own label."""
    for aim in AIMS:
        assert aim.metric in LABELS
        assert not aim.other_metric or aim.other_metric in LABELS
    assert set(METRICS) <= set(LABELS)


def test_ratios_are_taken_round_by_round() -> None:
    """A round that one of both has missed does not count, and neither does the other's noise."""
    samples = figures.Samples()
    for number, (ours, theirs) in enumerate([(2.0, 1.0), (20.0, 10.0), (200.0, 100.0)]):
        samples.add(str(number), "ours", {"work": ours})
        samples.add(str(number), "theirs", {"work": theirs})
    samples.add("missed", "ours", {"work": 1.0})
    ratio = samples.ratio("work", "ours", "work", "theirs")
    assert ratio is not None
    assert (ratio.median, ratio.low, ratio.high, ratio.samples) == (2.0, 2.0, 2.0, 3)


def test_percentiles_are_samples() -> None:
    """The smallest sample that so many do not exceed."""
    samples = [float(number) for number in range(1, 101)]
    assert figures.percentile(samples, 0.5) == 50.0
    assert figures.percentile(samples, 0.99) == 99.0
    assert figures.percentile([7.0], 0.99) == 7.0


def test_only_whole_tagged_lines_count() -> None:
    """A torn line, one without a tag, and one that came twice are no lines."""
    line = b"@p0:1 " + b"x" * 93
    assert tagged(b"[p0] " + line + b"\n" + b"[p0] " + line + b"\n") == {b"p0:1"}
    assert tagged(line + b"\n[p0] " + line[:-1] + b"\n") == set()


def test_the_probes_agree(tmp_path: Path) -> None:
    """The C probe and the Python one write the same lines."""
    compiler = wire.compiler()
    if compiler is None:
        pytest.skip("there is no C compiler here, and so only one probe")
    program = wire.build(tmp_path, compiler)
    socket = wire.Wire(tmp_path)
    outputs = []
    for argv in ([program], [sys.executable, ROOT / "benchmarks/probe.py"]):
        process = subprocess.Popen([*argv, "lines", socket.path, "p0", "1001"], stdout=subprocess.PIPE)
        assert process.stdout is not None
        outputs.append(process.stdout.read(1001 * 100))
        socket.next("done")
        process.kill()
        process.communicate()
    socket.close()
    assert outputs[0] == outputs[1]
    assert len(outputs[0].splitlines()) == 1001
