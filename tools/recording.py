"""docs/launcher.svg: the guide of docs/launcher.md, as it went on a real engine; `python -m tools.recording` runs it.

It needs the images of `make image`. The operator's home is a temporary one. Each command has a terminal of its own, and
what it writes there is drawn.
"""

from __future__ import annotations

import os
import pty
import re
import shlex
import subprocess
import sys
import tempfile
from io import StringIO
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.text import Text

PICTURE = Path(__file__).parents[1] / "docs/launcher.svg"
COLUMNS = 110
COMMANDS = (
    "bottle init shell",
    "bottle plan shell --mode copy",
    "bottle up shell --detach --mode copy",
    "bottle status",
    "bottle exec shell -- curl -sS https://docs.example.org/",
    "bottle exec shell -- sh -c 'echo improved >README; cat README'",
    "bottle diff shell",
    "bottle down shell",
    "bottle why shell",
)
# A font of the reader's own: a picture asks no server for one.
FORMAT = re.sub(r"@font-face \{\{.*?\n    \}\}\n", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)


def run(command: str, directory: Path, home: Path) -> str:
    """What a command writes to its terminal, with the temporary places by the names that a person would have."""
    ours, theirs = pty.openpty()
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    env = {**os.environ, "HOME": str(home), "PATH": path, "TERM": "xterm-256color", "COLUMNS": str(COLUMNS)}
    with subprocess.Popen(
        shlex.split(command), cwd=directory, env=env, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs
    ):
        os.close(theirs)
        written = b""
        while piece := _read(ours):
            written += piece
    os.close(ours)
    return written.decode(errors="replace").replace("\r\n", "\n").replace(str(home), "~")


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except OSError:  # EIO once the other end is closed (pty(7)).
        return b""


def main() -> None:
    """Run the commands one after the other, and draw them."""
    console = Console(record=True, width=COLUMNS, file=StringIO(), force_terminal=True)
    with tempfile.TemporaryDirectory(prefix="bottle-recording-") as temporary:
        home = Path(temporary)
        project = home / "src/my-project"
        project.mkdir(parents=True)
        (project / "README").write_text("my project\n")
        try:
            for command in COMMANDS:
                console.print(Text.assemble(("$ ", "bold green"), (command, "bold")))
                console.print(Text.from_ansi(run(command, project, home)))
        finally:
            run("bottle down --all --discard", project, home)
    PICTURE.write_text(console.export_svg(title="bottle", code_format=FORMAT, unique_id="bottle"))


if __name__ == "__main__":
    main()
