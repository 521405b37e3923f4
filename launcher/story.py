"""How a bottle ended, or how it is, as a story: what the engine knows, and what the init's own log tells."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from launcher import history, state
from launcher.backend.base import Running
from launcher.docker import Command, run

SIGNALS = {129: "HUP", 130: "INT", 131: "QUIT", 134: "ABRT", 137: "KILL", 139: "SEGV", 143: "TERM"}
LAST_LINES = 8
NAMES = (("agent", "the agent"), ("sidecars", "the bundle"))


def facts_of_end(slug: str, objects: Iterable[Running], lines: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    """What is known of a bottle that is up, has ended, or is gone; `lines` are all that was said in it."""
    known = state.facts_of(state.state_root() / slug)
    gone = history.facts_of(slug) if known is None else None
    facts = known or gone or {}
    containers = {each.role: each.detail for each in objects if each.kind == "container"}
    return {
        "slug": slug,
        "agent": facts.get("agent", ""),
        "gone": known is None and not containers,
        "ended": facts.get("ended"),
        "containers": {role: containers[role] for role, _ in NAMES if role in containers},
        "states": {"agent": facts.get("agent_state"), "sidecars": facts.get("bundle_state")},
        "missing_walls": facts.get("missing_walls", []),
        "bundle": _explained([line["text"] for line in lines if line["of"] == "init"]),
        "last_words": [line["text"] for line in lines if line["of"] == "agent"][-LAST_LINES:],
    }


def _explained(log: Sequence[str]) -> str:
    """The init's own story of its log; empty where it tells none."""
    command = Command((sys.executable, "-I", "-m", "bottle_init", "explain", "-"))
    result = run(command, stdin="\n".join(log).encode(), check=False)
    return result.stdout.strip() if result.code == 0 else ""


def told(facts: Mapping[str, Any]) -> str:
    """The same for people."""
    lines = [facts["slug"] + (f", the agent {facts['agent']}" if facts["agent"] else "")]
    if facts["gone"]:
        lines.append(f"is gone: it was taken down {facts['ended'] or 'some time ago'}")
    for role, name in NAMES:
        if detail := facts["containers"].get(role):
            lines.append(f"{name}: {detail}")
        elif ended := facts["states"].get(role):
            lines.append(f"{name} {_ended(ended)}")
    lines += [f"it ran without {wall}, as its manifest allows" for wall in facts["missing_walls"]]
    if facts["bundle"]:
        lines += ["", facts["bundle"]]
    if facts["last_words"]:
        lines += ["", "The agent's last words:", *(f"  {line}" for line in facts["last_words"])]
    return "\n".join(lines)


def _ended(container: Mapping[str, Any]) -> str:
    code = container.get("ExitCode")
    if container.get("Status") == "running":
        return "ran until it was taken down"
    words = f"ended with {code}"
    if container.get("OOMKilled"):
        words += ": it had used up its memory (limits.agent.memory in the manifest)"
    elif isinstance(code, int) and code in SIGNALS:
        words += f", by SIG{SIGNALS[code]}"
    return f"{words}: {container['Error']}" if container.get("Error") else words
