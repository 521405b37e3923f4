"""`bottle-init convert`: what becomes of each word of other tools, and that nothing that comes out is invalid."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from bottle_init.bundle import document
from bottle_init.cli import main
from bottle_init.convert import compose, interpolate, pebble, procfile, s6rc, scalars, shell, sources, supervisord
from bottle_init.convert.comments import NOT_CONVERTED
from bottle_init.convert.draft import Draft, Unconvertible

ROOT = Path(__file__).parents[2]
TRIES = settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))


def read(draft: Draft) -> dict[str, Any]:
    """The document of a draft. It is a valid bundle, wherever its users are."""
    text = draft.text()
    assert faults_of(text) == []
    assert bool(draft.lost) == (f"# {NOT_CONVERTED}: " in text)
    return tomllib.loads(text)


def faults_of(text: str) -> list[tuple[str, str]]:
    """What `check` would call wrong with a bundle file; a required variable need not be set."""
    return document.parse(text, here=False, starts=False).faults


def of_supervisord(text: str, directory: Path | None = None) -> tuple[dict[str, Any], list[str]]:
    draft = supervisord.convert(text, "x.conf", directory)
    return read(draft), draft.lost


def of_compose(text: str) -> tuple[dict[str, Any], list[str]]:
    draft = compose.convert(text, "compose.yml", None)
    return read(draft), draft.lost


def of_pebble(*texts: str) -> tuple[dict[str, Any], list[str]]:
    draft = pebble.convert([(f"{number}.yaml", text) for number, text in enumerate(texts)], "layers")
    return read(draft), draft.lost


def of_procfile(text: str, directory: Path | None = None) -> tuple[dict[str, Any], list[str]]:
    draft = procfile.convert(text, "Procfile", directory)
    return read(draft), draft.lost


def of_s6(root: Path, files: dict[str, str]) -> tuple[dict[str, Any], list[str]]:
    for name, text in files.items():
        path = root / "etc/s6-overlay/s6-rc.d" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    draft = sources.draft_of(str(root), None)
    return read(draft), draft.lost


# supervisord.

PROGRAMS = """
[supervisord]
nodaemon=true
environment=TZ="UTC"

[program:cache]
command=/usr/bin/cache --name "two words"
priority=10
autorestart=true
stdout_logfile=/dev/fd/1
stdout_logfile_maxbytes=0
redirect_stderr=true

[program:web]
command=%(here)s/bin/web --port 80%(process_num)02d
process_name=%(program_name)s-%(process_num)d
numprocs=2
numprocs_start=1
priority=20
directory=/srv
user=www-data
umask=022
environment=A="b,c",D=e
autorestart=unexpected
exitcodes=0,2
startretries=4
stopsignal=QUIT
stopwaitsecs=20
stopasgroup=true
stdout_logfile=/dev/stdout
stderr_logfile=/dev/stderr

