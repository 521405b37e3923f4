"""Stands in for a web application: `app.py PORT`."""

from __future__ import annotations

import http.server
import sys


class Application(http.server.BaseHTTPRequestHandler):
    """Answers every path; /health is what the init asks for."""

    def do_GET(self) -> None:
        """Answer with the path."""
        body = f"the application answers {self.path}\n".encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class calls it that
        """Log to stdout, without the health checks."""
        if self.path != "/health":
            print(format % args, flush=True)


http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Application).serve_forever()
