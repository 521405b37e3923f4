"""up, run, attach, exec, shell, down, prune: bottles come and go."""

import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from launcher import bottles, state
from launcher.backend import BottleBackend, get_bottle_backend
from launcher.backend.base import Tell
from launcher.cli.console import asks_a_person, note, screen, tell
from launcher.cli.root import (
    START,
    Agent,
    AgentOfFile,
    ProjectMode,
    ProjectPath,
    Prompt,
    Slug,
    app,
    complete_slug,
    example,
)
from launcher.docker import foreground, replaced_by
from launcher.errors import LauncherError
from launcher.interrupts import hold_signals
from launcher.plan import object_name, slug_of
from launcher.spec import BottleSpec

Detach = Annotated[bool, typer.Option("--detach", "-d", help="Return once the agent runs, and leave it up.")]
Keep = Annotated[bool, typer.Option("--keep", help="Leave everything up after the agent has ended.")]
New = Annotated[bool, typer.Option("--new", help="Start another one, even if this agent is up already.")]
Headless = Annotated[bool, typer.Option("--headless", help="Run the agent's headless command on the prompt, and end.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but what the agent says.")]


def spec_of(
    target: str | None, *, agent: str | None = None, project: Path | None = None, mode: str = "", prompt: str = "",
    headless: bool = False, command: tuple[str, ...] = (), tty: bool | None = None, to_build: bool = False,
) -> BottleSpec:  # fmt: skip
    """The bottle of an agent's name or of a manifest file, of which `agent` says whose.

    Raises `LauncherError` where it cannot be found or has faults.
    """
    from launcher.manifest import Wishes, find, load

    if mode not in ("", "bind", "copy", "clone"):
        raise LauncherError(f"--mode {mode}: bind, copy or clone is needed")
    wishes = Wishes(command, prompt, headless, project, mode, tty, to_build)
    if target is not None and ("/" in target or target.endswith(".toml")):
        return load(Path(target), agent, wishes)
    if target is not None and agent is not None and target != agent:
        raise LauncherError(
            f"two agents were named: {target} and {agent}",
            hint=f"--agent chooses one of a FILE; is {target} a file, call it ./{target}",
        )
    return find(target or agent, wishes)


@app.command(
    rich_help_panel=START,
    epilog=example(
        "bottle up claude", "bottle up -d codex --project ~/src/app", "bottle up ./team.toml --agent reviewer"
    ),
)
def up(
    target: Agent = None,
    *,
    agent: AgentOfFile = None,
    detach: Detach = False,
    keep: Keep = False,
    new: New = False,
    headless: Headless = False,
    prompt: Prompt = "",
    project: ProjectPath = None,
    mode: ProjectMode = "",
    quiet: Quiet = False,
) -> None:
    """Start an agent in its bottle, show what it says until it ends, and take everything down."""
    spec = spec_of(target, agent=agent, project=project, mode=mode, prompt=prompt, headless=headless)
    backend = get_bottle_backend()
    if not new and (there := bottles.of_agent(backend, spec.agent.name)):
        raise typer.Exit(_already_up(backend, spec.agent.name, there))
    raise typer.Exit(start(backend, spec, detach=detach, keep=keep, quiet=quiet))


@app.command(
    rich_help_panel=START,
    epilog=example("bottle run shell -- git clone https://git.example.com/team/demo.git"),
    context_settings={"allow_interspersed_args": False},
)
def run(
    target: Agent = None,
    command: Annotated[list[str] | None, typer.Argument(help="The command, after --.")] = None,
    *,
    agent: AgentOfFile = None,
    project: ProjectPath = None,
    mode: ProjectMode = "",
) -> None:
    """Run one command in a fresh bottle of an agent's, and take it down; ends with the command's exit code."""
    words = after_dashes(command or [])
    if not words:
        raise LauncherError("no command was given", hint="bottle run AGENT -- COMMAND ARGUMENTS…")
    terminal = sys.stdin.isatty() and sys.stdout.isatty()
    spec = spec_of(target, agent=agent, project=project, mode=mode, command=words, tty=terminal)
    raise typer.Exit(start(get_bottle_backend(), spec, quiet=True))


