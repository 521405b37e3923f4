"""Work that an agent has done, and that is nowhere else yet: found, made into a patch, and never lost silently.

Whatever an agent wrote is looked at on the engine, behind walls no lower than the agent's, and comes here as the text
of a patch or as an archive: the operator's machine runs no git in a directory that an agent could have prepared.
"""

import gzip
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from launcher import state
from launcher.backend import BottleBackend
from launcher.containers import PYTHON, source_of
from launcher.docker import Command, Result, run, to_file
from launcher.errors import LauncherError
from launcher.plan import BASE_DIR, PROJECT_DIR
from launcher.spec import BottleSpec

Say = Callable[[str], None]

TIMED_OUT = 124
"""The exit code of timeout(1)."""
PATCH_WITHIN_S = 600
"""After that, what the agent changed is kept as it is: it may have made files whose reading never ends."""
# Whether there is any work tree at all; this one runs beside the agent, which need not have git.
TREES = """
import os, sys
for root in sys.argv[1:]:
    for directory, names, files in os.walk(root):
        bare = {"HEAD", "objects", "refs"} <= {*names, *files} and "/." not in directory
        if bare or ".git" in (*names, *files):
            print(directory)
        if directory.count("/") - root.count("/") >= 4:
            names.clear()
"""


@dataclass(frozen=True, slots=True)
class Unsaved:
    """A work tree with something that is nowhere else."""

    tree: str
    changed: int
    commits: int

    def __str__(self) -> str:
        return f"{self.tree}: {self.changed} changed files, {self.commits} commits that are not pushed"


def work_root() -> Path:
    """Where work is kept until `apply` brings it home; nothing else removes it."""
    return state.own_root() / "work"


def patch_path(slug: str) -> Path:
    """Where a bottle's patch is kept once the bottle is gone."""
    return work_root() / f"{slug}.patch"


def waiting() -> list[str]:
    """The bottles that are gone, and whose patches nobody has brought home yet."""
    names = (path.name.removesuffix(".patch") for path in sorted(work_root().glob("*.patch")))
    return [name for name in names if not name.endswith(".applied")]


class PatchError(LauncherError):
    """No patch could be made, whatever is in the way."""


def make_patch(backend: BottleBackend, slug: str, facts: dict[str, Any]) -> bytes:
    """What the agent has changed in its copy or clone of the project.

    Raises `LauncherError` for a bottle that has none, `PatchError` where it cannot be made.
    """
    if "project" not in _places(facts):
        raise LauncherError(
            f"{slug} has no copy of a project",
            hint="what an agent changes in a directory that is mounted is in the directory itself",
        )
    work_root().mkdir(mode=0o700, parents=True, exist_ok=True)
    target = work_root() / f"{slug}.new"
    try:
        volumes = {"base": BASE_DIR, "project": str(facts["project_target"])}
        with backend.looking(slug, facts, volumes, *_inspection(facts, "patch")) as command:
            made = to_file(target, command)
        if made.code:
            words = f"it was not made within {PATCH_WITHIN_S} s" if made.code == TIMED_OUT else made.stderr.strip()
            raise PatchError(
                f"the patch of {slug} could not be made: {words or f'git ended with {made.code}'}",
                hint=_either_way(slug),
            )
        return target.read_bytes()
    finally:
        target.unlink(missing_ok=True)


def _inspection(facts: dict[str, Any], what: str, *places: str) -> tuple[str, ...]:
    """The command that looks at volumes, in a container that sees them."""
    project = str(facts.get("project_target") or PROJECT_DIR)
    within = ("timeout", "--kill-after=5", str(PATCH_WITHIN_S))
    return (*within, "python3", "-I", "-S", "-c", source_of("inspection.py"), what, BASE_DIR, project, *places)


