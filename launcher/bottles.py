"""What is done with bottles, for the command line and for programs alike."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from launcher import history, state
from launcher.backend import BottleBackend
from launcher.backend.base import ENDED, Running
from launcher.docker import Result, run
from launcher.errors import LauncherError
from launcher.plan import new_slug, slug_of
from launcher.spec import BottleSpec


def refuse_empty(name: str) -> None:
    """Raises `LauncherError` for an empty name, with which every name begins: a script's variable was not set."""
    if not name:
        raise LauncherError("an empty name was given", hint="leave the name out to mean the only one")


def named(backend: BottleBackend, name: str | None, *, gone_too: bool = False) -> str:
    """The slug of the one bottle that a person means: by its slug or the beginning of one, by its agent's name, by a
    container's name, or by nothing where there is but one. With `gone_too`, where none that is there is meant, it is
    the one that went last.

    Raises `LauncherError` where none is meant, or several.
    """
    if name is not None:
        refuse_empty(name)
    objects = [each for each in backend.running(operator=state.operator()) if each.kind == "container"]
    slugs = dict.fromkeys(state.slugs(backend.name), "") | {each.slug: each.agent for each in objects}
    gone = [slug for slug in (history.remembered() if gone_too else ()) if slug not in slugs]
    known = [*sorted(slugs), *gone]
    if name is None:
        there = sorted(slugs) or gone[-1:]
        if len(there) == 1:
            return there[0]
        if not there:
            raise LauncherError("no bottle is up", hint="`bottle up` starts one")
        raise LauncherError("there are several bottles", hint=f"name one: {', '.join(there)}")
    wanted = slug_of(name)
    if wanted in known:
        return wanted
    meant = (
        [slug for slug in sorted(slugs) if slugs[slug] == wanted]
        or [slug for slug in sorted(slugs) if slug.startswith(wanted)]
        or [slug for slug in gone if slug.startswith(wanted)][-1:]
    )
    if len(meant) == 1:
        return meant[0]
    if not meant:
        raise LauncherError(f"there is no bottle {wanted}", hint=f"there are: {', '.join(known) or 'none'}")
    raise LauncherError(f"{wanted} may be several bottles", hint=f"name one: {', '.join(meant)}")


def of_agent(backend: BottleBackend, agent: str) -> list[str]:
    """The bottles of an agent that are up. The engine is asked only if the operator's notes know of one."""
    facts = {slug: state.facts_of(state.state_root() / slug) or {} for slug in state.slugs(backend.name)}
    noted = [slug for slug in facts if facts[slug].get("agent") == agent]
    if not noted:
        return []
    objects = backend.running(operator=state.operator(), containers_alone=True)
    up = {each.slug for each in objects if each.role == "agent" and each.state not in ENDED}
    return [slug for slug in noted if slug in up]


def fresh(spec: BottleSpec) -> tuple[BottleSpec, Path]:
    """The spec with a slug that is free, and the directory for its files."""
    slug = spec.slug or new_slug(spec.agent.name or spec.name)
    return replace(spec, slug=slug), state.state_root() / slug


def in_bundle(backend: BottleBackend, slug: str, *command: str, stdin: bytes | None = None) -> Result:
    """Run one of the bundle's own commands for the operator.

    Raises `LauncherError` in the command's own words where it fails.
    """
    result = run(backend.in_bundle(slug, *command, stdin=stdin is not None), stdin=stdin, check=False)
    if result.code:
        words = (result.stderr or result.stdout).strip() or f"{command[0]} ended with {result.code}"
        raise LauncherError(words)
    return result


def requests_of(backend: BottleBackend, slug: str) -> list[dict[str, Any]]:
    """What waits for the operator in a bottle, oldest first."""
    answer = json.loads(in_bundle(backend, slug, "bottle-requests", "--json").stdout)
    found: list[dict[str, Any]] = answer["questions"]
    return found


def holder(backend: BottleBackend, request: str, slugs: Iterable[str]) -> tuple[str, dict[str, Any]]:
    """The bottle in which a request waits, by its id or the beginning of one.

    Raises `LauncherError` where there is none, or several.
    """
    refuse_empty(request)
    found = [
        (slug, each) for slug in slugs for each in requests_of(backend, slug) if str(each["id"]).startswith(request)
    ]
    if not found:
        raise LauncherError(f"nothing waits under {request}", hint="`bottle requests` shows what waits")
    if len(found) > 1:
        raise LauncherError(f"{request} may be several", hint=", ".join(str(each["id"]) for _, each in found))
    return found[0]


def up_now(objects: Sequence[Running]) -> list[str]:
    """The bottles whose bundles run."""
    return sorted(each.slug for each in objects if each.role == "sidecars" and each.state not in ENDED)