[program:manual]
command=once
priority=20
autostart=false
autorestart=false
stopsignal=KILL
stdout_logfile=NONE
stderr_logfile=NONE
"""


def test_programs_become_daemons() -> None:
    document, lost = of_supervisord(PROGRAMS, Path("/opt"))
    assert lost == []
    assert document["daemons"] == {
        "cache": {
            "command": ["/usr/bin/cache", "--name", "two words"],
            "env": {"TZ": "UTC"},
            "policy": "restart",
            "stop_timeout": "10s",
        },
        **{
            f"web-{number}": {
                "command": ["/opt/bin/web", "--port", f"800{number}"],
                "after": ["cache"],
                "user": "www-data",
                "cwd": "/srv",
                "umask": "0022",
                "env": {"TZ": "UTC", "A": "b,c", "D": "e"},
                "policy": "restart-on-failure",
                "success_codes": [0, 2],
                "restarts": {"max": 4},
                "stop_signal": "QUIT",
                "stop_timeout": "20s",
            }
            for number in (1, 2)
        },
        "manual": {
            "command": ["once"],
            "after": ["cache"],
            "enabled": False,
            "env": {"TZ": "UTC"},
            "policy": "wait-for-all",
            "stop_timeout": "0s",
            "logs": "none",
        },
    }
    assert document["bundle"] == {"stop_timeout": "30s"}, "all stops in their order"


@pytest.mark.parametrize(
    ("lines", "lost"),
    [
        ("stdout_logfile=/var/log/a.log", "stdout_logfile = /var/log/a.log"),
        ("stdout_logfile=NONE\nstderr_logfile=/dev/stderr", "one stream alone cannot be dropped"),
        ("autorestart=unexpected\nexitcodes=2", "0 is always a success here"),
        ("stdout_events_enabled=true", "stdout_events_enabled"),
        ("stopsignal=NOSUCH", "there is no such signal"),
        ("startretries=0\nautorestart=true", "startretries = 0"),
        ("environment=A.B=c", "the variable 'A.B'"),
        ("command=a %(ENV_ARGS)s", "a variable whose value is empty, has spaces or has quotes or backslashes"),
        ("numprocs=%(ENV_COPIES)s", "numprocs: it is a variable of the environment, taken for 1"),
        ("autostart=%(ENV_START)s", "only true and false are read here"),
        ("user=%(ENV_WHO)s\n[eventlistener:mail]\ncommand=x\nevents=TICK_5", "[eventlistener:mail]"),
        ("[fcgi-program:php]\ncommand=x\nsocket=tcp://localhost:1", "[fcgi-program:php]"),
        ("[include]\nfiles=/nonexistent/*.conf", "/nonexistent/*.conf"),
    ],
)
def test_what_supervisord_has_alone_is_said(lines: str, lost: str) -> None:
    _, found = of_supervisord(f"[program:a]\ncommand=a\n{lines}\n")
    assert any(lost in each for each in found), found


def test_included_files_are_read(tmp_path: Path) -> None:
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d/b.conf").write_text("[program:b]\ncommand=%(here)s/b\n")
    document, lost = of_supervisord("[include]\nfiles = conf.d/*.conf\n[program:a]\ncommand=a\n", tmp_path)
    assert lost == []
    assert document["daemons"]["b"]["command"] == [f"{tmp_path}/conf.d/b"]


def test_files_of_an_image_are_found_in_its_tree(tmp_path: Path) -> None:
    """An image's file names others by their place in the image; in its sources they are below the same root."""
    own, others = tmp_path / "rootfs/etc/supervisor", tmp_path / "rootfs/opt/conf.d"
    own.mkdir(parents=True)
    others.mkdir(parents=True)
    (own / "supervisord.conf").write_text("[include]\nfiles = /opt/conf.d/*.conf\n")
    (others / "b.conf").write_text("[program:b]\ncommand=b\n")
    document = read(sources.draft_of(str(own / "supervisord.conf"), None))
    assert document["daemons"]["b"]["command"] == ["b"]
    (others / "b.conf").unlink()
    with pytest.raises(Unconvertible, match=r"nothing to run.*/opt/conf.d/\*.conf: there is no such file here"):
        sources.draft_of(str(own / "supervisord.conf"), None).text()


def test_groups_keep_their_order() -> None:
    text = "[group:all]\nprograms=b,a\npriority=5\n"
    text += "[program:a]\ncommand=a\npriority=2\n[program:b]\ncommand=b\npriority=1\n"
    document, lost = of_supervisord(f"{text}[program:c]\ncommand=c\n")
    assert lost == []
    assert {name: table.get("after") for name, table in document["daemons"].items()} == {
        "a": ["b"],
        "b": None,
        "c": ["a"],
    }


# Procfiles.


def test_a_procfile_runs_its_release_first() -> None:
    document, lost = of_procfile(
        "# comment\nrelease: ./migrate --all\nweb: gunicorn app -b :$PORT\n"
        "worker: QUEUE=high celery -A app\nclock: cd src && python clock.py '$PORT'\napi: serve --port ${PORT}\n"
    )
    assert lost == []
    assert document["oneshots"] == {"release": {"command": ["./migrate", "--all"]}}
    assert {name: table["command"] for name, table in document["daemons"].items()} == {
        "web": ["sh", "-c", "exec gunicorn app -b :${PORT:-5000}"],
        "worker": ["celery", "-A", "app"],
        "clock": ["sh", "-c", "cd src && python clock.py '$PORT'"],
        "api": ["sh", "-c", "exec serve --port $((${PORT:-5000} + 300))"],
    }
    assert all(table["after"] == ["release"] for table in document["daemons"].values())
    assert document["daemons"]["worker"]["env"] == {"QUEUE": "high"}
    assert "bundle" not in document, "one ends, all end: the default policy"


def test_lines_that_no_runner_reads_are_noted() -> None:
    draft = procfile.convert("web: serve\nweb.2: serve\n worker: work\n# a comment\n\n", "Procfile", None)
    assert list(read(draft)["daemons"]) == ["web"]
    assert draft.lost == []
    assert [f"line {number} is" in draft.text() for number in (1, 2, 3, 4)] == [False, True, True, False]


