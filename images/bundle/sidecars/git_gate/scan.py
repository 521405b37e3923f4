"""What a push would bring, as text, and what gitleaks finds in it.

The pusher chooses every byte that is scanned, and knows how it is scanned. So nothing of gitleaks' is left to the
pushed content: no allow comment, no configuration, no ignore file, no guess at a file's type.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from sidecars.dlp import BUILT_IN, Pattern, Scanner

_TEXT_MAX_BYTES = 256 << 20
# gitleaks skips files that look binary, by magic numbers at fixed offsets (a tar's is at 257). What the pusher wrote
# begins behind all of them.
_LEAD_IN = b"push\n" + b"\n" * (64 << 10)
_ALLOW_COMMENT = b"gitleaks:allow"
_TIMEOUT_S = 300


class ScanError(Exception):
    """The push could not be scanned, and so is refused. In words for the agent."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A secret, without the secret."""

    rule: str
    commit: str
    file: str

    def __str__(self) -> str:
        place = f"{self.file} in " if self.file else ""
        return f"{self.rule}: {place}{self.commit[:12] or 'the objects that were pushed'}"


def _git_output(*arguments: str, stdin: bytes | None = None) -> bytes:
    done = subprocess.run(["git", *arguments], input=stdin, capture_output=True, timeout=_TIMEOUT_S, check=False)
    if done.returncode:
        raise ScanError(f"git {arguments[0]}: {done.stderr.decode('utf-8', 'replace').strip()}")
    return done.stdout


def tag_chain(name: str) -> tuple[str, list[str]]:
    """The commit that `name` peels to, and the annotated tags on the way. Raises `ScanError` if it is none."""
    tags = []
    while (kind := _git_output("cat-file", "-t", name).strip()) == b"tag":
        tags.append(name)
        name = _git_output("cat-file", "tag", name).split(b"\n", 1)[0].removeprefix(b"object ").decode("ascii")
    if kind != b"commit":
        raise ScanError(f"{name} is a {kind.decode('ascii')}; only commits, and tags of commits, can be scanned")
    return name, tags


