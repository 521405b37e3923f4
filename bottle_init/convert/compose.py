"""From a compose file (github.com/compose-spec/compose-spec, 05-services.md): each service becomes a child."""

from __future__ import annotations

import re
from io import StringIO
from typing import TYPE_CHECKING, Any, Final

from bottle_init.convert.comments import MARK, Comments, is_marked
from bottle_init.convert.draft import UNLIMITED_RESTARTS, Child, Draft, ExtraMissing, Unconvertible
from bottle_init.convert.files import Unreadable, read_file
from bottle_init.convert.interpolate import interpolated
from bottle_init.convert.scalars import bounded, go_duration, table, text_of, texts, whole, yaml
from bottle_init.core.words import DAEMON, ONESHOT
from bottle_init.words import durations

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from bottle_init.convert.variables import Variables

    Convert = Callable[["Service", Any], None]

TOOL: Final = "compose file"

_GRACE: Final = "10s"
_INTERVAL, _TIMEOUT, _RETRIES = "30s", "30s", 3

_OF_CONTAINER: Final = (
    *("annotations", "attach", "blkio_config", "build", "cgroup", "cgroup_parent", "configs", "container_name"),
    *("cpu_count", "cpu_percent", "cpu_period", "cpu_quota", "cpu_rt_period", "cpu_rt_runtime", "cpu_shares", "cpus"),
    *("cpuset", "credential_spec", "device_cgroup_rules", "devices", "dns", "dns_opt", "dns_search", "domainname"),
    *("expose", "external_links", "extra_hosts", "gpus", "hostname", "image", "init", "ipc", "isolation", "labels"),
    *("label_file", "logging", "mac_address", "mem_limit", "mem_reservation", "mem_swappiness", "memswap_limit"),
    *("network_mode", "networks", "oom_kill_disable", "pid", "pids_limit", "platform", "ports", "privileged"),
    *("pull_policy", "read_only", "runtime", "secrets", "security_opt", "shm_size", "storage_opt", "sysctls", "tmpfs"),
    *("userns_mode", "uts", "volumes", "volumes_from", "cap_add", "cap_drop", "use_api_socket", "pull_refresh_after"),
    *("develop",),
)
"""What is of the one container that all daemons share now."""

_MARKED: Final = (
    *("command", "entrypoint", "environment", "env_file", "user", "working_dir", "group_add", "healthcheck"),
    "stop_grace_period",
)
"""The keys whose values may have variables here."""

_FIXED: Final = "the defaults of its variables are in their place"

_HOOKS: Final = ("post_start", "pre_stop", "provider", "models")
_ABOUT_HOSTS: Final = re.compile("host|addr|server|url|uri|broker|endpoint", re.IGNORECASE)


class Service(Comments):
    """One service, with its children (one for each replica)."""

    def __init__(self, name: str, content: dict[str, Any], variables: Variables) -> None:
        super().__init__()
        self.name = name
        self.variables = variables
        self.fixed: dict[str, None] = {}
        """The keys whose variables are replaced by their defaults."""
        self.content = {key: value if key in _MARKED else self.fix(key, value) for key, value in content.items()}
        self.children: list[Child] = []
        self.is_awaited = ""
        """The strictest condition that another service waits for."""

    def fix(self, key: str, value: Any) -> Any:
        """The value of a key with the default of each variable in its place."""

        def change(text: str) -> str:
            if is_marked(text) and key not in _OF_CONTAINER:
                self.fixed[key] = None
            return self.variables.unset(text)

        return bounded(value, change)

    def lose(self, text: str) -> None:
        """Say of each child what was not converted."""
        for child in self.children:
            child.lose(text)

    def note(self, text: str) -> None:
        """Say something of each child."""
        for child in self.children:
            child.note(text)

    def set(self, key: str, value: Any) -> None:
        """A key of each child."""
        for child in self.children:
            child.table[key] = value


