"""The peers: how each is found, and how it is started.

A peer runs one command (`one`), or several (`many`, which writes the peer's own configuration, as
its users would: a `run` script is two lines of sh), or both.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    Commands = Mapping[str, Sequence[str]]
    Many = Callable[[str, Path, Commands], list[str]]

FROM_DEBIAN = "Debian"
FROM_PYPI = "PyPI"
ELSEWHERE = "PATH"


@dataclass
class Peer:
    """One supervisor. `program` is None where it is not here, and `version` then says why.

    `executable`: what to look for, `name` if empty. `run_one`, `run_many`: the argv that runs one command, or
    several. `stop`: the signal that ends it in order. `slow`: a start or stop takes it so long that it takes part
    in fewer rounds. `settles_s`: so long after a start it treats a stop in another way. `tags`: each line that a
    child writes comes out with the child's name.
    """

    name: str
    source: str
    executable: str = ""
    run_one: Callable[[str, Sequence[str]], list[str]] | None = None
    run_many: Many | None = None
    stop: int = signal.SIGTERM
    slow: bool = False
    settles_s: float = 0.0
    tags: bool = False
    program: str | None = None
    version: str = "not looked for"
    environ: dict[str, str] = field(default_factory=dict)

    @property
    def python(self) -> bool:
        """Whether it is written in Python, as the init is."""
        return self.source == FROM_PYPI

    def one(self, command: Sequence[str]) -> list[str]:
        """The argv that runs one command."""
        if self.run_one is None or self.program is None:
            raise LookupError(f"{self.name} does not run one command")
        return self.run_one(self.program, command)

    def many(self, directory: Path, commands: Commands) -> list[str]:
        """Write the configuration for these commands into a fresh directory; the argv that runs them."""
        if self.run_many is None or self.program is None:
            raise LookupError(f"{self.name} does not run several commands")
        return self.run_many(self.program, directory, commands)

    def find(self, venv: Path) -> None:
        """Look for the program, and for its version."""
        self.program = shutil.which(self.executable or self.name, path=str(venv / "bin") if self.python else None)
        if self.program is None:
            self.version = HOW_TO_GET[self.source]
        elif self.source == FROM_DEBIAN:
            self.version = said_by("dpkg-query", "-W", "-f", "${Version}", self.name)
        elif self.python:
            code = f"from importlib.metadata import version; print(version({self.name!r}))"
            self.version = said_by(str(venv / "bin/python"), "-c", code)
        else:
            self.version = said_by(self.program, "--version") or said_by(self.program, "version") or "it tells none"


HOW_TO_GET = {
    FROM_DEBIAN: "not installed (`--install`, as root on Debian, installs it)",
    FROM_PYPI: "not installed (`--install` installs it)",
    ELSEWHERE: "not on PATH (neither Debian nor PyPI has it)",
}


def said_by(*argv: str) -> str:
    """The first line with a digit that a program prints, or else its first; empty where it fails."""
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    lines = done.stdout.strip().split("\n") if done.returncode == 0 else [""]
    return next((line for line in lines if any(map(str.isdigit, line))), lines[0]).strip()


def plain_one(*options: str) -> Callable[[str, Sequence[str]], list[str]]:
    """`PROGRAM OPTIONS -- COMMAND`."""
    return lambda program, command: [program, *options, "--", *command]


def run_scripts(directory: Path, commands: Commands) -> Path:
    """The directories of s6 and runit: one for each service, with an executable `run`."""
    for name, command in commands.items():
        service = directory / "services" / name
        service.mkdir(parents=True)
        script = service / "run"
        script.write_text(f"#!/bin/sh\nexec {shlex.join(command)}\n")
        script.chmod(0o755)
    return directory / "services"


def s6(program: str, directory: Path, commands: Commands) -> list[str]:
    """A scan directory; no rescans."""
    return [program, "-t0", str(run_scripts(directory, commands))]


def runit(program: str, directory: Path, commands: Commands) -> list[str]:
    """A services directory, each service in a new process group."""
    return [program, "-P", str(run_scripts(directory, commands))]


def supervisord(program: str, directory: Path, commands: Commands) -> list[str]:
    """As in a container: in the foreground, logs to its own stdout, no pid file to trip over."""
    user = "user=root\n" if os.geteuid() == 0 else ""
    text = f"[supervisord]\nnodaemon=true\nlogfile=/dev/null\nlogfile_maxbytes=0\npidfile={directory}/pid\n{user}"
    for name, command in commands.items():
        text += f"[program:{name}]\ncommand={shlex.join(command)}\nredirect_stderr=true\n"
        text += "stdout_logfile=/dev/fd/1\nstdout_logfile_maxbytes=0\n"
    return [program, "-n", "-c", written(directory / "supervisord.conf", text)]


def circus(program: str, directory: Path, commands: Commands) -> list[str]:
    """One watcher for each command; children inherit stdout."""
    text = f"[circus]\nendpoint=ipc://{directory}/endpoint\npubsub_endpoint=ipc://{directory}/pubsub\n"
    for name, command in commands.items():
        text += f"[watcher:{name}]\ncmd={shlex.join(command)}\ncopy_env=True\n"
    return [program, written(directory / "circus.ini", text)]


def honcho(program: str, directory: Path, commands: Commands) -> list[str]:
    """A Procfile."""
    text = "".join(f"{name}: exec {shlex.join(command)}\n" for name, command in commands.items())
    return [program, "-f", written(directory / "Procfile", text), "start"]


def horust(program: str, directory: Path, commands: Commands) -> list[str]:
    """One TOML file for each service."""
    services = directory / "services"
    services.mkdir()
    for name, command in commands.items():
        written(services / f"{name}.toml", f"command = {json.dumps(shlex.join(command))}\n")
    return [program, "--services-path", str(services)]


def pebble(program: str, directory: Path, commands: Commands) -> list[str]:
    """One layer. The directory is its own word for where it keeps its state and socket."""
    layers = directory / "layers"
    layers.mkdir()
    services = {
        name: {"override": "replace", "startup": "enabled", "command": shlex.join(command)}
        for name, command in commands.items()
    }
    written(layers / "001-bench.yaml", json.dumps({"services": services}))  # All JSON is YAML.
    return ["env", f"PEBBLE={directory}", program, "run", "--verbose"]


def process_compose(program: str, directory: Path, commands: Commands) -> list[str]:
    """One file, no screen, no server."""
    processes = {name: {"command": shlex.join(command)} for name, command in commands.items()}
    file = written(directory / "process-compose.yaml", json.dumps({"version": "0.5", "processes": processes}))
    return [program, "--tui=false", "--no-server", "-f", file, "up"]


def written(path: Path, text: str) -> str:
    """Write a file; its path."""
    path.write_text(text)
    return str(path)


def all_peers() -> list[Peer]:
    """Every peer there is, found or not."""
    return [
        Peer("tini", FROM_DEBIAN, run_one=plain_one("-s")),
        Peer("dumb-init", FROM_DEBIAN, run_one=plain_one()),
        Peer("catatonit", FROM_DEBIAN, run_one=plain_one()),
        Peer("s6", FROM_DEBIAN, executable="s6-svscan", run_many=s6),
        # A HUP is runsvdir's word for "stop all services and end"; a TERM would leave them running. What has run for
        # less than a second holds runsv up.
        Peer("runit", FROM_DEBIAN, executable="runsvdir", run_many=runit, stop=signal.SIGHUP, slow=True, settles_s=1.2),
        Peer("supervisor", FROM_PYPI, executable="supervisord", run_many=supervisord, slow=True, settles_s=1.2),
        Peer("circus", FROM_PYPI, executable="circusd", run_many=circus, slow=True),
        Peer("honcho", FROM_PYPI, run_many=honcho, slow=True, tags=True),
        Peer("horust", ELSEWHERE, run_many=horust, slow=True),
        Peer("Pebble", ELSEWHERE, executable="pebble", run_many=pebble, tags=True),
        Peer("process-compose", ELSEWHERE, run_many=process_compose, tags=True),
    ]