def _text(commits: list[str], tags: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    """The commands whose output is all that is new: the changes, and the commits and tags as raw objects.

    -m: a merge can bring what neither parent had. --text: attributes and NUL bytes hide nothing. Raw objects: a log
    shows neither unknown headers nor a message in an encoding of the pusher's choice.
    """
    changes = (
        *("git", "-c", "log.showRoot=true", "-c", "diff.renames=false", "-c", "core.quotePath=false"),
        *("log", "-m", "-p", "-U0", "--text", "--no-ext-diff", "--no-textconv", "--no-color", "--no-notes"),
        *("--no-show-signature", "--submodule=short", "--format=commit %H", *commits, "--not", "--all", "--"),
    )
    yield subprocess.Popen(changes, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
    objects = _git_output("rev-list", *commits, "--not", "--all", "--") + "\n".join([*tags, ""]).encode()
    with tempfile.TemporaryFile() as names:
        names.write(objects)
        names.seek(0)
        yield subprocess.Popen(["git", "cat-file", "--batch=commit %(objectname)"], stdin=names, stdout=subprocess.PIPE)


def neutralize(content: bytes) -> bytes:
    """The text without what would make gitleaks look away. Replaced, not removed: the rest could be a comment again."""
    return content.replace(b"\0", b"").replace(_ALLOW_COMMENT, b"gitleaks-allow")


class Parts:
    """Cuts a stream into files. The end of each stands at the beginning of the next one as well.

    So a secret on the border, unless it is longer than the overlap, is in one of them whole.
    """

    PART_BYTES = 4 << 20
    OVERLAP_BYTES = 64 << 10
    READ_BYTES = 1 << 20

    def __init__(self, directory: Path) -> None:
        self._directory, self._count, self._total = directory, 0, 0
        self._pending = b""

    def copy(self, stream: IO[bytes]) -> None:
        """Raises `ScanError` for more than can be scanned."""
        while chunk := stream.read(self.READ_BYTES):
            self._total += len(chunk)
            if self._total > _TEXT_MAX_BYTES:
                limit = _TEXT_MAX_BYTES >> 20
                raise ScanError(f"more than {limit} MiB of changes at once can't be scanned; push in smaller steps")
            self._pending += chunk
            if len(self._pending) >= self.PART_BYTES:
                self._cut()
                self._pending = self._pending[-self.OVERLAP_BYTES :]

    def finish(self) -> None:
        """Writes what is left."""
        if self._pending:
            self._cut()
        self._pending = b""

    def _cut(self) -> None:
        self.store(f"part-{self._count:04}.txt", _LEAD_IN + neutralize(self._pending))
        self._count += 1

    def store(self, name: str, content: bytes) -> None:
        """Writes one part."""
        (self._directory / name).write_bytes(content)


def configuration(patterns: Iterable[Pattern]) -> str:
    """gitleaks' configuration: its own rules, and the policy's patterns. TOML's basic strings are JSON's."""
    rules = []
    for pattern in patterns:
        entries = {"id": f"bottle-{pattern.name}", "description": pattern.name, "regex": pattern.regex}
        rules += ["[[rules]]", *(f"{key} = {json.dumps(value)}" for key, value in entries.items())]
    return "\n".join(['title = "bottle"', "[extend]", "useDefault = true", *rules])


def _place(part: Path, line: int) -> tuple[str, str]:
    """The commit and the file that a line of a part belongs to, as far as the part tells."""
    commit = file = ""
    for text in part.read_bytes().split(b"\n")[:line]:
        if text.startswith(b"commit "):
            commit, file = text[7:47].decode("ascii", "replace"), ""
        elif text.startswith(b"+++ b/"):
            file = text[6:200].decode("utf-8", "replace")
    return commit, file


def _findings(report: list[dict[str, Any]], directory: Path, patterns: Iterable[Pattern]) -> list[Finding]:
    scanner = Scanner(patterns)
    found = []
    for entry in report[:20]:
        part = directory / Path(str(entry["File"])).name
        commit, file = _place(part, int(entry["StartLine"]))
        found.append(Finding(str(entry["RuleID"]), commit, "a file of that name" if scanner.find(file) else file))
    return list(dict.fromkeys(found))


def _run_gitleaks(directory: Path, patterns: Sequence[Pattern]) -> list[Finding]:
    config, report, parts = directory / "gitleaks.toml", directory / "report.json", directory / "parts"
    config.write_text(configuration(patterns), "utf-8")
    command = ["gitleaks", "detect", "--no-git", "--no-banner", "--redact", "--exit-code=3", "--log-level=fatal"]
    files = [f"--source={parts}", f"--config={config}", "--report-format=json", f"--report-path={report}"]
    done = subprocess.run([*command, *files], capture_output=True, timeout=_TIMEOUT_S, cwd=directory, check=False)
    # 1 is what gitleaks ends with for a fault of its own.
    if done.returncode not in (0, 3):
        raise ScanError(
            f"gitleaks ended with {done.returncode}: {done.stderr.decode('utf-8', 'replace').strip()[-300:]}"
        )
    entries = json.loads(report.read_text("utf-8") or "[]") or []
    if bool(entries) != (done.returncode == 3):
        raise ScanError("gitleaks' report and its exit code disagree")
    return _findings(entries, parts, patterns)


def scan(names: list[str], patterns: Sequence[Pattern] = BUILT_IN) -> list[Finding]:
    """Scans all that the objects `names` bring and no ref has yet. Run it in a pre-receive hook's directory.

    Raises `ScanError` where anything of it can't be scanned: that push is refused too.
    """
    commits, tags = [], []
    for name in names:
        commit, chain = tag_chain(name)
        commits.append(commit)
        tags += chain
    with tempfile.TemporaryDirectory(prefix="push-") as temporary:
        directory = Path(temporary)
        (directory / "parts").mkdir()
        parts = Parts(directory / "parts")
        for process in _text(commits, tags):
            with process:
                if process.stdout is not None:
                    parts.copy(process.stdout)
            if process.returncode:
                raise ScanError("the pushed objects could not be read")
        parts.finish()
        return _run_gitleaks(directory, patterns)
