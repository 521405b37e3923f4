"""The command line `bottle`."""

import os
import sys


def main() -> None:
    """Run the command line; a `LauncherError` is shown as what it says, and never as a traceback.

    `status` is asked for often, by people and by scripts: it does without the libraries of the other commands, which
    take longer to load than its answer takes.
    """
    docker = os.environ.get("CLAUDE_BOTTLE_BACKEND", "docker") == "docker"
    try:
        if docker and sys.argv[1:] in ([name, *form] for name in ("status", "ps") for form in ([], ["--json"])):
            from launcher.cli.quick import show_status

            show_status(as_json="--json" in sys.argv)
        else:
            from launcher.cli.app import run

            run()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
