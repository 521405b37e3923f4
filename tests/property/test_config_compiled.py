"""A compiled bundle file is the text, only faster; or it is as if it were not there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bottle_init.bundle import compiled, document, load
from bottle_init.bundle.source import BundleInvalid, Fault
from bottle_init.core.policies import POLICIES
from tests.property.bundle_documents import bundles, text_of

if TYPE_CHECKING:
    from bottle_init.core.spec import Bundle

TEXT = b"""
[bundle]
policy = "restart"
[daemons.web]
command = ["web"]
ready = { http = "http://localhost/", timeout = "9s" }
rlimits = { nofile = [1, "unlimited"] }
[daemons.db]
command = ["db"]
policy = "wait-for-all"
"""

# What an interpreter has loaded by itself differs; these are what a start must never add.
EXPENSIVE = (
    *("argparse", "asyncio", "collections", "contextlib", "dataclasses", "enum", "functools", "json", "logging"),
    *("re", "selectors", "signal", "socket", "subprocess", "threading", "tomllib", "typing"),
    "bottle_init.bundle.document",
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A bundle file that has been compiled."""
    path = tmp_path / "bundle.toml"
    path.write_bytes(TEXT)
    assert compiled.write(str(path))[0] == f"{path}c"
    return path


def is_used(path: Path) -> bool:
    """Whether a start would take the compiled form; the bundle is the text's in any case."""
    text = path.read_bytes()
    assert load.from_file(str(path)) == load.from_text(text, str(path))
    return compiled.find(str(path), text, {}) is not None


def compiled_bytes(text: bytes) -> bytes:
    return compiled.encode(document.parse(text), text)


@given(bundles(), st.sampled_from([None, *POLICIES]))
def test_compiled_is_the_same_as_loaded(
    tmp_path_factory: pytest.TempPathFactory, case: tuple[Bundle, dict[str, Any]], policy: str | None
) -> None:
    text = text_of(case[1]).encode()
    path = tmp_path_factory.getbasetemp() / "bundle.toml"
    path.write_bytes(text)
    compiled.write(str(path))
    assert compiled.find(str(path), text, {}) is not None
    assert load.from_file(str(path), policy) == load.from_text(text, str(path), policy)


def test_what_was_compiled_is_used(file: Path) -> None:
    assert is_used(file)


@given(st.integers(0, len(TEXT) - 1), st.integers(1, 255))
def test_one_changed_byte_of_the_text_is_enough(tmp_path_factory: pytest.TempPathFactory, at: int, by: int) -> None:
    path = tmp_path_factory.getbasetemp() / "changed.toml"
    path.write_bytes(TEXT)
    compiled.write(str(path))
    changed = bytearray(TEXT)
    changed[at] ^= by
    assert compiled.find(str(path), bytes(changed), {}) is None


def test_a_damaged_compilation_is_not_used(file: Path) -> None:
    whole = compiled_bytes(TEXT)
    place = Path(compiled.path_of(str(file)))
    for at in range(len(whole)):
        place.write_bytes(whole[:at])
        assert compiled.find(str(file), TEXT, {}) is None
        place.write_bytes(whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :])
        assert compiled.find(str(file), TEXT, {}) is None
    place.write_bytes(whole)
    assert is_used(file)


