"""plan, status, logs, why, audit, render, ui: what will be, what is, and what was."""

import json
import re
import sys
from collections.abc import Iterator
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from launcher import bottles, history, state
from launcher.backend import BottleBackend, get_bottle_backend
from launcher.cli.console import asks_a_person, printable, screen
from launcher.cli.lifecycle import spec_of
from launcher.cli.root import LOOK, Agent, AgentOfFile, Json, ProjectMode, ProjectPath, Prompt, Slug, app, example
from launcher.docker import foreground, lines_of, run
from launcher.errors import LauncherError
from launcher.health import health_of
from launcher.interrupts import hold_signals
from launcher.status import COLUMNS, Status, row, statuses

AGENT = "agent"
WATCH_S = 2.0
"""Between two looks of `status --watch`."""
_TAGGED = re.compile(r"\[(?P<daemon>[A-Za-z0-9_-]+)\] (?P<text>.*)")


@app.command(rich_help_panel=LOOK, epilog=example("bottle plan claude", "bottle plan claude --argv"))
def plan(
    target: Agent = None,
    *,
    agent: AgentOfFile = None,
    as_json: Json = False,
    argv: Annotated[bool, typer.Option("--argv", help="The command lines that `up` would run.")] = False,
    project: ProjectPath = None,
    mode: ProjectMode = "",
    prompt: Prompt = "",
) -> None:
    """Show what will be allowed, mounted and run, and do nothing."""
    from launcher.words import as_data, in_words

    spec, stage_dir = bottles.fresh(spec_of(target, agent=agent, project=project, mode=mode, prompt=prompt))
    backend = get_bottle_backend()
    if argv:
        for line in backend.preview(spec, stage_dir):
            screen.print(Text(line))
    elif as_json:
        screen.print(json.dumps(as_data(spec, backend.plan(spec, stage_dir), backend.lost), indent=1))
    else:
        screen.print(in_words(spec, backend.lost))


@app.command(rich_help_panel=LOOK, epilog=example("bottle status", "bottle ps --watch"))
def status(
    *,
    as_json: Json = False,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Again and again, until Ctrl-C.")] = False,
    others: Annotated[bool, typer.Option("--all", "-a", help="Those of others on the same engine too.")] = False,
) -> None:
    """List your bottles: their state, why they ended, what waits for you, which walls they lack."""
    backend = get_bottle_backend()
    if watch:
        _watch(backend, others=others)
        return
    found = _statuses(backend, others=others)
    if as_json:
        sys.stdout.write(json.dumps([each.as_json() for each in found], indent=1) + "\n")
    elif found:
        screen.print(_table(found))
    else:
        screen.print("no bottle is up")


@app.command(name="ps", rich_help_panel=LOOK, hidden=True, epilog=example("bottle ps"))
def ps(*, as_json: Json = False, watch: Annotated[bool, typer.Option("--watch", "-w")] = False) -> None:
    """The same as `status`."""
    status(as_json=as_json, watch=watch, others=False)


def _statuses(backend: BottleBackend, *, others: bool) -> list[Status]:
    objects = backend.running(operator="" if others else state.operator(), containers_alone=True)
    return statuses(objects, health_of(objects, backend.in_bundle))


def _table(found: list[Status]) -> Table:
    table = Table(*COLUMNS, box=None, pad_edge=False)
    for each in found:
        good = each.state in ("healthy", "up")
        cells = [Text(printable(cell)) for cell in row(each)]
        cells[2].stylize("green" if good else "yellow" if each.state in ("starting", "degraded") else "red")
        table.add_row(*cells)
    return table


def _watch(backend: BottleBackend, *, others: bool) -> None:
    from rich.live import Live

    with hold_signals() as held, Live(console=screen, auto_refresh=False) as live:
        while True:
            live.update(_table(_statuses(backend, others=others)), refresh=True)
            held.sleep(WATCH_S)


@app.command(rich_help_panel=LOOK, epilog=example("bottle logs claude -f", "bottle logs claude --of egress --json"))
def logs(
    slug: Slug = None,
    *,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Follow new lines.")] = False,
    of: Annotated[
        str, typer.Option("--of", metavar="NAME", help="Of this daemon alone, of `init`, or of `agent`.")
    ] = "",
    as_json: Json = False,
) -> None:
    """Show what a bottle's daemons and its agent have said, told apart; also of a bottle that is gone."""
    backend = get_bottle_backend()
    name = bottles.named(backend, slug, gone_too=True)
    others = set()
    told = False
    for line in _lines(backend, name, of, follow=follow):
        if of and line["of"] != of:
            others.add(line["of"])
            continue
        told = True
        if as_json:
            sys.stdout.write(json.dumps(line) + "\n")
            sys.stdout.flush()
        else:
            screen.print(
                Text.assemble((f"{line['at'][11:19]} ", "dim"), (f"{line['of']:10} ", "cyan"), printable(line["text"]))
            )
    if of and not told:
        raise LauncherError(
            f"{of} has said nothing in {name}", hint=f"who has: {', '.join(sorted(others)) or 'nobody'}"
        )


