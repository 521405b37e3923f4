"""Stands in for a database: `database.py PORT`. It keeps `SET key value`, and answers `GET key`."""

from __future__ import annotations

import socketserver
import sys

VALUES: dict[str, str] = {}


class Session(socketserver.StreamRequestHandler):
    """One client."""

    def handle(self) -> None:
        """Answer line by line."""
        for line in self.rfile:
            match line.decode().split():
                case ["SET", key, value]:
                    VALUES[key] = value
                    self.wfile.write(b"ok\n")
                case ["GET", key]:
                    self.wfile.write(VALUES.get(key, "").encode() + b"\n")
                case _:
                    self.wfile.write(b"error\n")


socketserver.ThreadingTCPServer(("127.0.0.1", int(sys.argv[1])), Session).serve_forever()