def test_an_env_file_is_named_if_it_is_plain(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("# comment\nA=b\n\n")
    document, lost = of_procfile("web: a\n", tmp_path)
    assert (document["daemons"]["web"]["env_files"], lost) == ([".env"], [])
    (tmp_path / ".env").write_text('export A="b"\n')
    document, lost = of_procfile("web: a\n", tmp_path)
    assert "env_files" not in document["daemons"]["web"]
    assert lost[0].startswith(".env: ")


@pytest.mark.parametrize(
    ("line", "command", "env"),
    [
        ("a b 'c d' \"e f\"", ["a", "b", "c d", "e f"], {}),
        ("exec a b", ["a", "b"], {}),
        ("A=1 B='x y' a", ["a"], {"A": "1", "B": "x y"}),
        ("a $B", ["sh", "-c", "exec a $B"], {}),
        ('a "$B"', ["sh", "-c", 'exec a "$B"'], {}),
        ("a '$B'", ["a", "$B"], {}),
        ("A=1 a $B", ["sh", "-c", "exec env A=1 a $B"], {}),
        ("a *.py", ["sh", "-c", "exec a *.py"], {}),
        ("a > b 2>&1", ["sh", "-c", "exec a > b 2>&1"], {}),
        ("a && b", ["sh", "-c", "a && b"], {}),
        ("a | b", ["sh", "-c", "a | b"], {}),
        ("cd a", ["sh", "-c", "cd a"], {}),
        ("exec -a x b", ["sh", "-c", "exec -a x b"], {}),
        ("a 'b", ["sh", "-c", "a 'b"], {}),
        ('a "\\$b"', ["sh", "-c", 'exec a "\\$b"'], {}),
        ("a # b", ["sh", "-c", "exec a # b"], {}),
    ],
)
def test_lines_of_a_shell(line: str, command: list[str], env: dict[str, str]) -> None:
    assert shell.command_of(line) == (command, env)


@TRIES
@given(st.text("ab '\"\\$`;&|<>()*?[]~#=!{}\n-", max_size=12))
def test_a_shell_would_see_the_same_words(tail: str) -> None:
    """Where no shell is used, one would have made the same words of the line."""
    line = f"printf %s\\\\n {tail}"
    command, env = shell.command_of(line)
    if command[0] == "sh":
        return
    by_shell = subprocess.run(["sh", "-c", line], capture_output=True, check=False, timeout=20)
    by_words = subprocess.run(command, capture_output=True, check=False, timeout=20)
    assert (env, by_words.stdout) == ({}, by_shell.stdout)


# Compose.

SERVICES = """
x-app: &app
  restart: unless-stopped
  environment: &env {LEVEL: info, DEBUG: no}
services:
  db:
    image: db:1
    command: ["db", "-p", 5432]
    user: "999:998"
    stop_signal: SIGINT
    stop_grace_period: 1m30s
    ulimits: {nofile: {soft: 10, hard: 20}, nproc: 5}
    cap_drop: [ALL]
    cap_add: [CHOWN, SETUID]
    healthcheck: {test: "ready || exit 1", interval: 5s, timeout: 2s, retries: 4, start_period: 10s}
  migrate:
    build: .
    entrypoint: /entry
    command: migrate 'all tables'
    depends_on: {db: {condition: service_healthy}}
  web:
    <<: *app
    image: app
    command: serve
    working_dir: /app
    environment: {<<: *env, PORT: 80, GREETING: "a $$HOME", TOKEN: "${TOKEN}", FROM_HOST: }
    env_file: [.env, {path: more.env}]
    depends_on:
      migrate: {condition: service_completed_successfully}
      db: {condition: service_healthy, restart: true}
    ports: ["80:80"]
  task:
    image: app
    command: task
    restart: "on-failure:3"
    profiles: [tools]
    deploy: {replicas: 2}
"""


def test_services_become_children() -> None:
    document, lost = of_compose(SERVICES)
    assert lost == [], "an image or a build alone does not change behaviour"
    probe = {"exec": ["/bin/sh", "-c", "ready || exit 1"]}
    times = {"interval": "5s", "timeout": "2s", "start_period": "10s", "retries": 4}
    assert document["oneshots"] == {
        "migrate": {"command": ["/entry", "migrate", "all tables"], "after": ["db"], "stop_timeout": "10s"}
    }
    assert document["daemons"] == {
        "db": {
            "command": ["db", "-p", "5432"],
            "user": 999,
            "group": 998,
            "rlimits": {"nofile": [10, 20], "nproc": 5},
            "capabilities": ["CHOWN", "SETUID"],
            "stop_signal": "SIGINT",
            "stop_timeout": "1m30s",
            "policy": "wait-for-all",
            "restart_dependents": True,
            "ready": {**probe, "timeout": "38s"},
            "health": {**probe, **times},
        },
        "web": {
            "command": ["serve"],
            "after": ["migrate", "db"],
            "cwd": "/app",
            "env": {"LEVEL": "info", "DEBUG": "no", "PORT": "80", "GREETING": "a $HOME", "TOKEN": "${TOKEN}"},
            "env_files": [".env", "more.env"],
            "stop_timeout": "10s",
            "policy": "restart",
        },
        **{
            f"task-{number}": {
                "command": ["task"],
                "enabled": False,
                "stop_timeout": "10s",
                "policy": "restart-on-failure",
                "restarts": {"max": 3},
            }
            for number in (1, 2)
        },
    }
    assert document["bundle"]["stop_timeout"] == "1m40s"
    assert document["variables"] == {"TOKEN": ""}


@pytest.mark.parametrize(
    ("service", "lost"),
    [
        ("{image: redis}", "it has no command"),
        ("{image: a, command: [-x]}", "ENTRYPOINT"),
        ("{command: a, stdin_open: true}", "stdin_open"),
        ("{command: a, pre_stop: [{command: b}]}", "pre_stop"),
        ("{command: a, no_such_key: 1}", "no_such_key"),
        ("{command: a, cap_drop: [CHOWN]}", "cap_drop CHOWN"),
        ("{command: a, restart: sometimes}", "there is no such policy"),
        ("{command: a, stop_signal: SIGNOSUCH}", "stop_signal"),
        ("{command: a, healthcheck: {interval: 5s}}", "healthcheck: it has no test"),
        ("{command: a, depends_on: [nobody]}", "there is no service nobody"),
        ("{command: a, depends_on: {b: {condition: service_healthy}}}", "b has no healthcheck"),
        ("{command: a, environment: {URL: 'redis://b:6379'}}", "URL names the host b"),
        ("{command: 'a --peer b:1'}", "command names the host b"),
        ("{command: a, environment: {DB_HOST: b}}", "DB_HOST names the host b"),
        ("{command: [a, '${PORT:-80}']}", "an empty value of PORT stands for the default there"),
        ("{command: [a, '${PORT:?no}']}", "an empty value of PORT is refused there"),
        ("{command: [a, '${PORT:+80}']}", "${PORT:+80} depends on whether a variable is set"),
        ("{command: [a, '${PORT:-80}', '${PORT:-81}']}", "PORT has several defaults"),
        ("{command: [a, '${PORT-${OTHER?no}}']}", "OTHER must be set where the other variable is not"),
        ("{command: [a, '$$$PORT']}", "a variable behind a $ cannot be written"),
        ("{command: 'a ${ARGS}'}", "so their defaults stand there"),
        ("{command: 'a \"${ARG}\"'}", ""),
        ("{command: 'a --x=${ARG-1}'}", "a variable whose value has spaces or has quotes or backslashes changes"),
        ("{command: a, restart: '${RESTART:-always}'}", "restart: the defaults of its variables are in their place"),
        ("{command: a, user: '${ID}'}", "user needs a value of ID, which may be missing there"),
        ("{command: a, user: ''''}", ""),
    ],
)
def test_what_compose_has_alone_is_said(service: str, lost: str) -> None:
    _, found = of_compose(f"services:\n  a: {service}\n  b: {{command: sleep}}\n")
    assert any(lost in each for each in found) or not lost, found


def test_a_name_that_is_no_host_is_none() -> None:
    _, lost = of_compose("services:\n  web: {command: 'a --mode web', environment: {MODE: db}}\n  db: {command: b}\n")
    assert lost == []


def test_services_extend_others() -> None:
    document, _ = of_compose(
        "services:\n  base: {command: a, environment: [A=1, B=2], cap_drop: [ALL]}\n"
        "  own: {extends: base, environment: {B: 3}}\n"
    )
    assert document["daemons"]["own"]["command"] == ["a"]
    assert document["daemons"]["own"]["env"] == {"A": "1", "B": "3"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("$A-${B}", "<A||>-<B||>"),
        ("${A:-x}${A-y}", "<A|:-|x><A|-|y>"),
        ("${A:-${B:-c}}", "<A|:-|<B|:-|c>>"),
        ("${A:?no}", "<A|:?|no>"),
        ("$$A $${A}", "$A ${A}"),
        ("none", "none"),
    ],
)
def test_variables_of_compose(text: str, said: str) -> None:
    assert interpolate.interpolated(text, lambda *parts: f"<{'|'.join(parts)}>") == said


