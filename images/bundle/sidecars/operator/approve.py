"""`bottle-approve` and `bottle-revoke`: what the agent may do besides the policy, for a time.

An approval is an entry of root's overlay (policy/approvals.py), which changes the policy at once and ends by itself.
It is recorded before it holds, in an audit that only root can write to.
"""

from __future__ import annotations

import argparse
import json
import secrets
import shlex
import sys
import time

from bottle_init.bundle.readers import positive_ms
from bottle_init.bundle.source import Wrong
from sidecars import layout, policy, privileges
from sidecars.operator import journal, reload
from sidecars.operator.channel import RefusedError, ask, fail, printable
from sidecars.operator.reload import ReloadError
from sidecars.operator.requests import line, remember, remembered
from sidecars.policy import PolicyError, approvals
from sidecars.staging import write_public

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Final

_DAY_S: Final = 86_400
UNTIL_S: Final = {"host": 3_600, "repository": 3_600, "request": 600, "push": 600}
"""For how long an approval holds where nothing else is said."""

UNTIL_MAX_S: Final = 30 * _DAY_S


class ApprovalError(Exception):
    """Why nothing is approved or revoked, in words for the operator."""


def present() -> list[dict[str, Any]]:
    """The entries of the overlay that have not ended. Raises `ApprovalError`."""
    try:
        entries: list[dict[str, Any]] = json.loads(layout.APPROVALS.read_bytes())
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise ApprovalError(f"{layout.APPROVALS}: {error}") from error
    return [entry for entry in entries if entry["until"] > time.time()]


def _write(entries: list[dict[str, Any]], written: Callable[[], None] = lambda: None) -> None:
    """Puts the overlay in place, calls `written`, and has the daemons obey.

    Raises `ApprovalError` before anything has changed; `PolicyError`, `RefusedError` and `ReloadError` after.
    """
    text = json.dumps(entries)
    _, faults = approvals.parse(text.encode())
    if faults:
        raise ApprovalError("; ".join(f"{path.rpartition('.')[2]}: {message}" for path, message in faults))
    write_public(layout.APPROVALS, text)
    new = policy.load()
    write_public(layout.COMPILED_POLICY, policy.as_json(new))
    written()
    reload.announce(new.generation)


def approve(what: dict[str, Any], reason: str, until_s: float, request: str = "") -> dict[str, Any]:
    """Grants `what` (the keys of its kind) for `until_s` seconds, as the answer to a request where there is one.

    Returns the entry.
    """
    now = int(time.time())
    entry = {"id": request or secrets.token_hex(8), **what, "reason": reason, "at": now, "until": now + int(until_s)}
    with reload.locked():
        others = [other for other in present() if other["id"] != entry["id"]]
        journal.record("approval", verdict="allowed", **{key: value for key, value in entry.items() if key != "at"})
        # The answer comes before the daemons obey: a proxy that lets a held request go withdraws what it asked.
        _write([*others, entry], lambda: _answer(request, entry))
    return entry


def _answer(request: str, entry: dict[str, Any]) -> None:
    if request:
        ask("answer", id=request, text=f"approved: {_words(entry)}")


def revoke(names: list[str]) -> list[dict[str, Any]]:
    """Ends what has one of these ids, hosts or repositories' names. Returns the entries."""
    with reload.locked():
        entries = present()
        ended = [entry for entry in entries if "--all" in names or _names(entry) & set(names)]
        if not ended:
            raise ApprovalError(f"nothing is approved by the name {' or '.join(map(repr, names))}")
        _write([entry for entry in entries if entry not in ended])
        for entry in ended:
            journal.record("approval", verdict="revoked", id=entry["id"], kind=entry["kind"])
    return ended


def _names(entry: dict[str, Any]) -> set[str]:
    return {str(entry[key]) for key in ("id", "host", "name", "push", "request") if key in entry}


def asked_for(request: str) -> dict[str, Any]:
    """What was shown under this id, and still waits. Raises `ApprovalError` and `RefusedError`."""
    question = remembered(request)
    if question is None:
        question = ask("show", id=request)
        if not sys.stdin.isatty():
            raise ApprovalError(f"{request} has not been shown yet: bottle-requests shows what waits")
        print(line(question))
        remember(question)
        if input("approve this? [y/N] ").strip().lower() not in ("y", "yes"):
            raise ApprovalError("nothing has been approved")
    if question["kind"] == "question":
        raise ApprovalError(f"{request} is a question: supervise-operator answer {request} TEXT")
    now = ask("show", id=request)
    if now.get("what") != question.get("what") or now["kind"] != question["kind"]:
        raise ApprovalError(f"{request} is not any more what was shown: look at it again (bottle-requests)")
    if now["state"] != "open":
        raise ApprovalError(f"{request} has been {now['state']} already")
    return question


def granted(question: dict[str, Any]) -> dict[str, Any]:
    """The keys of an approval for what was asked."""
    what = dict(question["what"])
    kind = question["kind"]
    if kind == "host":
        words = {key: what[key].split() for key in ("methods", "paths") if what.get(key)}
        return {"kind": kind, "host": what["host"], **words}
    if kind == "repository":
        return {"kind": kind, "name": what["name"], "repository": {"upstream": what["upstream"]}}
    if kind == "push":
        return {"kind": kind, "push": what["push"], "repository": what["repository"]}
    keys = ("request", "host", "method", "path", "pattern")
    return {"kind": kind, "port": int(what["port"]), **{key: what[key] for key in keys}}