@given(st.binary())
def test_anything_at_all_may_be_in_its_place(tmp_path_factory: pytest.TempPathFactory, junk: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "junk.toml"
    path.write_bytes(TEXT)
    Path(compiled.path_of(str(path))).write_bytes(junk)
    assert not is_used(path)


def test_another_version_compiles_for_itself(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "__version__", "0.0.0")
    assert not is_used(file)


def test_another_interpreter_compiles_for_itself(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "_KEY", 1)
    assert not is_used(file)


def test_another_layout_compiles_for_itself(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another layout of the values compiles for itself."""
    monkeypatch.setattr(compiled, "_VALUES", (*compiled._VALUES, Fault))
    assert not is_used(file)


def test_what_others_could_have_written_is_not_used(file: Path) -> None:
    place = Path(compiled.path_of(str(file)))
    for mode in (0o664, 0o646, 0o666):
        place.chmod(mode)
        assert not is_used(file)
    place.chmod(0o444)
    assert is_used(file)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file away")
def test_what_another_user_owns_is_not_used(file: Path) -> None:
    os.chown(compiled.path_of(str(file)), 12_345, -1)
    assert not is_used(file)


def test_a_directory_or_a_pipe_is_not_used(file: Path) -> None:
    """A directory or a pipe in the place of the compiled file is not used."""
    place = Path(compiled.path_of(str(file)))
    place.unlink()
    place.mkdir()
    assert not is_used(file)
    place.rmdir()
    os.mkfifo(place)
    assert not is_used(file)


def test_users_are_looked_for_at_every_start(tmp_path: Path) -> None:
    path = tmp_path / "bundle.toml"
    text = b'[daemons.web]\ncommand = ["web"]\nuser = "no-such-user"\ngroups = ["no-such-group"]\n'
    path.write_bytes(text)
    known = text.replace(b"no-such-user", b"root").replace(b"no-such-group", b"root")
    reading = document.parse(known)
    assert reading.bundle is not None
    spec = reading.bundle.children[0]
    stranger = spec.replace(settings=spec.settings.replace(user="no-such-user", groups=("no-such-group",)))
    reading.bundle = reading.bundle.replace(children=(stranger,))
    Path(compiled.path_of(str(path))).write_bytes(compiled.encode(reading, text))
    assert compiled.find(str(path), text, {}) is not None
    with pytest.raises(BundleInvalid) as caught:
        load.from_file(str(path))
    assert [fault.path for fault in caught.value.faults] == ["daemons.web.user", "daemons.web.groups[0]"]


def test_an_invalid_file_is_not_compiled(file: Path) -> None:
    """An invalid file is not compiled, and an old compilation stays stale."""
    file.write_bytes(b"[daemons.web]\n")
    with pytest.raises(BundleInvalid):
        compiled.write(str(file))
    with pytest.raises(BundleInvalid):
        load.from_file(str(file))
    assert sorted(os.listdir(file.parent)) == ["bundle.toml", "bundle.tomlc"]


def test_a_compiled_start_imports_nothing_expensive(file: Path) -> None:
    """A start from a compiled file imports nothing expensive."""
    code = (
        "import sys; before = set(sys.modules); sys.path.insert(0, sys.argv[1])\n"
        "from bottle_init.cli import chosen, options\n"
        "words = ['--config', sys.argv[2], '--policy=restart', '--control=@x', '--only=db,web']\n"
        "bundle = chosen.find_bundle(options.parse(words, {}))\n"
        "assert [spec.name for spec in bundle.children] == ['web', 'db'], bundle\n"
        "print(*sorted(set(sys.modules) - before))"
    )
    root = Path(load.__file__).parents[2]
    command = [sys.executable, "-I", "-S", "-c", code, str(root), str(file)]
    loaded = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    assert "bottle_init.bundle.compiled" in loaded
    assert not set(EXPENSIVE) & set(loaded)


# What a start with variables imports.

WITH_VARIABLES = """
[variables]
TOKEN = { required = true }
PORT = "80"
[daemons.web]
command = ["web", "--token-of=${TOKEN}"]
env = { TOKEN = "${TOKEN}" }
umask = "0027"
ready = { http = "http://127.0.0.1:${PORT}/x", headers = { Host = "a" } }
health = { tcp = "[::1]:${PORT}" }
"""


def test_variables_import_nothing_expensive(tmp_path: Path) -> None:
    """A start replaces them in the tables that were kept, and so loads the readers; `re` would cost more than those."""
    path = tmp_path / "bundle.toml"
    path.write_text(WITH_VARIABLES)
    compiled.write(str(path))
    root = str(Path(__file__).parents[2])
    code = (
        f"import sys; sys.path.insert(0, {root!r}); from bottle_init.bundle import load; load.from_file({str(path)!r})"
    )
    command = [sys.executable, "-I", "-S", "-c", f"{code}; print(*sys.modules)"]
    environ = {**os.environ, "TOKEN": "secret", "PORT": "81"}
    loaded = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60, env=environ).stdout.split()
    assert "bottle_init.bundle.document" in loaded
    assert [name for name in EXPENSIVE if name in loaded and name != "bottle_init.bundle.document"] == []