@pytest.mark.parametrize("text", ["$", "${", "${A", "${1}", "$-", "${A!b}", "${}"])
def test_what_compose_refuses_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"\$|is no variable|is not closed"):
        interpolate.interpolated(text, lambda *_: "")


# Pebble.

LAYER = """
summary: two
services:
  db:
    override: replace
    command: db [ --verbose ]
    startup: enabled
    user: db
    group-id: 12
    working-dir: /var
    environment: {A: 1}
    backoff-delay: 1s
    backoff-factor: 1.5
    backoff-limit: 1m
    kill-delay: 20s
    on-check-failure: {up: restart}
  web:
    override: replace
    command: web "a b"
    startup: enabled
    after: [db]
    requires: [helper]
    on-success: ignore
    on-failure: shutdown
  helper: {override: replace, command: helper, before: [web]}
  off: {override: replace, command: off}
  task: {override: replace, command: task, startup: enabled, on-success: shutdown, on-failure: shutdown}
checks:
  up:
    override: replace
    period: 20s
    timeout: 2s
    threshold: 5
    tcp: {port: 5432}
"""


def test_a_layer_becomes_a_bundle() -> None:
    document, lost = of_pebble(LAYER)
    assert lost == []
    assert document["daemons"] == {
        "db": {
            "command": ["db", "--verbose"],
            "user": "db",
            "group": 12,
            "cwd": "/var",
            "env": {"A": "1"},
            "stop_timeout": "20s",
            "policy": "restart",
            "backoff": {"initial": "1s", "factor": 1.5, "limit": "1m"},
            "ready": {"after": "1s"},
            "health": {"tcp": 5432, "interval": "20s", "timeout": "2s", "retries": 5},
            "on_unhealthy": "restart",
        },
        "web": {"command": ["web", "a b"], "after": ["db", "helper"], "policy": "exit-on-child-failure"},
        "helper": {"command": ["helper"], "policy": "restart", "ready": {"after": "1s"}},
        "off": {"command": ["off"], "enabled": False, "policy": "restart"},
    }
    assert document["jobs"] == {"task": {"command": ["task"]}}, "its end is the end of the whole, with its own code"


