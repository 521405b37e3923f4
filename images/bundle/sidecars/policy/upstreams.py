"""A repository's upstream: the forms that git-gate can reach, told apart before git ever sees them.

git reads `ext::COMMAND`, options and `HOST:PATH` out of what looks like a URL (git-clone(1), gitremote-helpers(7)).
What is taken here is an https, http, git, ssh or file URL, an absolute path, or ssh's short form.
"""

from __future__ import annotations

import re

from bottle_init.bundle.readers import text
from bottle_init.bundle.source import Wrong
from bottle_init.bundle.table import quoted
from sidecars.hosts import normalize
from sidecars.policy.model import Upstream

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

PORTS: Final = {"https": 443, "http": 80, "git": 9418, "ssh": 22}
_URL: Final = re.compile(r"([a-z]+)://([^/?#]*)(/[^?#]*)?", re.ASCII)
_SHORT: Final = re.compile(r"([A-Za-z0-9_][A-Za-z0-9._-]*@[A-Za-z0-9.-]+):([^:/][^:]*)", re.ASCII)
_AUTHORITY: Final = re.compile(r"(?:([^@]*)@)?(\[[0-9A-Fa-f:.]+\]|[^:@\[\]]+)(?::([0-9]{1,5}))?", re.ASCII)
_USER: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
_FORMS: Final = "an upstream is an https, http, git, ssh or file URL, or an absolute path"


def upstream(value: object) -> Upstream:
    """A repository's upstream. Raises `Wrong` in words for the operator."""
    url = text(value)
    if url.startswith("/") and url.isprintable():
        return Upstream(url, "file", path=url)
    if short := _SHORT.fullmatch(url):
        found = _remote(f"ssh://{short[1]}/{short[2]}", "ssh", short[1], f"/{short[2]}")
        # As it was written: its path is relative to the user's home directory, unlike a URL's (git-clone(1)).
        return Upstream(url, "ssh", found.host, found.port, found.path)
    match = _URL.fullmatch(url)
    if match is None:
        raise Wrong(f"{quoted(url)}: {_FORMS}")
    if not url.isprintable() or " " in url:
        raise Wrong(f"{quoted(url)}: a URL has neither blanks nor control characters in it")
    scheme, authority, path = match.groups()
    if scheme == "file":
        if authority or not path:
            raise Wrong(f"{quoted(url)}: a file URL has the form file:///PATH")
        return Upstream(url, "file", path=path)
    if scheme not in PORTS:
        raise Wrong(f"{quoted(url)}: {_FORMS}")
    return _remote(url, scheme, authority, path or "")


def _remote(url: str, scheme: str, authority: str, path: str) -> Upstream:
    match = _AUTHORITY.fullmatch(authority)
    if match is None:
        raise Wrong(f"{quoted(url)} names no host")
    user, host, port = match.groups()
    if user is not None and scheme != "ssh":
        raise Wrong("is a URL with credentials in it; let egress inject them: egress.credentials")
    if user is not None and not _USER.fullmatch(user):
        raise Wrong(f"{quoted(url)}: an ssh URL may name a user, and nothing else, before the @")
    try:
        host = normalize(host)
    except ValueError:
        raise Wrong(f"{quoted(url)} names no host") from None
    number = int(port) if port else PORTS[scheme]
    if not 0 < number < 65_536:
        raise Wrong(f"{quoted(url)}: the port must be from 1 to 65535")
    if len(path) < 2 or re.search(r"//|/\.{1,2}(?:/|$)|%2[ef]|%5c|\\", path, re.IGNORECASE):
        raise Wrong(f"{quoted(url)}: the path must name a repository, without empty or dot segments")
    return Upstream(url, scheme, host, number, path.rstrip("/"))