def seconds(text: str) -> float:
    """A duration such as `90m`; a number is in seconds."""
    try:
        found = positive_ms(int(text) if text.isascii() and text.isdigit() else text) / 1000
    except Wrong as wrong:
        raise argparse.ArgumentTypeError(str(wrong)) from None
    if not 1 <= found <= UNTIL_MAX_S:
        raise argparse.ArgumentTypeError(f"must be from 1s to {UNTIL_MAX_S // _DAY_S * 24}h")
    return found


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--until", type=seconds, metavar="DURATION", help="how long it holds (90m, 8h)")
    common.add_argument("--reason", default="", metavar="TEXT", help="for the audit")
    parser = argparse.ArgumentParser(
        prog="bottle-approve", description="Allows something for a time.", allow_abbrev=False
    )
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="ID|host|repository|request|push|list")
    wish = kinds.add_parser("id", parents=[common], help="what bottle-requests shows under the id")
    wish.add_argument("id")
    host = kinds.add_parser("host", parents=[common], help="a host")
    host.add_argument("host", metavar="HOST[:PORT]")
    host.add_argument("--for", dest="consumers", default="agent", metavar="agent,git")
    host.add_argument("--methods", default="", metavar="GET,POST")
    host.add_argument("--paths", default="", metavar="/v1/,/v2/")
    host.add_argument("--private", action="store_true", help="it may lead to an address that is not globally reachable")
    host.add_argument("--on-secret", default="", metavar="block|redact|ask|pass")
    repository = kinds.add_parser("repository", parents=[common], help="a repository, served by git-gate")
    repository.add_argument("name")
    repository.add_argument("upstream")
    repository.add_argument("--private", action="store_true")
    for kind in ("request", "push"):
        kinds.add_parser(kind, parents=[common], help=f"a {kind} by the id of its question").add_argument("id")
    listing = kinds.add_parser("list", help="what is approved now")
    listing.add_argument("--json", action="store_true")
    return parser


def _what(options: argparse.Namespace) -> dict[str, Any]:
    """The keys of an approval from a command line that says everything itself."""
    if options.kind == "repository":
        private = {"private": True} if options.private else {}
        return {"kind": "repository", "name": options.name, "repository": {"upstream": options.upstream, **private}}
    lists = {"for": options.consumers, "methods": options.methods, "paths": options.paths}
    found: dict[str, Any] = {"kind": "host", "host": options.host}
    found |= {key: [word for word in text.split(",") if word] for key, text in lists.items() if text}
    if options.private:
        found["private"] = True
    if options.on_secret:
        found["on_secret"] = options.on_secret
    return found


def _listing(*, as_json: bool) -> None:
    entries = present()
    if as_json:
        print(json.dumps({"approvals": entries}))
        return
    for entry in entries:
        told = {key: value for key, value in entry.items() if key not in ("id", "kind", "reason", "at", "until")}
        words = " ".join(f"{key}={shlex.quote(str(value))}" for key, value in told.items())
        until = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(entry["until"]))
        print(
            printable(f"{entry['id']}  {entry['kind']} {words} until {until} ({entry['reason'] or 'no reason given'})")
        )


def _run(options: argparse.Namespace) -> str:
    if options.kind in ("host", "repository"):
        entry = approve(_what(options), options.reason, options.until or UNTIL_S[options.kind])
        return _words(entry)
    question = asked_for(options.id)
    what = granted(question)
    reason = options.reason or str(question.get("reason", ""))
    entry = approve(what, reason, options.until or UNTIL_S[what["kind"]], question["id"])
    return _words(entry)


def _words(entry: dict[str, Any]) -> str:
    named = next(str(entry[key]) for key in ("name", "push", "host") if key in entry)
    until = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(entry["until"]))
    return printable(f"{entry['kind']} {named} until {until} ({entry['id']})")


def main() -> None:
    """`bottle-approve`. Exits 1 where nothing was approved, or a daemon does not obey; 2 for a usage."""
    privileges.drop()
    arguments = sys.argv[1:]
    if arguments and arguments[0] not in ("host", "repository", "request", "push", "list", "-h", "--help"):
        arguments = ["id", *arguments]
    options = _parser().parse_args(arguments)
    try:
        if options.kind == "list":
            _listing(as_json=options.json)
        else:
            print(_run(options))
    except (ApprovalError, RefusedError, ReloadError, PolicyError, OSError) as error:
        raise fail("bottle-approve", str(error)) from None


def main_revoke() -> None:
    """`bottle-revoke ID|HOST|NAME...|--all`."""
    privileges.drop()
    names = sys.argv[1:]
    if not names or any(name.startswith("-") and name != "--all" for name in names):
        print("usage: bottle-revoke ID|HOST|NAME... | bottle-revoke --all", file=sys.stderr)
        raise SystemExit(2)
    try:
        for entry in revoke(names):
            print(f"revoked: {_words(entry)}")
    except (ApprovalError, ReloadError, PolicyError, OSError) as error:
        raise fail("bottle-revoke", str(error)) from None
