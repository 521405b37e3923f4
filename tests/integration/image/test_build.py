"""What images/bundle/build decides; the images themselves are what all other tests of this directory use."""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path
from types import ModuleType

import pytest

from tools.engines import images_build


@pytest.fixture
def build(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module, in an environment that says nothing."""
    for name in ("PIPELOCK_ENGINE", "PIPELOCK_IMAGE", "BOTTLE_BASE", "BOTTLE_EXTRA_CA"):
        monkeypatch.delenv(name, raising=False)
    return images_build()


def engine_with(monkeypatch: pytest.MonkeyPatch, build: ModuleType, images: set[str]) -> None:
    """Docker with these images, and no registry."""

    def docker(*arguments: str, timeout_s: float | None = None) -> subprocess.CompletedProcess[str]:
        assert arguments[0] in ("image", "pull"), timeout_s
        found = arguments[:2] == ("image", "inspect") and arguments[2] in images
        return subprocess.CompletedProcess(arguments, 0 if found else 1, "", "no registry answers")

    monkeypatch.setattr(build, "docker", docker)


def test_auto_without_an_image_is_portable(monkeypatch: pytest.MonkeyPatch, build: ModuleType) -> None:
    engine_with(monkeypatch, build, set())
    assert build.choose_engine() == ("portable", None)


def test_portable_asks_nobody(monkeypatch: pytest.MonkeyPatch, build: ModuleType) -> None:
    monkeypatch.setenv("PIPELOCK_ENGINE", "portable")
    monkeypatch.setattr(build, "docker", None)
    assert build.choose_engine() == ("portable", None)


@pytest.mark.parametrize(
    "asked", [{"PIPELOCK_ENGINE": "pipelock"}, {"PIPELOCK_IMAGE": "my/pipelock"}, {"PIPELOCK_ENGINE": "fast"}]
)
def test_what_was_asked_for_by_name_never_falls_back(
    monkeypatch: pytest.MonkeyPatch, build: ModuleType, asked: dict[str, str]
) -> None:
    engine_with(monkeypatch, build, set())
    for name, value in asked.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(build.BuildError, match=r"no registry answers|in PIPELOCK_IMAGE|'fast' is none of"):
        build.choose_engine()


def test_a_local_image_is_as_good(monkeypatch: pytest.MonkeyPatch, build: ModuleType) -> None:
    engine_with(monkeypatch, build, {"my/pipelock"})
    monkeypatch.setenv("PIPELOCK_IMAGE", "my/pipelock")
    assert build.choose_engine() == ("pipelock", "my/pipelock")


def test_the_published_base_comes_first(monkeypatch: pytest.MonkeyPatch, build: ModuleType) -> None:
    engine_with(monkeypatch, build, {build.OWN_BASE, build.PUBLISHED_BASE})
    assert build.choose_base() == build.PUBLISHED_BASE
    engine_with(monkeypatch, build, {build.OWN_BASE})
    assert build.choose_base() == build.OWN_BASE
    monkeypatch.setenv("BOTTLE_BASE", "my/base")
    assert build.choose_base() == "my/base"


def test_without_a_registry_the_base_is_made(monkeypatch: pytest.MonkeyPatch, build: ModuleType) -> None:
    engine_with(monkeypatch, build, set())
    made: list[str] = []
    monkeypatch.setattr(build, "make_base", lambda: made.append("base"))
    assert build.choose_base() == build.OWN_BASE
    assert made == ["base"]


def test_the_same_content_is_the_same_context(build: ModuleType, tmp_path: Path) -> None:
    """Otherwise nothing would be found in the builder's cache."""
    certificate = tmp_path / "proxy.crt"
    certificate.write_text("-----BEGIN CERTIFICATE-----\n")
    first = build.context(("images/bundle",), [certificate])
    certificate.touch()
    assert build.context(("images/bundle",), [certificate]) == first
    with tarfile.open(fileobj=io.BytesIO(first)) as archive:
        members = {member.name: member for member in archive.getmembers()}
    assert "images/bundle/extra-ca/00-proxy.crt" in members
    assert "images/bundle/Dockerfile" in members
    assert members["images/bundle/bin/bottle-policy"].mode == 0o755
    assert members["images/bundle/bundle.toml"].mode == 0o644
    assert all(member.mtime > 0 for member in members.values()), "some programs take 1970 for no time at all"
    assert not any("__pycache__" in name for name in members)


def test_the_hosts_own_authorities_are_found(
    monkeypatch: pytest.MonkeyPatch, build: ModuleType, tmp_path: Path
) -> None:
    (tmp_path / "below").mkdir()
    for name in ("proxy.crt", "below/other.crt", "readme.txt"):
        (tmp_path / name).touch()
    monkeypatch.setattr(build, "HOST_CAS", tmp_path)
    assert build.extra_cas() == [tmp_path / "below/other.crt", tmp_path / "proxy.crt"]
    monkeypatch.setenv("BOTTLE_EXTRA_CA", "")
    assert build.extra_cas() == []
    monkeypatch.setenv("BOTTLE_EXTRA_CA", str(tmp_path / "missing.crt"))
    with pytest.raises(build.BuildError, match=r"BOTTLE_EXTRA_CA: .*missing\.crt is not a file"):
        build.extra_cas()
