"""Makes /opt/bottle: what the first process of an agent's container runs on, whose image may have no Python, or another
libc. It comes with its own loader and libraries, so that the architecture alone has to fit.

Usage: agent_runtime.py DIRECTORY. DIRECTORY holds the package bottle_init; Debian's python3 and patchelf are needed.
"""

import ast
import py_compile
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

PREFIX = Path("/opt/bottle")
PROGRAM = Path("/usr/bin/python3.13")
LIBRARY = Path("/usr/lib/python3.13")
# What bottle_init imports and the interpreter has not built in.
EXTENSIONS = ("_ctypes", "resource", "termios")
# By this file the interpreter finds its own prefix, without a word from the environment.
LANDMARK = "os.pyc"
TRIAL = "import difflib, _ctypes, base64, json, resource, select, socket, termios"


def output(*command: str) -> str:
    """What a command writes; raises `CalledProcessError` where it fails."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def copy_program() -> None:
    """The interpreter, its extensions, and every library that they are linked with."""
    program, dynamic = PREFIX / "bin/python3", PREFIX / "lib/python3.13/lib-dynload"
    program.parent.mkdir(parents=True)
    dynamic.mkdir(parents=True)
    shutil.copy(PROGRAM, program)
    for extension in EXTENSIONS:
        (found,) = (LIBRARY / "lib-dynload").glob(f"{extension}.*.so")
        shutil.copy(found, dynamic)
    for line in output("ldd", str(program), *map(str, dynamic.iterdir())).splitlines():
        words = line.split()
        if len(words) == 4 and words[1] == "=>":
            shutil.copy(words[2], PREFIX / "lib")
        elif len(words) == 2 and words[0].startswith("/lib"):
            shutil.copy(words[0], PREFIX / "lib/ld.so")
    # An rpath is looked at before LD_LIBRARY_PATH, which is the agent's to set; a runpath would be looked at after it.
    rpath = ("--force-rpath", "--set-rpath", str(PREFIX / "lib"))
    output("patchelf", "--set-interpreter", str(PREFIX / "lib/ld.so"), *rpath, str(program))


def copy_modules(source: Path) -> None:
    """Debian's minimal standard library and bottle_init, compiled, in one archive: a volume of few files is quickly
    filled and removed. Nothing in it is ever compared with a source, or written anew.
    """
    listed = [Path(line) for line in output("dpkg", "-L", "libpython3.13-minimal").splitlines()]
    standard = {path for path in listed if path.suffix == ".py" and path.is_relative_to(LIBRARY)}
    own = [path for path in (source / "bottle_init").rglob("*.py") if "testing" not in path.parts]
    standard |= needed(own, standard)
    modules = [(path, path.relative_to(LIBRARY)) for path in standard]
    modules += [(path, path.relative_to(source)) for path in own]
    unchecked = py_compile.PycInvalidationMode.UNCHECKED_HASH
    with zipfile.ZipFile(PREFIX / "lib/python313.zip", "w") as archive, tempfile.TemporaryDirectory() as temporary:
        for path, name in sorted(modules):
            compiled = Path(temporary) / "compiled"
            py_compile.compile(str(path), str(compiled), str(name), doraise=True, invalidation_mode=unchecked)
            archive.write(compiled, str(name.with_suffix(".pyc")))
            if str(name.with_suffix(".pyc")) == LANDMARK:
                shutil.copy(compiled, PREFIX / "lib/python3.13" / LANDMARK)


def needed(by: list[Path], there: set[Path]) -> set[Path]:
    """The modules of the whole standard library that some import and the minimal one lacks, with what they import."""
    found: set[Path] = set()
    left = list(by)
    while left:
        for name in imported(left.pop()):
            paths = {LIBRARY / f"{name}.py", *(LIBRARY / name).glob("*.py")}
            new = {path for path in paths if path.exists()} - there - found
            found |= new
            left += new
    return found


def imported(path: Path) -> set[str]:
    """The top-level names of all that a file imports, whenever it does."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.add(node.module.partition(".")[0])
    return names


def try_alone() -> None:
    """Run it where there is nothing else, as in an image that was made from scratch."""
    with tempfile.TemporaryDirectory() as root:
        shutil.copytree(PREFIX, root + str(PREFIX))
        python = (str(PREFIX / "bin/python3"), "-I", "-S")
        output("chroot", root, *python, "-m", "bottle_init", "--", *python, "-c", TRIAL)


copy_program()
copy_modules(Path(sys.argv[1]))
try_alone()
