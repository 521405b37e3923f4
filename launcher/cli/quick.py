"""`bottle status` without the libraries that other commands need."""

import json
import sys

from launcher import state
from launcher.backend.docker.listing import listed
from launcher.docker import Command
from launcher.engine import advice
from launcher.errors import LauncherError
from launcher.health import health_of
from launcher.plan import LABEL_OPERATOR, pipelock_container_name
from launcher.status import COLUMNS, row, statuses, table


def show_status(*, as_json: bool) -> None:
    """Print the operator's bottles, leftovers included; exits 1 where the engine does not answer."""
    try:
        objects = listed(f"{LABEL_OPERATOR}={state.operator()}", kinds=("container",))
        found = statuses(objects, health_of(objects, _in_bundle))
    except LauncherError as error:
        print(*filter(None, (str(error), advice(error))), sep="\n", file=sys.stderr)
        sys.exit(error.exit_code)
    if as_json:
        print(json.dumps([each.as_json() for each in found], indent=1))
    elif found:
        print(table([COLUMNS, *map(row, found)]))
    else:
        print("no bottle is up")


def _in_bundle(slug: str, command: str) -> Command:
    return Command(("docker", "exec", pipelock_container_name(slug), command))