def convert(text: str, source: str, directory: Path | None) -> Draft:
    """The draft of a compose file. Raises Unconvertible, ExtraMissing."""
    draft = Draft(source, TOOL)
    content = bounded(yaml(text))
    services = table(table(content).get("services"))
    if not services:
        raise Unconvertible("services", "there are none")
    _read_env_file(draft.variables, directory)
    found = {}
    for name, own in services.items():
        if not isinstance(own, dict):
            raise Unconvertible(f"services.{name}", "must be a mapping")
        whole_ = _extended(name, services, directory, ())
        replaced = bounded(whole_, _resolver(draft.variables, f"services.{name}"))
        found[name] = Service(name, replaced, draft.variables)
    conditions = {name: dict(_needs(service)) for name, service in found.items()}
    _note_conditions(draft, found, conditions)
    for service in found.values():
        _make_children(draft, service)
    for service in found.values():
        _fill(service)
        _connect(service, found, conditions[service.name])
        _find_hosts(service, found)
    for key in table(content):
        if key in ("include", "models"):
            draft.lose(f"{key}: only the services of this file are here")
    restarts = [child for child in draft.children.values() if "restart" in child.table.get("policy", "")]
    if any("restarts" not in child.table for child in restarts):
        draft.bundle["restarts"] = {"max": UNLIMITED_RESTARTS}
        draft.note("Docker never gives up a restart; a smaller `max` ends the bundle when a daemon keeps failing")
    return draft


def _resolver(variables: Variables, place: str) -> Callable[[str], str]:
    """What marks the variables in each string."""

    def change(text: str) -> str:
        try:
            return interpolated(text, variables.mark)
        except ValueError as problem:
            raise Unconvertible(place, f"{text!r}: {problem}") from None

    return change


def _read_env_file(variables: Variables, directory: Path | None) -> None:
    """The .env beside a compose file has the values of variables that the environment lacks."""
    path = directory / ".env" if directory is not None else None
    if path is None or not path.is_file():
        return
    try:
        from dotenv import dotenv_values
    except ImportError:
        raise ExtraMissing("python-dotenv") from None
    try:
        text = read_file(path)
    except Unreadable as problem:
        raise Unconvertible(".env", f"cannot be read: {problem}") from None
    for name, value in dotenv_values(stream=StringIO(text), interpolate=False).items():
        if value is not None:
            variables.give(name, value)


def _extended(name: str, services: dict[str, Any], directory: Path | None, seen: tuple[str, ...]) -> dict[str, Any]:
    """A service with what it extends below it."""
    own = dict(table(services.get(name)))
    extends = own.pop("extends", None)
    if extends is None:
        return own
    base = text_of(table(extends).get("service")) if isinstance(extends, dict) else text_of(extends)
    file = text_of(table(extends).get("file"))
    if base is None or name in seen:
        raise Unconvertible(f"services.{name}.extends", "must name another service, and not go round in a circle")
    if file is not None:
        services, seen = _other_file(name, file, directory), ()
    if base not in services:
        raise Unconvertible(f"services.{name}.extends", f"there is no service {base}")
    return _merged(_extended(base, services, directory, (*seen, name) if file is None else ()), own)


def _other_file(name: str, file: str, directory: Path | None) -> dict[str, Any]:
    where = f"services.{name}.extends"
    if directory is None:
        raise Unconvertible(where, f"{file} is beside a file, and this is standard input")
    try:
        text = read_file(directory / file)
    except Unreadable as problem:
        raise Unconvertible(where, f"{file} cannot be read: {problem}") from None
    services = table(table(bounded(yaml(text))).get("services"))
    if any("extends" in table(each) for each in services.values()):
        raise Unconvertible(where, f"the services of {file} extend others; write them in one file")
    return services


