"""requests, approve, deny, allow, revoke, reload, rotate, kill-switch, notify: what the operator decides meanwhile."""

import getpass
import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from launcher import bottles, state
from launcher.backend import BottleBackend, get_bottle_backend
from launcher.cli.console import note, printable, screen
from launcher.cli.root import ANSWER, Json, Slug, app, example
from launcher.errors import LauncherError
from launcher.interrupts import hold_signals

Until = Annotated[str, typer.Option("--until", metavar="DURATION", help="For how long: 90m, 8h. Default: an hour.")]
Reason = Annotated[str, typer.Option("--reason", metavar="TEXT", help="For the audit.")]
In = Annotated[str | None, typer.Option("--in", metavar="BOTTLE", help="In this bottle. Default: wherever it is.")]
Kept = Annotated[bool, typer.Option("--keep", help="In the manifest as well, for the bottles to come.")]


def _slugs(backend: BottleBackend, wanted: str | None) -> list[str]:
    if wanted is not None:
        return [bottles.named(backend, wanted)]
    return bottles.up_now(backend.running(operator=state.operator(), containers_alone=True))


@app.command(rich_help_panel=ANSWER, epilog=example("bottle requests", "bottle requests claude --json"))
def requests(
    slug: Slug = None,
    *,
    as_json: Json = False,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Show each as it comes, until Ctrl-C.")] = False,
) -> None:
    """Show what waits for you: questions, and wishes for hosts, repositories, requests and pushes."""
    backend = get_bottle_backend()
    slugs = _slugs(backend, slug)
    if follow:
        _follow(backend, slugs, as_json=as_json)
        return
    found = [{"bottle": each, **request} for each in slugs for request in bottles.requests_of(backend, each)]
    if as_json:
        sys.stdout.write(json.dumps(found, indent=1) + "\n")
        return
    if not found:
        screen.print("nothing waits for you")
        return
    table = Table("ID", "BOTTLE", "KIND", "WHAT", "WHY", box=None, pad_edge=False)
    for each in found:
        cells = (each["id"], each["bottle"], each.get("kind", ""), each.get("text", ""), each.get("reason") or "")
        table.add_row(*(Text(printable(str(cell)).replace("\n", " ")) for cell in cells))
    screen.print(table)


def _follow(backend: BottleBackend, slugs: list[str], *, as_json: bool) -> None:
    from launcher.notices import followed

    with hold_signals() as held:
        for slug, request in followed(backend, slugs, held):
            if as_json:
                sys.stdout.write(json.dumps({"bottle": slug, **request}) + "\n")
                sys.stdout.flush()
            else:
                words = f"{request['id']}  {slug}  {request.get('state', '')}  {request.get('text', '')}"
                screen.print(Text(printable(words)))


@app.command(
    rich_help_panel=ANSWER, epilog=example("bottle approve 3f9a --until 8h", 'bottle approve 77c1 "use the second one"')
)
def approve(
    request: Annotated[str, typer.Argument(metavar="ID", help="As `requests` shows it, or its beginning.")],
    text: Annotated[str, typer.Argument(metavar="[TEXT]", help="The answer, where it is a question.")] = "",
    *,
    until: Until = "",
    reason: Reason = "",
    slug: In = None,
) -> None:
    """Say yes to a request, or answer a question."""
    backend = get_bottle_backend()
    name, found = bottles.holder(backend, request, _slugs(backend, slug))
    identity = str(found["id"])
    if found.get("kind") == "question":
        said = bottles.in_bundle(backend, name, "supervise-operator", "answer", identity, text or "yes")
    else:
        options = [*(("--until", until) if until else ()), *(("--reason", reason or text) if reason or text else ())]
        said = bottles.in_bundle(backend, name, "bottle-approve", identity, *options)
    screen.print(Text(printable(said.stdout.strip() or f"{identity} is answered")))


