"""Signals that are held back: none is lost, and none strikes inside a command."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import pytest

from launcher.docker import Command, watched
from launcher.errors import Interrupted
from launcher.interrupts import HELD, hold_signals


@pytest.fixture
def arrived() -> Iterator[list[int]]:
    """What reaches the handlers that were there before."""
    numbers: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        numbers.append(number)

    before = {number: signal.signal(number, note) for number in HELD}
    yield numbers
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", HELD)
def test_a_signal_is_told_where_it_is_asked_for(arrived: list[int], number: signal.Signals) -> None:
    with pytest.raises(Interrupted, match=number.name) as raised, hold_signals() as held:
        held.check()
        signal.raise_signal(number)
        held.check()
    assert raised.value.exit_code == 128 + number
    assert arrived == [], "told once"


@pytest.mark.parametrize("number", HELD)
def test_an_unasked_interrupt_comes_after_the_block(arrived: list[int], number: signal.Signals) -> None:
    """An interrupt that no one asked about arrives after the block."""
    with hold_signals():
        signal.raise_signal(number)
        assert arrived == []
    assert arrived == [number]


def test_the_first_of_several_counts(arrived: list[int]) -> None:
    with pytest.raises(Interrupted) as raised, hold_signals() as held:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
        held.check()
    assert raised.value.exit_code == 128 + signal.SIGTERM
    assert arrived == []


def test_an_inner_block_hands_on_to_the_outer(arrived: list[int]) -> None:
    with pytest.raises(Interrupted), hold_signals() as outer:
        with hold_signals():
            signal.raise_signal(signal.SIGINT)
        outer.check()
    assert arrived == []


def test_a_sleep_ends_with_the_signal(arrived: list[int]) -> None:
    with pytest.raises(Interrupted), hold_signals() as held:
        threading.Timer(0.05, os.kill, [os.getpid(), signal.SIGINT]).start()
        held.sleep(600)
    assert arrived == []


def test_handlers_are_back_after_an_exception(arrived: list[int]) -> None:
    with pytest.raises(ZeroDivisionError), hold_signals():
        _ = 1 / 0
    signal.raise_signal(signal.SIGTERM)
    assert arrived == [signal.SIGTERM]


def test_in_a_thread_nothing_is_held(arrived: list[int]) -> None:
    """In a thread no interrupt is held, and nothing breaks."""
    told: list[bool] = []

    def block() -> None:
        with hold_signals() as held:
            held.check()
            told.append(True)

    thread = threading.Thread(target=block)
    thread.start()
    thread.join()
    assert told == [True]
    assert arrived == []


# A build, which may take minutes.


def test_what_a_build_says_is_told_as_it_comes(tmp_path: Path) -> None:
    """The command goes on only once its first line has been told. Defence: `_told`."""
    os.mkfifo(tmp_path / "go")
    told: list[str] = []

    def tell(line: str) -> None:
        told.append(line)
        if line == "first":
            (tmp_path / "go").write_text("go\n")

    deadline = time.monotonic() + 60

    def sleep(seconds: float) -> None:
        time.sleep(seconds)
        if time.monotonic() > deadline:
            raise TimeoutError

    script = f"cat; echo first; read word <'{tmp_path}/go'; echo $word >&2; exit 3"
    done = watched(Command(("sh", "-c", script)), stdin=b"from stdin\n", tell=tell, sleep=sleep)
    assert told == ["from stdin", "first", "go"]
    assert (done.code, done.stdout) == (3, "from stdin\nfirst\ngo\n")


def test_an_interrupt_ends_a_build(tmp_path: Path) -> None:
    """At once, and not when it is built. Defence: `_end`."""
    os.mkfifo(tmp_path / "never")

    def sleep(_seconds: float) -> None:
        raise Interrupted(2, "SIGINT")

    with pytest.raises(Interrupted):
        watched(Command(("cat", str(tmp_path / "never"))), stdin=b"", tell=print, sleep=sleep)
