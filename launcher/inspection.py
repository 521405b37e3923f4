"""Looks at what an agent wrote: the changes in its copy of a project, and the work trees with something unsaved.

It runs by itself inside a container with the bundle's image and a reach no wider than the agent's, where the agent's
volumes are mounted read-only (`python3 -I -S -c SOURCE patch BASE PROJECT`, or `unsaved BASE PROJECT PLACE…`): it may
import nothing but the standard library. git is never asked in a repository of the agent's on the operator's machine.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

SCRATCH = Path(os.environ.get("SCRATCH", "/scratch"))
DEPTH = 5
"""How deep below a place a work tree is looked for."""
STATUS_WITHIN_S = 60.0
"""For all questions to repositories of the agent's: their filters run, and one that never ends counts as changed."""
BARE = {"HEAD", "objects", "refs"}
NO_CONFIGURATION = {
    "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_ATTR_NOSYSTEM": "1", "GIT_CONFIG_COUNT": "4",
    "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": "*",
    "GIT_CONFIG_KEY_1": "core.fileMode", "GIT_CONFIG_VALUE_1": "true",
    "GIT_CONFIG_KEY_2": "core.fsmonitor", "GIT_CONFIG_VALUE_2": "false",
    "GIT_CONFIG_KEY_3": "core.hooksPath", "GIT_CONFIG_VALUE_3": "/dev/null",
}  # fmt: skip


def environment(**more: str | Path) -> dict[str, str]:
    """git's variables: without any configuration but a repository's own."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(SCRATCH),
        **NO_CONFIGURATION,
        **{k: str(v) for k, v in more.items()},
    }


class Snapshots:
    """Directories as git trees, in a repository apart whose configuration is ours: no filter or hook is known there."""

    def __init__(self, scratch: Path) -> None:
        self._git_dir = scratch / "git"
        self._index = 0
        self._run("init", "--quiet", "--bare", str(self._git_dir))
        self._run("config", "core.bare", "false")

    def _run(
        self, *words: str, stdin: bytes = b"", cwd: Path = Path("/"), may_be: int = 0, **variables: str | Path
    ) -> bytes:
        done = subprocess.run(
            ("git", *words),  # noqa: S607 -- the image's
            input=stdin, capture_output=True, cwd=cwd, check=False,
            env=environment(GIT_DIR=self._git_dir, **variables),
        )  # fmt: skip
        if done.returncode not in (0, may_be):
            raise SystemExit(done.stderr.decode(errors="replace").strip() or f"git {words[0]}: {done.returncode}")
        return done.stdout

    def of(self, root: Path, other: Path, known: Sequence[Path] = ()) -> str:
        """A directory as a tree, with the files of the repositories in it and none of what makes them repositories.

        What .gitignore names is left out, unless it is tracked here or in `other`, with which this is to be compared;
        a repository that is one of `known` is taken by its own rules even so.
        """
        inner = outermost([each.relative_to(root) for each in nested(root)])
        ignored = self._ignored(root, inner)
        index = self._added(root, [each for each in inner if each not in ignored])
        forced = [each for each in sorted({*tracked(root), *tracked(other)}) if is_file_in(root, each)]
        words = ("update-index", "--add", "-z", "--stdin")
        self._run(*words, stdin=b"\0".join(forced), cwd=root, GIT_WORK_TREE=root, GIT_INDEX_FILE=index)
        for name in inner:
            if name not in ignored or name in known:
                tree = self.of(root / name, other / name, within(name, known))
                self._run("read-tree", f"--prefix={name}/", tree, GIT_INDEX_FILE=index)
        return self._run("write-tree", GIT_INDEX_FILE=index).decode().strip()

    def _added(self, root: Path, without: Iterable[Path]) -> Path:
        """An index with the files of a directory but for those below some directories in it."""
        self._index += 1
        index = self._git_dir / f"index.{self._index}"
        paths = [b".", *(b":(exclude,literal)" + os.fsencode(each) for each in without)]
        words = ("add", "--all", "--pathspec-from-file=-", "--pathspec-file-nul")
        self._run(*words, stdin=b"\0".join(paths), cwd=root, GIT_WORK_TREE=root, GIT_INDEX_FILE=index)
        return index

    def _ignored(self, root: Path, names: Sequence[Path]) -> set[Path]:
        """Those of the names that .gitignore names."""
        if not names:
            return set()
        asked = b"".join(b"./%s\0" % os.fsencode(each) for each in names)
        words, index = ("check-ignore", "-z", "--stdin"), self._git_dir / "none"
        told = self._run(*words, stdin=asked, cwd=root, may_be=1, GIT_WORK_TREE=root, GIT_INDEX_FILE=index)
        return {Path(os.fsdecode(each)) for each in told.split(b"\0") if each}

    def difference(self, before: str, after: str) -> bytes:
        """What turns one tree into the other, as a patch."""
        return self._run("diff", "--binary", "--no-ext-diff", "--no-textconv", before, after)


def tracked(root: Path) -> list[bytes]:
    """What the repository of a directory tracks although .gitignore names it; nothing where it has none."""
    if not root.is_dir():
        return []
    done = subprocess.run(
        ("git", "ls-files", "-z", "--cached", "--ignored", "--exclude-standard"),  # noqa: S607 -- the image's
        cwd=root, env=environment(GIT_CEILING_DIRECTORIES=root.parent), capture_output=True, check=False,
    )  # fmt: skip
    return [each for each in done.stdout.split(b"\0") if each]


def is_file_in(root: Path, name: bytes) -> bool:
    """Whether there is a file or a link of that name in a directory, and no link on the way to it."""
    path = root / os.fsdecode(name)
    straight = path.parent.resolve() == root.resolve() / path.parent.relative_to(root)
    return straight and (path.is_symlink() or path.is_file())


def within(place: Path, names: Iterable[Path]) -> list[Path]:
    """Those of the names that are below a place, as they are called from there."""
    return [each.relative_to(place) for each in names if each != place and each.is_relative_to(place)]


def outermost(names: Iterable[Path]) -> list[Path]:
    """Those of the names that are not below another one; they are in order."""
    found: list[Path] = []
    for each in names:
        if not (found and each.is_relative_to(found[-1])):
            found.append(each)
    return found


def nested(root: Path) -> list[Path]:
    """The repositories below a directory, the outer ones first."""
    found = []
    for directory, names, files in os.walk(root):
        if ".git" in names:
            names.remove(".git")
            found.append(Path(directory))
        elif ".git" in files:
            found.append(Path(directory))
    return sorted(each for each in found if each != root)


def patch(base: Path, project: Path, scratch: Path = SCRATCH) -> bytes:
    """What the agent's copy has and the base has not, as one patch."""
    snapshots = Snapshots(scratch)
    known = [each.relative_to(base) for each in nested(base)]
    return snapshots.difference(snapshots.of(base, project, known), snapshots.of(project, base, known))