def unsaved(backend: BottleBackend, slug: str, facts: dict[str, Any]) -> list[Unsaved]:
    """The work trees of a bottle with something that no remote has.

    Raises `LauncherError` where the engine does not show them.
    """
    places = _places(facts)
    there = _seen_by_agent(backend, slug, places)
    if there.code == 0 and not there.stdout.strip():
        return []
    has = backend.volumes(slug)
    places = {role: place for role, place in places.items() if role in has}
    if not places:
        return []
    volumes = {**places, "base": BASE_DIR} if "base" in has else places
    with backend.looking(slug, facts, volumes, *_inspection(facts, "unsaved", *places.values())) as command:
        told = run(command).stdout
    found = [each.split(" ", 2) for each in told.split("\0") if each]
    return [Unsaved(tree, int(changed), int(commits)) for changed, commits, tree in found]


def settled(backend: BottleBackend, slug: str, say: Say) -> None:
    """Before a bottle goes: whatever is nowhere else is kept in ~/.claude-bottle/work/, and told.

    Raises `LauncherError` where that does not work: then nothing goes.
    """
    facts = state.facts_of(state.state_root() / slug)
    if facts is None or "home" not in facts:
        return
    try:
        _keep_all(backend, slug, facts, say)
    except OSError as error:
        raise LauncherError(
            f"the work in {slug} cannot be kept: {error.filename or work_root()}: {error.strerror}",
            hint=_either_way(slug),
        ) from None


def _keep_all(backend: BottleBackend, slug: str, facts: dict[str, Any], say: Say) -> None:
    if "project" in _places(facts) and "project" in backend.volumes(slug):
        _keep_patch(backend, slug, facts, say)
    found = unsaved(backend, slug, facts)
    for name, place, trees in _by_place(facts, found):
        target = _keep_place(backend, slug, name, place)
        say("\n".join([f"not pushed, and kept in {target}:", *(f"  {each}" for each in trees)]))


def _keep_patch(backend: BottleBackend, slug: str, facts: dict[str, Any], say: Say) -> None:
    """What the agent changed in the project: as a patch, or, where none can be made, the whole project."""
    try:
        patch = make_patch(backend, slug, facts)
    except PatchError as error:
        target = _keep_place(backend, slug, "project", str(facts["project_target"]))
        say(f"{error}\nso the agent's copy of the project is kept whole, in {target}")
        return
    if patch and _digest(patch) != facts.get("applied"):
        state.replace(patch_path(slug), patch, mode=0o600)
        say(f"what the agent changed in the project is in {patch_path(slug)}; `bottle apply {slug}` brings it home")


def _seen_by_agent(backend: BottleBackend, slug: str, places: dict[str, str]) -> Result:
    """The work trees in these places, a line each, as long as the agent runs."""
    return run(backend.in_agent(slug, *PYTHON, "-c", TREES, *places.values()), check=False)


def _keep_place(backend: BottleBackend, slug: str, name: str, place: str) -> Path:
    target = work_root() / f"{slug}-{name}.tar.gz"
    keep_directory(backend, slug, place, target)
    return target


def _either_way(slug: str) -> str:
    """What to do where work cannot be kept."""
    return f"mend that and try again; `bottle down --discard {slug}` goes without it"


def _places(facts: dict[str, Any]) -> dict[str, str]:
    """Where an agent works, by the volumes' roles."""
    project = {"project": str(facts.get("project_target", ""))} if facts.get("project") in ("copy", "clone") else {}
    return {"home": str(facts.get("home", "")), **project}


def _by_place(facts: dict[str, Any], found: Sequence[Unsaved]) -> Iterator[tuple[str, str, list[Unsaved]]]:
    """What has to be kept as a whole, by its volume: of the project the patch has the files, not the commits."""
    in_project = [each for each in found if _in_project(each, facts)]
    if with_commits := [each for each in in_project if each.commits]:
        yield "project", str(facts["project_target"]), with_commits
    if in_home := [each for each in found if each not in in_project]:
        yield "home", str(facts["home"]), in_home


