"""What these tests share: the two places of an init, and the images, built once as `make image` builds them."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.support.init import ROOT

# testcontainers' own janitor is an image of its registry's; these tests remove what they start themselves.
os.environ.setdefault("TESTCONTAINERS_RYUK_DISABLED", "true")

# This run may have been started with signals ignored (nohup, a shell's `&`): what the tests start would inherit that.
for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, signal.SIG_DFL)

# Another tag leaves the images of a bottle that is in use as they are.
TAG = os.environ.get("BOTTLE_TEST_TAG", "latest")


@pytest.fixture(scope="session")
def bundle_image(once: Callable[[str, Callable[[], str]], str]) -> str:
    """The bundle's image, up to date with the working tree."""
    said = once("images", build_images)
    if said:
        pytest.fail(f"images/bundle/build:\n{said}", pytrace=False)
    return f"claude-bottle-sidecars:{TAG}"


def build_images() -> str:
    """Build what is not up to date. Returns what the build said where it failed.

    With BOTTLE_TEST_AS_BUILT they are taken as they are: `tools.defences` runs changed sources beside them.
    """
    if os.environ.get("BOTTLE_TEST_AS_BUILT"):
        return ""
    build: list[str | Path] = [ROOT / "images/bundle/build", "--tag", TAG]
    done = subprocess.run(build, capture_output=True, text=True, check=False)
    return (done.stdout + done.stderr or "no output") if done.returncode else ""


@pytest.fixture(scope="session")
def agent_image(bundle_image: str) -> str:
    """The demonstration agent's image, which is built along with the bundle's."""
    return bundle_image.replace("sidecars", "agent")


@pytest.fixture(params=[False, True], ids=["subreaper", "pid1"])
def pid_1(request: pytest.FixtureRequest) -> bool:
    """Both places that an init can have."""
    return bool(request.param)
