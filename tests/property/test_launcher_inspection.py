"""What an agent left in a copy of a project, whatever the project is made of, and however it left it."""

import os
import subprocess
import time
from pathlib import Path

import pytest

from launcher import inspection, work


def git(where: Path, *words: str) -> str:
    """git as a person with a name, without this machine's configuration."""
    names = {f"GIT_{who}_{what}": "a@example.com" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    env = {**inspection.environment(), **names}
    return subprocess.run(("git", *words), cwd=where, env=env, check=True, capture_output=True, text=True).stdout


def repository(place: Path, *, commits: bool = True) -> Path:
    place.mkdir(parents=True, exist_ok=True)
    git(place, "init", "--quiet", "--initial-branch=main")
    if commits:
        (place / "first").write_text("1\n")
        git(place, "add", "--all")
        git(place, "commit", "--quiet", "--message=first")
    return place


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """The operator's directory, of which the agent gets a copy."""
    return repository(tmp_path / "home")


def copied(home: Path) -> Path:
    """What the agent is given."""
    subprocess.run(("cp", "-a", str(home), str(home.parent / "copy")), check=True)
    return home.parent / "copy"


def brought_home(home: Path, copy: Path) -> list[str]:
    """Make the patch and apply it; the files that are different afterwards, git's own apart."""
    (scratch := home.parent / "scratch").mkdir(exist_ok=True)
    base = home.parent / "base"
    subprocess.run(("cp", "-a", str(home), str(base)), check=True)
    work.apply(inspection.patch(base, copy, scratch), home)
    done = subprocess.run(
        ("diff", "-r", "--no-dereference", "--exclude=.git", home, copy), capture_output=True, text=True, check=False
    )
    return done.stdout.splitlines()


def test_every_name_comes_home(home: Path) -> None:
    """Blanks, quotes, line ends, no UTF-8, what looks like git's own words; links, modes, bytes, and deletions."""
    copy = copied(home)
    for name in (b" a", b'b"c', b"two\nlines", b"\xff", b":(glob)*", b"-x", b"deep/er/still", b"*"):
        place = Path(os.fsdecode(os.fsencode(copy) + b"/" + name))
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(b"\0\r\n" + name)
    (copy / "link").symlink_to("nowhere")
    (copy / "run").write_text("#!/bin/sh\n")
    (copy / "run").chmod(0o755)
    (copy / "first").unlink()
    assert brought_home(home, copy) == []
    assert os.access(home / "run", os.X_OK)


@pytest.mark.parametrize("commits", [True, False], ids=["with commits", "just made"])
def test_repositories_in_the_project_are_in_the_patch(home: Path, *, commits: bool) -> None:
    """git alone notes the commit of such a one and leaves its files out, or refuses where there is none.

    Defence: `Snapshots.of`.
    """
    repository(home / "of the operator's")
    repository(home / "of the operator's" / "vendor" / "one", commits=commits)
    (home / "of the operator's" / ".gitignore").write_text("cache/\n")
    repository(home / "of the operator's" / "cache" / "one", commits=commits)
    (home / ".gitignore").write_text("of the operator's/\n")
    copy = copied(home)
    for name in (".", "vendor/one", "cache/one"):
        (copy / "of the operator's" / name / "first").write_text("changed\n")
    inner = repository(copy / "made" / "by the agent", commits=commits)
    (repository(inner / "deeper") / "new").write_text("new\n")
    assert brought_home(home, copy) == []
    assert not (home / "made" / "by the agent" / ".git").exists()


def test_submodules_and_work_trees_are_in_the_patch(home: Path) -> None:
    """Their `.git` is a file that leads elsewhere, or nowhere in a container."""
    module = repository(home.parent / "module")
    git(home, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(module), "sub")
    git(home, "commit", "--quiet", "--message=sub")
    git(home, "worktree", "add", "--quiet", "tree")
    copy = copied(home)
    (copy / "sub" / "first").write_text("changed\n")
    (copy / "sub" / "new").write_text("new\n")
    (copy / "tree" / "first").write_text("changed too\n")
    (copy / "lost").mkdir()
    (copy / "lost" / ".git").write_text("gitdir: /nowhere\n")
    (copy / "lost" / "file").write_text("x")
    assert brought_home(home, copy) == []
    assert (home / "sub" / "new").read_text() == "new\n"


def test_what_gitignore_names_stays_where_it_is(home: Path) -> None:
    (home / ".gitignore").write_text("cache/\n*.o\n")
    copy = copied(home)
    repository(copy / "cache" / "cloned by a tool")
    (copy / "built.o").write_text("")
    (copy / "source").write_text("")
    differ = brought_home(home, copy)
    assert len(differ) == 2
    assert (home / "source").exists()


def test_what_is_tracked_comes_home_though_ignored(home: Path) -> None:
    """Also where one of both has it no more, or as a directory, or behind a link. Defence: `tracked`."""
    for name in ("kept.o", "gone.o", "forgotten.o", "dir.o", "d/behind.o"):
        (home / name).parent.mkdir(exist_ok=True)
        (home / name).write_text(name)
    git(home, "add", "--all")
    (home / ".gitignore").write_text("*.o\n")
    copy = copied(home)
    (copy / "kept.o").write_text("changed\n")
    (copy / "gone.o").unlink()
    git(copy, "rm", "--quiet", "--cached", "forgotten.o")
    (copy / "dir.o").unlink()
    (copy / "dir.o").mkdir()
    (copy / "d").rename(copy / "e")
    (copy / "d").symlink_to("e")
    (copy / "more.o").write_text("more\n")
    git(copy, "add", "--force", "more.o")
    brought_home(home, copy)
    assert (home / "kept.o").read_text() == "changed\n"
    assert (home / "more.o").exists()
    assert not (home / "gone.o").exists()
    assert (home / "forgotten.o").exists()
    assert not (home / "dir.o").is_file()
    assert (home / "d").is_symlink()


def test_no_filter_and_no_hook_of_the_agents_runs(home: Path) -> None:
    """Defence: the snapshots' repository is apart, and has a configuration of its own."""
    copy = copied(home)
    ran = home.parent / "ran"
    (copy / ".gitattributes").write_text("* filter=own diff=own\n")
    git(copy, "config", "filter.own.clean", f"touch '{ran}'; cat")
    git(copy, "config", "diff.own.textconv", f"touch '{ran}'; cat")
    git(copy, "config", "core.fsmonitor", f"touch '{ran}'")
    (copy / "first").write_text("changed\n")
    assert brought_home(home, copy) == []
    assert not ran.exists()


# What no remote has.


def left(*places: Path, project: Path = Path("/nowhere"), base: Path = Path("/nowhere")) -> list[tuple[int, int, str]]:
    return sorted((changed, commits, tree.name) for changed, commits, tree in inspection.unsaved(base, project, places))


def test_what_is_saved_is_not_told(tmp_path: Path) -> None:
    upstream = repository(tmp_path / "upstream")
    git(tmp_path, "clone", "--quiet", str(upstream), "place/clone")
    repository(tmp_path / "place" / "empty", commits=False)
    git(tmp_path, "clone", "--quiet", "--bare", str(upstream), "place/.cache/of-a-tool")
    assert left(tmp_path / "place") == []


def test_every_kind_of_commit_counts(tmp_path: Path) -> None:
    """On a branch, on none, stashed, in a bare repository, in a work tree whose `.git` is a file."""
    upstream = repository(tmp_path / "upstream")
    place = tmp_path / "place"
    for name in ("branch", "detached", "stash", "main"):
        git(tmp_path, "clone", "--quiet", str(upstream), f"place/{name}")
    git(place / "branch", "commit", "--quiet", "--allow-empty", "--message=x")
    git(place / "detached", "checkout", "--quiet", "--detach")
    git(place / "detached", "commit", "--quiet", "--allow-empty", "--message=x")
    (place / "stash" / "first").write_text("changed")
    git(place / "stash", "stash", "--quiet")
    git(place / "main", "worktree", "add", "--quiet", str(place / "tree"))
    (place / "tree" / "new").write_text("")
    git(place, "init", "--quiet", "--bare", "bare")
    git(place / "branch", "push", "--quiet", str(place / "bare"), "main")
    found = {name: (changed, commits) for changed, commits, name in left(place)}
    stashed = found.pop("stash")
    assert stashed[0] == 0
    assert stashed[1] >= 1
    assert found == {"branch": (0, 1), "detached": (0, 1), "tree": (1, 0), "bare": (0, 2)}


def test_in_a_copy_the_agents_commits_alone_count(home: Path) -> None:
    """The operator's own, which no remote has either, are at home. Defence: the base's own references."""
    copy = copied(home)
    assert left(copy, project=copy, base=home) == []
    git(copy, "commit", "--quiet", "--allow-empty", "--message=x")
    assert left(copy, project=copy, base=home) == [(0, 1, "copy")]


def test_what_git_cannot_read_counts_as_changed(tmp_path: Path) -> None:
    broken = repository(tmp_path / "place" / "broken")
    (broken / ".git" / "index").write_bytes(b"nothing of the kind")
    assert left(tmp_path / "place") == [(1, 1, "broken")]


def test_filters_that_never_end_hold_nothing_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many there are, all of them together have the time of one, and each counts as changed.

    Defence: the one deadline, and the end of all that git has started.
    """
    place = tmp_path / "place"
    for name in ("a", "b", "c"):
        tree = repository(place / name)
        (tree / ".gitattributes").write_text("* filter=own\n")
        git(tree, "config", "filter.own.clean", f"echo $$ >>'{tmp_path}/pids'; exec sleep infinity")
        os.utime(tree / "first", (1, 1))
    monkeypatch.setattr(inspection, "STATUS_WITHIN_S", 1.0)
    assert left(place) == [(1, 1, "a"), (1, 1, "b"), (1, 1, "c")]
    for pid in (tmp_path / "pids").read_text().split():
        while runs(int(pid)):
            time.sleep(0.01)


def runs(pid: int) -> bool:
    """Whether a process has not ended yet: one that has, and waits for its parent, has no command line."""
    try:
        return bool(Path(f"/proc/{pid}/cmdline").read_bytes())
    except FileNotFoundError:
        return False
