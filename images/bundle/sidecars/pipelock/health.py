"""`python3 -m sidecars.pipelock.health`: exits 0 if pipelock answers and its kill switch is off, else 1.

The real engine's own health route and command stay healthy with the kill switch on; only the JSON tells.
"""

from __future__ import annotations

import http.client
import json
import sys

from sidecars import layout


def problem() -> str | None:
    """What is wrong with pipelock, or `None`."""
    connection = http.client.HTTPConnection("127.0.0.1", layout.PIPELOCK_PORT, timeout=5)
    try:
        connection.request("GET", "/health")
        response = connection.getresponse()
        health = json.loads(response.read(1 << 16))
    except (OSError, ValueError, http.client.HTTPException) as error:
        return f"no answer: {error}"
    finally:
        connection.close()
    if not isinstance(health, dict) or health.get("kill_switch_active") is not False:
        return "the kill switch is on"
    return None if response.status == 200 else f"status {response.status}"


def main() -> None:
    """Prints what is wrong, if anything is."""
    if found := problem():
        print(f"pipelock: {found}", file=sys.stderr)
        raise SystemExit(1)


if __name__ == "__main__":
    main()
