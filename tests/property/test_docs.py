"""Whatever names a page, a heading of it or a section of the contract names one that is there."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from bottle_init.core.actions import Exit
from bottle_init.core.spec import Bundle, Spec
from bottle_init.core.state import Death, Forwarded, Stop, Survivor
from bottle_init.linux import report

ROOT = Path(__file__).parents[2]

CONTRACT = ROOT / "docs/contract.md"

SECTIONS = re.compile(
    r"\bcontract,? (?P<first>\d+(?:\.\d+)?)(?P<others>(?:(?:, and|,| and) \d(?:\.\d)?\b)*)"
    r"(?:, rules? (?P<rule>\d+)(?: (?:to|and) (?P<last>\d+))?)?",
    re.IGNORECASE,
)
"""`contract 4`, `contract 4.2 and 8`, `contract 2, rules 1 to 3`."""


def tracked(*patterns: str) -> list[str]:
    """The files of the repository, and those that are about to become its files."""
    command = ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard", "--", *patterns]
    listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    return [name for name in listed if (ROOT / name).is_file()]


def prose(path: Path) -> str:
    """A page without its blocks of code."""
    return re.sub(r"^ *```.*?^ *```$", "", path.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


def running(text: str) -> str:
    """Text without line breaks, and without the marks of a comment at the beginning of a line."""
    return " ".join(re.sub(r"^\s*(#+|//+|\*)?", " ", text, flags=re.MULTILINE).split())


def headings(path: Path) -> list[str]:
    return re.findall(r"^#+ (.+)$", prose(path), flags=re.MULTILINE)


def anchors(path: Path) -> set[str]:
    """The anchors that headings make, as forges do it."""
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings(path)}


def leads_somewhere(path: Path, anchor: str) -> bool:
    return path.exists() and (not anchor or anchor in anchors(path))


PAGES = tracked("*.md")

WIDTH = 120
"""Of a line of prose. A table's row, a heading, a picture, a comment and code cannot be wrapped."""


@pytest.mark.parametrize("name", PAGES)
def test_prose_has_one_width(name: str) -> None:
    lines = prose(ROOT / name).splitlines()
    assert [line for line in lines if len(line) > WIDTH and not line.startswith(("|", "#", "!", "<"))] == []


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name: str) -> None:
    path = ROOT / name
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(path)):
        if not re.match(r"[a-z]+:", target):
            file, _, anchor = target.partition("#")
            assert leads_somewhere(path.parent / file if file else path, anchor), target


def test_pages_named_in_code_are_there() -> None:
    """Comments, docstrings and messages name pages by their path from the root."""
    named = {
        (name, page, anchor)
        for name in tracked(":!*.md", ":!*.lock", ":!*.sum")
        for page, anchor in re.findall(r"\b(docs/[\w-]+\.\w+)(?:#([\w-]+))?", read(name))
    }
    assert len(named) > 20
    assert [where for where in sorted(named) if not leads_somewhere(ROOT / where[1], where[2])] == []


def read(name: str) -> str:
    """The text of a file, "" for one that is not text."""
    try:
        return (ROOT / name).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return ""


def contract() -> tuple[set[str], set[str]]:
    """The numbers of the contract's sections, and of the rules of its section 2."""
    sections = {number.rstrip(".") for each in headings(CONTRACT) if (number := each.split()[0])[0].isdigit()}
    rules = re.search(r"^### 2\.2 .*?^## ", prose(CONTRACT), flags=re.MULTILINE | re.DOTALL)
    assert rules is not None
    return sections, set(re.findall(r"^(\d+)\. ", rules[0], flags=re.MULTILINE))


def dangling(text: str) -> list[str]:
    """The citations of the contract in a text that lead nowhere."""
    sections, rules = contract()
    found = []
    for cited in SECTIONS.finditer(running(text)):
        numbers = {cited["first"], *re.findall(r"[\d.]+", cited["others"])}
        first, last = int(cited["rule"] or 0), int(cited["last"] or cited["rule"] or 0)
        cited_rules = {str(number) for number in range(first, last + 1) if number}
        if not numbers <= sections or not cited_rules <= rules or (cited_rules and cited["first"] != "2"):
            found.append(cited[0])
    return found


def test_citations_of_the_contract_resolve() -> None:
    texts = {name: read(name) for name in tracked(":!*.lock", ":!*.sum") if name != "tests/property/test_docs.py"}
    assert sum(len(SECTIONS.findall(running(text))) for text in texts.values()) > 100
    assert {name: found for name, text in texts.items() if (found := dangling(text))} == {}


@pytest.mark.parametrize(
    "text",
    [
        "contract 0",
        "Contract 10",
        "contract 4.4",
        "contract 2 and 4.9",
        "# as contract\n    # 12 says",
        "contract 1, 0",
    ],
)
def test_a_section_that_is_not_there_is_found(text: str) -> None:
    """The check itself."""
    assert dangling(f"It is so ({text}).")


@pytest.mark.parametrize("text", ["contract 2, rule 9", "contract 2, rules 7 to 9", "contract 3, rule 1"])
def test_a_rule_that_is_not_there_is_found(text: str) -> None:
    """The check itself."""
    assert dangling(text)


def test_the_sections_are_numbered_in_order() -> None:
    """Each number stands once, below its own section, and none is left out: a citation has one meaning."""
    numbers = [each.split()[0].rstrip(".") for each in headings(CONTRACT) if each[0].isdigit()]
    expected = []
    for section in range(1, 10):
        below = sum(number.startswith(f"{section}.") for number in numbers)
        expected += [str(section), *(f"{section}.{part}" for part in range(1, below + 1))]
    assert numbers == expected
    assert contract()[1] == {str(number) for number in range(1, 9)}


def test_the_page_of_the_report_has_all_its_keys() -> None:
    """Each key of the report and of a death begins a row of a table; what is inside of one stands in its row."""
    death = Death(0, "a", 2, 129, 1, 0, 5, 5, forwarded=Forwarded(signal=1, source=10))
    end = Exit(0, Stop("requested", "signal 15", 0, 0), (death,), (Survivor(3, "left"),), 9)
    record = report.build(end, Bundle((Spec("a", "daemon", ("a",)),)), lambda _child: (), 0)
    facts = {**report.of_invalid("bundle.toml", ["no daemon"]), **record, **record["deaths"][0]}
    rows = {
        key: re.findall(r"`(\w+)`", row)
        for row in (ROOT / "docs/report.md").read_text(encoding="utf-8").splitlines()
        for key in re.findall(r"`(\w+)`", (*row.split("|"), "", "")[1])
    }
    assert {*facts} <= {*rows}
    inside = {(key, name) for key, value in facts.items() if key != "deaths" for name in keys_inside(value)}
    assert {(key, name) for key, name in inside if name not in rows[key]} == set()


def keys_inside(value: object) -> set[str]:
    """The keys of a table, or of those in a list."""
    tables = value if isinstance(value, list) else [value]
    return {key for table in tables if isinstance(table, dict) for key in table}
