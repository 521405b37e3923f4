"""The internet of a demonstration: a web server over TLS, with a certificate authority of its own.

Runs by itself inside a container of the bundle's image (`python3 demo_origin.py NAME…`), which has `cryptography`.
Prints the authority's certificate as PEM, and then serves on 80 and 443. Every answer is JSON: the host, the path and
the digest of the credential that came with the request, so that a reader sees that it came and not what it was.
"""

import hashlib
import json
import ssl
import sys
import tempfile
import threading
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

PEM = serialization.Encoding.PEM


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


def authority() -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    """A new certificate authority, good for a day."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Internet of the demonstration")])
    usage = x509.KeyUsage(
        digital_signature=False, content_commitment=False, key_encipherment=False, data_encipherment=False,
        key_agreement=False, key_cert_sign=True, crl_sign=True, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    certificate = (
        _template(name, name, key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return certificate, key


def server_context(
    names: list[str], issuer: x509.Certificate, issuer_key: ec.EllipticCurvePrivateKey
) -> ssl.SSLContext:
    """A server's TLS context with a certificate for these names."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
    certificate = (
        _template(subject, issuer.subject, key)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
        .sign(issuer_key, hashes.SHA256())
    )
    private = key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.NamedTemporaryFile() as file:
        file.write(private + certificate.public_bytes(PEM))
        file.flush()
        context.load_cert_chain(file.name)
    return context


def _template(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
    )


def main(names: list[str]) -> None:
    """Print the authority's certificate once both ports listen, and serve for good."""
    certificate, key = authority()
    plain = ThreadingHTTPServer(("0.0.0.0", 80), Origin)  # noqa: S104 -- the container's own addresses
    secure = ThreadingHTTPServer(("0.0.0.0", 443), Origin)  # noqa: S104 -- as above
    secure.socket = server_context(names, certificate, key).wrap_socket(
        secure.socket, server_side=True, do_handshake_on_connect=False
    )
    threading.Thread(target=plain.serve_forever, daemon=True).start()
    print(certificate.public_bytes(PEM).decode(), flush=True)
    secure.serve_forever()


if __name__ == "__main__":
    main(sys.argv[1:])
