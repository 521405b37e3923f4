"""The integration test. BROKEN=1 makes it fail."""

from __future__ import annotations

import os
import socket
import unittest


class Database(unittest.TestCase):
    """Against the database of the bundle."""

    def test_it_keeps_a_value(self) -> None:
        """What was set is there."""
        expected = "purple" if os.environ.get("BROKEN") else "green"
        address = ("127.0.0.1", int(os.environ["DATABASE_PORT"]))
        with socket.create_connection(address) as connection, connection.makefile("rw") as session:
            session.write("SET colour green\nGET colour\n")
            session.flush()
            assert [session.readline(), session.readline()] == ["ok\n", f"{expected}\n"]
