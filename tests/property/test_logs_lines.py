"""Chunks of a pipe into whole lines (contract 9, `logs`): nothing is lost, nothing is too long."""

from __future__ import annotations

from string import ascii_letters, digits

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bottle_init.core import flow
from bottle_init.core.flow import whole_lines
from bottle_init.linux import logs

# The fixture below only sets a constant: that it is not set anew for each example does not matter.
anew = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])

LIMIT = 16
"""Instead of 64 KiB: the same code, and a search that soon meets every case. Integration tests have the real limit."""

pieces_of_lines = st.sampled_from(
    [b"x", b"\n", b"\x80", "é".encode(), "€".encode(), "\U0001f600".encode(), b"x" * LIMIT]
)


@pytest.fixture(autouse=True)
def short_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow, "LINE_BYTES", LIMIT)


@given(st.lists(pieces_of_lines).map(b"".join), st.lists(st.integers(1, 3 * LIMIT), min_size=1))
@anew
def test_chunks_may_be_cut_anywhere(stream: bytes, cuts: list[int]) -> None:
    """Chunks become the same lines however they were cut."""
    rest, out, at, turn = b"", b"", 0, 0
    while at < len(stream):
        size = cuts[turn % len(cuts)]
        passed, rest = whole_lines(rest + stream[at : at + size])
        assert not passed or passed.endswith(b"\n")
        assert len(rest) <= LIMIT
        assert b"\n" not in rest
        out, at, turn = out + passed, at + size, turn + 1
    out += rest
    assert all(len(piece) <= LIMIT for piece in out.split(b"\n"))
    assert joined(out.split(b"\n"), stream.split(b"\n")) == stream.split(b"\n")


def joined(pieces: list[bytes], lines: list[bytes]) -> list[bytes]:
    """The pieces put together again to lines of the lengths that are expected."""
    found, left = [], list(pieces)
    for line in lines:
        whole = left.pop(0) if left else b"missing"
        while len(whole) < len(line) and left:
            whole += left.pop(0)
        found.append(whole)
    assert not left, "pieces that belong to no line"
    return found


@given(st.text(st.sampled_from("xé€\U0001f600"), min_size=LIMIT))
@anew
def test_no_cut_goes_through_a_character(line: str) -> None:
    lines, rest = whole_lines(line.encode())
    pieces = [*lines.split(b"\n")[:-1], rest]
    assert "".join(piece.decode("utf-8") for piece in pieces) == line
    assert all(len(piece) > LIMIT - 4 for piece in pieces[:-1])


@given(st.lists(st.binary(max_size=LIMIT).map(lambda raw: raw.replace(b"\n", b"")), min_size=1))
@anew
def test_short_lines_are_left_alone(lines: list[bytes]) -> None:
    data = b"\n".join(lines)
    end = data.rfind(b"\n") + 1
    assert whole_lines(data) == (data[:end], data[end:])


@given(
    st.lists(st.binary(max_size=50).map(lambda raw: raw.replace(b"\n", b"")), min_size=1),
    st.text(ascii_letters + digits + "_-", min_size=1),
)
def test_a_tag_before_each_line_and_nowhere_else(lines: list[bytes], name: str) -> None:
    tagged = logs._tagging(f"[{name}] ".encode())(b"".join(line + b"\n" for line in lines))
    assert tagged == b"".join(b"[%b] %b\n" % (name.encode(), line) for line in lines)


@given(st.text())
def test_a_tail_moves_no_cursor(line: str) -> None:
    shown = logs._printable(line)
    assert all(character.isprintable() or character == "\t" for character in shown)