def after_dashes(words: list[str]) -> tuple[str, ...]:
    """A command without the `--` before it, which the parser leaves where an argument stands before that."""
    return tuple(words[1:] if words[:1] == ["--"] else words)


def start(
    backend: BottleBackend, spec: BottleSpec, *, detach: bool = False, keep: bool = False, quiet: bool = False
) -> int:
    """Start a bottle and, unless it is left up, take it down again; returns the agent's exit code."""
    from launcher.engine import with_engine
    from launcher.work import settled

    attached = not detach
    if attached and spec.agent.tty:
        _refuse_without_terminal(spec.agent.name)
    spec, stage_dir = bottles.fresh(replace(spec, lease=attached and not keep if spec.lease is None else spec.lease))
    say = (lambda _line: None) if quiet else tell
    slug = stage_dir.name
    started = not (attached and spec.agent.tty)
    with hold_signals() as held, state.held(stage_dir), ExitStack() as stack:
        # A launch that fails leaves nothing behind by itself.
        target = with_engine(lambda: backend.launch(backend.prepare(spec, stage_dir), say, start=started), say)
        try:
            if spec.lease:
                stack.enter_context(backend.leased(target))
            if not quiet:
                screen.print(Text(f"{target} runs. `bottle down {slug}` takes it down."))
            code = backend.attach(target, spec.agent.tty, held.sleep, started=started) if attached else 0
            held.check()
        except BaseException:
            _give_up(backend, slug, say)
            raise
        if attached and not keep:
            settled(backend, slug, note)
            backend.stop(target, say)
    return code


def _refuse_without_terminal(agent: str) -> None:
    """Raises `LauncherError` where an agent that wants a terminal could not be given one: in a script, in a pipe."""
    if not sys.stdin.isatty():
        raise LauncherError(
            f"{agent} wants a terminal, and there is none",
            hint='--headless --prompt "TEXT" works without one; --detach leaves it up for `bottle attach`',
        )


def _give_up(backend: BottleBackend, slug: str, say: Tell) -> None:
    """Take down a bottle that was interrupted, or lost its bundle; one whose work cannot be kept stays."""
    if _work_is_kept(backend, slug):
        backend.stop(slug, say)


def _work_is_kept(backend: BottleBackend, slug: str) -> bool:
    """Keep what is nowhere else; where that does not work, say how to go on."""
    from launcher.work import settled

    try:
        settled(backend, slug, note)
    except LauncherError as error:
        note(f"{error}\n{slug} is left as it is: `bottle down {slug}` tries again, with --discard without its work")
        return False
    return True


def _already_up(backend: BottleBackend, agent: str, there: list[str]) -> int:
    """Offer the one that is up instead of a second one."""
    words = f"{agent} is up already: {', '.join(there)}"
    if not asks_a_person() or not typer.confirm(f"{words}. Attach to it?", default=True):
        raise LauncherError(words, hint=f"`bottle attach {there[0]}` shows it; --new starts another one")
    return _attach(backend, there[0])


@app.command(rich_help_panel=START, epilog=example("bottle attach claude-3f9a1c"))
def attach(slug: Slug = None) -> None:
    """Show what a detached bottle's agent says; with a terminal of its own, take it over. Ctrl-C leaves it up."""
    backend = get_bottle_backend()
    raise typer.Exit(_attach(backend, bottles.named(backend, slug)))


def _attach(backend: BottleBackend, slug: str) -> int:
    facts = state.facts_of(state.state_root() / slug) or {}
    if facts.get("tty"):
        _refuse_without_terminal(str(facts.get("agent") or slug))
    with hold_signals() as held:
        return backend.attach(object_name(slug, "agent"), bool(facts.get("tty")), held.sleep)


