"""What the init aims at, each as a ratio to a peer, or as a plain figure."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from benchmarks.contenders import BARE, BEFORE, BUNDLE, INIT

if TYPE_CHECKING:
    from benchmarks.figures import Samples, Spread

PYTHON_PEERS = ("supervisor", "circus", "honcho")


class Aim(NamedTuple):
    """`metric` of `contender`, over `other_metric` of the best of `others` (itself where there are none).

    At most `limit`, or at least where `at_least`. Without `other_metric` the figure itself is judged.
    """

    work: str
    metric: str
    limit: float
    other_metric: str = ""
    others: tuple[str, ...] = ()
    at_least: bool = False
    contender: str = INIT

    def reference(self, samples: Samples) -> str:
        """The best of the others that were measured; empty if none was."""
        present = [(found.median, name) for name in self.others if (found := samples.spread(self.other_metric, name))]
        if not present:
            return ""
        return (max if self.at_least else min)(present)[1]

    def judged(self, samples: Samples) -> Spread | None:
        """What is compared with the limit; None where one of both was not measured."""
        if not self.other_metric:
            return samples.spread(self.metric, self.contender)
        return samples.ratio(self.metric, self.contender, self.other_metric, self.reference(samples))

    def met(self, value: float) -> bool:
        """Whether that is good enough."""
        return value >= self.limit if self.at_least else value <= self.limit

    @property
    def words(self) -> str:
        """The aim as the table has it."""
        sign = "≥" if self.at_least else "≤"
        if not self.other_metric:
            return f"{sign} {self.limit:,.0f}"
        others = "the best Python peer" if self.others == PYTHON_PEERS else ", ".join(self.others)
        if self.others == (INIT,):
            others = LABELS[self.other_metric]
        return f"{sign} {self.limit:g} of {others}"


LABELS = {
    "one.start_ms": "exec → one child's first instruction, ms",
    "one.stop_ms": "TERM → gone, one child, ms",
    "signal.p50_us": "signal → child, p50, µs",
    "signal.p99_us": "signal → child, p99, µs",
    "orphans.per_s": "orphans a second",
    "orphans.cpu_us": "CPU for each orphan, µs",
    "4.start_ms": "exec → four daemons executed, ms",
    "uncompiled.start_ms": "exec → four daemons of a file that was never compiled, ms",
    "4.stop_ms": "TERM → gone, four daemons, ms",
    "4.pss_mb": "PSS with four daemons, MB",
    "idle.wakeups_per_min": "wake-ups a minute, idle",
    "lines1.per_s": "lines a second, one writer",
    "lines1.lost": "lines lost, one writer",
    "lines4.per_s": "lines a second, four writers",
    "lines4.lost": "lines lost, four writers",
    "stall.quiet_ms": "TERM → four children have it, stdout read, ms",
    "stall.stalled_ms": "TERM → four children have it, stdout stalled, ms",
    "25.start_ms": "exec → 25 daemons executed, ms",
    "25.stop_ms": "TERM → gone, 25 daemons, ms",
    "25.pss_mb": "PSS with 25 daemons, MB",
    "50.start_ms": "exec → 50 daemons executed, ms",
    "50.stop_ms": "TERM → gone, 50 daemons, ms",
    "50.pss_mb": "PSS with 50 daemons, MB",
    "100.start_ms": "exec → 100 daemons executed, ms",
    "100.stop_ms": "TERM → gone, 100 daemons, ms",
    "100.pss_mb": "PSS with 100 daemons, MB",
    "health.run_ms": "`health`, ms",
    "simulated.per_min": "simulated events a minute, one core",
    "bare.run_ms": "exec → end, nothing to do, ms",
    "bare.stop_ms": "TERM → gone, asleep, ms",
    "bare.pss_mb": "PSS asleep, MB",
}
"""What each metric is called, with its unit."""

AIMS = (
    Aim("start, one command", "one.start_ms", 1.5, "bare.run_ms", (BARE,)),
    Aim("start, four daemons of a bundle file", "4.start_ms", 1.6, "bare.run_ms", (BARE,)),
    Aim("the same, against Pebble", "4.start_ms", 1, "4.start_ms", ("Pebble",)),
    Aim("four daemons, their file never compiled", "uncompiled.start_ms", 0.6, "uncompiled.start_ms", (BEFORE,)),
    Aim("signal → child has it, p50", "signal.p50_us", 1, "signal.p50_us", ("tini",)),
    Aim("signal → child has it, p99", "signal.p99_us", 1, "signal.p99_us", ("tini",)),
    Aim("the same through a bundle, p50", "signal.p50_us", 1.5, "signal.p50_us", ("tini",), contender=BUNDLE),
    Aim("the same through a bundle, p99", "signal.p99_us", 1, "signal.p99_us", ("tini",), contender=BUNDLE),
    Aim("TERM → gone, one child", "one.stop_ms", 2, "one.stop_ms", ("tini",)),
    Aim("TERM → gone, four daemons", "4.stop_ms", 1, "4.stop_ms", ("s6",)),
    Aim("memory with four daemons", "4.pss_mb", 1.35, "bare.pss_mb", (BARE,)),
    Aim("the same, against Pebble", "4.pss_mb", 1, "4.pss_mb", ("Pebble",)),
    Aim("wake-ups a minute, idle", "idle.wakeups_per_min", 0),
    Aim("20,000 orphans: pace", "orphans.per_s", 0.95, "orphans.per_s", ("tini",), at_least=True),
    Aim("20,000 orphans: CPU", "orphans.cpu_us", 1.5, "orphans.cpu_us", ("tini",)),
    Aim("tagged lines, one writer", "lines1.per_s", 3, "lines1.per_s", ("process-compose",), at_least=True),
    Aim("tagged lines, four writers", "lines4.per_s", 3, "lines4.per_s", ("process-compose",), at_least=True),
    Aim("lines lost, one writer", "lines1.lost", 0),
    Aim("lines lost, four writers", "lines4.lost", 0),
    Aim("TERM → four children have it, stdout stalled", "stall.stalled_ms", 1, "stall.quiet_ms", (INIT,)),
    Aim("100 daemons, linear: start", "100.start_ms", 2, "50.start_ms", (INIT,)),
    Aim("100 daemons, linear: stop", "100.stop_ms", 2, "50.stop_ms", (INIT,)),
    Aim("100 daemons, linear: memory", "100.pss_mb", 2, "50.pss_mb", (INIT,)),
    Aim("100 daemons: start", "100.start_ms", 1, "100.start_ms", PYTHON_PEERS),
    Aim("100 daemons: stop", "100.stop_ms", 1, "100.stop_ms", PYTHON_PEERS),
    Aim("100 daemons: memory", "100.pss_mb", 1, "100.pss_mb", PYTHON_PEERS),
    Aim("`health` as the HEALTHCHECK", "health.run_ms", 2, "bare.run_ms", (BARE,)),
    Aim("simulated events a minute, one core", "simulated.per_min", 3_000_000, at_least=True),
)
