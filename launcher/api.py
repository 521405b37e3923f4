"""Bottles for programs: what `bottle up --headless` and its fellows do, as a small Python API.

>>> with Bottle.up("claude", prompt="make the tests pass") as bottle:  # doctest: +SKIP
...     code = bottle.wait()
...     patch = bottle.diff()
"""

import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from launcher import bottles, state, work
from launcher.backend import BottleBackend, get_bottle_backend
from launcher.docker import Result, run
from launcher.engine import with_engine
from launcher.health import health_of
from launcher.manifest import Wishes, find, load
from launcher.plan import object_name
from launcher.spec import BottleSpec
from launcher.status import Status, statuses

Tell = Callable[[str], None]


class Bottle:
    """A bottle that is up. As a context manager it is taken down at the end of the block, whatever happens."""

    def __init__(self, slug: str, backend: BottleBackend | None = None) -> None:
        self.slug = slug
        self._backend = backend or get_bottle_backend()
        self._lease = ExitStack()

    @classmethod
    def up(
        cls,
        agent: str | None = None,
        *,
        manifest: Path | None = None,
        prompt: str = "",
        command: Sequence[str] = (),
        project: Path | None = None,
        mode: str = "",
        tell: Tell = lambda _line: None,
    ) -> Self:
        """Start an agent's bottle and return once the agent runs. With a prompt its headless command runs.

        Raises `LauncherError` where it cannot be started; nothing of it is left then.
        """
        wishes = Wishes(tuple(command), prompt, bool(prompt) and not command, project, mode, tty=False)
        spec = load(manifest, agent, wishes) if manifest is not None else find(agent, wishes)
        return cls.of(spec, tell=tell)

    @classmethod
    def of(cls, spec: BottleSpec, *, tell: Tell = lambda _line: None) -> Self:
        """The same for a spec that a program has made itself."""
        backend = get_bottle_backend()
        spec, stage_dir = bottles.fresh(spec)
        with state.held(stage_dir):
            with_engine(lambda: backend.launch(backend.prepare(spec, stage_dir), tell), tell)
        bottle = cls(stage_dir.name, backend)
        if spec.lease:
            bottle._lease.enter_context(backend.leased(bottle.agent))
        return bottle

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.down()

    @property
    def agent(self) -> str:
        """The name of the agent's container."""
        return object_name(self.slug, "agent")

    def wait(self, timeout_s: float | None = None) -> int:
        """Wait until the agent has ended, and return its exit code.

        Raises `TimeoutError` after `timeout_s`, `LauncherError` where the bundle ends first.
        """
        over = threading.Event()

        def sleep(seconds: float) -> None:
            if over.wait(seconds):
                raise TimeoutError(f"{self.slug} has not ended within {timeout_s} s")

        timer = threading.Timer(timeout_s, over.set) if timeout_s is not None else None
        if timer is not None:
            timer.daemon = True
            timer.start()
        try:
            return self._backend.wait(self.agent, sleep)
        finally:
            if timer is not None:
                timer.cancel()

    def exec(self, *command: str) -> Result:
        """Run a command beside the agent, as its user and behind its walls; raises nothing for its exit code."""
        return run(self._backend.in_agent(self.slug, *command), check=False)

    def logs(self, role: str = "agent") -> str:
        """What the agent has said, or (`"sidecars"`) the bundle; each line begins with its time."""
        result = run(self._backend.logs(self.slug, role), check=False)
        return result.stdout + result.stderr

    def status(self) -> Status:
        """How it is. Raises `LauncherError` where it is gone."""
        objects = self._backend.running(self.slug)
        found = statuses(objects, health_of(objects, self._backend.in_bundle))
        return found[0] if found else Status(self.slug, "", "gone", "")

    def requests(self) -> list[dict[str, Any]]:
        """What waits for the operator, oldest first."""
        return bottles.requests_of(self._backend, self.slug)

    def answer(self, request: str, text: str) -> None:
        """Answer a question. Raises `LauncherError` where there is none by this id."""
        bottles.in_bundle(self._backend, self.slug, "supervise-operator", "answer", request, text)

    def approve(self, request: str, *, until: str = "", reason: str = "") -> None:
        """Say yes to a wish that `requests` has shown. Raises `LauncherError` where there is none by this id."""
        options = [*(("--until", until) if until else ()), *(("--reason", reason) if reason else ())]
        bottles.in_bundle(self._backend, self.slug, "bottle-approve", request, *options)

    def deny(self, request: str, text: str = "") -> None:
        """Say no. Raises `LauncherError` where nothing waits by this id."""
        words = (text,) if text else ()
        bottles.in_bundle(self._backend, self.slug, "supervise-operator", "deny", request, *words)

    def allow(self, host: str, *, until: str = "") -> None:
        """Let it reach a host for a time. Raises `LauncherError` in the bundle's words where that is refused."""
        options = ("--until", until) if until else ()
        bottles.in_bundle(self._backend, self.slug, "bottle-approve", "host", host, *options)

    def revoke(self, what: str) -> None:
        """Take back what was allowed. Raises `LauncherError` where nothing was."""
        bottles.in_bundle(self._backend, self.slug, "bottle-revoke", what)

    def diff(self) -> bytes:
        """What the agent has changed in its copy or clone of the project, as a patch.

        Raises `LauncherError` for a bottle that has neither.
        """
        return work.make_patch(self._backend, self.slug, state.facts_of(state.state_root() / self.slug) or {})

    def down(self, *, discard: bool = False, tell: Tell = lambda _line: None) -> None:
        """Take it down. Unless `discard` is set, work that is nowhere else is kept in ~/.claude-bottle/work/."""
        if not discard:
            work.settled(self._backend, self.slug, tell)
        self._backend.stop(self.slug, tell)
        self._lease.close()
