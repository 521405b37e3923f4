"""The command `kubectl`, run to its end."""

from launcher.docker import Command, Result, run


def kubectl(namespace: str, *arguments: str, check: bool = True) -> Result:
    """`kubectl ARGUMENTS…` in a namespace, or in none where it is empty; raises as `run` does."""
    within = ("--namespace", namespace) if namespace else ()
    return run(Command(("kubectl", *within, *arguments)), check=check)
