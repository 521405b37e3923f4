"""Run it in this directory: pytest. `pytest.ini` names the bundle file.

The programs of the bundle need not exist: the simulated kernel runs none. The plugin comes with the package. It plays
a thousand random lives to the bundle, and checks every promise of the init and the promise below in each of them. A
life that breaks one is printed as a timeline, as small as it gets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bottle_init.core.words import BACKOFF, ENDED, RUNNING, STARTING, WAITING

if TYPE_CHECKING:
    from bottle_init.core.spec import Bundle
    from bottle_init.testing import Trace
    from bottle_init.testing.plugin import SurvivalCheck


def the_proxy_starts_after_the_firewall(trace: Trace) -> str | None:
    """The proxy never becomes ready while the firewall waits for its start or its restart, or has ended for good."""
    for before, after in zip(trace.steps, trace.steps[1:], strict=False):
        firewall, proxy = after.state.children
        comes_up = before.state.children[1].status in (WAITING, STARTING) and proxy.status == RUNNING
        if comes_up and firewall.status in (WAITING, BACKOFF, ENDED):
            return f"at {after.now_ms} ms the proxy is ready, and the firewall is {firewall.status}"
    return None


def test_the_proxy_waits(bottle_bundle: Bundle, assert_bundle_survives: SurvivalCheck) -> None:
    """Take `after` or `restart_dependents` out of the bundle file, and this fails with the life that shows why."""
    assert_bundle_survives(bottle_bundle, promise=the_proxy_starts_after_the_firewall)