def _lines(backend: BottleBackend, slug: str, of: str, *, follow: bool) -> Iterator[dict[str, str]]:
    """Every line with its time, and whose it is."""
    roles = [AGENT] if of == AGENT else ["sidecars"] if of else [AGENT, "sidecars"]
    kept = history.history_root() / slug
    if (kept / history.FACTS).exists() and not (state.state_root() / slug).exists():
        files = {AGENT: kept / history.AGENT_LOG, "sidecars": kept / history.BUNDLE_LOG}
        texts = [
            (role, line)
            for role in roles
            if files[role].exists()
            for line in files[role].read_text(errors="replace").splitlines()
        ]
    elif follow:
        yield from _followed(backend, slug, roles)
        return
    else:
        texts = []
        for role in roles:
            result = run(backend.logs(slug, role), check=False)
            texts += [(role, line) for line in (result.stdout + result.stderr).splitlines()]
    yield from sorted((_told_apart(role, line) for role, line in texts), key=lambda line: line["at"])


def _followed(backend: BottleBackend, slug: str, roles: list[str]) -> Iterator[dict[str, str]]:
    import queue
    import threading

    told: queue.Queue[dict[str, str] | None] = queue.Queue()

    def read(role: str) -> None:
        with lines_of(backend.logs(slug, role, follow=True)) as lines:
            for line in lines:
                told.put(_told_apart(role, line))
        told.put(None)

    for role in roles:
        threading.Thread(target=read, args=(role,), daemon=True).start()
    left = len(roles)
    while left:
        line = told.get()
        if line is None:
            left -= 1
        else:
            yield line


def _told_apart(role: str, line: str) -> dict[str, str]:
    """A line of the engine's, which begins with its time: whose it is, and what it says."""
    at, _, text = line.partition(" ")
    if role == AGENT:
        return {"at": at, "of": AGENT, "text": text}
    if match := _TAGGED.fullmatch(text):
        return {"at": at, "of": match["daemon"], "text": match["text"]}
    return {"at": at, "of": "init", "text": text}


@app.command(rich_help_panel=LOOK, epilog=example("bottle why claude"))
def why(slug: Slug = None, *, as_json: Json = False) -> None:
    """Tell why a bottle ended, or how it is: the init's report as a story, also of a bottle that is gone."""
    from launcher.story import facts_of_end, told

    backend = get_bottle_backend()
    name = bottles.named(backend, slug, gone_too=True)
    lines = list(_lines(backend, name, "", follow=False))
    facts = facts_of_end(name, backend.running(name), lines)
    if as_json:
        sys.stdout.write(json.dumps(facts, indent=1) + "\n")
    else:
        screen.print(Text(printable(told(facts))))


@app.command(rich_help_panel=LOOK, epilog=example("bottle audit claude --follow"))
def audit(
    slug: Slug = None,
    arguments: Annotated[list[str] | None, typer.Argument(help="Filters of bottle-audit, after --.")] = None,
    *,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as more is asked.")] = False,
) -> None:
    """Show every request that was let through or refused, with the rule and the credential's name."""
    backend = get_bottle_backend()
    name = bottles.named(backend, slug)
    options = ("--follow",) if follow else ()
    with hold_signals() as held:
        raise typer.Exit(foreground(backend.in_bundle(name, "bottle-audit", *options, *(arguments or ())), held.sleep))


@app.command(
    rich_help_panel=LOOK, epilog=example("bottle render claude > compose.yaml", "bottle render claude --policy")
)
def render(
    target: Agent = None,
    *,
    agent: AgentOfFile = None,
    policy: Annotated[bool, typer.Option("--policy", help="The bundle's policy file.")] = False,
    schema: Annotated[bool, typer.Option("--schema", help="The JSON Schema of manifests.")] = False,
    swarm: Annotated[bool, typer.Option("--swarm", help="The command lines of a Docker swarm.")] = False,
    kubernetes: Annotated[bool, typer.Option("--kubernetes", help="The manifests of a cluster.")] = False,
) -> None:
    """Print a bottle as a compose file, as its policy, or for another engine; or the schema of manifests."""
    from launcher.backend.docker.compose import compose_yaml
    from launcher.manifest.jsonschema import schema_text
    from launcher.policy import policy_toml
    from launcher.staging import drafted

    if schema:
        sys.stdout.write(schema_text())
        return
    spec, stage_dir = bottles.fresh(spec_of(target, agent=agent))
    if policy:
        sys.stdout.write(policy_toml(spec))
    elif kubernetes:
        from launcher.backend.kubernetes import KubernetesBottleBackend, manifests_yaml

        with drafted(spec) as stage_dir:
            sys.stdout.write(manifests_yaml(KubernetesBottleBackend().plan(spec, stage_dir)))
    elif swarm:
        for line in get_bottle_backend("swarm").preview(spec, stage_dir):
            sys.stdout.write(f"{line}\n")
    else:
        from launcher.backend.docker import DockerBottleBackend

        sys.stdout.write(compose_yaml(DockerBottleBackend().plan(spec, stage_dir)))


@app.command(rich_help_panel=LOOK, epilog=example("bottle ui"))
def ui() -> None:
    """Open the page on the terminal: bottles, what flows, what is refused, and what waits for an answer."""
    from launcher.page import Page

    if not asks_a_person():
        raise LauncherError("the page needs a terminal", hint="`bottle status` and `bottle requests` have --json")
    Page(get_bottle_backend()).run()
