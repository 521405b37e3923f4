"""Level-triggered epoll with a callback for each descriptor."""

from __future__ import annotations

from select import EPOLL_CLOEXEC, epoll

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Callback = Callable[[int], None]


class Poller:
    """What the leaves register their descriptors with; each callback gets the epoll mask that was seen."""

    def __init__(self) -> None:
        self._epoll = epoll(-1, EPOLL_CLOEXEC)
        self._callbacks: dict[int, Callback] = {}
        self._forgotten: dict[int, None] = {}
        self._bulk: dict[int, None] = {}
        self._put_off = False

    def fileno(self) -> int:
        """The descriptor of the poller itself."""
        return self._epoll.fileno()

    def watch(self, fd: int, mask: int, callback: Callback) -> None:
        """Call back for `fd`. Raises PermissionError for what cannot be polled, such as a regular file."""
        self._epoll.register(fd, mask)
        self._callbacks[fd] = callback

    def change(self, fd: int, mask: int) -> None:
        """Watch `fd` for something else from now on."""
        self._epoll.modify(fd, mask)

    def forget(self, fd: int) -> None:
        """Watch `fd` no more; to be called before it is closed."""
        if self._callbacks.pop(fd, None) is not None:
            self._forgotten[fd] = None
            self._bulk.pop(fd, None)
            self._epoll.unregister(fd)

    def is_bulk(self, fd: int) -> None:
        """Let whatever else is ready go before this descriptor."""
        self._bulk[fd] = None

    def wait(self, timeout_ms: int | None) -> None:
        """Sleep until something is ready or the time is over, and call back for all of it."""
        ready = self._epoll.poll(None if timeout_ms is None else timeout_ms / 1_000)
        self._forgotten.clear()
        bulk = self._bulk
        self._put_off = not self._put_off and any(fd not in bulk for fd, _ in ready)
        for fd, mask in ready:
            if self._put_off and fd in bulk:
                continue  # It is ready still when what is urgent has been judged, and then has its turn in any case.
            if fd not in self._forgotten:  # One callback may close the next one's descriptor, and open another there.
                self._callbacks[fd](mask)


class Bulk:
    """A poller for what is much and not urgent: a signal or a request that comes with it goes first, by one turn."""

    def __init__(self, poller: Poller) -> None:
        self._poller = poller

    def watch(self, fd: int, mask: int, callback: Callback) -> None:
        """As `Poller.watch`."""
        self._poller.watch(fd, mask, callback)
        self._poller.is_bulk(fd)

    def change(self, fd: int, mask: int) -> None:
        """As `Poller.change`."""
        self._poller.change(fd, mask)

    def forget(self, fd: int) -> None:
        """As `Poller.forget`."""
        self._poller.forget(fd)
