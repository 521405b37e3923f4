"""What every backend can do."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from launcher import state
from launcher.docker import Command
from launcher.errors import LauncherError
from launcher.finding import Finding
from launcher.interrupts import hold_signals
from launcher.plan import SIDECARS, BottlePlan
from launcher.spec import BottleSpec
from launcher.steps import Step
from launcher.together import together

Tell = Callable[[str], None]
ENDED = ("exited", "dead", "created")
"""States of a container that does not run."""


@dataclass(frozen=True, slots=True)
class Running:
    """What is there of a bottle: a container or another object, its role and how it is."""

    slug: str
    role: str
    name: str
    state: str
    stage_dir: Path
    kind: str = "container"
    detail: str = ""
    """The engine's own words: `Up 3 minutes (healthy)`."""
    operator: str = ""
    agent: str = ""


def _is_whole(objects: Iterable[Running]) -> bool:
    """Whether a bottle's agent and bundle run both."""
    states = {each.role: each.state for each in objects if each.kind == "container"}
    return all(states.get(role, "exited") not in ENDED for role in ("agent", SIDECARS))


def _has_run(objects: Iterable[Running]) -> bool:
    """Whether a bottle's agent was started, so that there may be work of its."""
    return any(each.role == "agent" and each.kind == "container" and each.state != "created" for each in objects)