def test_layers_lie_over_each_other(tmp_path: Path) -> None:
    above = "services:\n  db: {override: merge, environment: {B: 2}, after: [off]}\n"
    above += "  off: {override: replace, command: o}\n"
    document, lost = of_pebble(LAYER, above)
    assert lost == []
    assert document["daemons"]["db"]["env"] == {"A": "1", "B": "2"}
    assert document["daemons"]["db"]["after"] == ["off"]
    (tmp_path / "001-base.yaml").write_text(LAYER)
    (tmp_path / "002-more.yaml").write_text(above)
    assert read(sources.draft_of(str(tmp_path), None)) == document


@pytest.mark.parametrize(
    ("more", "lost"),
    [
        ("on-success: shutdown, on-failure: restart", "no policy says both"),
        ("on-success: failure-shutdown, on-failure: ignore", "failure-shutdown: the exit code tells"),
        ("after: [nobody]", "there is no such service"),
        ("no-such: 1", "no-such: Pebble has no such key"),
        ("kill-delay: soon", "kill-delay = soon"),
        ("on-check-failure: {no: restart}", "there is no check no"),
    ],
)
def test_what_pebble_has_alone_is_said(more: str, lost: str) -> None:
    _, found = of_pebble(f"services:\n  a: {{override: replace, command: a, startup: enabled, {more}}}\n")
    assert any(lost in each for each in found), found


def test_a_check_of_no_service_is_said() -> None:
    two = "services:\n  a: {override: replace, command: a}\n  b: {override: replace, command: b}\n"
    _, lost = of_pebble(
        f"{two}checks:\n  up: {{override: replace, http: {{url: http://localhost/}}}}\nlog-targets: {{}}\n"
    )
    assert any(each.startswith("checks.up: ") for each in lost)
    assert any(each.startswith("log-targets: ") for each in lost)
    assert any("not started by itself" in each for each in lost), "nothing of it was enabled"


