"""What one sweep takes in, with wait(2) as a script says it: there is no waiting for a storm that never ends."""

from __future__ import annotations

import posix
from collections.abc import Iterator

import pytest

from bottle_init.linux import reaper

CHILD, SECOND, ORPHAN = 100, 101, 5_000


class Kernel:
    """wait(2) with an endless storm of orphans; `first` have ended before it, `under` are found only by name."""

    def __init__(self, first: tuple[int, ...], under: tuple[int, ...]) -> None:
        self.ended = dict.fromkeys((*first, *under))
        self.queue = self._queue(first)

    def _queue(self, first: tuple[int, ...]) -> Iterator[int]:
        yield from first
        while True:
            yield ORPHAN

    def waitpid(self, pid: int, _options: int) -> tuple[int, int]:
        found = next(self.queue) if pid == -1 else pid
        if found != ORPHAN:
            if found not in self.ended:
                return 0, 0
            del self.ended[found]
        return found, 0


@pytest.mark.parametrize(
    ("first", "under"), [((), ()), ((CHILD,), ()), ((), (CHILD,)), ((CHILD,), (SECOND,)), ((), (SECOND, CHILD))]
)
def test_a_sweep_has_all_deaths_and_an_end(
    monkeypatch: pytest.MonkeyPatch, first: tuple[int, ...], under: tuple[int, ...]
) -> None:
    monkeypatch.setattr(posix, "waitpid", Kernel(first, under).waitpid)
    tree = reaper.Tree({CHILD: (0, 1), SECOND: (1, 1)})
    deaths, orphans = tree.reap()
    assert sorted(pid for pid, _ in deaths) == sorted((*first, *under))
    assert orphans == reaper.REAPED_AT_ONCE
    assert tree.may_be_more
    assert not tree.childless


def test_an_orphan_with_a_dead_childs_pid(monkeypatch: pytest.MonkeyPatch) -> None:
    """An orphan that has been given a dead child's pid is no second death of the child.

    The kernel gives a pid out anew as soon as it is reaped, and so within the sweep.
    """
    ended = iter([(CHILD, 256), (ORPHAN, 0), (CHILD, 9), (0, 0)])
    monkeypatch.setattr(posix, "waitpid", lambda _pid, _options: next(ended))
    tree = reaper.Tree({CHILD: (0, 1)})
    assert tree.reap() == ([(CHILD, 256)], 2)
