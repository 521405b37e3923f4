"""The gate: asks from the agent's own network, before the agent starts, whether the walls stand, and prepares what the
agent finds in its place.

It runs by itself inside a short-lived container with the agent's image and network, on the interpreter of /opt/bottle
(`python3 -I -S -c SOURCE JSON`), as root of that container, or in a cluster as an init container under the agent's own
user. Standard input, or the file `published` of the order, is what the bundle publishes: the hash of its CA's subject,
the CA as PEM, and Java's form of it in base64. Whatever the engine promised about its networks: the
agent is started only if, three times running, the bundle answered and nothing that is forbidden did.
"""

from __future__ import annotations

import base64
import json
import os
import select
import socket
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Address = tuple[str, int]
    Order = dict[str, Any]

IMAGE_STORES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/var/lib/ca-certificates/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)
"""Where distributions keep the certificates that they trust, in one file."""
STORE_NAMES = ("ca-certificates.crt", "ca-bundle.crt", "tls-ca-bundle.pem", "cert.pem")
IN_PROGRESS, REFUSED = 115, 111  # EINPROGRESS, ECONNREFUSED


def ask(addresses: list[Address], window_s: float) -> dict[Address, str | int]:
    """What became of a TCP connection to each address within the time: `connected`, the error's number, or nothing."""
    poller = select.poll()
    sockets: dict[int, tuple[socket.socket, Address]] = {}
    answers: dict[Address, str | int] = {}
    for address in addresses:
        tried = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        tried.setblocking(False)
        error = tried.connect_ex(address)
        if error == IN_PROGRESS:
            sockets[tried.fileno()] = (tried, address)
            poller.register(tried, select.POLLOUT)
        else:
            answers[address] = "connected" if error == 0 else error
            tried.close()
    deadline = time.monotonic() + window_s
    while sockets and (left := deadline - time.monotonic()) > 0:
        for descriptor, _ in poller.poll(left * 1000):
            poller.unregister(descriptor)
            tried, address = sockets.pop(descriptor)
            error = tried.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            answers[address] = "connected" if error == 0 else error
            tried.close()
    for tried, _ in sockets.values():
        tried.close()
    return answers


def reached(address: Address, answers: dict[Address, str | int], may_refuse: set[str]) -> bool:
    """Whether something is there: a refusal says so too, but for those who may refuse."""
    answer = answers.get(address)
    return answer == "connected" or (answer == REFUSED and address[0] not in may_refuse)


def watch(order: Order) -> str | None:
    """Ask until three rounds running were good; returns the words of the last bad one where the time is over first."""
    inside: list[Address] = [(order["bundle"], port) for port in order["ports"]]
    outside: list[Address] = [(address, port) for address, port in order["forbidden"]]
    outside += [
        (os.environ[host], int(os.environ[port]))
        for host, port in order.get("forbidden_by_variables", ())
        if host in os.environ and port in os.environ
    ]
    # Where even an address that is no host's is refused, it is the enforcer that refuses, in the place of all hosts. It
    # is asked first: the kernel sends few refusals at once (icmp_ratelimit in icmp(7)).
    nowhere: list[Address] = [(address, port) for address, port in order.get("nowhere", ())]
    may_refuse = set(order["may_refuse"])
    begin, good, words = time.monotonic(), 0, "nothing was asked"
    while time.monotonic() - begin < order["within_s"]:
        answers = ask(nowhere + inside + outside, order["window_s"])
        if any(answers.get(address) == REFUSED for address in nowhere):
            may_refuse.update(address for address, _ in outside)
        silent = [port for address, port in inside if answers.get((address, port)) != "connected"]
        open_ = [address for address in outside if reached(address, answers, may_refuse)]
        good = good + 1 if not silent and not open_ else 0
        if good == order["rounds"]:
            return None
        if open_:
            words = "the agent's network reaches " + ", ".join(f"{address}:{port}" for address, port in open_)
        elif silent:
            words = "the bundle does not answer on port " + ", ".join(map(str, silent))
        if silent and not good:
            time.sleep(0.05)
    return words


def image_store() -> bytes:
    """The certificates that the agent's image trusts by itself, or none."""
    for path in IMAGE_STORES:
        try:
            return read(path)
        except OSError:
            continue
    return b""


def read(path: str) -> bytes:
    """All of a file."""
    with open(path, "rb") as file:
        return file.read()


def write(path: str, content: bytes) -> None:
    """A file that everybody may read, whatever the umask."""
    with open(path, "wb") as file:
        os.fchmod(file.fileno(), 0o644)
        file.write(content)


def make_store(directory: str, published: bytes) -> None:
    """The store of certificates that is mounted over the image's own: the image's, and the bundle's."""
    lines = published.split(b"\n")
    end = lines.index(b"-----END CERTIFICATE-----") + 1
    subject_hash, pem, java = lines[0].decode(), b"\n".join(lines[1:end]) + b"\n", b"".join(lines[end:])
    own = image_store()
    if own and not own.endswith(b"\n"):
        own += b"\n"
    for name in STORE_NAMES:
        write(directory + "/" + name, own + pem)
    write(directory + "/bottle.pem", pem)
    write(directory + "/" + subject_hash + ".0", pem)
    write(directory + "/bottle.p12", base64.b64decode(java))
    os.makedirs(directory + "/java", exist_ok=True)
    os.chmod(directory + "/java", 0o755)  # noqa: S103 -- certificates are for everybody
    write(directory + "/java/cacerts", base64.b64decode(java))


def give(path: str, uid: int, gid: int) -> None:
    """Make a tree the agent's. What is already of this owner is left alone."""
    for directory, names, files in os.walk(path):
        for name in ["."] + files + [name for name in names if os.path.islink(os.path.join(directory, name))]:
            each = os.path.join(directory, name) if name != "." else directory
            status = os.lstat(each)
            if (status.st_uid, status.st_gid) != (uid, gid):
                os.lchown(each, uid, gid)


def strange(mounts: list[tuple[str, int]]) -> str | None:
    """The first mount that is not what the operator's machine has there, or None."""
    for target, number in mounts:
        try:
            if os.stat(target).st_ino == number:
                continue
        except OSError:
            pass
        return target
    return None


def known(uid: int) -> bool:
    """Whether the image's passwd has a line for the user."""
    try:
        with open("/etc/passwd") as file:
            return any(line.split(":")[2:3] == [str(uid)] for line in file)
    except OSError:
        return False


def main() -> None:
    """Exits 0 where the walls stand, and says as JSON what the launcher should know; else 1, with the reason."""
    order = json.loads(sys.argv[1])
    if order["certificates"]:
        published = read(order["published"]) if order.get("published") else sys.stdin.buffer.read()
        if b"-----END CERTIFICATE-----" not in published:
            sys.exit("the bundle has not published its certificate")
        make_store(order["certificates"], published)
    if target := strange(order["same"]):
        sys.exit("the engine is on another machine: what it mounts at " + target + " is not the operator's directory")
    uid, gid = order["owner"]
    for directory in order["give"]:
        give(directory, uid, gid)
    if words := watch(order):
        sys.exit("the walls do not stand: " + words)
    print(json.dumps({"user_known": known(uid)}))


if __name__ == "__main__":
    main()
