"""From `up` to an agent that runs, on each engine: `python -m benchmarks.engines [ROUNDS]`.

The engines are those of $BOTTLE_ENGINES, as for the tests of the walls. A round is what `bottle up` does after it has
read the manifest: planning, the bundle until it is healthy, the gate, the agent's start. `down` is its whole clean-up.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path

from launcher import state
from launcher.backend import get_bottle_backend
from launcher.plan import new_slug
from launcher.spec import AgentSpec, BottleSpec
from tests.integration.support.engines import NotHad, chosen, running

ROUNDS = 5


def one_round() -> tuple[float, float]:
    """Seconds for `up` and for `down`."""
    slug = new_slug("bench")
    backend = get_bottle_backend()
    spec = BottleSpec("bench", slug=slug, agent=AgentSpec(command=("sleep", "infinity")))
    began = time.perf_counter()
    try:
        backend.launch(backend.prepare(spec, state.state_root() / slug))
        up = time.perf_counter()
    finally:
        backend.stop(slug)
    return up - began, time.perf_counter() - up


def main() -> None:
    """Print a line of Markdown's for each engine."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    print("| engine | up, median (least) | down, median (least) |\n| --- | --- | --- |")
    for name in chosen():
        with tempfile.TemporaryDirectory() as temporary:
            try:
                with running(name, Path(temporary)):
                    times = [one_round() for _ in range(rounds)]
            except NotHad as error:
                print(f"| {name} | {error} | |")
                continue
        cells = [f"{statistics.median(each):.1f} s ({min(each):.1f} s)" for each in zip(*times, strict=True)]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
