"""docs/walls.md: each promise has a defence and tests, and the tests that it names exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tools import defences, walls

ROOT = Path(__file__).parents[2]
GO = ROOT / "images/bundle/proxy/internal"
ROWS = walls.rows()
NAMES = sorted({name for row in ROWS for name in row.names()})


def base(number: str) -> int:
    return int(re.sub(r"\D", "", number))


def test_each_wall_has_a_row() -> None:
    """W1 to W21, in order, each number once."""
    numbers = [row[0] for row in ROWS]
    assert sorted({base(number) for number in numbers}) == list(range(1, 22))
    assert numbers == sorted(set(numbers), key=lambda number: (base(number), number))


@pytest.mark.parametrize(("number", "promise", "defence", "tests"), ROWS, ids=[row[0] for row in ROWS])
def test_each_row_is_whole(number: str, promise: str, defence: str, tests: str) -> None:
    """A promise, what it rests on, and nothing in the last column but names of tests."""
    assert promise.strip()
    assert defence.strip()
    assert re.fullmatch(r"`[\w/]+::\w+`(, `[\w/]+::\w+`)*", tests), f"{number}: {tests}"


@pytest.mark.parametrize("name", NAMES)
def test_each_test_exists(name: str) -> None:
    module, test = name.split("::")
    if test.startswith("Test"):
        files = sorted((GO / module).glob("*_test.go"))
        definition = f"func {test}(t *testing.T)"
    else:
        files = [ROOT / "tests/integration" / f"{module}.py", ROOT / "tests/property" / f"{module}.py"]
        definition = f"def {test}("
    assert any(definition in file.read_text(encoding="utf-8") for file in files if file.exists()), name


def test_what_tests_say_they_hold_is_promised() -> None:
    """A number in a test's own words leads to this page."""
    tests = [*(ROOT / "tests").rglob("*.py"), *GO.rglob("*_test.go")]
    said = {number for file in tests for number in re.findall(r"\bW(\d+)\b", file.read_text(encoding="utf-8"))}
    assert {int(number) for number in said} <= {base(row[0]) for row in ROWS}


@pytest.mark.parametrize("defence", defences.defences(), ids=lambda each: f"{each.wall}: {each.without}")
def test_each_defence_can_be_taken_away(defence: defences.Defence) -> None:
    """The edit that takes it away still fits, and docs/defences.md says which of the wall's tests failed without it."""
    assert defence.taken((ROOT / defence.path).read_text(encoding="utf-8"))
    seen = defences.read()[defence.key]
    tests = {f"{package}::{test}" for package, tests in defences.tests_of(defence).items() for test in tests}
    assert set(re.findall(r"`([^`]+)`", seen)) <= tests


def test_what_was_taken_away_is_in_the_table() -> None:
    assert set(defences.read()) == {each.key for each in defences.defences()}
