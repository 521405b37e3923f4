"""`docs/invariants.md` against the code, the contract and the tests: every promise has a sentence, and tests."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bottle_init.testing import INVARIANTS, Invariant

ROOT = Path(__file__).parents[2]
TESTS = ROOT / "tests/property"


def plain(text: str) -> str:
    """Running text, without emphasis and line breaks."""
    return " ".join(text.replace("**", "").split())


def rows() -> dict[str, list[str]]:
    """The table of invariants: name to cells."""
    text = (ROOT / "docs/invariants.md").read_text(encoding="utf-8")
    found = [re.split(r"(?<!\\)\|", line)[1:-1] for line in text.splitlines() if line.startswith("| `")]
    cells = [[cell.strip().replace("\\|", "|") for cell in row] for row in found]
    return {row[0].strip("`"): row for row in cells if len(row) == 4}


def functions(path: Path) -> set[str]:
    return set(re.findall(r"^def (\w+)\(", path.read_text(encoding="utf-8"), flags=re.MULTILINE))


def test_every_invariant_is_in_the_table() -> None:
    assert list(rows()) == [invariant.name for invariant in INVARIANTS]


@pytest.mark.parametrize("invariant", INVARIANTS, ids=lambda invariant: invariant.name)
def test_its_sentence_is_the_contracts(invariant: Invariant) -> None:
    contract = plain((ROOT / "docs/contract.md").read_text(encoding="utf-8"))
    assert invariant.sentence in contract
    assert rows()[invariant.name][1] == invariant.sentence


@pytest.mark.parametrize("invariant", INVARIANTS, ids=lambda invariant: invariant.name)
def test_its_tests_exist(invariant: Invariant) -> None:
    _, _, mutants, examples = rows()[invariant.name]
    text = (TESTS / "test_mutants.py").read_text(encoding="utf-8")
    registered = re.findall(rf'^@mutant\("{invariant.name}"\)\ndef (\w+)\(', text, flags=re.MULTILINE)
    assert re.findall(r"`(\w+)`", mutants) == registered
    assert registered
    assert re.findall(r"`", examples)


def test_every_test_on_linux_exists() -> None:
    text = (ROOT / "docs/invariants.md").read_text(encoding="utf-8")
    named = re.findall(r"`((?:init|one_command)/test_\w+\.py)::(\w+)`", text)
    assert named
    folder = ROOT / "tests/integration"
    assert [(file, name) for file, name in named if name not in functions(folder / file)] == []
    rules = [row for line in text.splitlines() if len(row := line.split(" | ")) == 4 and "/test_" in row[3]]
    known = {f"`{invariant.name}`" for invariant in INVARIANTS}
    assert {row[2] for row in rules} <= {"-", *known}


def test_every_test_that_is_named_exists() -> None:
    text = (ROOT / "docs/invariants.md").read_text(encoding="utf-8")
    named = re.findall(r"`(test_\w+\.py)::(\w+)`", text)
    assert named
    assert [(file, name) for file, name in named if name not in functions(TESTS / file)] == []