def _in_project(each: Unsaved, facts: dict[str, Any]) -> bool:
    target = str(facts.get("project_target", ""))
    return bool(target) and Path(each.tree).is_relative_to(target)


def keep_directory(backend: BottleBackend, slug: str, place: str, target: Path) -> None:
    """A directory of the agent's as a compressed archive.

    Raises `LauncherError` where the engine does not give it.
    """
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    archive, fresh = target.with_name(target.name + ".tar.new"), target.with_name(target.name + ".new")
    try:
        taken = to_file(archive, backend.archive(slug, place))
        if taken.code:
            raise LauncherError(
                f"{place} of {slug} could not be kept: {taken.stderr.strip() or f'exit code {taken.code}'}",
                hint=_either_way(slug),
            )
        with archive.open("rb") as source, gzip.open(fresh, "wb", compresslevel=3) as compressed:
            shutil.copyfileobj(source, compressed)
        fresh.chmod(0o600)
        fresh.replace(target)
    finally:
        archive.unlink(missing_ok=True)
        fresh.unlink(missing_ok=True)


def _digest(patch: bytes) -> str:
    return hashlib.sha256(patch).hexdigest()


def apply(patch: bytes, directory: Path) -> None:
    """Apply a patch to a directory of the operator's: all of it, or nothing.

    git refuses by itself what would leave the directory, go through a link, or touch a `.git`.

    Raises `LauncherError` in git's own words where it does not fit.
    """
    isolated = {
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_CEILING_DIRECTORIES": str(directory.parent),
    }
    result = run(
        Command(("git", "apply", "--whitespace=nowarn", "-")),
        stdin=patch,
        cwd=directory,
        extra_env=isolated,
        check=False,
    )
    if result.code:
        raise LauncherError(f"the patch does not fit {directory}: {result.stderr.strip()}", hint="nothing was changed")


def applied(slug: str, patch: bytes) -> None:
    """Remember that this patch has been brought home."""
    state.note(state.state_root() / slug, applied=_digest(patch))
    path = patch_path(slug)
    if path.exists() and path.read_bytes() == patch:
        path.rename(path.with_suffix(".applied.patch"))


def saved_root() -> Path:
    """Where homes are that were kept on purpose."""
    return state.own_root() / "saved"


def commit(backend: BottleBackend, slug: str, name: str, facts: dict[str, Any], image_id: str) -> Path:
    """Keep a bottle's home under a name, beside what is needed to start it again."""
    directory = saved_root() / name
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    keep_directory(backend, slug, str(facts["home"]), directory / "home.tar.gz")
    state.write(directory / "saved.json", json.dumps(facts | {"image_id": image_id}, indent=1) + "\n", mode=0o600)
    return directory


def resumed(name: str, spec: BottleSpec) -> BottleSpec:
    """A spec with a home that was kept.

    Raises `LauncherError` for a name under which nothing was kept.
    """
    facts = saved_facts(name)
    archive = saved_root() / name / "home.tar.gz"
    agent = replace(spec.agent, home_archive=archive, image=str(facts["image_id"]), home=str(facts["home"]))
    return replace(spec, agent=agent)


def saved_facts(name: str) -> dict[str, Any]:
    """What was kept beside a home; raises `LauncherError` for a name under which nothing was kept."""
    try:
        found: dict[str, Any] = json.loads((saved_root() / name / "saved.json").read_text())
    except (OSError, ValueError):
        known = ", ".join(sorted(path.name for path in saved_root().glob("*"))) or "none"
        raise LauncherError(f"nothing was kept as {name!r}", hint=f"there are: {known}") from None
    return found


def in_words(patch: bytes) -> str:
    """The size of a patch, for people."""
    count = patch.count(b"\ndiff --git ") + patch.startswith(b"diff --git ")
    return f"{count} {'file' if count == 1 else 'files'}, {len(patch)} bytes"
