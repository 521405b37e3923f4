"""git-daemon's access hook: brings a repository up to its upstream before it is served."""

from __future__ import annotations

import fcntl
import os
import sys
from pathlib import Path

from sidecars.git_gate.upstream import UpstreamError, fetch, repository_of
from sidecars.policy import PolicyError, load


def refusal(directory: Path) -> str | None:
    """Why the repository can't be served now, in one line for the agent; `None` if it can."""
    try:
        repository = repository_of(load(), directory)
        if repository is None:
            return "not in the policy"
        if repository.upstream is not None:
            # One at a time: two fetches would fight for the locks of the refs.
            with (directory / "bottle-fetch.lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                fetch(repository.upstream, directory)
    except PolicyError:
        return "the policy can't be read"
    except UpstreamError as error:
        return f"the upstream can't be fetched: {error}"
    except OSError as error:
        return str(error)
    return None


def main() -> None:
    """git-daemon passes the service, the path and where the request came from; it reads one line of stdout."""
    os.environ.pop("GIT_DIR", None)
    if reason := refusal(Path(sys.argv[2])):
        print(f"git-gate: {reason}", flush=True)
        raise SystemExit(1)


if __name__ == "__main__":
    main()
