"""The pages of `[bundle] http`: /health, /live and /metrics (contract 6)."""

from __future__ import annotations

import posix

from bottle_init.core import status
from bottle_init.core.status import DEGRADED, HEALTHY
from bottle_init.linux import figures, metrics
from bottle_init.linux.httpd import TEXT, Httpd
from bottle_init.linux.sys import proc
from bottle_init.linux.sys.clock import monotonic_ms
from bottle_init.linux.sys.poller import Bulk
from bottle_init.words import jsonlines

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from bottle_init.core.state import State
    from bottle_init.linux.figures import Figures
    from bottle_init.linux.httpd import Reply
    from bottle_init.linux.logs import Logs
    from bottle_init.linux.sys.poller import Poller


class Web:
    """The server and its pages; what else is ready always goes before its clients.

    `address` is `HOST:PORT` or `unix:PATH`; `view` gives the core's present state; `note` is told why clients have to
    wait.
    """

    def __init__(
        self, address: str, poller: Poller, view: Callable[[], State], logs: Logs, note: Callable[[str], None]
    ) -> None:
        self._view = view
        self._logs = logs
        self._sampler = figures.Sampler(monotonic_ms)
        pages = {"/health": self._health, "/live": self._live, "/metrics": self._metrics}
        self._httpd = Httpd(address, Bulk(poller), monotonic_ms, pages, note)

    def open(self) -> str:
        """Listen; returns "" or, in words, why that cannot be. It is not fatal to anything."""
        return self._httpd.open()

    def close(self) -> None:
        """Be done with all clients."""
        self._httpd.close()

    def deadline_ms(self) -> int | None:
        """When `tick` has to be called even if nothing happens; 0 for as long as processes are being looked at."""
        return 0 if self._sampler.is_looking else self._httpd.deadline_ms()

    def tick(self, now_ms: int) -> None:
        """Go on with what is under way."""
        self._sampler.look_on()
        self._httpd.tick(now_ms)

    def _health(self, query: str, reply: Reply) -> None:
        """What `health --json` prints; 200 where that would exit with 0."""
        state, now_ms = self._view(), monotonic_ms()
        facts = status.health_facts(state, now_ms)
        strict = "strict=1" in query.split("&")
        well = facts["health"] == HEALTHY or (facts["health"] == DEGRADED and not strict)
        reply(200 if well else 503, "application/json", jsonlines.dumps(facts) + "\n")

    def _live(self, _query: str, reply: Reply) -> None:
        reply(200, TEXT, "live\n")

    def _metrics(self, _query: str, reply: Reply) -> None:
        def answer(found: Figures) -> None:
            state = self._view()
            dropped = [self._logs.dropped_of(child.index) for child in state.children]
            dropped.append(self._logs.dropped() - sum(dropped))
            extra = metrics.Extra(found, _own_figures(), dropped, proc.refusals.count)
            reply(200, metrics.CONTENT_TYPE, metrics.text(state, monotonic_ms(), extra))

        self._sampler.ask(answer)


def _own_figures() -> tuple[int, float]:
    """The init's own memory, and its CPU time without that of the children that it has reaped."""
    found = figures.figures_of(proc.read("/proc/self/stat"))
    times = posix.times()
    return found[1] if found is not None else 0, times.user + times.system
