"""Independent calls side by side."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from launcher.docker import AT_ONCE


def together(calls: Sequence[Callable[[], list[str]]]) -> list[str]:
    """The faults that the calls return, in the order of the calls; at most `AT_ONCE` run at a time."""
    if len(calls) < 2:
        return [fault for call in calls for fault in call()]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return [fault for faults in pool.map(lambda call: call(), calls) for fault in faults]
