"""docs/events.md: every event of the init with its keys. `python -m tools.events_page` writes its table.

`documented` is what the page says, `in_code` what the code writes; a test compares the two.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tools import tables

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/events.md"

CHILD = "child"

EVENTS: dict[str, dict[str, tuple[str, dict[str, str]]]] = {
    "Children": {
        "child_started": (
            "A process of the child has been created.",
            {"child": "", "pid": "the process", "restart": "the number of this restart; absent at the first start"},
        ),
        "child_ready": ("What is `after` it may start.", {"child": "", "after_ms": "since its start"}),
        "child_exited": (
            "Its process has ended.",
            {
                "child": "",
                "pid": "",
                "code": "the exit code, 128+s for a kill by signal s",
                "signal": "the number of the signal that killed it",
                "severity": "[how bad it is](contract.md#21-which-death-is-to-blame)",
                "oom": "true if the kernel's OOM killer ended it",
                "detail": "why it could not be executed, and the like",
            },
        ),
        "child_restarting": (
            "It will be started again.",
            {"child": "", "delay_ms": "the pause until then", "restart": "restarts in the present window"},
        ),
        "child_killed": (
            "Its `stop_timeout` has passed, or its stop signal was refused; it and its session get SIGKILL.",
            {"child": "", "after_ms": "the time that it had"},
        ),
        "child_reaped_late": (
            "A child that had been given up has ended after all.",
            {"child": "", "code": "", "signal": ""},
        ),
        "gave_up": (
            "A process does not end, not even by SIGKILL, or may not be signalled.",
            {"child": "", "pid": "", "process": "its name", "reason": ""},
        ),
        "signal_refused": (
            "The kernel has refused a signal, which therefore was never sent.",
            {"child": "", "pid": "", "process": "its name, if it is no child", "signal": "its number", "reason": ""},
        ),
        "child_not_signallable": (
            "It will run as another user, and the init will not be able to signal it.",
            {"child": "", "pid": "", "reason": "which capability is missing"},
        ),
        "fork_failed": ("No process could be created for it.", {"child": "", "reason": ""}),
        "oneshot_done": ("It has ended with success.", {"child": ""}),
        "not_ready": ("It has missed its readiness deadline.", {"child": "", "last": "the last answer of the probe"}),
        "timed_out": ("Its `timeout` has passed; it is stopped.", {"child": "", "after_ms": "the `timeout`"}),
        "child_healthy": ("It was unhealthy, and is no longer.", {"child": ""}),
        "child_unhealthy": (
            "It has become unhealthy.",
            {
                "child": "",
                "failures": "how many checks in a row, where it is because of those",
                "reason": "the last answer, or what the daemon has said of itself",
                "action": "its `on_unhealthy`",
            },
        ),
        "child_reloading": ("It said `RELOADING=1`.", {"child": ""}),
        "child_reloaded": ("It said `READY=1` after that.", {"child": ""}),
        "child_says_stopping": ("It said `STOPPING=1`.", {"child": ""}),
        "ordered": (
            "An operator's order has been accepted.",
            {
                "child": "",
                "order": "`start requested`, `stop requested`, `restart requested` or `signal requested`",
                "answer": "what the operator was told",
            },
        ),
    },
    "Signals": {
        "signal_received": (
            "A signal other than CHLD has reached the init.",
            {
                "signal": "its number",
                "sender_pid": "who sent it; absent for the kernel and for what is outside of the PID namespace",
                "sender_uid": "",
                "sender_name": "the name of that process, if it could be seen",
                "effect": "`stop requested`, `the same request`, `kills what is left`, or `ignored`",
                "sent_to": "the children that got it",
                "waiting": "those that will get it when they are ready, with the reason",
                "passed_over": "those that do not get it, with the reason",
            },
        ),
        "signal_delivered": (
            "A signal that waited for this child is sent.",
            {"child": "", "signal": "", "sent": "the number that the child got, by its `signals`"},
        ),
        "signal_dropped": ("A signal waited for this child in vain.", {"child": "", "signal": "", "reason": ""}),
        "capabilities_dropped": (
            "What oneshots keep for themselves is gone from the init.",
            {"capabilities": "their names"},
        ),
        "capabilities_not_dropped": ("The kernel did not let the init do that.", {"capabilities": "", "reason": ""}),
    },
    "Time": {
        "was_frozen": (
            "The init woke much later than it had asked to; nothing that was pending was judged as missed.",
            {"for_ms": "by how much"},
        ),
    },
    "The end": {
        "stopping": (
            "The stop of the bundle begins.",
            {
                "kind": "`requested`, `policy` or `natural`",
                "cause": "in words",
                "sender_pid": "who asked for it, if that is known",
                "sender_uid": "",
            },
        ),
        "deadline_passed": ("The bundle's deadline is over; all is killed.", {"after_ms": "since the stop began"}),
        "report_unwritten": ("A file of the report could not be written.", {"reason": ""}),
        "internal_error": (
            "The init itself has failed.",
            {"code": "70", "exception": "what to report to the authors"},
        ),
    },
    "Output and addresses": {
        "lines_dropped": (
            "Lines are missing here, because nobody read them.",
            {"child": "absent for the init's own", "stream": "`stdout` or `stderr`", "count": "how many"},
        ),
        "leftover_output_closed": (
            "The pipe of a process that the child left behind is closed.",
            {"child": "", "stream": "", "reason": ""},
        ),
        "leftover_unwatched": (
            "The init cannot see when a process that another one reaps ends; it looks again when its time is over.",
            {"child": "absent if that is unknown", "process": "its name", "pid": "", "reason": ""},
        ),
        "clients_waiting": (
            "No client can be let in. The init tries again each second, and says so once until one is let in.",
            {"address": "`control` or `http`", "reason": ""},
        ),
        "control_unavailable": ("There is no control socket.", {"reason": ""}),
        "http_unavailable": ("There are no [pages](metrics.md).", {"reason": ""}),
        "setup_incomplete": (
            "Something that the init was started with, or sets up for itself, could not be had; it runs without.",
            {"reason": "what, what is instead, and why"},
        ),
        "manager_unreachable": ("The init's own `NOTIFY_SOCKET` takes nothing.", {"reason": ""}),
    },
    "For followers alone": {
        "following": ("The first event of `ctl events --follow`.", {"status": "what `status --json` prints"}),
        "follower_too_slow": ("The last event of a follower that is cut off.", {"advice": ""}),
    },
}
"""Every event but the report: what has happened, and what each key holds ("" where its name says it)."""

REPORT = "exit_report"
"""Its keys are those of docs/report.md."""

_WRITERS = ("log", "_log", "LogEvent", "encode", "_note", "_event", "_own_event")
_ALWAYS = ("event", "level", "timestamp")


def documented() -> dict[str, set[str]]:
    """The events of the page, each with its keys."""
    return {name: set(row[1]) for events in EVENTS.values() for name, row in events.items()}


def in_code(root: Path = ROOT) -> dict[str, set[str]]:
    """The events that the code writes, each with all keys that it may have."""
    found: dict[str, set[str]] = {}
    for folder in ("core", "linux"):
        for path in sorted((root / "bottle_init" / folder).rglob("*.py")):
            for name, keys in _written(ast.parse(path.read_text(encoding="utf-8"))):
                found.setdefault(name, set()).update(keys)
    found["signal_received"].add("sender_name")  # `journal.py` adds it to each event that has a sender.
    found.pop(REPORT)
    return found


def _written(module: ast.Module) -> Iterator[tuple[str, set[str]]]:
    """Events and keys of one file: keywords of the call, and the pairs of the function that it stands in."""
    for function in ast.walk(module):
        if not isinstance(function, ast.FunctionDef):
            continue
        pairs = {pair for node in ast.walk(function) if (pair := _key_of_pair(node))}
        for node in ast.walk(function):
            if not isinstance(node, ast.Call):
                continue
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called == "log_received":
                yield "signal_received", {word.arg for word in node.keywords if word.arg}
            first = node.args[0] if node.args else None
            name = first.value if isinstance(first, ast.Constant) and isinstance(first.value, str) else ""
            if called in _WRITERS and name.isidentifier() and len(node.args) + len(node.keywords) > 1:
                yield name, _keys_of_call(node, called) | pairs


def _keys_of_call(call: ast.Call, called: str) -> set[str]:
    own = {"level", "facts", "sender_pid"} if called == "LogEvent" else {"level"}
    keys = {word.arg for word in call.keywords if word.arg and word.arg not in own}
    about_child = called == "log" and len(call.args) > 1 and not isinstance(call.args[1], ast.Constant)
    return {*keys, CHILD} if about_child else keys


def _key_of_pair(node: ast.AST) -> str:
    """The key of `("key", value)`, "" for anything else."""
    if not isinstance(node, ast.Tuple) or len(node.elts) != 2:
        return ""
    key = node.elts[0]
    return key.value if isinstance(key, ast.Constant) and isinstance(key.value, str) else ""


def page() -> str:
    """The page with its tables drawn anew."""
    return tables.replaced(PAGE.read_text(encoding="utf-8"), {head: _rows(events) for head, events in EVENTS.items()})


def _rows(events: dict[str, tuple[str, dict[str, str]]]) -> list[str]:
    rows = ["| event | | keys |", "| --- | --- | --- |"]
    for name, (sentence, keys) in events.items():
        told = "; ".join(f"`{key}`: {says}" if says else f"`{key}`" for key, says in keys.items())
        rows.append(f"| `{name}` | {sentence} | {told} |")
    return rows


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    sys.exit(0)
