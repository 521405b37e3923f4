"""The command line: up, down, status, plan, engine, demo."""

import os
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from launcher import state
from launcher.backend import BottleBackend, get_bottle_backend
from launcher.backend.base import Running
from launcher.demo import run_demo
from launcher.engine import ensure_engine
from launcher.errors import LauncherError
from launcher.interrupts import hold_signals
from launcher.manifest import load
from launcher.plan import new_slug, slug_of


class Screen(Console):
    """A console that nobody has to listen to: `up | head -1`, a terminal that is closed. What is to be done is done."""

    def print(self, *objects: Any, **options: Any) -> None:
        """As `Console.print`; raises no `OSError`."""
        try:
            super().print(*objects, **options)
        except OSError:
            self.on_broken_pipe()

    def on_broken_pipe(self) -> None:
        """Say no more."""
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), self.file.fileno())


app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)
screen = Screen(highlight=False, soft_wrap=True)
errors = Screen(stderr=True, highlight=False, soft_wrap=True)

Manifest = Annotated[Path | None, typer.Argument(help="The manifest. Default: ~/.claude-bottle/bottle.toml")]


def main() -> None:
    """Run the command line; a `LauncherError` is shown as what it says, and never as a traceback."""
    try:
        app()
    except LauncherError as error:
        errors.print(Text(str(error), style="bold red"))
        if error.hint:
            errors.print(Text(error.hint))
        sys.exit(error.exit_code)
    except OSError as error:  # A disk that is full, a home that is not there: where, and what.
        errors.print(Text(f"{error.filename}: {error.strerror}" if error.filename else str(error), style="bold red"))
        sys.exit(1)


def tell(line: str) -> None:
    """Say what is going on."""
    screen.print(Text(line, style="dim"))


@app.command()
def up(
    manifest: Manifest = None,
    *,
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="Return once the agent runs, and leave it up.")
    ] = False,
    keep: Annotated[bool, typer.Option(help="Leave everything up after the agent has ended.")] = False,
) -> None:
    """Start a bottle, show what its agent says until it ends, and take everything down."""
    spec = load(manifest or state.default_manifest())
    spec = replace(spec, slug=new_slug(spec.name))
    backend = get_bottle_backend()
    ensure_engine(tell)
    with hold_signals() as held:
        plan = backend.prepare(spec, state.state_root() / str(spec.slug))
        try:
            target = backend.launch(plan, tell)
            screen.print(f"{target} runs. `python -m launcher down {plan.slug}` takes it down.")
            code = 0 if detach else backend.attach(target, plan.agent.tty, held.sleep)
            held.check()
        except BaseException:
            backend.stop(plan.slug, tell)
            raise
        if not (detach or keep):
            backend.stop(target, tell)
    raise typer.Exit(code)


@app.command()
def down(
    slug: Annotated[list[str] | None, typer.Argument(help="Which bottle. Default: the only one.")] = None,
    *,
    everything: Annotated[bool, typer.Option("--all", help="All of yours.")] = False,
) -> None:
    """Take a bottle down, with all it left behind."""
    backend = get_bottle_backend()
    present = _yours(backend)
    known = {*present, *(each.slug for each in backend.running())}
    if not (slug or everything) and len(present) > 1:
        raise LauncherError("there are several bottles", hint=f"name one, or --all: {', '.join(present)}")
    chosen = present if everything or not slug else slug
    for each in chosen:
        backend.stop(each, tell)
        screen.print(f"{each} is down" if slug_of(each) in known else f"there is no bottle {each}")
    if not chosen:
        screen.print("no bottle is up")


@app.command()
def status() -> None:
    """List the bottles that are there, leftovers included."""
    table = Table("bottle", "role", "name", "state", box=None)
    for each in sorted(get_bottle_backend().running(), key=lambda each: (each.slug, each.role)):
        table.add_row(each.slug, each.role, each.name, each.state)
    screen.print(table if table.row_count else "no bottle is up")


@app.command()
def plan(manifest: Manifest = None) -> None:
    """Show what `up` would do, as command lines, and do nothing."""
    spec = load(manifest or state.default_manifest())
    spec = replace(spec, slug=new_slug(spec.name))
    for line in get_bottle_backend().preview(spec, state.state_root() / str(spec.slug)):
        screen.print(Text(line))


@app.command()
def engine() -> None:
    """Find a Docker engine or, as root on Debian, install and start one."""
    screen.print(f"Docker engine {ensure_engine(tell)} answers")


@app.command()
def demo() -> None:
    """Start a bottle beside an internet of its own, and show what its agent's requests get. It stays up."""
    ensure_engine(tell)
    raise typer.Exit(run_demo(get_bottle_backend(), screen, tell))


def _yours(backend: BottleBackend) -> tuple[str, ...]:
    """The bottles of this operator: those whose files are, or would be, in the operator's own state directory."""
    return tuple(sorted({*state.slugs(), *_with_files_in(backend.running(), state.state_root())}))


def _with_files_in(running: Iterable[Running], root: Path) -> Iterable[str]:
    return (each.slug for each in running if each.stage_dir.parent == root)