@app.command(rich_help_panel=ANSWER, epilog=example('bottle deny 3f9a "not from here"'))
def deny(
    request: Annotated[str, typer.Argument(metavar="ID", help="As `requests` shows it, or its beginning.")],
    text: Annotated[str, typer.Argument(metavar="[TEXT]", help="What the agent is told.")] = "",
    *,
    slug: In = None,
) -> None:
    """Say no to a request."""
    backend = get_bottle_backend()
    name, found = bottles.holder(backend, request, _slugs(backend, slug))
    words = (text,) if text else ()
    said = bottles.in_bundle(backend, name, "supervise-operator", "deny", str(found["id"]), *words)
    screen.print(Text(printable(said.stdout.strip() or f"{found['id']} is denied")))


@app.command(
    rich_help_panel=ANSWER,
    epilog=example("bottle allow docs.example.org --until 8h", "bottle allow api.example.com --in claude --keep"),
)
def allow(
    host: Annotated[str, typer.Argument(metavar="HOST[:PORT]", help="A host, or *.DOMAIN.")],
    *,
    methods: Annotated[str, typer.Option("--methods", metavar="GET,POST", help="These alone.")] = "",
    paths: Annotated[str, typer.Option("--paths", metavar="/v1/", help="Below these alone.")] = "",
    consumers: Annotated[str, typer.Option("--for", metavar="agent,git", help="For whom.")] = "",
    private: Annotated[bool, typer.Option("--private", help="It may be at a private address.")] = False,
    until: Until = "",
    reason: Reason = "",
    slug: In = None,
    keep: Kept = False,
) -> None:
    """Let a running bottle reach a host, at once and for a time."""
    backend = get_bottle_backend()
    name = bottles.named(backend, slug)
    options = {"--methods": methods, "--paths": paths, "--for": consumers, "--until": until, "--reason": reason}
    words = [word for option, value in options.items() if value for word in (option, value)]
    said = bottles.in_bundle(
        backend, name, "bottle-approve", "host", host, *words, *(("--private",) if private else ())
    )
    screen.print(Text(printable(said.stdout.strip() or f"{name} may reach {host}")))
    if keep:
        from launcher.manifest.editing import add_host

        lists = {"methods": methods, "paths": paths, "for": consumers}
        table = {key: value.split(",") for key, value in lists.items() if value} | (
            {"private": True} if private else {}
        )
        path = add_host(*_manifest_of(name), host, table)
        screen.print(Text(f"{host} is in {path}, for the bottles to come"))


@app.command(rich_help_panel=ANSWER, epilog=example("bottle revoke docs.example.org", "bottle revoke 3f9a1c0022b4d5e6"))
def revoke(
    what: Annotated[str, typer.Argument(metavar="HOST | ID", help="What was allowed or approved.")],
    *,
    slug: In = None,
    keep: Kept = False,
) -> None:
    """Take back what was allowed or approved; what is open under it is cut within a second."""
    backend = get_bottle_backend()
    name = bottles.named(backend, slug)
    removed = None
    if keep:
        from launcher.manifest.editing import remove_host

        removed = remove_host(*_manifest_of(name), what)
        screen.print(Text(f"{what} is out of {removed}" if removed else f"{what} stands in no manifest of {name}'s"))
    try:
        said = bottles.in_bundle(backend, name, "bottle-revoke", what)
        screen.print(Text(printable(said.stdout.strip() or f"{what} is revoked")))
    except LauncherError:
        if not removed:
            raise
    if removed:
        _reload(backend, name)


def _manifest_of(slug: str) -> tuple[list[Path], list[str]]:
    """The files that a bottle is from, and its names in them."""
    facts = state.facts_of(state.state_root() / slug) or {}
    return [Path(each) for each in facts.get("sources", ())], list(facts.get("bottles", ()))


