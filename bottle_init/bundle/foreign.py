"""What other tools call the keys of a bundle file: a fault at such a word says which key says the same here.

The words are those of Compose, supervisord, systemd, Pebble and Kubernetes, with `-` as `_` and in small letters.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Final

_AFTER = "is `after` here: a list of the names that have to be ready first"
_POLICY = 'is `policy` here, such as "restart" or "restart-on-failure"'
_COMMAND = "is `command` here: a list of strings, without a shell"
_CWD = "is `cwd` here"
_LOGS = "is `logs` here; lines go to the init's own stdout and stderr"
_SIGNAL = "is `stop_signal` here"
_TIMEOUT = "is `stop_timeout` here: a duration"
_GROUP = "is not needed: what a child leaves behind in its session is always stopped with it"
_CONTAINER = "is for a container engine: the init runs programs inside of one container"
_CAPABILITIES = "is `capabilities` here: those to keep, and no others"
_LIMITS = "is `rlimits` here: `{ nofile = 1024 }`"
_ONE = "there is one process for each table: write a table for each, with a name of its own"
_SUCCESS = "is `success_codes` here: a list of exit codes"

OF_A_CHILD: Final = {
    **dict.fromkeys(("depends_on", "requires", "wants", "needs", "dependencies", "binds_to", "bindsto"), _AFTER),
    "priority": "is `after` here: a start order has names and no numbers",
    "before": "is said by the other one: `after` there names this child",
    **dict.fromkeys(("restart", "autorestart", "restart_policy", "on_success", "on_failure"), _POLICY),
    **dict.fromkeys(("restartsec", "restart_sec", "backoff_delay"), 'is `backoff` here: `{ initial = "1s" }`'),
    "backoff_factor": "is `backoff` here: `{ factor = 2.0 }`",
    "backoff_limit": 'is `backoff` here: `{ limit = "30s" }`',
    **dict.fromkeys(
        ("startretries", "max_restarts", "startlimitburst"), 'is `restarts` here: `{ max = 3, window = "60s" }`'
    ),
    **dict.fromkeys(("environment", "envs", "environ"), "is `env` here: a table of strings"),
    **dict.fromkeys(("env_file", "environmentfile", "envfile"), "is `env_files` here: a list of paths"),
    **dict.fromkeys(("autostart", "startup", "disabled"), "is `enabled` here: true or false"),
    **dict.fromkeys(("numprocs", "replicas", "scale", "instances", "numprocs_start"), _ONE),
    **dict.fromkeys(("directory", "dir", "working_dir", "workingdirectory", "working_directory", "workdir"), _CWD),
    **dict.fromkeys(("entrypoint", "exec", "execstart", "exec_start", "cmd", "run", "args", "program"), _COMMAND),
    **dict.fromkeys(("startsecs", "start_secs"), 'is `ready` here: `{ after = "1s" }`'),
    **dict.fromkeys(("readiness", "readinessprobe", "readiness_probe", "startupprobe"), "is `ready` here"),
    **dict.fromkeys(("healthcheck", "health_check", "livenessprobe", "liveness_probe", "check"), "is `health` here"),
    **dict.fromkeys(("exitcodes", "exit_codes", "successexitstatus"), _SUCCESS),
    **dict.fromkeys(("stopsignal", "killsignal", "kill_signal"), _SIGNAL),
    **dict.fromkeys(("stopwaitsecs", "stop_grace_period", "timeoutstopsec", "kill_delay", "kill_timeout"), _TIMEOUT),
    **dict.fromkeys(("stopasgroup", "killasgroup", "killmode"), _GROUP),
    **dict.fromkeys(("stdout_logfile", "stderr_logfile", "redirect_stderr", "logging", "log", "standardoutput"), _LOGS),
    **dict.fromkeys(("ulimits", "limits", "limitnofile", "minfds"), _LIMITS),
    **dict.fromkeys(("cap_add", "cap_drop", "capabilityboundingset", "ambientcapabilities"), _CAPABILITIES),
    **dict.fromkeys(("group_add", "supplementarygroups"), "is `groups` here"),
    "security_opt": "is `no_new_privs` here, which is true by default",
    **dict.fromkeys(("nonewprivileges", "no_new_privileges"), "is `no_new_privs` here, which is true by default"),
    "oomscoreadjust": "is `oom_score_adj` here",
    "type": "is the table here: [oneshots.NAME], [daemons.NAME] or [jobs.NAME]",
    "execreload": 'is `signals` here: `{ HUP = "HUP" }` passes HUP on',
    "include": "stands at the top of the file",
    **dict.fromkeys(("image", "build", "ports", "expose", "volumes", "networks", "container_name"), _CONTAINER),
}

_DAEMONS = "is [daemons.NAME] here, or [jobs.NAME] for what ends by itself, or [oneshots.NAME] for a set-up step"

OF_THE_TOP: Final = {
    **dict.fromkeys(("program", "programs", "service", "services", "process", "processes", "apps", "unit"), _DAEMONS),
    **dict.fromkeys(("supervisord", "global", "settings", "init"), "is [bundle] here"),
    **dict.fromkeys(("unix_http_server", "supervisorctl"), "is `control` of [bundle] here"),
    "inet_http_server": "is `http` of [bundle] here",
    "checks": "is `health` of a daemon here",
    **dict.fromkeys(("environment", "env"), "belongs to a child, as `env`"),
    **dict.fromkeys(("volumes", "networks", "secrets", "configs"), _CONTAINER),
    "group": "is not needed: `after` orders children, and `ctl` takes several names",
    "eventlistener": "is `bottle-init ctl events --follow` here",
    **dict.fromkeys(("version", "summary", "description"), "is not needed"),
}

OF_A_PROBE: Final = {
    **dict.fromkeys(("test", "command", "cmd"), "is `exec` here: a list of strings, without a shell"),
    **dict.fromkeys(("httpget", "http_get", "url"), "is `http` here: a URL"),
    **dict.fromkeys(("tcpsocket", "tcp_socket", "port"), "is `tcp` here: a port"),
    **dict.fromkeys(("period", "periodseconds"), "is `interval` here: a duration"),
    **dict.fromkeys(("threshold", "failurethreshold"), "is `retries` here"),
    **dict.fromkeys(("initialdelayseconds", "initial_delay"), "is `start_period` here: a duration"),
    "timeoutseconds": "is `timeout` here: a duration",
}


def hints(keys: Iterable[str], words: Mapping[str, str]) -> dict[str, str]:
    """What to say of those of the keys that are another tool's words."""
    return {key: words[word] for key in keys if (word := key.replace("-", "_").lower()) in words}
