"""The smolmachines backend: Docker's for the bundle, `smolvm` for the agent. That a machine boots was never tried."""

import json
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from launcher import state
from launcher.backend.base import Running, Tell
from launcher.backend.docker.backend import DockerBottleBackend
from launcher.backend.docker.facts import engine_facts, fitted
from launcher.backend.docker.removal import remove
from launcher.backend.docker.render import without
from launcher.backend.shared import recast
from launcher.backend.smolmachines.render import (
    LOST,
    SmolBottlePlan,
    machine_argv,
    render_bundle,
    render_machine,
)
from launcher.containers import GATE_CERTIFICATES
from launcher.docker import Command, docker, foreground, installed, run
from launcher.errors import LauncherError
from launcher.interrupts import HeldSignals, hold_signals
from launcher.plan import (
    LABEL_AGENT,
    LABEL_OPERATOR,
    LABEL_SLUG,
    RUNTIME_DIR,
    BottlePlan,
    new_slug,
    object_name,
    slug_of,
)
from launcher.planning import labelled
from launcher.spec import BottleSpec
from launcher.staging import staged
from launcher.steps import Hands, Step, in_turn

SMOLVM = "smolvm"
ENDED = ("created", "stopped", "exited", "failed")


class SmolmachinesBottleBackend(DockerBottleBackend):
    """A bottle whose agent is a machine without a network."""

    name = "smolmachines"
    lost = LOST

    @property
    def state_dir(self) -> Path:
        """Where smolvm keeps the machines of this operator's bottles: apart from all others."""
        return state.own_root() / "smolvm"

    def plan(self, spec: BottleSpec, stage_dir: Path) -> SmolBottlePlan:
        return recast(SmolBottlePlan, super().plan(spec, stage_dir))

    def prepare(self, spec: BottleSpec, stage_dir: Path) -> SmolBottlePlan:
        spec = replace(spec, slug=spec.slug or new_slug(spec.name))
        plan = labelled(self.plan(spec, stage_dir), spec)
        with staged(spec, plan, self.name):
            machine_argv(plan, Path())
            _refuse_without_machines()
        return plan

    def steps(self, plan: BottlePlan) -> tuple[Step, ...]:
        assert isinstance(plan, SmolBottlePlan)
        return (*render_bundle(plan), *render_machine(plan, self.state_dir, plan.stage_dir / "agent.tar"))

    def launch(self, plan: BottlePlan, tell: Tell = lambda _line: None, *, start: bool = True) -> str:
        """As every backend's. A machine's workload starts with it: `start` changes nothing."""
        del start
        assert isinstance(plan, SmolBottlePlan)
        with hold_signals() as held:
            try:
                with state.held(plan.stage_dir), Hands(held) as hands:
                    self._launch_machine(plan, hands, held, tell)
            except BaseException:
                self._delete(plan.slug)
                remove(plan.slug, {plan.stage_dir}, tell, keep_history=False)
                raise
        return plan.machine

    def _launch_machine(self, plan: SmolBottlePlan, hands: Hands, held: HeldSignals, tell: Tell) -> None:
        began = time.monotonic()
        filled = recast(SmolBottlePlan, fitted(self.with_free_networks(plan, held), engine_facts(plan)))
        filled.sockets_dir.mkdir(mode=0o700, exist_ok=True)
        os.chown(filled.sockets_dir, *filled.agent.ids)
        hands.begin(without(render_bundle(filled), "internal.create", "egress.create"))
        hands.finish()
        tell(f"the bundle is healthy after {time.monotonic() - began:.1f} s, and the walls stand")
        state.discard_secrets(filled.stage_dir)
        stage, gate = object_name(filled.slug, "stage"), object_name(filled.slug, "gate")
        docker("cp", f"{stage}:{RUNTIME_DIR}", str(filled.stage_dir / "runtime"))
        if "pipelock" in filled.agent.daemons:
            docker("cp", f"{gate}:{GATE_CERTIFICATES}", str(filled.stage_dir / "certificates"))
        archive = filled.stage_dir / "agent.tar"
        docker("save", "--output", str(archive), filled.agent.image)
        in_turn(render_machine(filled, self.state_dir, archive), held.check)

    def attach(self, target: str, tty: bool, sleep: Callable[[float], None], *, started: bool = True) -> int:
        """As every backend's, but that nothing goes in: what a machine's workload says is its log."""
        del tty, started
        foreground(self._machine("logs", slug_of(target), "--follow"), sleep)
        return self.wait(target, sleep)

    def wait(self, target: str, sleep: Callable[[float], None]) -> int:
        slug = slug_of(target)
        while any(each.role == "agent" and each.state not in ENDED for each in self._machines(slug)):
            sleep(1.0)
        return 0

    def stop(self, target: str, tell: Tell = lambda _line: None) -> bool:
        slug = slug_of(target)
        with hold_signals():
            there = self._delete(slug)
            return remove(slug, {state.state_root() / slug}, tell) or there

    def running(self, slug: str = "", *, operator: str = "", containers_alone: bool = False) -> tuple[Running, ...]:
        machines = [each for each in self._machines(slug) if operator in ("", each.operator)]
        return (*super().running(slug, operator=operator, containers_alone=containers_alone), *machines)

    def in_agent(self, slug: str, *command: str, tty: bool = False) -> Command:
        options = ("--interactive", "--tty") if tty else ("--interactive",)
        return self._machine("exec", slug, *options, "--", *command)

    def logs(self, slug: str, role: str, *, follow: bool = False) -> Command:
        if role == "agent":
            return self._machine("logs", slug, *(("--follow",) if follow else ()))
        return super().logs(slug, role, follow=follow)

    def _machine(self, verb: str, slug: str, *words: str) -> Command:
        own = ("--state-dir", str(self.state_dir), "machine", verb, "--name", object_name(slug, "agent"))
        return Command((SMOLVM, *own, *words))

    def _machines(self, slug: str) -> list[Running]:
        if not installed(SMOLVM):
            return []
        result = run(Command((SMOLVM, "--state-dir", str(self.state_dir), "machine", "ls", "--json")), check=False)
        found = json.loads(result.stdout) if result.code == 0 and result.stdout.strip() else []
        return [machine for each in found if (machine := _machine_of(each)).slug and slug in ("", machine.slug)]

    def _delete(self, slug: str) -> bool:
        if not self._machines(slug):
            return False
        run(self.stop_machine(slug), check=False)
        run(self.delete_machine(slug))
        return True

    def stop_machine(self, slug: str) -> Command:
        """The command line that stops a bottle's machine."""
        return self._machine("stop", slug)

    def delete_machine(self, slug: str) -> Command:
        """The command line that deletes a bottle's machine, whether it runs or not."""
        return self._machine("delete", slug, "--force")


def _refuse_without_machines() -> None:
    """Raises `LauncherError` where no machine can run."""
    if not installed(SMOLVM):
        raise LauncherError(f"{SMOLVM} is not on PATH", hint="the package smolmachines carries it, as smol-vmm")
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        raise LauncherError("a machine needs /dev/kvm, which this user cannot open")


def _machine_of(found: dict[str, object]) -> Running:
    """A machine as `machine ls --json` tells of it."""
    told = found.get("labels")
    labels = told if isinstance(told, dict) else {}
    slug = str(labels.get(LABEL_SLUG, ""))
    return Running(
        slug=slug,
        role="agent",
        name=str(found.get("name", "")),
        state=str(found.get("state", "")),
        stage_dir=state.state_root() / slug,
        detail=str(found.get("state", "")),
        operator=str(labels.get(LABEL_OPERATOR, "")),
        agent=str(labels.get(LABEL_AGENT, "")),
    )
