"""The images in which tests have an engine of their own: `python -m tools.engines NAME…` builds what has changed.

`docker` is trixie's Docker, `docker29` a newer one, `podman` trixie's Podman, `kubernetes` a cluster of one node. They
are built like the bundle's image, on the same base, from Debian's packages. What Debian has no package of is compiled
from its Go modules, once, and stays in ~/.cache/bottle-engines.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import sys
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ROOT / "tests/engines"
NAMES = ("docker", "docker29", "podman", "pause", "kubernetes")
COMPILED = {"docker29": ("dockerd", "docker-proxy"), "kubernetes": ("kube", "kube-router")}
"""The programs of an engine that are compiled."""
COMPILED_FROM = ("build", "go.mod", "go.sum", "main.go")


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


def programs_directory(name: str) -> Path:
    """Where an engine's compiled programs are kept: one directory for each state of their sources."""
    sources = sorted((SOURCES / name).iterdir())
    key = hashlib.sha256(b"".join(path.read_bytes() for path in sources if path.name in COMPILED_FROM)).hexdigest()[:12]
    return Path.home() / ".cache/bottle-engines" / f"{name}-{key}"


def is_compiled(name: str) -> bool:
    """Whether all that an engine needs has been compiled."""
    return all((programs_directory(name) / program).exists() for program in COMPILED.get(name, ()))


def compiled(name: str, build: ModuleType) -> Path:
    """The directory with an engine's programs, which are compiled unless they are there. Raises `BuildError`."""
    directory = programs_directory(name)
    if is_compiled(name):
        return directory
    if not shutil.which("go"):
        raise build.BuildError(f"go is not installed, which compiles {name}: 1.24 or newer is needed")
    partial = directory.with_suffix(".partial")
    partial.mkdir(parents=True, exist_ok=True)
    build.say(f"compiling {name} from its Go modules (ten minutes on a machine that has nothing else to do)")
    build.run([str(SOURCES / name / "build"), str(partial)])
    partial.rename(directory)
    return directory


def make(name: str, *, verbose: bool = False) -> str:
    """Build an engine's image; returns its tag. Raises `NotBuilt`."""
    build = images_build()
    try:
        build.check_engine()
        base = build.choose_base()
        arguments = {"BASE": base}
        if name in COMPILED:
            # In an image of their own: an archive with them would be sent at every build.
            programs = compiled(name, build)
            (programs / "Dockerfile").write_text(f"FROM {base}\nCOPY {' '.join(COMPILED[name])} /usr/local/bin/\n")
            arguments["PROGRAMS"] = f"{tag(name)}-programs"
            build.run(["docker", "build", "--tag", arguments["PROGRAMS"], str(programs)])
        archive = build.context(("tests/engines",), build.extra_cas())
        build.build(tag(name), f"tests/engines/{name}.Dockerfile", archive, arguments, verbose)
    except build.BuildError as error:
        raise NotBuilt(str(error)) from None
    return tag(name)


def main() -> None:
    """Exits 1, with one message, where an image cannot be built."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+", choices=NAMES, metavar="NAME", help=", ".join(NAMES))
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
