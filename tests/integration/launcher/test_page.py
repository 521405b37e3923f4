"""The page on the terminal: its picture, and what its keys do."""

import os
import pty
import re
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pyte
import pytest

from launcher.backend import get_bottle_backend
from launcher.demo import ask
from tests.integration.support.asking import asks
from tests.integration.support.launching import DEADLINE_S, cli, finish, leftovers, slugs_of

pytestmark = [pytest.mark.docker]

COLUMNS, LINES = 132, 36
LOOK_S = 0.2
PICTURE = Path(__file__).with_name("page.txt")
DRAW = "BOTTLE_DRAW_PAGE"
"""Where this variable is set the picture is drawn anew, for a person to look at before it is committed."""
UP = re.compile(r"Up (?:Less than a|About a|\d+) (?:seconds?|minutes?) *")
DENIED = "elsewhere.page.test"
MANIFEST = """\
[bottles.page]

[agents.page]
bottle = "page"
command = ["sleep", "infinity"]
"""


@dataclass
class Page:
    """`bottle ui` on a terminal, and what a person sees there."""

    process: "subprocess.Popen[bytes]"
    end: int
    screen: pyte.Screen = field(default_factory=lambda: pyte.Screen(COLUMNS, LINES))

    def __post_init__(self) -> None:
        self._stream = pyte.ByteStream(self.screen)

    def press(self, keys: str) -> None:
        os.write(self.end, keys.encode())

    def until(self, *words: str) -> str:
        """Read until all of these are on the screen; returns what is."""
        self.read_until(lambda: all(word in self.seen for word in words))
        return self.seen

    def read_until(self, condition: Callable[[], object]) -> None:
        """Read on, or the page could not write, until something holds."""
        deadline = time.monotonic() + DEADLINE_S
        while not condition():
            assert time.monotonic() < deadline, self.seen
            if select.select([self.end], [], [], LOOK_S)[0]:
                with suppress(OSError):  # EIO once the other end is closed (pty(7)).
                    self._stream.feed(os.read(self.end, 65536))

    @property
    def seen(self) -> str:
        """What a person sees."""
        return "\n".join(line.rstrip() for line in self.screen.display)


@pytest.fixture
def slug(tmp_path: Path) -> Iterator[str]:
    """A bottle that is up; the operator's home is the test's directory."""
    (tmp_path / ".claude-bottle").mkdir()
    (tmp_path / ".claude-bottle/bottle.toml").write_text(MANIFEST)
    code, said = finish(cli(tmp_path, "up", "--detach", "page"))
    assert code == 0, said
    (slug,) = slugs_of(tmp_path)
    yield slug
    finish(cli(tmp_path, "down", "--all"))
    assert leftovers(slug) == []


@pytest.fixture
def page(tmp_path: Path, slug: str) -> Iterator[Page]:
    del slug
    ours, theirs = pty.openpty()
    size = {"COLUMNS": str(COLUMNS), "LINES": str(LINES), "TERM": "xterm-256color", "HOME": str(tmp_path)}
    argv = [sys.executable, "-m", "launcher", "ui"]
    process = subprocess.Popen(argv, env={**os.environ, **size}, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    yield Page(process, ours)
    process.kill()
    process.wait()
    os.close(ours)


def steady(seen: str, slug: str, request: str) -> str:
    """The picture without what is another in every run, each in its place and as wide as it was."""
    seen = seen.replace(slug, "page-000000").replace(request, "0123456789abcdef")
    seen = re.sub(r"\b\d\d:\d\d:\d\d\b", "12:34:56", seen)
    return UP.sub(lambda up: f"{'Up 5 seconds':{len(up[0])}}", seen)


def test_the_page_shows_and_its_keys_answer(tmp_path: Path, slug: str, page: Page) -> None:
    """A refused request as it happens, a question, its answer by a key; the kill switch; the end."""
    page.until(slug, "healthy")
    assert ask(get_bottle_backend(), slug, f"https://{DENIED}/").code == 403
    page.until("refused", DENIED)
    asking = asks(tmp_path, slug, "ask_operator", question="left \x1b[31mor\x07 right?")
    page.until(asking.id, "right?")
    page.read_until(lambda: re.search(rf"{slug} .* {UP.pattern} 1 ", page.seen))
    picture = steady(page.seen, slug, asking.id) + "\n"
    if DRAW in os.environ:
        PICTURE.write_text(picture)
    assert picture == PICTURE.read_text()
    page.press("a")
    page.until("╭", "left")
    page.press("left\r")
    assert "left" in asking.answer()
    page.press("k")
    page.until("kill switch")
    page.press("x")
    page.until(f"Take {slug} down?")
    page.press(f"{slug}\r")
    page.read_until(lambda: not leftovers(slug))
    page.press("q")
    page.read_until(lambda: page.process.poll() is not None)
    assert page.process.returncode == 0


def test_what_an_agent_writes_is_shown_as_text(tmp_path: Path, slug: str, page: Page) -> None:
    """No markup, no control characters: a question cannot draw over another one."""
    asking = asks(tmp_path, slug, "ask_operator", question="[bold]\x1b[2Jnever[/bold] \u202eright")
    seen = page.until(asking.id, "[bold]")
    assert "\u202e" not in seen
    page.press("d")
    assert asking.answer()