# s6-rc.


def test_a_source_directory_becomes_a_bundle(tmp_path: Path) -> None:
    top = "/etc/s6-overlay/s6-rc.d"
    document, lost = of_s6(
        tmp_path,
        {
            "user/type": "bundle\n",
            "user/contents.d/web": "",
            "init/type": "oneshot\n",
            "init/up": f"{top}/init/run\n",
            "init/run": "#!/usr/bin/with-contenv bash\nmkdir /x\nchown a /x\n",
            "init/timeout-up": "5000\n",
            "init/dependencies.d/base": "",
            "both/type": "bundle\n",
            "both/contents": "init\ndb\n",
            "db/type": "longrun\n",
            "db/run": '#!/command/execlineb -P\nwith-contenv\ns6-setuidgid db\nfdmove -c 2 1\n/usr/bin/db -x "a b"\n',
            "db/down-signal": "SIGINT\n",
            "db/timeout-kill": "20000\n",
            "db/notification-fd": "3\n",
            "db/flag-essential": "",
            "web/type": "longrun\n",
            "web/run": "#!/bin/sh\n# it\nset -e\ncd /srv\n"
            'exec s6-notifyoncheck -d -n 50 -c "nc -z ::1 80" web --port 80 2>&1\n',
            "web/dependencies": "both\n",
            "web/notification-fd": "3\n",
            "web/finish": "#!/bin/sh\n/run/s6/basedir/bin/halt\n",
            "extra/type": "longrun\n",
            "extra/run": "#!/bin/sh\nexec extra\n",
        },
    )
    assert document["oneshots"] == {"init": {"command": ["bash", f"{top}/init/run"], "timeout": "5s"}}
    assert document["daemons"] == {
        "db": {"command": ["/usr/bin/db", "-x", "a b"], "user": "db", "stop_signal": "INT", "stop_timeout": "20s"},
        "extra": {"command": ["extra"], "enabled": False},
        "web": {
            "command": ["web", "--port", "80"],
            "after": ["init", "db"],
            "cwd": "/srv",
            "policy": "exit-on-child-death",
            "ready": {"exec": ["nc", "-z", "::1", "80"], "timeout": "50s10ms"},
        },
    }
    assert document["bundle"]["policy"] == "restart"
    assert [each.partition(":")[0] for each in lost] == ["db"], "its readiness is a newline on a descriptor"


@pytest.mark.parametrize(
    ("files", "lost"),
    [
        ({"a/finish": "#!/bin/sh\nrm /x\n"}, "finish"),
        ({"a/dependencies.d/gone": ""}, "dependency on gone"),
        ({"a/nosetsid": ""}, "nosetsid"),
        ({"a/down-signal": "NOSUCH"}, "there is no such signal"),
        ({"a/timeout-kill": "soon"}, "timeout-kill soon"),
        ({"a/run": "#!/bin/bash\nif x; then s6-svc -d .; fi\n"}, "needs s6-svc"),
        ({"a/producer-for": "log", "log/type": "longrun", "log/consumer-for": "a", "log/run": "x"}, "log: the reader"),
        ({"o/type": "oneshot", "o/up": "x", "o/down": "y"}, "down: "),
    ],
)
def test_what_s6_has_alone_is_said(tmp_path: Path, files: dict[str, str], lost: str) -> None:
    _, found = of_s6(tmp_path, {"a/type": "longrun", "a/run": "#!/bin/sh\nexec a\n", **files})
    assert any(lost in each for each in found), found


# What a file is.


@pytest.mark.parametrize(
    ("name", "text", "tool"),
    [
        ("x.conf", "[program:a]\ncommand=a", supervisord.TOOL),
        ("x", "[program:a]\ncommand=a", supervisord.TOOL),
        ("Procfile.dev", "a: b", procfile.TOOL),
        ("x", "a: b\n", procfile.TOOL),
        ("x.yaml", "services: {a: {command: a}}", compose.TOOL),
        ("x", "services:\n  a: {command: a}", compose.TOOL),
        ("x.yaml", "services: {a: {command: a, override: replace}}", pebble.TOOL),
    ],
)
def test_what_a_file_is(tmp_path: Path, name: str, text: str, tool: str) -> None:
    (tmp_path / name).write_text(text)
    assert sources.draft_of(str(tmp_path / name), None).tool == tool