@app.command(
    name="exec",
    rich_help_panel=START,
    epilog=example("bottle exec claude -- git status"),
    context_settings={"allow_interspersed_args": False},
)
def exec_(
    slug: Annotated[str, typer.Argument(metavar="BOTTLE", help="Which bottle.", autocompletion=complete_slug)],
    command: Annotated[list[str], typer.Argument(help="The command, after --.")],
) -> None:
    """Run a command beside a bottle's agent, as its user and behind its walls."""
    backend = get_bottle_backend()
    with hold_signals() as held:
        line = backend.in_agent(bottles.named(backend, slug), *after_dashes(command), tty=asks_a_person())
        raise typer.Exit(foreground(line, held.sleep))


@app.command(rich_help_panel=START, epilog=example("bottle shell claude"))
def shell(slug: Slug = None) -> None:
    """Open a shell beside a bottle's agent, behind its walls."""
    backend = get_bottle_backend()
    choose = "command -v bash >/dev/null && exec bash || exec sh"
    replaced_by(backend.in_agent(bottles.named(backend, slug), "sh", "-c", choose, tty=asks_a_person()))


@app.command(rich_help_panel=START, epilog=example("bottle down claude", "bottle down --all"))
def down(
    slug: Annotated[
        list[str] | None,
        typer.Argument(metavar="[BOTTLE]…", help="Which bottles. Default: the only one.", autocompletion=complete_slug),
    ] = None,
    *,
    everything: Annotated[bool, typer.Option("--all", help="All of yours.")] = False,
    discard: Annotated[bool, typer.Option("--discard", help="Without keeping work that is nowhere else.")] = False,
) -> None:
    """Take a bottle down, with all that it left behind; what was said in it is kept (`logs`, `why`)."""
    from launcher.work import settled

    backend = get_bottle_backend()
    if everything and slug:
        raise LauncherError(f"--all takes down {', '.join(slug)} too", hint="name bottles, or say --all")
    chosen = list(backend.own()) if everything else _meant(backend, slug or [])
    if not discard:
        for each in chosen:
            settled(backend, each, note)
    for each, there in backend.stop_all(chosen, tell).items():
        screen.print(Text(f"{each} is down" if there else f"there is no bottle {each}"))
    if not chosen and not slug:
        screen.print("no bottle is up")


def _meant(backend: BottleBackend, names: list[str]) -> list[str]:
    """The bottles that are meant. Of a name without one that is told, and no more: `down` may be said twice.

    Raises `LauncherError` for a bottle of another operator, whose notes say where its work is.
    """
    if not names:
        known = list(backend.own())
        if len(known) > 1:
            raise LauncherError("there are several bottles", hint=f"name one, or --all: {', '.join(known)}")
        return known
    found = []
    for name in names:
        bottles.refuse_empty(name)
        exact = name in state.slugs()
        if exact and (engine := state.engine_of(name)) not in ("", backend.name):
            raise LauncherError(
                f"{name} runs on {engine}, and this command was for {backend.name}",
                hint=f"CLAUDE_BOTTLE_BACKEND={engine} bottle down {name}",
            )
        try:
            found.append(name if exact else bottles.named(backend, name))
        except LauncherError as error:
            if "there is no bottle" not in str(error):
                raise
            there = backend.running(slug_of(name))
            if any(each.operator not in ("", state.operator()) for each in there):
                raise LauncherError(f"{name} is another operator's", hint="whoever started it takes it down") from None
            if there:
                found.append(name)
            else:
                screen.print(Text(f"there is no bottle {name}"))
    return found


@app.command(rich_help_panel=START, epilog=example("bottle prune"))
def prune() -> None:
    """Remove what launchers of yours that were killed have left: containers, networks, volumes, rules and files."""
    backend = get_bottle_backend()
    removed = backend.prune(tell, lambda slug: _work_is_kept(backend, slug))
    for each in removed:
        screen.print(Text(f"removed {each}"))
    if not removed:
        screen.print("there was nothing to remove")
