"""What Docker's steps are on Podman: pure functions over command lines.

Podman takes most of Docker's words. What it does not take, or takes otherwise (5.4):

- A network's bridge has no address if it has no resolver (`--disable-dns`): Docker's option for that is refused.
- A volume gets labels when it is made by itself, and not by `--mount`.
- `cp` writes into a container's own root, below the volumes that it has. What is in a volume's place, be it of the
  image or of `cp`, is copied into a volume that is empty when a container starts, not when it is made: so the container
  that brings files is started once it has them, and does nothing.
- A container's interface gets a link-local address of IPv6, as Docker's does not: it is switched off.
- The host's names come into a container's /etc/hosts unless they are kept out by name.
"""

import csv
from dataclasses import replace
from itertools import pairwise

from launcher.docker import Command
from launcher.sandbox import BRIDGE_OPTION
from launcher.steps import Step

# Docker's spellings that Podman has no use for, each with its value.
UNKNOWN_LOG_OPTION = "max-file="
HOST_NAMES = ("host.containers.internal", "host.docker.internal")
NOWHERE = "127.0.0.1"
NO_IPV6 = "net.ipv6.conf.all.disable_ipv6=1"
STAGE = "stage.create"
STAGE_FILL, STAGE_RUN = "stage.fill", "stage.run"


def translated(steps: tuple[Step, ...]) -> tuple[Step, ...]:
    """Docker's steps for Podman, with those that make the volumes first, each once."""
    volumes: dict[str, tuple[str, ...]] = {}
    found: list[Step] = []
    names = [step.name for step in steps]
    filled, stage = STAGE_FILL if STAGE_FILL in names else STAGE, ""
    for step in steps:
        argv, made = _translated(step.command.argv)
        volumes |= {name: volumes.get(name, labels) for name, labels in made.items()}
        after = (*step.after, *(f"volume.{name}" for name in made))
        if step.name == STAGE:
            argv, stage = _doing_nothing(argv), argv[argv.index("--name") + 1]
        if step.name in ("gate.run", "sidecars.start") and stage:
            after = (*after, STAGE_RUN)
        found.append(replace(step, command=Command(argv), after=after))
        if stage and step.name == filled:
            found.append(Step(STAGE_RUN, Command(("docker", "start", "--attach", stage)), (step.name,)))
    made_first = [
        Step(f"volume.{name}", Command(("docker", "volume", "create", "--ignore", *labels, name)))
        for name, labels in volumes.items()
    ]
    return (*made_first, *found)


def _translated(argv: tuple[str, ...]) -> tuple[tuple[str, ...], dict[str, tuple[str, ...]]]:
    """One command line, and the volumes that it expects, with their labels as options."""
    match argv[1:3]:
        case ("network", "create"):
            return _network(argv), {}
        case ("create", *_):
            return _container(argv)
    return argv, {}


def _network(argv: tuple[str, ...]) -> tuple[str, ...]:
    words: list[str] = ["docker", "network", "create", "--disable-dns"]
    rest = list(argv[3:])
    while rest:
        word = rest.pop(0)
        if word != "--opt":
            words.append(word)
            continue
        key, _, value = rest.pop(0).partition("=")
        if key == BRIDGE_OPTION:
            words += ["--interface-name", value]
    return tuple(words)


def _container(argv: tuple[str, ...]) -> tuple[tuple[str, ...], dict[str, tuple[str, ...]]]:
    words: list[str] = []
    volumes: dict[str, tuple[str, ...]] = {}
    rest = list(argv)
    while rest:
        word = rest.pop(0)
        if word == "--mount":
            value, name, labels = _mount(rest.pop(0))
            words += [word, value]
            if name:
                volumes[name] = labels
        elif word == "--log-opt" and rest[0].startswith(UNKNOWN_LOG_OPTION):
            rest.pop(0)
        else:
            words.append(word)
    if "none" not in _values(argv, "--network") and "host" not in _values(argv, "--network"):
        own = ["--sysctl", NO_IPV6]
        own += ["--hosts-file", "none", *(word for name in HOST_NAMES for word in ("--add-host", f"{name}:{NOWHERE}"))]
        words[2:2] = own
    return tuple(words), volumes


def _values(argv: tuple[str, ...], option: str) -> list[str]:
    return [value for word, value in pairwise(argv) if word == option]


def _mount(value: str) -> tuple[str, str, tuple[str, ...]]:
    """A value of --mount without what Podman does not know, and of a volume its name and its labels as options."""
    (fields,) = csv.reader([value])
    if "type=volume" not in fields:
        return value, "", ()
    labels = tuple(
        word for field in fields if field.startswith("volume-label=") for word in ("--label", field.partition("=")[2])
    )
    (name,) = (field.partition("=")[2] for field in fields if field.startswith("source="))
    kept = [field for field in fields if not field.startswith("volume-")]
    return ",".join(kept), name, labels


def _doing_nothing(argv: tuple[str, ...]) -> tuple[str, ...]:
    return (*argv[:2], "--entrypoint", "true", *argv[2:])