# Nothing that comes out is invalid, and nothing that comes in is a traceback.


def valid_or_refused(make: Any) -> None:
    try:
        draft = make()
        text = draft.text()
    except Unconvertible as problem:
        assert str(problem)
        return
    assert faults_of(text) == []


WORDS = st.sampled_from(
    [
        "a",
        "b",
        "",
        "0",
        "1",
        "-1",
        "10s",
        "1h2m",
        "KILL",
        "SIGHUP",
        "x y",
        "$A",
        "${A:-b}",
        "true",
        "a:b",
        "/x",
        "\0",
        "\u00e9",
    ]
)
SCALARS = st.one_of(WORDS, st.integers(-2, 10**20), st.booleans(), st.none(), st.floats(), st.text(max_size=6))
TREES = st.recursive(
    SCALARS,
    lambda below: st.one_of(st.lists(below, max_size=3), st.dictionaries(WORDS, below, max_size=3)),
    max_leaves=6,
)


def dumped(content: Any) -> str:
    out = StringIO()
    YAML(typ="safe", pure=True).dump(content, out)
    return out.getvalue()


@TRIES
@given(
    st.dictionaries(
        st.sampled_from(["a", "b", "c d", "-x"]),
        st.dictionaries(st.sampled_from([*compose._KEYS, "image", "extends", "nope"]), TREES, max_size=5),
        max_size=3,
    )
)
def test_any_compose_file(services: dict[str, Any]) -> None:
    valid_or_refused(lambda: compose.convert(dumped({"services": services}), "x", None))


CHECKS = st.dictionaries(
    st.sampled_from(["override", "http", "tcp", "exec", "period", "threshold", "level", "startup", "timeout"]),
    st.one_of(TREES, st.sampled_from(["replace", {"url": "http://::1/"}, {"port": 80}, {"command": "a"}])),
)


@TRIES
@given(
    st.dictionaries(
        st.sampled_from(["a", "b", "c d"]),
        st.dictionaries(st.sampled_from(pebble._KNOWN), TREES, max_size=6).map(
            lambda each: {"override": "replace", **each}
        ),
        max_size=3,
    ),
    st.dictionaries(st.sampled_from(["up", "b"]), CHECKS, max_size=2),
)
def test_any_layer(services: dict[str, Any], checks: dict[str, Any]) -> None:
    valid_or_refused(lambda: pebble.convert([("x", dumped({"services": services, "checks": checks}))], "x"))


@TRIES
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["program:a", "program:b", "group:g", "supervisord", "eventlistener:e", "include"]),
            st.dictionaries(
                st.sampled_from([*supervisord._KNOWN, "programs", "files", "events"]),
                st.one_of(WORDS, st.sampled_from(["%(ENV_A)s", "%(x)s", "%", "A=b", "%(process_num)d", "%(here)s"])),
                max_size=6,
            ),
        ),
        max_size=4,
    )
)
def test_any_supervisord_conf(sections: list[tuple[str, dict[str, str]]]) -> None:
    text = "".join(
        f"[{name}]\n" + "".join(f"{key}={value}\n" for key, value in ({"command": "a"} | options).items())
        for name, options in sections
    )
    valid_or_refused(lambda: supervisord.convert(text, "x", None))


@TRIES
@given(st.text(st.characters(codec="utf-8"), max_size=60), st.sampled_from(sources.KINDS[:4]))
def test_any_text(text: str, kind: str) -> None:
    readers = {"supervisord": supervisord.convert, "procfile": procfile.convert, "compose": compose.convert}
    if kind == "pebble":
        valid_or_refused(lambda: pebble.convert([("x", text)], "x"))
    else:
        valid_or_refused(lambda: readers[kind](text, "x", None))


@TRIES
@given(
    st.dictionaries(
        st.sampled_from(
            [
                *("a/run", "a/up", "b/up", "a/finish", "a/dependencies", "a/contents", "b/down", "a/timeout-kill"),
                *("a/down-signal", "a/notification-fd", "a/consumer-for", "b/producer-for", "b/dependencies.d/a"),
                "a/env/x",
            ]
        ),
        st.one_of(
            WORDS.filter(lambda word: word != "\0"), st.text(max_size=20), st.sampled_from(["a", "b", "#!/x\n{ }"])
        ),
    ),
    st.sampled_from(["longrun", "oneshot", "bundle", "odd"]),
)
def test_any_source_directory(tmp_path_factory: pytest.TempPathFactory, files: dict[str, str], kind: str) -> None:
    root = tmp_path_factory.mktemp("s6")
    for name, text in {"a/type": "longrun", "b/type": kind, **files}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8", errors="replace")
    valid_or_refused(lambda: s6rc.convert(root, "x"))


