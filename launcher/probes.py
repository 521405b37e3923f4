"""Harmless attempts to get past the walls, for `bottle doctor` and for the tests of every backend.

It runs by itself: in an agent's container on the interpreter of /opt/bottle, and in a container with the network of the
engine's host on the bundle's own (`python3 -I -c SOURCE WORD ARGUMENTS…`). Each attempt prints one line of JSON.
"""

from __future__ import annotations

import errno
import json
import os
import select
import socket
import struct
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

GROUP = "239.255.77.77"
"""A group of the organization-local scope (RFC 2365), which a listener joins."""
MARK = b"bottle-probe "


def said(value: object) -> None:
    """One answer."""
    print(json.dumps(value), flush=True)


def name_of(error: OSError) -> str:
    """The name of an OSError's number."""
    return errno.errorcode.get(error.errno or 0, type(error).__name__)


def connect(address: str, port: str, timeout_s: str = "2") -> None:
    """A TCP connection: `connected`, or the error's name."""
    try:
        socket.create_connection((address, int(port)), timeout=float(timeout_s)).close()
        said("connected")
    except OSError as error:
        said(name_of(error))


def send(address: str, port: str, text: str) -> None:
    """Datagrams that ask for nothing: plain, broadcast and multicast. Whether they arrive, the listener knows."""
    content = MARK + text.encode()
    results = {}
    for word, target in (
        ("unicast", address),
        ("broadcast", "255.255.255.255"),
        ("multicast", GROUP),
        ("directed", _directed()),
    ):
        try:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                sender.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
                for _ in range(3):
                    sender.sendto(content + b" " + word.encode(), (target, int(port)))
            results[word] = "sent"
        except OSError as error:
            results[word] = name_of(error)
    said(results)


def _directed() -> str:
    """The broadcast address of the first interface that is not the loopback (RFC 1812, 5.3.5.2)."""
    with open("/proc/net/route") as file:
        for line in file.readlines()[1:]:
            interface, destination, gateway, _, _, _, _, mask, *_ = line.split()
            if interface != "lo" and gateway == "00000000" and mask != "00000000":
                base, bits = int(destination, 16), int(mask, 16)
                return socket.inet_ntoa(struct.pack("<L", base | (~bits & 0xFFFFFFFF)))
    return "255.255.255.255"


def sockets() -> None:
    """Which kinds of sockets can be made at all."""
    kinds = {
        "packet": (17, socket.SOCK_RAW, 0),
        "raw": (socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP),
        "ping": (socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP),
        "vsock": (40, socket.SOCK_STREAM, 0),
        "alg": (38, socket.SOCK_SEQPACKET, 0),
        "bluetooth": (31, socket.SOCK_RAW, 0),
        "stream": (socket.AF_INET, socket.SOCK_STREAM, 0),
    }
    results = {}
    for word, (family, kind, protocol) in kinds.items():
        try:
            socket.socket(family, kind, protocol).close()
            results[word] = "made"
        except OSError as error:
            results[word] = name_of(error)
    said(results)


def bind(port: str, kind: str = "udp") -> None:
    """A port of the loopback."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM if kind == "udp" else socket.SOCK_STREAM) as server:
            server.bind(("127.0.0.1", int(port)))
        said("bound")
    except OSError as error:
        said(name_of(error))


def resolve(name: str) -> None:
    """What a name leads to by the container's own resolver, and how long that takes in seconds."""
    begin = time.monotonic()
    try:
        found = sorted({str(info[4][0]) for info in socket.getaddrinfo(name, None)})
    except OSError as error:
        found = [type(error).__name__]
    said({"addresses": found, "after_s": round(time.monotonic() - begin, 3)})


def ipv6() -> None:
    """The IPv6 addresses that are not the loopback's."""
    try:
        with open("/proc/net/if_inet6") as file:
            said([line.split()[-1] for line in file if line.split()[-1] != "lo"])
    except OSError:
        said([])


def status() -> None:
    """What the kernel says of PID 1: ids, capabilities, no-new-privileges, seccomp."""
    with open("/proc/1/status") as file:
        lines = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
    said({key: lines.get(key, "") for key in ("Name", "Uid", "CapEff", "CapPrm", "CapBnd", "NoNewPrivs", "Seccomp")})


def write(*paths: str) -> None:
    """Which of these places can be written to."""
    results = {}
    for path in paths:
        try:
            with open(path, "x"):
                pass
            os.unlink(path)
            results[path] = "written"
        except OSError as error:
            results[path] = name_of(error)
    said(results)


def listen(seconds: str, text: str) -> None:
    """On every address: a TCP port and a UDP port of the same number, for so long. Says the number, and then whatever
    arrives with the text, or by TCP at all.
    """
    with (
        socket.socket(socket.AF_INET, socket.SOCK_STREAM) as stream,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams,
    ):
        stream.bind(("0.0.0.0", 0))
        port = stream.getsockname()[1]
        datagrams.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        datagrams.bind(("0.0.0.0", port))
        for address in _own_addresses():
            try:
                member = socket.inet_aton(GROUP) + socket.inet_aton(address)
                datagrams.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, member)
            except OSError:
                continue
        stream.listen()
        said({"port": port})
        deadline = time.monotonic() + float(seconds)
        while (left := deadline - time.monotonic()) > 0:
            ready, _, _ = select.select([stream, datagrams], [], [], left)
            if stream in ready:
                connection, peer = stream.accept()
                connection.close()
                said({"tcp": peer[0]})
            if datagrams in ready:
                content, peer = datagrams.recvfrom(2048)
                if content.startswith(MARK + text.encode()):
                    said({"udp": peer[0], "as": content.decode(errors="replace").rpartition(" ")[2]})


def _own_addresses() -> set[str]:
    """The host's IPv4 addresses, from the kernel's routing table of its own."""
    found, last = {"0.0.0.0"}, ""
    with open("/proc/net/fib_trie") as file:
        for line in file:
            if "--" in line:
                last = line.split()[-1]
            elif "host LOCAL" in line:
                found.add(last)
    return found


WORDS: dict[str, Callable[..., Any]] = {
    each.__name__: each for each in (connect, send, sockets, bind, resolve, ipv6, status, write, listen)
}


if __name__ == "__main__":
    WORDS[sys.argv[1]](*sys.argv[2:])
