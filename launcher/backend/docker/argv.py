"""A container as the one command line that makes it."""

import csv
import io
from collections.abc import Iterable

from launcher.containers import Container
from launcher.plan import LABEL_ROLE, Bind, Limits, Volume
from launcher.sandbox import SECURITY_OPTIONS, seccomp_profile

CPU_PERIOD_US = 100_000


def create(container: Container) -> tuple[str, ...]:
    """The command line that makes a container and does not start it."""
    each = container
    entrypoint = ("--entrypoint", each.entrypoint) if each.entrypoint else ()
    return (
        *("docker", "create", "--name", each.name, *_pairs("--label", each.labels), "--pull", "never"),
        *("--network", each.network, *_if("--ip", each.address)),
        *each_option("--add-host", (f"{name}:{address}" for name, address in each.hosts)),
        *each_option("--dns", each.dns),
        *(("--dns-search", ".") if each.dns else ()),
        *each_option("--dns-option", each.dns_options),
        *_if("--user", each.user),
        *("--cap-drop", "ALL", *each_option("--cap-add", each.capabilities)),
        *each_option("--security-opt", (*SECURITY_OPTIONS, f"seccomp={seccomp_profile()}")),
        *(("--read-only",) if each.read_only else ()),
        *each_option("--tmpfs", each.tmpfs),
        *_pairs("--sysctl", each.sysctls),
        *_limits(each.limits),
        *_if("--runtime", each.runtime),
        *_pairs("--env", each.env),
        *_if("--workdir", each.workdir),
        *each_option("--mount", (_volume(name, volume, each.labels) for name, volume in each.volumes)),
        *each_option("--mount", map(_bind, each.binds)),
        *(("--interactive",) if each.interactive else ()),
        *(("--tty",) if each.tty else ()),
        *(("--init",) if each.engine_init else ()),
        *(() if each.healthcheck else ("--no-healthcheck",)),
        *_if("--health-start-interval", f"{each.start_interval_s}s" if each.start_interval_s else ""),
        *entrypoint,
        *(each.image, *each.command),
    )


def each_option(option: str, values: Iterable[str]) -> tuple[str, ...]:
    """An option once for each value."""
    return tuple(word for value in values for word in (option, value))


def _pairs(option: str, pairs: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    return each_option(option, (f"{name}={value}" for name, value in pairs))


def _if(option: str, value: str) -> tuple[str, ...]:
    return (option, value) if value else ()


def _limits(limits: Limits | None) -> tuple[str, ...]:
    """A quota is taken as it is where `--cpus` is refused on a host with fewer of them."""
    if limits is None:
        return ()
    return (
        *("--memory", str(limits.memory), "--memory-swap", str(limits.memory)),
        *("--cpu-period", str(CPU_PERIOD_US), "--cpu-quota", str(round(limits.cpus * CPU_PERIOD_US))),
        *("--pids-limit", str(limits.pids), "--log-driver", "json-file"),
        *("--log-opt", f"max-size={limits.log_size // 2}", "--log-opt", "max-file=2"),
    )


def _volume(name: str, volume: Volume, labels: tuple[tuple[str, str], ...]) -> str:
    """The value of --mount for a volume. The first container that has it makes it, and its labels with it."""
    own = [(key, volume.role if key == LABEL_ROLE else value) for key, value in labels]
    fields = ["type=volume", f"source={name}", f"target={volume.target}"]
    fields += ["readonly"] if volume.read_only else []
    fields += [] if volume.copy else ["volume-nocopy"]
    return _csv(*fields, *(f"volume-label={key}={value}" for key, value in own))


def _bind(bind: Bind) -> str:
    fields = ("type=bind", f"source={bind.source}", f"target={bind.target}")
    return _csv(*fields, *(("readonly",) if bind.read_only else ()))


def _csv(*fields: str) -> str:
    """The value of --mount is one record of CSV: a path may hold a comma."""
    line = io.StringIO()
    csv.writer(line).writerow(fields)
    return line.getvalue().removesuffix("\r\n")