@pytest.mark.parametrize(
    "text",
    [
        "services: &a {b: *a}",
        "services: [",
        "services: !x {}",
        "a: &a [1,1,1,1,1,1,1,1,1]\n"
        + "".join(f"{chr(98 + n)}: &{chr(98 + n)} [{','.join([f'*{chr(97 + n)}'] * 9)}]\n" for n in range(5)),
        "[" * 600,
        "services: {a: {command: a}, a: {command: b}}",
        '{services: {a: {command: "\\ud800"}}}',
    ],
    ids=["own alias", "open", "tag", "aliases of aliases", "deep", "twice", "surrogate"],
)
def test_yaml_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(Unconvertible):
        compose.convert(text, "x", None).text()


def test_go_durations() -> None:
    for text, said in {
        "1m30s": "1m30s",
        "1.5h": "1h30m",
        "500us": "1ms",
        "0": "0s",
        "": None,
        "5": None,
        "1d": None,
    }.items():
        assert scalars.go_duration(text) == said, text


# The command.


def run(*words: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    command = [
        sys.executable,
        "-I",
        "-c",
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); import runpy; sys.argv[0] = 'b'; ",
    ]
    command[-1] += "runpy.run_module('bottle_init', run_name='__main__', alter_sys=True)"
    return subprocess.run([*command, "convert", *words], input=stdin, capture_output=True, check=False, timeout=60)


def test_the_command_prints_or_writes(tmp_path: Path) -> None:
    source, target = tmp_path / "Procfile", tmp_path / "bundle.toml"
    source.write_text("web: serve\n")
    printed = run(str(source))
    assert (printed.returncode, printed.stderr) == (0, b"")
    assert run(str(source), "-o", str(target)).returncode == 0
    assert target.read_bytes() == printed.stdout
    assert run("--kind", "procfile", "-", stdin=b"web: serve\n").returncode == 0
    assert run(str(source), "-o", str(source)).returncode == 2, "the input is not overwritten"
    assert source.read_text() == "web: serve\n"
    assert run(str(source), "-o", str(tmp_path)).returncode == 1


def test_a_difference_in_behaviour_is_1(tmp_path: Path) -> None:
    source = tmp_path / "compose.yml"
    source.write_text("services: {web: {image: web}}\n")
    found = run(str(source))
    assert found.returncode == 1
    assert b"services.web: it has no command" in found.stderr
    assert NOT_CONVERTED.encode() in found.stdout


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ((), 2, "convert needs FILE"),
        (("x", "y"), 2, "y"),
        (("--kind", "systemd", "x"), 2, "There are supervisord, procfile, compose, pebble, s6-rc."),
        (("/nonexistent/x",), 78, "/nonexistent/x: cannot be converted: cannot be read: No such file or directory"),
    ],
)
def test_wrong_usage_is_said(words: tuple[str, ...], code: int, said: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert main.main(["convert", *words]) == code
    assert said in capfd.readouterr().err


@pytest.mark.parametrize(
    ("kind", "library"), [("supervisord", "supervisor"), ("procfile", "honcho"), ("compose", "ruamel")]
)
def test_without_the_extra(kind: str, library: str, tmp_path: Path) -> None:
    """What to install is said where a library is not there, as one that does not belong to PID 1."""
    (tmp_path / "x").write_text("services: {a: {command: a}}")
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); sys.modules[{library!r}] = None\n"
        "from bottle_init.cli.main import main\n"
        f"sys.exit(main(['convert', '--kind', {kind!r}, {str(tmp_path / 'x')!r}]))"
    )
    found = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert found.returncode == 2
    assert "pip install 'bottle-init[convert]'" in found.stderr
    assert "Traceback" not in found.stderr


def test_no_other_command_imports_it() -> None:
    modules = "bottle_init.cli.main, bottle_init.cli.check, bottle_init.linux.init"
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import {modules}; print(*sys.modules)"
    command = [sys.executable, "-I", "-c", code]
    loaded = subprocess.run(
        command, check=True, capture_output=True, text=True, timeout=60, env=dict(os.environ)
    ).stdout
    assert "bottle_init.convert" not in loaded
