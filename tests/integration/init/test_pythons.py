"""A bundle on every version of Python that this machine has, from the oldest that is promised on.

The package runs on the standard library alone, so nothing has to be installed for them. A version that is missing is
skipped, and says so.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.integration.support.init import PATIENCE_S, ROOT

pytestmark = pytest.mark.real

VERSIONS = ("3.11", "3.12", "3.13", "3.14")

BUNDLE = """
[daemons.web]
command = ["sh", "-c", "echo up; exec sleep 1000"]
ready = { exec = ["true"] }
policy = "restart"
[daemons.shy]
command = ["sleep", "1000"]
after = ["web"]
health = { exec = ["true"], interval = "10ms" }
[jobs.orders]
command = ["sh", "-c", '''
    set -e
    until "$PYTHON" -m bottle_init health; do sleep 0.1; done
    "$PYTHON" -m bottle_init ctl restart web
    "$PYTHON" -m bottle_init status
    exit 7
''']
after = ["shy"]
"""


def found(version: str) -> str | None:
    """An interpreter of this version: on PATH, or among those of pyenv."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    names = [shutil.which(f"python{version}"), *map(str, sorted(pyenv.glob(f"versions/{version}.*/bin/python")))]
    for name in names:
        if name is not None and subprocess.run([name, "-c", ""], check=False, capture_output=True).returncode == 0:
            return name
    return None


@pytest.mark.parametrize("version", VERSIONS)
def test_a_bundle_lives_on_every_python(version: str, tmp_path: Path) -> None:
    """Compiled, started, asked, ordered, explained."""
    python = found(version)
    if python is None:
        pytest.skip(f"this machine has no Python {version}")
    path, report = tmp_path / "bundle.toml", tmp_path / "report.json"
    path.write_text(BUNDLE)
    environ = {
        **os.environ,
        "PYTHON": python,
        "PYTHONPATH": str(ROOT),
        "PYTHONDONTWRITEBYTECODE": "1",
        "BOTTLE_INIT_CONTROL": f"@pythons-{os.getpid()}-{tmp_path.name}",
    }

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [python, "-W", "error", "-m", "bottle_init", *words]
        return subprocess.run(command, env=environ, check=False, capture_output=True, text=True, timeout=PATIENCE_S)

    assert run("check", "--compile", str(path)).returncode == 0
    done = run(f"--config={path}", f"--report={report}")
    assert done.returncode == 7, done.stderr
    assert "Traceback" not in done.stderr
    assert "Warning" not in done.stderr
    events = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]
    assert [event["order"] for event in events if event["event"] == "ordered"] == ["restart requested"]
    assert "[web] up" in done.stdout.splitlines()
    assert json.loads(report.read_text())["cause"] == "orders exited with 7"
    assert run("explain", str(report)).stdout.startswith("It ended with code 7: orders exited with 7.")
    one = run("--", "sh", "-c", "kill -TERM $$")
    assert one.returncode == 143
