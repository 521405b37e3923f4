"""init, build, doctor, engine, demo, migrate: what comes before a bottle."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from launcher import state
from launcher.backend import get_bottle_backend
from launcher.cli.console import note, screen, tell
from launcher.cli.lifecycle import spec_of
from launcher.cli.root import SETUP, Agent, AgentOfFile, Json, app, example
from launcher.errors import LauncherError
from launcher.interrupts import hold_signals


@app.command(rich_help_panel=SETUP, epilog=example("bottle init claude", "bottle init shell"))
def init(
    template: Annotated[str, typer.Argument(metavar="claude|codex|shell", help="Which agent.")] = "",
    *,
    force: Annotated[bool, typer.Option("--force", help="Replace what is there.")] = False,
) -> None:
    """Write the manifest of an agent, and its image's Dockerfile, into ~/.claude-bottle/."""
    from launcher.templates import TEMPLATES

    if template not in TEMPLATES:
        known = "\n".join(f"  bottle init {each.name:8} {each.about}" for each in TEMPLATES.values())
        raise LauncherError(f"there is no template {template!r}" if template else "no template was named", hint=known)
    chosen = TEMPLATES[template]
    root = state.own_root()
    written = {root / f"{template}.toml": chosen.manifest}
    if chosen.dockerfile:
        written[root / "images" / template / "Dockerfile"] = chosen.dockerfile
    for path in written:
        if path.exists() and not force:
            raise LauncherError(f"{path} is there already", hint="--force replaces it")
    for path, text in written.items():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        state.replace(path, text)
        screen.print(Text(f"wrote {path}"))
    if chosen.dockerfile:
        screen.print(Text(f"`bottle build {template}` builds its image, `bottle up {template}` starts it"))
    else:
        screen.print(Text(f"`bottle up {template}` starts it"))


@app.command(rich_help_panel=SETUP, epilog=example("bottle build claude"))
def build(
    target: Agent = None,
    *,
    agent: AgentOfFile = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="All that docker says, as it says it.")] = False,
) -> None:
    """Build the image of an agent from the Dockerfile that its manifest names."""
    from launcher.engine import ensure_engine
    from launcher.images import build as build_image

    spec = spec_of(target, agent=agent, to_build=True)
    ensure_engine(tell)
    tell(f"building {spec.agent.image}, which may take some minutes")
    with hold_signals() as held:
        screen.print(Text(f"{build_image(spec, held, tell if verbose else lambda _line: None)} is built"))


@app.command(rich_help_panel=SETUP, epilog=example("bottle doctor"))
def doctor(*, as_json: Json = False) -> None:
    """Look at the engine and the images, try every wall for real in a bottle of its own, and say what to do."""
    from launcher.doctor import examine
    from launcher.finding import shown

    with hold_signals() as held:
        findings = []
        for finding in examine(get_bottle_backend(), held, (lambda _line: None) if as_json else tell):
            findings.append(finding)
            if not as_json:
                screen.print(shown(finding))
    if as_json:
        sys.stdout.write(json.dumps([finding.as_json() for finding in findings], indent=1) + "\n")
    raise typer.Exit(0 if all(finding.good for finding in findings) else 1)


@app.command(rich_help_panel=SETUP, epilog=example("bottle engine"))
def engine() -> None:
    """Find a Docker engine or, as root on Debian, install and start one."""
    from launcher.engine import ensure_engine

    screen.print(f"Docker engine {ensure_engine(tell)} answers")


@app.command(rich_help_panel=SETUP, epilog=example("bottle demo"))
def demo() -> None:
    """Start a bottle beside an internet of its own, and show what its agent's requests get. It stays up."""
    from launcher.demo import run_demo
    from launcher.engine import with_engine

    raise typer.Exit(with_engine(lambda: run_demo(get_bottle_backend(), screen, tell), tell))


@app.command(rich_help_panel=SETUP, epilog=example("bottle migrate ~/.claude-bottle/bottle.toml"))
def migrate(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="A manifest of the first form.")],
    *,
    write: Annotated[bool, typer.Option("--write", help="Replace the file, and keep the old one as FILE.old.")] = False,
) -> None:
    """Print a manifest of the first form (one bottle, without names) in the present one."""
    import tomli_w

    from launcher.manifest.source import read

    source = read(path)
    if not source.migrated:
        note(f"{path} is in the present form already")
        return
    text = tomli_w.dumps(source.tables)
    if not write:
        sys.stdout.write(text)
        return
    old = path.with_name(path.name + ".old")
    if old.exists():
        raise LauncherError(f"{old} is there already", hint="move it away: the old manifest is kept under this name")
    state.replace(old, path.read_text())
    state.replace(path, text)
    screen.print(Text(f"wrote {path}; the old one is {old.name}"))
