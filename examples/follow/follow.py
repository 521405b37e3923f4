"""Prints each death and each restart of a running bundle: `follow.py [ADDRESS]`, as root or the init's own user.

An address is that of the bundle's control socket: `@bottle_init`, unless the bundle file names another.
"""

from __future__ import annotations

import json
import sys

from bottle_init.client import NoAnswer, stream


def main(address: str = "@bottle_init") -> int:
    """Follow until the init ends. Returns 1 if there is none."""
    try:
        for line in stream(address, "events"):
            event = json.loads(line)
            if event["event"] == "following":
                print(f"following a bundle that is {event['status']['health']}", flush=True)
            elif event["event"] == "child_exited":
                print(f"{event['child']} has ended with {event['code']}", flush=True)
            elif event["event"] == "child_restarting":
                print(f"{event['child']} is started again in {event['delay_ms']} ms", flush=True)
    except NoAnswer as reason:
        print(reason, file=sys.stderr)
        return 1
    except BrokenPipeError:
        return 0
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