def _merged(base: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """Mappings are merged, lists are added, and of anything else the own one holds (compose-spec, 13-merge.md)."""
    found = dict(base)
    for key, value in own.items():
        below = found.get(key)
        if key in ("environment", "labels", "depends_on") and below is not None:
            found[key] = _pairs(below) | _pairs(value)
        elif isinstance(below, dict) and isinstance(value, dict):
            found[key] = _merged(below, value)
        elif isinstance(below, list) and isinstance(value, list) and key not in ("command", "entrypoint", "test"):
            found[key] = below + value
        else:
            found[key] = value
    return found


def _pairs(value: Any) -> dict[str, Any]:
    """A mapping, or a list of `NAME=VALUE` and of `NAME`, whose value is None then."""
    if isinstance(value, dict):
        return value
    pairs = {}
    for text in texts(value):
        name, equals, rest = text.partition("=")
        pairs[name] = rest if equals else None
    return pairs


# What services wait for.


def _needs(service: Service) -> Iterator[tuple[str, dict[str, Any]]]:
    """`(other service, its table)` of each dependency."""
    for name, how in _pairs(service.content.get("depends_on") or {}).items():
        yield name, {"condition": "service_started", **table(how)}
    for link in texts(service.content.get("links") or []):
        yield link.partition(":")[0], {"condition": "service_started"}


def _note_conditions(
    draft: Draft, services: dict[str, Service], conditions: dict[str, dict[str, dict[str, Any]]]
) -> None:
    """What each service is awaited for: that makes it a oneshot, or gives it a probe."""
    strictest = ("", "service_started", "service_healthy", "service_completed_successfully")
    for name, needs in conditions.items():
        for other, how in needs.items():
            condition = text_of(how.get("condition")) or ""
            if other in services and condition in strictest:
                known = services[other].is_awaited
                if known and known != condition and strictest[3] in (known, condition):
                    draft.lose(f"services.{other}: one waits for its start, another for its success; all wait for that")
                services[other].is_awaited = max(known, condition, key=strictest.index)
            elif other in services:
                draft.lose(f"services.{name}.depends_on.{other}: there is no condition {condition!r}")


def _connect(service: Service, services: dict[str, Service], needs: dict[str, dict[str, Any]]) -> None:
    for name, how in needs.items():
        other = services.get(name)
        if other is None:
            if how.get("required", True) is not False:
                service.lose(f"depends_on: there is no service {name}")
            continue
        for child in service.children:
            child.after(each.name for each in other.children)
        if how.get("restart") is True:
            if other.is_awaited == "service_completed_successfully":
                service.lose(f"depends_on.{name}.restart: {name} is a oneshot, which is not restarted")
            else:
                other.set("restart_dependents", value=True)
        if how.get("condition") == "service_healthy" and "ready" not in other.children[0].table:
            service.lose(f"depends_on.{name}: {name} has no healthcheck here; give it a `ready` probe")


# One service.


def _make_children(draft: Draft, service: Service) -> None:
    deploy = table(service.content.get("deploy"))
    count = whole(deploy.get("replicas", service.content.get("scale", 1)))
    kind = ONESHOT if service.is_awaited == "service_completed_successfully" else DAEMON
    if count is not None and count > 1:
        if count > 1_000:
            raise Unconvertible(f"services.{service.name}", "more than 1,000 replicas")
        names = [f"{service.name}-{number}" for number in range(1, count + 1)]
    else:
        names = [service.name]
    service.children = [draft.child(name, kind, f"services.{service.name}") for name in names]
    if count is not None and count < 1:
        service.set("enabled", value=False)
        service.note("it has no replica; `ctl start` starts it")


def _fill(service: Service) -> None:
    content = service.content
    _command(service)
    _restart(service)
    if service.children[0].kind == DAEMON:
        _health(service)
    elif "healthcheck" in content:
        service.lose("healthcheck: a oneshot has none; others wait for its success")
    service.set("stop_timeout", _GRACE)
    for key, value in content.items():
        if key in _KEYS:
            if value is not None:
                _KEYS[key](service, value)
        elif key in _HOOKS:
            service.lose(f"{key}: it is not here")
        elif key not in _OF_CONTAINER and not key.startswith("x-"):
            service.lose(f"{key}: compose has no such key")
    if belong := sorted(key for key in content if key in _OF_CONTAINER):
        service.note(f"of the container, not of a child: {', '.join(belong)}")
    _capabilities(service)
    for key in service.fixed:
        service.lose(f"{key}: {_FIXED}")


def _command(service: Service) -> None:
    """Entrypoint and command, one after the other: both lists, or both lines that are split into words."""
    parts = [_words(service, key) for key in ("entrypoint", "command")]
    words = [word for part in parts if part for word in part]
    if words:
        for child in service.children:
            child.command(words)
        if words[0].startswith("-"):
            service.lose(
                f"its command begins with the option {words[0]}: the ENTRYPOINT of its image belongs before it"
            )
        elif parts[0] is None and ("image" in service.content or "build" in service.content):
            service.note("if its image has an ENTRYPOINT, that comes before its command")
        return
    image = text_of(service.content.get("image"))
    service.note(f"its command is that of {f'the image {image}' if image else 'its image'} (`docker image inspect`)")


def _words(service: Service, key: str) -> list[str] | None:
    value = service.content.get(key)
    if value is None:
        return None
    if isinstance(value, list):
        return texts(value)
    text = text_of(value) or ""
    try:
        return service.variables.split(text, service, key)
    except ValueError as problem:
        raise Unconvertible(f"services.{service.name}.{key}", f"{text!r}: {problem}") from None


def _restart(service: Service) -> None:
    policy = table(table(service.content.get("deploy")).get("restart_policy"))
    word = text_of(service.content.get("restart")) or "no"
    if policy:
        word = {"any": "always", "none": "no"}.get(condition := text_of(policy.get("condition")) or "any", condition)
    word, _, most = word.partition(":")
    if service.children[0].kind == ONESHOT:
        if word not in ("no", "false"):
            service.lose(f"restart: {word}: a oneshot is not restarted; its failure ends the bundle")
        return
    known = {"no": "wait-for-all", "false": "wait-for-all", "on-failure": "restart-on-failure"}
    known |= {"always": "restart", "unless-stopped": "restart"}
    if word not in known:
        service.lose(f"restart: {word}: there is no such policy; it is taken for no")
    service.set("policy", known.get(word, "wait-for-all"))
    attempts = whole(policy.get("max_attempts", most or None))
    if attempts is not None and attempts >= 0 and known.get(word, "").startswith("restart"):
        window = go_duration(policy.get("window"))
        service.set("restarts", {"max": attempts} | ({"window": window} if window not in (None, "0s") else {}))
        service.note(f"after {attempts} restarts Docker leaves it; here that ends the bundle")
    delay = go_duration(policy.get("delay"))
    if delay is not None:
        service.set("backoff", {"initial": delay, "factor": 1, "limit": delay})


def _health(service: Service) -> None:
    check = table(service.content.get("healthcheck"))
    command = _test(service, check)
    if not command:
        return
    times: dict[str, str] = {}
    written: dict[str, Any] = {}
    for key, default in (("interval", _INTERVAL), ("timeout", _TIMEOUT), ("start_period", "0s")):
        value = service.variables.unset(text_of(check.get(key, default)) or "")
        found = go_duration(value)
        if found is None and value:
            service.lose(f"healthcheck.{key} = {value}: it is no duration, and taken for {default}")
        times[key] = found if found is not None and (found != "0s" or key == "start_period") else default
        written[key] = _as_variable(service, f"healthcheck.{key}", check.get(key), times[key])
    most = check.get("retries", _RETRIES)
    retries = whole(service.variables.unset(most) if isinstance(most, str) else most)
    retries = retries if retries is not None and retries > 0 else _RETRIES
    written["retries"] = _as_variable(service, "healthcheck.retries", most, retries)
    service.set("health", {"exec": command, **written})
    if "start_interval" in check:
        service.note("healthcheck.start_interval: `ready` asks at growing pauses of at most 250 ms")
    if service.is_awaited == "service_healthy":
        each_ms = durations.parse_ms(times["interval"]) + durations.parse_ms(times["timeout"])
        most_ms = round(durations.parse_ms(times["start_period"]) + retries * each_ms)
        service.set("ready", {"exec": command, "timeout": durations.spell(min(most_ms, durations.LONGEST_MS))})


def _as_variable(service: Service, key: str, value: Any, default: str | int) -> str | int:
    """A value that is one variable, where it has no default or one that is written as here; else the default alone."""
    if not isinstance(value, str) or not is_marked(value):
        return default
    if MARK.fullmatch(value) and service.variables.unset(value) in (str(default), ""):
        return value
    service.lose(f"{key}: {_FIXED}")
    return default


def _test(service: Service, check: dict[str, Any]) -> list[str]:
    """The command of a healthcheck, empty for none."""
    test = check.get("test")
    if not check or check.get("disable") is True:
        return []
    words = texts(test) if isinstance(test, list) else ["CMD-SHELL", text_of(test) or ""]
    if words[:1] == ["CMD-SHELL"] and len(words) == 2 and words[1].strip():
        return ["/bin/sh", "-c", words[1]]
    if words[:1] == ["CMD"] and words[1:]:
        return words[1:]
    if words[:1] != ["NONE"]:
        service.lose("healthcheck: it has no test; that is the image's")
    return []


def _environment(service: Service, value: Any) -> None:
    for name, each in _pairs(value).items():
        text = text_of(each)
        if each is None and service.variables.is_given(name):
            text = service.variables.mark(name)
        if text is None:
            if each is not None:
                service.lose(f"environment.{name}: it is no text")
            continue  # Without a value it is the container's, which every child has anyway.
        for child in service.children:
            child.env([(name, text)])


def _env_files(service: Service, value: Any) -> None:
    paths = []
    for each in value if isinstance(value, list) else [value]:
        path = text_of(each.get("path")) if isinstance(each, dict) else text_of(each)
        if path is None:
            service.lose("env_file: an entry has no path")
            continue
        if table(each).get("required") is False:
            service.lose(f"env_file {path}: here it has to be there")
        paths.append(path)
    if paths:
        service.set("env_files", paths)
        service.note("env_file: its lines are taken as they are, without quotes or $; it has to be in the image")


def _user(service: Service, value: Any) -> None:
    user, _, group = (text_of(value) or "").partition(":")
    for key, text in (("user", user), ("group", group)):
        if text:
            service.set(key, int(text) if text.isascii() and text.isdigit() and len(text) < 11 else text)


def _grace(service: Service, value: Any) -> None:
    text = service.variables.unset(text_of(value) or "")
    found = go_duration(text)
    if found is None and text:
        service.lose(f"stop_grace_period = {text}: it is no duration")
    else:
        service.set("stop_timeout", _as_variable(service, "stop_grace_period", value, found or _GRACE))


def _stop_signal(service: Service, value: Any) -> None:
    text = (text_of(value) or "").upper()
    if text in ("SIGKILL", "KILL", "9"):
        service.set("stop_timeout", "0s")
        service.note("stop_signal = SIGKILL: TERM comes first, and KILL at once after it")
    else:
        service.set("stop_signal", int(text) if text.isascii() and text.isdigit() and len(text) < 4 else text)


def _ulimits(service: Service, value: Any) -> None:
    limits: dict[str, Any] = {}
    for name, limit in table(value).items():
        pair = [limit.get("soft"), limit.get("hard")] if isinstance(limit, dict) else [limit]
        numbers = [number for each in pair if (number := whole(each)) is not None]
        if len(numbers) == len(pair):
            limits[name] = numbers if len(numbers) == 2 else numbers[0]
        else:
            service.lose(f"ulimits.{name}: it is no number")
    if limits:
        service.set("rlimits", limits)


def _profiles(service: Service, value: Any) -> None:
    if texts(value):
        service.set("enabled", value=False)
        service.note(f"of the profiles {', '.join(texts(value))}: `ctl start` starts it")


def _capabilities(service: Service) -> None:
    dropped, added = (
        [each.upper() for each in texts(service.content.get(key) or [])] for key in ("cap_drop", "cap_add")
    )
    if "ALL" in dropped and "ALL" not in added:
        service.set("capabilities", added)
    elif dropped:
        service.lose(f"cap_drop {', '.join(dropped)}: `capabilities` are those to keep; name them, or drop all")


def _deploy(service: Service, value: Any) -> None:
    others = [key for key in table(value) if key not in ("replicas", "restart_policy") and not key.startswith("x-")]
    if others:
        service.note(f"of the container: {', '.join(f'deploy.{key}' for key in others)}")


def _plain(key: str) -> Convert:
    def convert_one(service: Service, value: Any) -> None:
        text = text_of(value)
        if text is None:
            service.lose(f"{key}: it is no text")
        else:
            service.set(key, text)

    return convert_one


def _stdin(service: Service, value: Any) -> None:
    if value is True:
        service.lose('stdin_open: stdin = "inherit" gives one child the input of the container')


def _terminal(service: Service, value: Any) -> None:
    if value is True:
        service.note("tty: no child has a terminal; programs that colour their output for one do not")


def _number(service: Service, value: Any) -> None:
    service.set("oom_score_adj", whole(value) if whole(value) is not None else 0)


def _groups(service: Service, value: Any) -> None:
    service.set(
        "groups", [int(each) if each.isascii() and each.isdigit() and len(each) < 11 else each for each in texts(value)]
    )


def _nothing(_service: Service, _value: Any) -> None:
    """It has been read already."""


_KEYS: Final[dict[str, Convert]] = {
    "command": _nothing,
    "entrypoint": _nothing,
    "depends_on": _nothing,
    "links": _nothing,
    "healthcheck": _nothing,
    "restart": _nothing,
    "scale": _nothing,
    "deploy": _deploy,
    "environment": _environment,
    "env_file": _env_files,
    "user": _user,
    "working_dir": lambda service, value: service.set("cwd", text_of(value)) if text_of(value) else None,
    "stop_grace_period": _grace,
    "stop_signal": _stop_signal,
    "ulimits": _ulimits,
    "profiles": _profiles,
    "stdin_open": _stdin,
    "tty": _terminal,
    "oom_score_adj": _number,
    "group_add": _groups,
}


def _find_hosts(service: Service, services: dict[str, Service]) -> None:
    """Names of other services that are hosts: in one container nobody resolves them."""
    child = service.children[0]
    texts_ = [("", word) for word in child.table.get("command", ())]
    texts_ += list(child.table.get("env", {}).items())
    for other in services:
        if other == service.name:
            continue
        name = re.escape(other)
        as_host = re.compile(rf"(?:^|[/@,=\s]){name}:[0-9\ue000]|(?://|@){name}(?:[/:,\s]|$)")
        for key, text in texts_:
            if as_host.search(text) or (text == other and _ABOUT_HOSTS.search(key)):
                service.lose(
                    f"{key or 'command'} names the host {other}: in one container it is 127.0.0.1"
                    f" (or `docker run --add-host {other}:127.0.0.1`)"
                )
                break
