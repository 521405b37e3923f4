"""The internet of a demonstration: a web server over TLS, with a certificate authority of its own.

Runs by itself inside a container of the bundle's image (`python3 demo_origin.py NAME…`), which has `openssl`.
Prints the authority's certificate as PEM, and then serves on 80 and 443. Every answer is JSON: the host, the path and
the digest of the credential that came with the request, so that a reader sees that it came and not what it was.
"""

import hashlib
import json
import ssl
import subprocess
import sys
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
# Nothing of Debian's openssl.cnf, which would make every certificate an authority's.
CONFIG = "[req]\ndistinguished_name = subject\n[subject]\n"


class Origin(BaseHTTPRequestHandler):
    """Answers every GET with 200 and a line of JSON."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Any host and path."""
        credential = self.headers.get("Authorization")
        seen = hashlib.sha256(credential.encode()).hexdigest() if credential else None
        body = json.dumps({"host": self.headers.get("Host"), "path": self.path, "credential": seen}).encode() + b"\n"
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def certify(directory: Path, name: str, subject: str, *options: str) -> None:
    """Write NAME.pem and NAME.key: a certificate, good for a day, and its key. `options` as in openssl-req(1)."""
    config = directory / "req.cnf"
    config.write_text(CONFIG)
    files = ("-keyout", str(directory / f"{name}.key"), "-out", str(directory / f"{name}.pem"))
    command = ("openssl", "req", "-x509", "-config", str(config), "-days", "1", *NEW_KEY, "-subj", f"/CN={subject}")
    subprocess.run((*command, *files, *options), check=True, stdin=subprocess.DEVNULL)


def server_context(names: list[str]) -> tuple[str, ssl.SSLContext]:
    """The certificate of a new authority as PEM, and a TLS context with a certificate of its for these names."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary)
        uses = ("basicConstraints=critical,CA:TRUE,pathlen:0", "keyUsage=critical,keyCertSign,cRLSign")
        certify(directory, "authority", "Internet of the demonstration", *_extensions(*uses))
        issuer = ("-CA", str(directory / "authority.pem"), "-CAkey", str(directory / "authority.key"))
        alternatives = ",".join(f"DNS:{name}" for name in names)
        ends = ("basicConstraints=critical,CA:FALSE", "extendedKeyUsage=serverAuth", f"subjectAltName={alternatives}")
        certify(directory, "server", names[0], *issuer, *_extensions(*ends))
        context.load_cert_chain(directory / "server.pem", directory / "server.key")
        return (directory / "authority.pem").read_text(), context


def _extensions(*extensions: str) -> tuple[str, ...]:
    return tuple(word for extension in extensions for word in ("-addext", extension))


def main(names: list[str]) -> None:
    """Print the authority's certificate once both ports listen, and serve for good."""
    certificate, context = server_context(names)
    plain = ThreadingHTTPServer(("0.0.0.0", 80), Origin)  # noqa: S104 -- the container's own addresses
    secure = ThreadingHTTPServer(("0.0.0.0", 443), Origin)  # noqa: S104 -- as above
    secure.socket = context.wrap_socket(secure.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=plain.serve_forever, daemon=True).start()
    print(certificate, flush=True)
    secure.serve_forever()


if __name__ == "__main__":
    main(sys.argv[1:])
