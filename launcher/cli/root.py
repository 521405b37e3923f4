"""The application that the commands are registered with, and the arguments that several of them share."""

from pathlib import Path
from typing import Annotated

import typer

HELP = """Bottles: AI coding agents in containers with no way out but through daemons that watch over them.

`bottle init` writes a manifest, `bottle up` starts an agent, `bottle down` takes it down.
"""
START, LOOK, ANSWER, WORK, SETUP = "Start and stop", "Look", "Answer and allow", "Bring work home", "Set up"

app = typer.Typer(
    name="bottle",
    help=HELP,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def example(*lines: str) -> str:
    """The epilog of a command's help."""
    return "Example:\n\n" + "\n\n".join(f"    {line}" for line in lines)


def complete_slug(incomplete: str) -> list[str]:
    """Bottles for the shell's completion: from the operator's own notes, without a call of the engine."""
    from launcher import history, state

    return [slug for slug in (*state.slugs(), *history.remembered()) if slug.startswith(incomplete)]


def complete_agent(incomplete: str) -> list[str]:
    """Agents of the operator's manifests, for the shell's completion."""
    from launcher.errors import LauncherError
    from launcher.manifest import own_sources

    try:
        names = [name for source in own_sources() for name in source.manifest.agents]
    except LauncherError:
        return []
    return [name for name in names if name.startswith(incomplete)]


Slug = Annotated[
    str | None,
    typer.Argument(
        metavar="[BOTTLE]",
        help="A bottle's name, the beginning of one, or its agent's. Default: the only one.",
        autocompletion=complete_slug,
    ),
]
Agent = Annotated[
    str | None,
    typer.Argument(
        metavar="[AGENT | FILE]",
        help="An agent of your manifests, or a manifest FILE. Default: the only agent.",
        autocompletion=complete_agent,
    ),
]
AgentOfFile = Annotated[
    str | None, typer.Option("--agent", metavar="NAME", help="Which agent of a manifest FILE. Default: the only one.")
]
Json = Annotated[bool, typer.Option("--json", help="As JSON, for programs.")]
ProjectPath = Annotated[
    Path | None, typer.Option("--project", metavar="DIRECTORY", help="The directory that the agent works in.")
]
ProjectMode = Annotated[str, typer.Option("--mode", metavar="bind|copy|clone", help="How the agent gets its project.")]
Prompt = Annotated[str, typer.Option("--prompt", "-p", metavar="TEXT", help="What the agent is told first.")]