def repositories(place: Path) -> Iterator[tuple[Path, bool]]:
    """The repositories in a place, and whether each is bare; a bare one in a hidden directory is a program's cache."""
    for directory, names, files in os.walk(place):
        here = Path(directory)
        if ".git" in names or ".git" in files:
            yield here, False
        elif {*names, *files} >= BARE and not any(part.startswith(".") for part in here.relative_to(place).parts):
            yield here, True
            names.clear()
        if len(here.relative_to(place).parts) >= DEPTH:
            names.clear()
        if ".git" in names:
            names.remove(".git")


def unsaved(base: Path, project: Path, places: Sequence[Path]) -> Iterator[tuple[int, int, Path]]:
    """The repositories with something that no remote and no base has: changed files, commits, and where."""
    deadline = time.monotonic() + STATUS_WITHIN_S
    for place in places:
        for tree, bare in repositories(place):
            before: list[str] | None = []
            if tree.is_relative_to(project):
                before = _lines(base / tree.relative_to(project), deadline, "for-each-ref", "--format=^%(objectname)")
            changed = [] if bare else _lines(tree, deadline, "status", "--porcelain", "--ignore-submodules=dirty")
            if changed is None:
                changed = ["it cannot be told"]
            words = ("rev-list", "--ignore-missing", "HEAD", "--branches", "refs/stash", "--not", "--remotes")
            commits = _lines(tree, deadline, *words, "--stdin", stdin="\n".join(before or ()))
            if changed or commits:
                yield len(changed), len(commits or ()), tree


def _lines(tree: Path, deadline: float, *words: str, stdin: str = "") -> list[str] | None:
    """What git says; `None` where it fails, and one line where it does not end in time."""
    with os.fdopen(os.memfd_create("told"), "w+b") as told, os.fdopen(os.memfd_create("asked"), "w+b") as asked:
        asked.write(stdin.encode())
        asked.seek(0)
        try:
            process = subprocess.Popen(
                ("git", *words),  # noqa: S607 -- the image's
                cwd=tree, env=environment(GIT_CEILING_DIRECTORIES=tree.parent), stdin=asked,
                stdout=told, stderr=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
        except OSError:  # The base has no such directory.
            return None
        try:
            process.wait(max(deadline - time.monotonic(), 0.01))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return ["it does not end"]
        told.seek(0)
        return told.read().decode(errors="replace").splitlines() if process.returncode == 0 else None


def main(what: str, base: Path, project: Path, *places: Path) -> None:
    """Write what was asked for to stdout."""
    if what == "patch":
        sys.stdout.buffer.write(patch(base, project))
        return
    # The agent chose the paths: no byte but a NUL separates them.
    for changed, commits, tree in unsaved(base, project, places):
        sys.stdout.buffer.write(b"%d %d %s\0" % (changed, commits, os.fsencode(tree)))
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main(sys.argv[1], *map(Path, sys.argv[2:]))
