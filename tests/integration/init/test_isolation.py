"""Nothing is imported from the working directory, nor from a PYTHONPATH that did not bring the package (contract 5)."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.integration.support.init import ROOT, running

pytestmark = pytest.mark.real

BUNDLE = "[jobs.j]\ncommand = ['true']\nuser = 'nobody'\nrlimits = { core = 0 }\n"

TRAP = "import sys; sys.stderr.write(f'TRAP {__name__}\\n'); raise SystemExit(99)"


@pytest.fixture
def traps(tmp_path: Path) -> Path:
    """A directory with a module of each name that the package and its libraries import, but for the interpreter's own.

    Each says that it was imported.
    """
    here = tmp_path / "traps"
    here.mkdir()
    early = subprocess.run(
        [sys.executable, "-I", "-c", "import runpy, pkgutil, sys; print(*sys.modules)"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    names = {path.stem for path in Path(sysconfig.get_path("stdlib")).glob("*.py")}
    names |= {path.name.partition(".")[0] for path in Path(sysconfig.get_path("stdlib"), "lib-dynload").glob("*.so")}
    for name in names | {"structlog", "psutil", "hypothesis", "resource", "select", "tomllib"}:
        if name not in early and name not in sys.builtin_module_names:
            (here / f"{name}.py").write_text(TRAP)
    return here


def test_traps_beside_pid_1_are_not_imported(tmp_path: Path, traps: Path) -> None:
    """PID 1, and a child before its own program, take nothing from the working directory or PYTHONPATH.

    The defence is `isolation.begin`: without it `tomllib` of the working directory is imported.
    """
    with running(tmp_path, BUNDLE, cwd=traps, env={"PYTHONPATH": f"{traps}:{ROOT}"}) as init:
        assert init.wait() == 0, init.err
        assert not [line for line in init.err if "TRAP" in line]


@pytest.mark.parametrize(
    "words",
    [
        ("bottle_init", "check", "{}/bundle.toml"),
        ("bottle_init", "check", "--schema"),
        ("bottle_init", "--help"),
        ("bottle_init", "status"),
        ("bottle_init", "health", "--json"),
        ("bottle_init", "ctl", "stop"),
        ("bottle_init", "explain", "/dev/null"),
        ("bottle_init", "--", "true"),
        ("bottle_init.testing", "--runs=1", "{}/bundle.toml"),
        ("bottle_init.testing", "--diagram"),
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("flag", ["-m", "-Bm", "script"])
def test_no_command_imports_from_where_it_runs(tmp_path: Path, traps: Path, words: tuple[str, ...], flag: str) -> None:
    (tmp_path / "bundle.toml").write_text(BUNDLE)
    module, *rest = (word.format(tmp_path) for word in words)
    start = [sys.executable, flag, module] if flag != "script" else [str(Path(sys.executable).with_name("bottle-init"))]
    if flag == "script" and module != "bottle_init":
        pytest.skip("the console script is the init's alone")
    env = {"PYTHONPATH": str(traps), "BOTTLE_INIT_CONTROL": "@bottle-nowhere", "PATH": "/usr/bin:/bin"}
    done = subprocess.run([*start, *rest], cwd=traps, env=env, capture_output=True, text=True, check=False)
    assert "TRAP" not in done.stderr
    assert done.returncode in (0, 1), done.stderr


def test_a_library_leaves_the_path_alone(tmp_path: Path) -> None:
    """A program that imports the package keeps its own modules."""
    (tmp_path / "mine.py").write_text("import bottle_init.client, other; print(other.WORD)")
    (tmp_path / "other.py").write_text("WORD = 'kept'")
    done = subprocess.run(
        [sys.executable, "-m", "mine"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "kept\n", done.stderr


def test_the_package_may_come_from_where_it_runs(tmp_path: Path, traps: Path) -> None:
    """What brought the package is the last place to look: the standard library comes before what lies beside it."""
    (traps / "bottle_init").symlink_to(ROOT / "bottle_init")
    (tmp_path / "bundle.toml").write_text(BUNDLE)
    command = [sys.executable, "-S", "-m", "bottle_init", "check", f"{tmp_path}/bundle.toml"]
    done = subprocess.run(command, cwd=traps, capture_output=True, text=True, check=False)
    assert (done.returncode, "TRAP" in done.stderr) == (0, False), done.stderr
