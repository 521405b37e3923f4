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
            self._epoll.unregister(fd)

    def wait(self, timeout_ms: int | None) -> None:
        """Sleep until something is ready or the time is over, and call back for all of it."""
        ready = self._epoll.poll(None if timeout_ms is None else timeout_ms / 1_000)
        self._forgotten.clear()
        for fd, mask in ready:
            if fd not in self._forgotten:  # One callback may close the next one's descriptor, and open another there.
                self._callbacks[fd](mask)
