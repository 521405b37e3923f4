"""The images in which tests have an engine of their own: `python -m tools.engines NAME…` builds what has changed.

`docker` is trixie's Docker, `podman` trixie's Podman. They are built like the bundle's image, on the same base, from
Debian's packages.
"""

from __future__ import annotations

import argparse
import sys
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[1]
NAMES = ("docker", "podman")


def tag(name: str) -> str:
    """The image of an engine."""
    return f"bottle-engine-{name}"


class NotBuilt(Exception):
    """Why an image cannot be built, in words."""


def images_build() -> ModuleType:
    """images/bundle/build, which is a program without a suffix."""
    loader = SourceFileLoader("images_bundle_build", str(ROOT / "images/bundle/build"))
    spec = spec_from_loader(loader.name, loader)
    assert spec is not None
    module = module_from_spec(spec)
    loader.exec_module(module)
    return module


def make(name: str, *, verbose: bool = False) -> str:
    """Build an engine's image; returns its tag. Raises `NotBuilt`."""
    build = images_build()
    try:
        build.check_engine()
        arguments = {"BASE": build.choose_base()}
        archive = build.context(("tests/engines",), build.extra_cas())
        build.build(tag(name), f"tests/engines/{name}.Dockerfile", archive, arguments, verbose)
    except build.BuildError as error:
        raise NotBuilt(str(error)) from None
    return tag(name)


def main() -> None:
    """Exits 1, with one message, where an image cannot be built."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+", choices=NAMES, metavar="NAME", help="docker or podman")
    parser.add_argument("--verbose", action="store_true", help="show what docker build says")
    options = parser.parse_args()
    for name in options.names:
        try:
            make(name, verbose=options.verbose)
        except NotBuilt as error:
            print(f"tools.engines: {error}", file=sys.stderr)
            raise SystemExit(1) from None


if __name__ == "__main__":
    main()
