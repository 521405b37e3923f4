"""Bundle files compiled when an image is built, as .pyc files are.

`bundle.toml` is compiled to `bundle.tomlc` beside it. The text stays the truth: a compiled form is
used only if it was made from this very text and those of the files that it includes, by this version of the init, under
this interpreter, and if nobody but the owner of the text can have written it. Anything else is as if it were not there.

Of a file with variables the compiled form keeps the tables, for the start to replace in. It also has the bundle that
the defaults alone describe, for a start that has no other values.
"""

from __future__ import annotations

import marshal
import posix
from _frozen_importlib_external import MAGIC_NUMBER
from _imp import source_hash

from bottle_init import __version__
from bottle_init.core.spec import Backoff, Budget, Bundle, Check, ExecSettings, Lease, Probe, Ready, Spec
from bottle_init.core.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any, Final

    from bottle_init.bundle.document import Reading
    from bottle_init.bundle.variables import Declared

    File = tuple[str, bytes]

_VALUES: Final[tuple[type[Value], ...]] = (
    *(Bundle, Spec, ExecSettings, Ready, Check, Probe),
    *(Backoff, Budget, Lease),
)
_KEY: Final = int.from_bytes(MAGIC_NUMBER, "little")
_WRITABLE_BY_OTHERS: Final = 0o022
_HASH_BYTES: Final = 8


def path_of(path: str) -> str:
    """Where the compiled form of a bundle file is."""
    return path + "c"


def find(path: str, text: bytes, environ: Mapping[str, str]) -> Bundle | None:
    """The bundle that was compiled from this very text and what it includes, or None. Never raises.

    Its variables have the values of `environ`. Where those make it invalid, that is None, too: the text tells why.
    """
    try:
        return _decode(_read(path), path, text, environ)
    except (OSError, ValueError, TypeError, EOFError, IndexError):
        return None


def write(path: str) -> tuple[str, Reading]:
    """Compile a bundle file; returns the path of the compiled form. Raises BundleInvalid, OSError."""
    from bottle_init.bundle import document
    from bottle_init.bundle.source import BundleInvalid, read_text

    text = read_text(path)
    reading = document.parse(text, path, starts=False)
    if reading.bundle is None:
        raise BundleInvalid(path, reading.faults)
    target = path_of(path)
    draft = f"{target}.{posix.getpid()}"
    fd = posix.open(draft, posix.O_WRONLY | posix.O_CREAT | posix.O_EXCL | posix.O_CLOEXEC, 0o644)
    try:
        with open(fd, "wb") as file:
            file.write(encode(reading, text))
        posix.chmod(draft, 0o644)
        posix.replace(draft, target)
    except OSError:
        posix.unlink(draft)
        raise
    return target, reading


def encode(reading: Reading, text: bytes) -> bytes:
    """The compiled form of what was read from this text in an empty environment."""
    whole = reading.whole
    packed = None if reading.unset else _pack(reading.bundle)
    content = whole.content if reading.declared else None
    included = (whole.patterns, reading.declared, _stamp_of(whole.files))
    body = marshal.dumps((included, content, packed))
    return _stamp(text) + source_hash(_KEY, body) + body


def _decode(data: bytes, path: str, text: bytes, environ: Mapping[str, str]) -> Bundle | None:
    stamp, body = data[: 2 * _HASH_BYTES], data[3 * _HASH_BYTES :]
    if stamp != _stamp(text) or data[2 * _HASH_BYTES : 3 * _HASH_BYTES] != source_hash(_KEY, body):
        return None
    included, content, packed = marshal.loads(body)  # noqa: S302 - The owner of the text wrote it: see `_read`.
    patterns, declared, stamp_of_files = included
    if patterns and stamp_of_files != _stamp_of(_files(path, patterns, declared, environ)):
        return None
    if packed is not None and not any(environ.get(name, default) != default for name, default in declared):
        bundle: Bundle = _unpack(packed)
        return bundle
    from bottle_init.bundle import document
    from bottle_init.bundle.whole import Whole

    return document.build(Whole(content), environ, [], here=False).bundle


def _files(path: str, patterns: tuple[str, ...], declared: Declared, environ: Mapping[str, str]) -> Iterable[File]:
    """The files that the patterns match now, in this environment."""
    from bottle_init.bundle import include, variables

    files, faults, _ = include.read(path, variables.replace_each(patterns, declared, environ))
    if faults:
        raise ValueError
    return files


def _stamp_of(files: Iterable[File]) -> bytes:
    """What a compiled form depends on besides its own text: the files that are included, in their order."""
    return source_hash(_KEY, marshal.dumps([bytes(text) for _, text in files], 2))


def _stamp(text: bytes) -> bytes:
    """What a compiled form belongs to: one version of the init, one layout of its values, one text."""
    layout = f"{__version__} {[(value.__name__, value.__match_args__) for value in _VALUES]}"
    return source_hash(_KEY, layout.encode()) + source_hash(_KEY, text)


def _read(path: str) -> bytes:
    """The bytes of a compiled form that only the owner of the text can have written. Raises OSError."""
    fd = posix.open(path_of(path), posix.O_RDONLY | posix.O_CLOEXEC | posix.O_NONBLOCK)
    try:
        status = posix.fstat(fd)
        if status.st_uid != posix.stat(path).st_uid or status.st_mode & _WRITABLE_BY_OTHERS:
            raise PermissionError
        return posix.read(fd, status.st_size)
    finally:
        posix.close(fd)


def _pack(value: Any) -> Any:
    """Values as lists that begin with their class's place in `_VALUES`; everything else is marshal's own."""
    if isinstance(value, Value):
        return [_VALUES.index(type(value)), *(_pack(field) for _, field in value.fields())]
    return tuple(map(_pack, value)) if type(value) is tuple else value


def _unpack(packed: Any) -> Any:
    if type(packed) is list:
        return _VALUES[packed[0]](*map(_unpack, packed[1:]))
    return tuple(map(_unpack, packed)) if type(packed) is tuple else packed
