"""`ctl start`, `stop` and `restart` of several children, and the wait for the effect (contract 6.2).

The init answers an order as soon as it has accepted it. Who waits for the effect is the client, by looking again and
again, so that no wait is a load on PID 1.
"""

from __future__ import annotations

import posix
from select import POLLIN, poll
from time import monotonic, sleep

from bottle_init import client
from bottle_init.cli import console
from bottle_init.client import NoAnswer
from bottle_init.core.words import DAEMON, ENDED, ONESHOT, RUNNING, STOPPED, UP
from bottle_init.words.exits import EX_NO, EX_OK, EX_USAGE
from bottle_init.words.text import plain, span

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final

    from bottle_init.cli.options import Options

    Children = dict[str, dict[str, Any]]
    """What `status --json` tells of each child, by its name."""

LOOK_S: Final = 0.05
"""Between two looks at whether the effect is there."""

_SHOWN: Final = 60
_RESTARTING: Final = "restarting"


def run(options: Options) -> int:
    """Give the orders, print the answers, and wait where that was asked for.

    0 where all is done, 1 where anything was refused or is late, 2 for an unknown name, and then nothing was ordered.
    """
    try:
        if options.verb == "stop" and not options.names:
            return _stop_bundle(options)
        return _order(options)
    except NoAnswer as problem:
        return _complain(str(problem), EX_NO)
    except KeyboardInterrupt:
        return EX_NO


def _order(options: Options) -> int:
    address = options.control or ""
    facts = client.status(address)
    before = _children(facts)
    names = options.names or tuple(name for name, child in before.items() if child["kind"] != ONESHOT)
    for name in names:
        if name not in before:
            there = ", ".join(before)
            return _complain(f"nothing here is called {plain(name, _SHOWN)!r}; there are: {there}", EX_USAGE)
    code = EX_OK
    answers = {}
    for name in names:
        done, text = _ask(address, f"ctl {options.verb} {name}")
        if done:
            answers[name] = text
            console.print_if_open(text + "\n")
        else:
            code = _complain(text, EX_NO)
    if options.wait is None:
        return code
    return max(code, _wait(options, before, answers, facts["pid"]))


def _wait(options: Options, before: Children, answers: dict[str, str], init: int) -> int:
    """Look until every child that took the order is as it was ordered to be."""
    wait_ms = options.wait or 0
    deadline_s = monotonic() + wait_ms / 1_000
    left = list(answers)
    while True:
        try:
            facts = client.status(options.control or "")
        except NoAnswer:
            if options.verb == "stop" and not posix.access(f"/proc/{init}", posix.F_OK):
                return EX_OK  # With the last of them the bundle has ended.
            raise
        now = _children(facts)
        left = [name for name in left if not is_there(options.verb, answers[name], before[name], now[name])]
        if not left:
            return EX_OK
        if options.verb != "stop" and facts["phase"] != UP:
            return _complain(f"{', '.join(left)}: the bundle is stopping", EX_NO)
        if monotonic() >= deadline_s:
            wanted = "gone" if options.verb == "stop" else "ready"
            return _complain(f"{', '.join(left)}: not {wanted} within {span(wait_ms)}", EX_NO)
        sleep(max(0, min(LOOK_S, deadline_s - monotonic())))


def is_there(verb: str, answer: str, before: dict[str, Any], now: dict[str, Any]) -> bool:
    """Whether the effect of an order is there, from what `status` told before it and tells now.

    A child that is to be restarted may run on for a while, if others have to be stopped first: that is not the effect.
    """
    if verb == "stop":
        return now["state"] in (STOPPED, ENDED)
    if answer.endswith(_RESTARTING) and all(now[key] == before[key] for key in ("pid", "restarts")):
        return False
    return now["state"] == RUNNING if now["kind"] == DAEMON else now["state"] in (RUNNING, ENDED)


def _stop_bundle(options: Options) -> int:
    """The stop of the bundle, whose effect is the end of the init: a pidfd says when that is (pidfd_open(2))."""
    address = options.control or ""
    init = -1
    if options.wait is not None:
        pid = client.status(address)["pid"]
        try:
            init = posix.pidfd_open(pid)
        except OSError as problem:
            raise NoAnswer(f"the init, process {pid}, cannot be waited for: {problem.strerror}") from None
    done, text = _ask(address, "ctl stop")
    if not done:
        return _complain(text, EX_NO)
    console.print_if_open(text + "\n")
    if options.wait is None:
        return EX_OK
    ends = poll()
    ends.register(init, POLLIN)
    return EX_OK if ends.poll(options.wait) else _complain(f"the bundle: not gone within {span(options.wait)}", EX_NO)


def _children(facts: dict[str, Any]) -> Children:
    return {child["name"]: child for child in facts["children"]}


def _ask(address: str, order: str) -> tuple[bool, str]:
    """Whether an order was accepted, and what the init says to it."""
    kind, _, text = client.ask(address, order).strip().partition(" ")
    return kind == "ok", text


def _complain(text: str, code: int) -> int:
    console.complain(f"bottle-init ctl: {text}")
    return code
