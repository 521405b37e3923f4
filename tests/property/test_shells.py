"""Shell completion and the manual page: drawn from the rows of the command line, and taken by the real shells."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from bottle_init.cli.options import COMMANDS, CTL, OPTIONS, VERBS
from bottle_init.core.policies import POLICIES
from tools import completion, man_page

FAKE = '#!/bin/sh\nprintf "bundle: healthy\\nNAME KIND\\negress daemon\\npipelock daemon\\n"\n'
"""A `bottle-init status`, for the names of children."""


def needs(program: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"{program} is not installed")


@pytest.fixture
def shell_path(tmp_path: Path) -> str:
    """A PATH with an init's answer in front."""
    fake = tmp_path / "bottle-init"
    fake.write_text(FAKE)
    fake.chmod(0o755)
    return f"{tmp_path}:/usr/bin:/bin"


def output(path: str, *command: str) -> list[str]:
    done = subprocess.run(command, check=True, capture_output=True, text=True, env={"PATH": path}, timeout=60)
    assert done.stderr == ""
    return done.stdout.split("\n")[:-1]


BASH = """
source {file}
COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
_bottle_init
printf '%s\\n' "${{COMPREPLY[@]}}"
"""

ZSH = """
compadd() {{ print -l -- "$@" }}
_describe() {{ print -l -- ${{${{(P)2}}%%:*}} }}
_files() {{ print FILES }}
_normal() {{ print NORMAL $words $CURRENT }}
compset() {{ : }}
complete_it() {{ source {file} }}
words=({words}); CURRENT=${{#words}}
complete_it
"""

CASES = [
    ("''", [*COMMANDS]),
    ("ctl ''", [*VERBS]),
    ("ctl restart ''", ["egress", "pipelock"]),
    ("ctl signal egress ''", [*completion.VALUES["SIG"]]),
    ("--policy ''", [*POLICIES]),
]


@needs("bash")
@pytest.mark.parametrize(
    ("words", "found"),
    [
        *CASES,
        ("--policy restart ctl ''", [*VERBS]),
        ("--policy = ''", [*POLICIES]),
        ("--policy = restart-on-f", ["restart-on-failure"]),
    ],
)
def test_bash_completes(words: str, found: list[str], shell_path: str) -> None:
    script = BASH.format(
        file=completion.SHARE / "bash-completion/completions/bottle-init", words=f"bottle-init {words}"
    )
    offered = output(shell_path, "bash", "--norc", "-c", script)
    assert sorted(offered) == sorted(found)


@needs("bash")
@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_bash_completes_each_commands_options(command: str, shell_path: str) -> None:
    words = f"bottle-init {command} --"
    script = BASH.format(file=completion.SHARE / "bash-completion/completions/bottle-init", words=words)
    offered = {word.rstrip("=") for word in output(shell_path, "bash", "--norc", "-c", script) if word}
    assert offered - {"--help", "--version"} == set(completion.options_of(command or "run"))


@needs("zsh")
@pytest.mark.parametrize(("words", "found"), [*CASES, ("--policy=''", [*POLICIES]), ("-- ls ''", ["NORMAL ls 2"])])
def test_zsh_completes(words: str, found: list[str], shell_path: str) -> None:
    script = ZSH.format(file=completion.SHARE / "zsh/site-functions/_bottle-init", words=f"bottle-init {words}")
    assert set(found) <= set(output(shell_path, "zsh", "-f", "-c", script))


@needs("fish")
@pytest.mark.parametrize(("words", "found"), CASES)
def test_fish_completes(words: str, found: list[str], shell_path: str) -> None:
    line = f"bottle-init {words}".removesuffix("''")
    script = f"source {completion.SHARE}/fish/vendor_completions.d/bottle-init.fish; complete -C '{line}'"
    offered = {word.partition("\t")[0] for word in output(shell_path, "fish", "--no-config", "-c", script)}
    assert set(found) <= offered


def test_the_manual_page_is_complete() -> None:
    page = man_page.page().replace("\\-", "-")
    for name in (*OPTIONS, *(name for name in COMMANDS if name != CTL), *(f"ctl {verb}" for verb in VERBS)):
        assert f"\n.B {name}" in page, name
    assert "(docs" not in page, "links are for forges"


@needs("groff")
def test_the_manual_page_is_taken_without_a_warning() -> None:
    done = subprocess.run(
        ["groff", "-man", "-ww", "-z", str(man_page.PAGE)], check=True, capture_output=True, text=True
    )
    assert done.stderr == ""


def test_the_files_are_drawn_from_the_rows() -> None:
    for path, text in {**completion.drawn(), man_page.PAGE: man_page.page()}.items():
        assert path.read_text(encoding="utf-8") == text, "make docs"
