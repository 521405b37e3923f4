"""`--install`: the peers and the compiler that packages can bring."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

DEBIAN_PACKAGES = ("tini", "dumb-init", "catatonit", "s6", "runit", "gcc", "libc6-dev", "util-linux", "python3-venv")
PYPI_PACKAGES = ("supervisor", "circus", "honcho")


def install(venv: Path, interpreter: str) -> None:
    """Install what can be installed; print what cannot, which the benchmark then skips."""
    if os.geteuid() == 0 and shutil.which("apt-get"):
        environ = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        _try(["apt-get", "-qq", "update"], environ)
        _try(["apt-get", "-qq", "install", "-y", "--no-install-recommends", *DEBIAN_PACKAGES], environ)
    else:
        print("Debian's packages are installed by root on Debian alone: " + " ".join(DEBIAN_PACKAGES), file=sys.stderr)
    if not (venv / "bin/python").exists():
        _try([interpreter, "-m", "venv", str(venv)], dict(os.environ))
    # circus imports pkg_resources, which setuptools has dropped since.
    packages = (*PYPI_PACKAGES, "setuptools<80")
    _try([str(venv / "bin/python"), "-m", "pip", "install", "-q", *packages], dict(os.environ))


def _try(argv: list[str], environ: dict[str, str]) -> None:
    try:
        done = subprocess.run(argv, env=environ, capture_output=True, text=True, check=False)
        problem = done.stderr.strip() if done.returncode else ""
    except OSError as error:
        problem = str(error)
    if problem:
        print(f"{' '.join(argv)}: {problem}", file=sys.stderr)
