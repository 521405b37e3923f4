"""Images of agents: built from the Dockerfile that a manifest names, with what the operator's machine trusts."""

import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

from launcher.docker import Command, watched
from launcher.errors import LauncherError
from launcher.interrupts import HeldSignals
from launcher.plan import AGENT_IMAGE
from launcher.spec import BottleSpec

HOST_CAS = Path("/usr/local/share/ca-certificates")
EXTRA_CA = "extra-ca"
CONTEXT_MAX = 256 * 2**20


def extra_cas() -> list[Path]:
    """The certificates that a build has to trust besides the public ones: $BOTTLE_EXTRA_CA, or the machine's own.

    Raises `LauncherError` for one that is not there.
    """
    named = os.environ.get("BOTTLE_EXTRA_CA")
    if named is None:
        return sorted(HOST_CAS.glob("**/*.crt"))
    paths = [Path(name) for name in named.split(":") if name]
    for path in paths:
        if not path.is_file():
            raise LauncherError(f"BOTTLE_EXTRA_CA: {path} is not a file")
    return paths


def context(dockerfile: Path) -> bytes:
    """The Dockerfile's directory as a build context, with a directory extra-ca of certificates.

    Raises `LauncherError` for a directory that is no place for a Dockerfile: everything in it would be sent.
    """
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        # First, and with a plain header: a client takes a stream for an archive by its first 512 bytes alone.
        directory = tarfile.TarInfo(EXTRA_CA)
        directory.type, directory.mode = tarfile.DIRTYPE, 0o755
        archive.addfile(directory)
        for index, path in enumerate(extra_cas()):
            archive.add(path, f"{EXTRA_CA}/{index:02}-{path.stem}.crt", recursive=False)
        for path in sorted(dockerfile.parent.rglob("*")):
            if path.is_file() and not path.is_symlink():
                archive.add(path, str(path.relative_to(dockerfile.parent)), recursive=False)
            if buffer.tell() > CONTEXT_MAX:
                raise LauncherError(
                    f"{dockerfile.parent} is too large for a build", hint="give the Dockerfile a directory of its own"
                )
    return buffer.getvalue()


def build(spec: BottleSpec, held: HeldSignals, tell: Callable[[str], None]) -> str:
    """Build the image of a bottle's agent, and tell what docker says as it says it; returns the image's name.

    Raises `LauncherError` where there is no Dockerfile, or the build fails.
    """
    dockerfile, image = spec.agent.dockerfile, spec.agent.image
    if dockerfile is None:
        raise LauncherError(
            f"the bottle of {spec.agent.name} has no Dockerfile: it runs {image}",
            hint="`make image` builds the small agent's image; dockerfile in the manifest names one of yours",
        )
    if not dockerfile.is_file():
        raise LauncherError(
            f"{dockerfile}: there is no such file", hint="`bottle init` writes the templates' Dockerfiles"
        )
    uid, _, gid = spec.agent.user.partition(":")
    arguments = {"BASE": AGENT_IMAGE, "UID": uid, "GID": gid or uid}
    text = dockerfile.read_text()
    known = [
        word
        for name, value in arguments.items()
        if f"ARG {name}" in text
        for word in ("--build-arg", f"{name}={value}")
    ]
    command = ("docker", "build", "--tag", image, "--file", dockerfile.name, *known, "-")
    archive = context(dockerfile)
    held.check()
    result = watched(Command(command), stdin=archive, tell=tell, sleep=held.sleep)
    if result.code:
        raise LauncherError(f"building {image} failed:\n{result.stdout[-6000:]}")
    return image
