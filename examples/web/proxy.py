"""Stands in for a reverse proxy such as nginx: `proxy.py PORT APPLICATION_PORT`."""

from __future__ import annotations

import http.server
import sys
import urllib.error
import urllib.request

PORT, APPLICATION_PORT = map(int, sys.argv[1:])


class Proxy(http.server.BaseHTTPRequestHandler):
    """Passes each GET on to the application."""

    def do_GET(self) -> None:
        """Answer what the application answers, or 502 while it restarts."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{APPLICATION_PORT}{self.path}", timeout=10) as answer:
                status, body = answer.status, answer.read()
        except urllib.error.URLError as problem:
            status, body = 502, f"{problem.reason}\n".encode()
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


http.server.ThreadingHTTPServer(("127.0.0.1", PORT), Proxy).serve_forever()
