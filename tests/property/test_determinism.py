"""Same input, same trace: on every machine, in every process, under every hash seed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

SCRIPT = """
from bottle_init.testing import check, scenario_of, simulate
for run in range(60):
    trace = simulate(scenario_of("determinism", run))
    for step in trace.steps:
        print(step.now_ms, step.events, step.actions)
    print(trace.exit, check(trace))
"""


def lives_under(hash_seed: str) -> str:
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", SCRIPT]
    return subprocess.run(command, check=True, capture_output=True, text=True, env=environment, timeout=300).stdout


def test_two_hash_seeds_one_trace() -> None:
    one, other = lives_under("1"), lives_under("2")
    assert one.count("Exit(") >= 60
    assert one == other
