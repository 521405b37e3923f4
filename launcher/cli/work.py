"""diff, apply, commit, resume: what an agent has done comes home, or goes on later."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.syntax import Syntax
from rich.text import Text

from launcher import bottles, history, state
from launcher import work as kept
from launcher.backend import get_bottle_backend
from launcher.backend.docker.facts import find_images
from launcher.cli.console import asks_a_person, printable, screen
from launcher.cli.lifecycle import Detach, Quiet, start
from launcher.cli.root import WORK, Slug, app, complete_slug, example
from launcher.errors import LauncherError
from launcher.manifest import Wishes, again


def _patch(slug: str | None) -> tuple[str, bytes, dict[str, object]]:
    """The patch of a bottle that is up or, kept when it went, of one that is gone."""
    backend = get_bottle_backend()
    gone = [name for name in kept.waiting() if name not in state.slugs() and name.startswith(slug or "")]
    try:
        name = slug if slug is not None and slug in gone else bottles.named(backend, slug)
    except LauncherError:
        if not gone:
            raise
        if len(gone) > 1:
            raise LauncherError("work of several bottles is kept", hint=f"name one: {', '.join(gone)}") from None
        (name,) = gone
    if name in gone:
        return name, kept.patch_path(name).read_bytes(), history.facts_of(name) or {}
    facts = state.facts_of(state.state_root() / name) or {}
    return name, kept.make_patch(backend, name, facts), facts


@app.command(rich_help_panel=WORK, epilog=example("bottle diff claude", "bottle diff claude > changes.patch"))
def diff(slug: Slug = None) -> None:
    """Show as a patch what an agent has changed in its copy or clone of the project, also of a bottle that is gone."""
    _, patch, _ = _patch(slug)
    if not sys.stdout.isatty():
        sys.stdout.buffer.write(patch)
    elif patch:
        screen.print(Syntax(printable(patch.decode(errors="replace")), "diff", background_color="default"))
    else:
        screen.print("nothing has changed")


@app.command(rich_help_panel=WORK, epilog=example("bottle apply claude", "bottle apply claude --to ~/src/app"))
def apply(
    slug: Slug = None,
    *,
    to: Annotated[
        Path | None, typer.Option("--to", metavar="DIRECTORY", help="Default: where the copy is from.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Without asking.")] = False,
) -> None:
    """Bring home what an agent has changed in its copy of the project: all of the patch, or nothing of it."""
    name, patch, facts = _patch(slug)
    directory = to or (Path(str(facts["project_path"])) if facts.get("project_path") else Path.cwd())
    if not patch:
        screen.print("nothing has changed")
        return
    if not yes and asks_a_person() and not typer.confirm(f"{kept.in_words(patch)} into {directory}?"):
        raise typer.Exit(1)
    kept.apply(patch, directory.resolve())
    kept.applied(name, patch)
    screen.print(Text(f"brought into {directory}: {kept.in_words(patch)}"))


@app.command(rich_help_panel=WORK, epilog=example("bottle commit claude before-the-refactoring"))
def commit(
    slug: Annotated[str, typer.Argument(metavar="BOTTLE", help="Which bottle.", autocompletion=complete_slug)],
    name: Annotated[str, typer.Argument(help="What to keep it as.")],
) -> None:
    """Keep an agent's home, beside the reference of its image: `resume` starts from there."""
    if not name.replace("-", "").replace("_", "").isalnum():
        raise LauncherError(f"{name!r}: letters, digits, - and _ are what a name is made of")
    backend = get_bottle_backend()
    found = bottles.named(backend, slug)
    facts = state.facts_of(state.state_root() / found)
    if facts is None:
        raise LauncherError(f"nothing is known of {found} on this machine")
    (image,) = find_images(str(facts["image"]))
    directory = kept.commit(backend, found, name, facts, str(image["Id"]))
    screen.print(Text(f"{found} is kept in {directory}; `bottle resume {name}` goes on from there"))


@app.command(rich_help_panel=WORK, epilog=example("bottle resume before-the-refactoring"))
def resume(
    name: Annotated[str, typer.Argument(help="What it was kept as.")], *, detach: Detach = False, quiet: Quiet = False
) -> None:
    """Start a bottle again with a home that was kept, on the image that it had, under the manifest as it is now."""
    spec = again(kept.saved_facts(name), Wishes())
    raise typer.Exit(start(get_bottle_backend(), kept.resumed(name, spec), detach=detach, quiet=quiet))
