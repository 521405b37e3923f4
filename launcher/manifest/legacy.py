"""The manifest's first form, with one bottle and one agent in a file of no names: it is still understood."""

import copy
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

KEYS = ("name", "image", "daemons", "agent", "egress", "credentials", "pipelock", "git", "supervise")
"""All that could stand at the top."""
OF_THE_BOTTLE = ("image", "user")
"""What was the agent's, and is the bottle's."""
RENAMED = {"from_env": "env", "from_file": "file"}


def is_old(document: Mapping[str, Any]) -> bool:
    """Whether a document is in the first form; an empty one is as well."""
    return not ("bottles" in document or "agents" in document) and (
        not document or any(key in KEYS for key in document)
    )


def name_of(document: Mapping[str, Any], path: Path) -> str:
    """The name of its one bottle."""
    name = document.get("name", path.parent.name)
    words = re.sub(r"[^A-Za-z0-9_-]+", "-", name if isinstance(name, str) else "").strip("-_")
    return words or "bottle"


def migrated(document: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """The same in the present form. What is wrong in it stays so, for the grammar to say."""
    old = copy.deepcopy(dict(document))
    name = name_of(old, path)
    old.pop("name", None)
    agent = old.pop("agent", {})
    bottle: dict[str, Any] = {("sidecars" if key == "image" else key): value for key, value in old.items()}
    run: dict[str, Any] = {"bottle": name}
    if isinstance(agent, dict):
        bottle |= {key: agent[key] for key in OF_THE_BOTTLE if key in agent}
        run |= {key: value for key, value in agent.items() if key not in OF_THE_BOTTLE}
    else:
        run["agent"] = agent
    credentials = bottle.get("credentials")
    if isinstance(credentials, dict):
        bottle["credentials"] = {
            key: {RENAMED.get(word, word): value for word, value in table.items()} if isinstance(table, dict) else table
            for key, table in credentials.items()
        }
    return {"bottles": {name: bottle}, "agents": {name: run}}


def old_path(path: tuple[str | int, ...]) -> tuple[str | int, ...]:
    """Where a key of the present form stood in the first one."""
    match path:
        case ("bottles", _, "sidecars", *rest):
            return ("image", *rest)
        case ("bottles", _, "image" | "user" as key, *rest):
            return ("agent", key, *rest)
        case ("bottles", _, "credentials", name, "env" | "file" as key, *rest):
            return ("credentials", name, f"from_{key}", *rest)
        case ("bottles", _, *rest):
            return tuple(rest)
        case ("agents", _, "agent"):
            return ("agent",)
        case ("agents", _, *rest):
            return ("agent", *rest)
    return path