@app.command(rich_help_panel=ANSWER, epilog=example("bottle reload claude"))
def reload(slug: Slug = None) -> None:
    """Read the manifest again and have a running bottle obey it; a manifest with faults changes nothing."""
    backend = get_bottle_backend()
    _reload(backend, bottles.named(backend, slug))


def _reload(backend: BottleBackend, slug: str) -> None:
    from launcher.manifest import again
    from launcher.policy import policy_toml

    facts = state.facts_of(state.state_root() / slug)
    if not facts or not facts.get("sources"):
        raise LauncherError(f"it is not known which manifest {slug} is from")
    spec = again(facts)
    text = policy_toml(spec)
    said = bottles.in_bundle(backend, slug, "bottle-reload", "-", stdin=text.encode())
    screen.print(Text(printable(said.stdout.strip() or f"{slug} obeys the manifest as it is now")))
    known = {each.name for each in spec.credentials}
    if unknown := known - set(facts.get("credentials", known)):
        note(f"new credentials need a new bottle: {', '.join(sorted(unknown))}")


@app.command(rich_help_panel=ANSWER, epilog=example("bottle rotate anthropic", "pass show key | bottle rotate api -"))
def rotate(
    name: Annotated[str, typer.Argument(metavar="CREDENTIAL", help="Its name in the manifest.")],
    source: Annotated[str, typer.Argument(metavar="[-]", help="- reads the value from standard input.")] = "",
    *,
    slug: In = None,
) -> None:
    """Give a running bottle a credential's new value: from where the manifest says, or from standard input."""
    backend = get_bottle_backend()
    bottle = bottles.named(backend, slug)
    if source not in ("", "-"):
        raise LauncherError(f"{source}: only - is understood; a value does not belong on a command line")
    value = _typed_or_piped(name) if source == "-" else _read_anew(bottle, name).encode()
    said = bottles.in_bundle(backend, bottle, "bottle-rotate", name, stdin=value)
    screen.print(Text(printable(said.stdout.strip() or f"{name} has its new value")))


def _typed_or_piped(name: str) -> bytes:
    """Standard input; at a terminal it is asked for, and not shown."""
    if sys.stdin.isatty():
        return getpass.getpass(f"new value of {name}: ").encode()
    return sys.stdin.buffer.read().rstrip(b"\n")


def _read_anew(slug: str, name: str) -> str:
    from launcher.manifest import again
    from launcher.policy import secret_value

    spec = again(state.facts_of(state.state_root() / slug) or {})
    for credential in spec.credentials:
        if credential.name == name:
            return secret_value(credential)
    known = ", ".join(each.name for each in spec.credentials) or "none"
    raise LauncherError(f"there is no credential {name!r} in the manifest", hint=f"known: {known}")


@app.command(name="kill-switch", rich_help_panel=ANSWER, epilog=example("bottle kill-switch on claude"))
def kill_switch(
    turn: Annotated[str, typer.Argument(metavar="on|off|status")] = "status",
    slug: Slug = None,
) -> None:
    """Let nothing out of a bottle any more, within a second; what was cut stays cut when it is off again."""
    if turn not in ("on", "off", "status"):
        raise LauncherError(f"{turn}: on, off or status is needed")
    backend = get_bottle_backend()
    said = bottles.in_bundle(backend, bottles.named(backend, slug), "bottle-kill-switch", turn)
    screen.print(Text(printable(said.stdout.strip() or turn)))


@app.command(rich_help_panel=ANSWER, epilog=example("bottle notify &"))
def notify(slug: Slug = None) -> None:
    """Tell by the desktop, or by the manifest's own command, as soon as something waits; until Ctrl-C."""
    from launcher.manifest import own_sources
    from launcher.notices import followed, tell_person

    backend = get_bottle_backend()
    command = next((tuple(each.manifest.notify) for each in own_sources() if each.manifest.notify), ())
    with hold_signals() as held:
        for name, request in followed(backend, _slugs(backend, slug), held):
            if request.get("state", "open") == "open":
                tell_person(name, request, command)