class BottleBackend(ABC):
    """Makes a bottle and takes it down.

    The order is `prepare`, `launch`, `stop`. Whatever happens between the first and the last, an interrupt included,
    nothing is left behind once `launch` has raised or `stop` has returned.
    """

    name: str
    """What `CLAUDE_BOTTLE_BACKEND` calls it, and the notes of its bottles."""
    lost: tuple[tuple[str, str], ...] = ()
    """The walls of docs/walls.md that cannot stand on this engine as they do on Docker, and why."""

    @abstractmethod
    def prepare(self, spec: BottleSpec, stage_dir: Path) -> BottlePlan:
        """Plan a bottle and write its files into `stage_dir`; its networks stay empty. Touches nothing else.

        Raises `LauncherError` where a credential can't be read.
        """

    @abstractmethod
    def plan(self, spec: BottleSpec, stage_dir: Path) -> BottlePlan:
        """The plan of a spec, as a value: what `prepare` returns, without its files. Reads and writes nothing."""

    @abstractmethod
    def launch(self, plan: BottlePlan, tell: Tell = lambda _line: None, *, start: bool = True) -> str:
        """Make the networks, fill them in, and start the plan; returns the name of the agent's container once it runs.

        The agent is started only once the gate has passed; without `start` it is left for `attach` to start, so that
        nothing that it shows first is missed. On any failure everything is taken down before the exception
        goes on.
        """

    @abstractmethod
    def attach(self, target: str, tty: bool, sleep: Callable[[float], None], *, started: bool = True) -> int:
        """Show what the agent of that container says until it ends, and return its exit code. Where it is not `started`
        yet, this starts it.

        With `tty` the operator's terminal is the agent's own. `sleep` is called while waiting; what it raises ends
        the showing, not the agent. Raises `LauncherError` where the bundle ends first.
        """

    @abstractmethod
    def wait(self, target: str, sleep: Callable[[float], None]) -> int:
        """Wait until the agent of that container has ended, and return its exit code; `sleep` as for `attach`.

        Raises `LauncherError` where the bundle ends first.
        """

    def leased(self, target: str) -> AbstractContextManager[object]:
        """Hold the lease of a bottle whose plan has one, until the block ends or this process dies: then it stops.

        On a backend that has no such lease this does nothing.
        """
        del target
        return nullcontext()

    @abstractmethod
    def stop(self, target: str, tell: Tell = lambda _line: None) -> bool:
        """Take down the bottle of that container (or slug), with all that it left behind; whether there was any.

        Idempotent. What its daemons and its agent have said is kept in the operator's history.
        """

    def stop_all(self, slugs: Sequence[str], tell: Tell = lambda _line: None) -> dict[str, bool]:
        """Take several bottles down side by side; of each that was tried, whether there was any. Once a signal has come
        no other is begun.

        Raises `LauncherError` with every fault, after all have been tried.
        """
        there: dict[str, bool] = {}
        errors: list[LauncherError] = []

        def one(slug: str) -> list[str]:
            if not held.came:
                try:
                    there[slug] = self.stop(slug, tell)
                except LauncherError as error:
                    errors.append(error)
            return []

        with hold_signals() as held:
            together([partial(one, slug) for slug in slugs])
        if len(errors) == 1:
            raise errors[0]
        if errors:
            raise LauncherError("\n".join(map(str, errors)), hint="`bottle prune` tries again")
        return there

    @abstractmethod
    def steps(self, plan: BottlePlan) -> tuple[Step, ...]:
        """All that `launch` does, in an order that it may be done in. A pure function."""

    @abstractmethod
    def running(self, slug: str = "", *, operator: str = "", containers_alone: bool = False) -> tuple[Running, ...]:
        """What is there of all bottles, of one, or of one operator's; leftovers of a killed launcher included."""

    @abstractmethod
    def in_bundle(self, slug: str, *command: str, stdin: bool = False, tty: bool = False, user: str = "") -> Command:
        """The command line that runs a command in a bottle's bundle, as its root or as one of its users."""

    @abstractmethod
    def in_agent(self, slug: str, *command: str, tty: bool = False) -> Command:
        """The command line that runs a command beside the agent, as its user."""

    @abstractmethod
    def archive(self, slug: str, place: str) -> Command:
        """The command line that writes a directory of the agent's as a tar archive."""

    @abstractmethod
    def volumes(self, slug: str) -> frozenset[str]:
        """The roles of those volumes of a bottle's that are there to be looked at: `looking` would make others anew.

        Raises `LauncherError` where the engine does not answer.
        """

    @abstractmethod
    def looking(
        self, slug: str, facts: Mapping[str, Any], volumes: Mapping[str, str], *command: str
    ) -> AbstractContextManager[Command]:
        """The command line that runs a command of the bundle's image where a bottle's volumes are, and that does not
        outlive the block, whether its agent has ended or not.

        The volumes are at their places (`volumes`: role and path), and cannot be written to; the command may write into
        a directory that `$SCRATCH` names. An agent may have prepared what it meets there, so it gets no further than
        that agent. `facts` are the bottle's notes.
        """

    @abstractmethod
    def on_host(self, slug: str, *command: str) -> Command:
        """The command line that runs a command of the bundle's image in the network of the engine's host, without any
        privilege: a neighbour whom no wall should let the agent reach.
        """

    @abstractmethod
    def host_addresses(self, slug: str) -> tuple[str, ...]:
        """Addresses of the engine's host that the agent could try: those of its own networks first."""

    @abstractmethod
    def bundle_address_outside(self, slug: str) -> str:
        """The address by which the engine's host could reach the bundle."""

    @abstractmethod
    def look(self, tell: Tell) -> Generator[Finding, None, bool]:
        """What `bottle doctor` asks the engine first; whether a bottle can be tried there."""

    @abstractmethod
    def logs(self, slug: str, role: str, *, follow: bool = False) -> Command:
        """The command line that shows what a bottle's container has said, each line with its time."""

    def prune(
        self, tell: Tell = lambda _line: None, keep_work: Callable[[str], bool] = lambda _slug: True
    ) -> tuple[str, ...]:
        """Take down what launchers of this operator that are gone have left behind; returns what that was.

        Bottles of other backends stay, whatever this engine has of them; so does one whose agent has run, unless
        `keep_work` says that its work is kept.
        """
        left = [
            slug
            for slug, objects in self.own().items()
            if not (state.is_held(state.state_root() / slug) or _is_whole(objects))
            and (not _has_run(objects) or keep_work(slug))
        ]
        self.stop_all(left, tell)
        state.discard_unmarked()
        return tuple(left)

    def own(self) -> dict[str, list[Running]]:
        """This operator's bottles by their slugs: those that have notes for this engine, and those of which the engine
        has objects and whose notes name no other backend.
        """
        found: dict[str, list[Running]] = {slug: [] for slug in self.noted()}
        for each in self.running(operator=state.operator()):
            if state.engine_of(each.slug) in ("", self.name):
                found.setdefault(each.slug, []).append(each)
        return dict(sorted(found.items()))

    def noted(self) -> tuple[str, ...]:
        """The bottles whose notes say that they are on this engine, whether it has anything of them or not."""
        return state.slugs(self.name)

    def preview(self, spec: BottleSpec, stage_dir: Path) -> tuple[str, ...]:
        """What `launch` would do, line by line, for people. Reads and writes nothing."""
        return tuple(str(step) for step in self.steps(self.plan(spec, stage_dir)))
