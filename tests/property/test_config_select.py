"""A part of a bundle: `--only`, or the predecessor's variable."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bottle_init.bundle import load
from bottle_init.bundle.source import BundleInvalid
from tests.property.bundle_documents import bundles

if TYPE_CHECKING:
    from bottle_init.core.spec import Bundle

BOTTLE = load.from_text(
    """
    [bundle]
    exit_code_from = "egress"
    [oneshots.setup]
    command = ["setup"]
    [daemons.egress]
    command = ["egress"]
    after = ["setup"]
    [daemons.pipelock]
    command = ["pipelock"]
    after = ["setup", "egress"]
    [daemons.git-gate]
    command = ["git-gate"]
    [jobs.tests]
    command = ["tests"]
    after = ["pipelock", "git-gate"]
    """,
    "bundle.toml",
)


def refused(*names: str) -> dict[str, str]:
    """The fault that is reported for each name."""
    with pytest.raises(BundleInvalid) as caught:
        load.select(BOTTLE, names)
    return {fault.path: fault.message for fault in caught.value.faults}


def test_oneshots_always_run() -> None:
    """Oneshots always run, and the order is the file's."""
    part = load.select(BOTTLE, ("pipelock", "egress"))
    assert [spec.name for spec in part.children] == ["setup", "egress", "pipelock"]


def test_what_a_chosen_daemon_needs() -> None:
    """What a chosen daemon is after must be chosen too."""
    assert refused("egress", "tests") == {
        "tests": "runs after pipelock and git-gate, which must then be chosen too",
    }


def test_exit_code_from_must_be_chosen() -> None:
    """The child that gives the exit code must be chosen too."""
    assert refused("git-gate") == {"bundle.exit_code_from": "egress must then be chosen too"}


def test_unknown_names_are_told_with_all_faults() -> None:
    """Unknown names are reported together with the known ones and with all other faults."""
    assert refused("egres", "setup", "pipelock") == {
        "egres": "there is no such daemon or job (there are egress, pipelock, git-gate, tests)",
        "setup": "is a oneshot: those always run",
        "pipelock": "runs after egress, which must then be chosen too",
        "bundle.exit_code_from": "egress must then be chosen too",
    }


@given(bundles(), st.data())
def test_a_part_is_closed_under_after_or_refused(case: tuple[Bundle, dict[str, Any]], data: st.DataObject) -> None:
    bundle, _ = case
    names = [spec.name for spec in bundle.children if spec.kind != "oneshot"]
    chosen = data.draw(st.lists(st.sampled_from(names), min_size=1, unique=True))
    wanted = tuple(spec for spec in bundle.children if spec.kind == "oneshot" or spec.name in chosen)
    needed = {name for spec in wanted for name in spec.after} | ({bundle.exit_code_from} - {None})
    missing = needed - {spec.name for spec in wanted}
    try:
        part = load.select(bundle, chosen)
    except BundleInvalid as invalid:
        # What remains may also be nothing that runs by itself.
        assert missing or not any(spec.enabled for spec in wanted if spec.kind != "oneshot")
        assert all(any(name in str(fault) for fault in invalid.faults) for name in missing if name)
    else:
        assert not missing
        assert part == bundle.replace(children=wanted)
