"""An upstream for git-gate, inside a container of its own: `python3 git_upstream.py SECRET`.

It serves the same repositories by git:// (9418), by https for whoever has the secret (443, HTTP/1.1 alone), and by ssh
for whoever has the key (22, 2222). It writes what clients need to /tmp: cert.pem, host.pub and deploy.
"""

from __future__ import annotations

import http.server
import json
import os
import ssl
import subprocess
import sys
import threading
from pathlib import Path

ROOT = Path("/srv/upstream")
LFS = ROOT / "lfs"
REPOSITORIES = ("plain", "strict", "secure", "talking", "empty", "sum256", "held")
HOOKS = {
    "strict": "echo 'the upstream wants a ticket' >&2; exit 1",
    "talking": "echo 'open a merge request at https://git.test/new' >&2",
    # Until the test lets it go on.
    "held": "touch /tmp/held-arrived; while [ ! -e /tmp/held-go ]; do sleep 0.05; done",
}


def run(*command: str, stdin: bytes = b"") -> str:
    """A command's output; it must succeed."""
    return subprocess.run(command, input=stdin, capture_output=True, check=True).stdout.decode().strip()


def make_repositories() -> None:
    """Each has one commit on `trunk`, but for the empty one."""
    identity = {"NAME": "u", "EMAIL": "u@test", "DATE": "2026-01-01T00:00:00Z"}
    os.environ.update({f"GIT_{who}_{key}": value for who in ("AUTHOR", "COMMITTER") for key, value in identity.items()})
    LFS.mkdir(parents=True)
    for name in REPOSITORIES:
        bare = str(ROOT / f"{name}.git")
        hash_function = "sha256" if name == "sum256" else "sha1"
        run("git", "init", "-q", "--bare", "-b", "trunk", f"--object-format={hash_function}", bare)
        run("git", "-C", bare, "config", "http.receivepack", "true")
        if name != "empty":
            tree = run("git", "-C", bare, "mktree")
            commit = run("git", "-C", bare, "commit-tree", "-m", "from upstream", tree)
            run("git", "-C", bare, "update-ref", "refs/heads/trunk", commit)
        if name in HOOKS:
            hook = ROOT / f"{name}.git/hooks/pre-receive"
            hook.write_text(f"#!/bin/sh\n{HOOKS[name]}\n")
            hook.chmod(0o755)


def serve_git() -> None:
    """git-daemon."""
    command = ["/usr/lib/git-core/git-daemon", "--export-all", "--enable=receive-pack", f"--base-path={ROOT}"]
    subprocess.Popen(command)


def serve_ssh(secret: str) -> None:
    """An sshd that takes one key, for the user git, where there is one in the image."""
    if not Path("/usr/sbin/sshd").exists():
        return
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "/tmp/host")
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "/tmp/deploy")
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "/tmp/other")
    run("chown", "-R", "git", str(ROOT))
    authenticate = Path("/usr/local/bin/git-lfs-authenticate")
    where = {"href": "https://git.test/plain.git/info/lfs", "header": {"Authorization": secret}}
    authenticate.write_text(f"#!/bin/sh\nprintf %s '{json.dumps(where)}'\n")
    authenticate.chmod(0o755)
    Path("/home/git/strict.git").symlink_to(ROOT / "strict.git")
    run("chown", "--no-dereference", "git", "/home/git/strict.git")
    Path("/run/sshd").mkdir(exist_ok=True)
    Path("/tmp/authorized").write_text(Path("/tmp/deploy.pub").read_text())
    Path("/tmp/sshd_config").write_text(
        "Port 22\nPort 2222\nHostKey /tmp/host\nAuthorizedKeysFile /tmp/authorized\nStrictModes no\nUsePAM no\n"
        "PasswordAuthentication no\n"
    )
    subprocess.Popen(["/usr/sbin/sshd", "-D", "-e", "-f", "/tmp/sshd_config"])


def lfs_object(wanted: dict[str, str], operation: str, place: str) -> dict[str, object]:
    """One answer of the batch API."""
    there = (LFS / wanted["oid"]).exists()
    header = {"Authorization": Backend.secret}
    actions: dict[str, object] = {
        "upload": {"href": f"{place}/{wanted['oid']}", "header": header},
        "verify": {"href": f"{place}/verify", "header": header},
    }
    if operation == "download" and not there:
        return {**wanted, "error": {"code": 404, "message": "the upstream has no such object"}}
    if operation == "download":
        actions = {"download": actions["upload"]}
    return {**wanted, "actions": actions} if operation == "download" or not there else {**wanted}


class Backend(http.server.BaseHTTPRequestHandler):
    """git's own CGI program (git-http-backend(1)). What is below /moved/ has moved to /secure/."""

    protocol_version = "HTTP/1.1"
    secret = ""

    def body(self) -> bytes:
        """What came with the request, however it was framed."""
        if "chunked" not in self.headers.get("transfer-encoding", ""):
            return self.rfile.read(int(self.headers.get("content-length", "0")))
        pieces = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            pieces.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(pieces)

    def answer(self, status: int, fields: dict[str, str], content: bytes) -> None:
        """One answer."""
        self.send_response(status)
        for name, value in fields.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def do_GET(self) -> None:
        """GET and POST."""
        body = self.body()
        path, _, query = self.path.partition("?")
        print("REQUEST", self.command, path, self.request_version, len(body), flush=True)
        if path.startswith("/moved/"):
            self.answer(302, {"location": f"https://git.test{self.path.replace('/moved/', '/secure/')}"}, b"")
            return
        if self.headers["authorization"] != self.secret:
            self.answer(401, {"www-authenticate": 'Basic realm="upstream"'}, b"")
            return
        name, _, rest = path.removeprefix("/").partition("/")
        if rest.startswith("info/lfs/objects/") and name != "empty.git":
            self.lfs(f"https://git.test/{name}/info/lfs/objects", rest.rpartition("/")[2], body)
            return
        environment = {
            **os.environ,
            "GIT_PROJECT_ROOT": str(ROOT),
            "GIT_HTTP_EXPORT_ALL": "1",
            "REQUEST_METHOD": self.command,
            "PATH_INFO": f"/{name.removesuffix('.git')}.git/{rest}",
            "QUERY_STRING": query,
            "CONTENT_TYPE": self.headers.get("content-type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": self.headers.get("content-encoding", ""),
            "GIT_PROTOCOL": self.headers.get("git-protocol", ""),
            "REMOTE_USER": "gate",
        }
        done = subprocess.run(["git", "http-backend"], input=body, capture_output=True, env=environment, check=False)
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
        status = int(fields.pop("Status", "200").split()[0])
        self.answer(status, fields, content)

    do_POST = do_PUT = do_GET  # noqa: N815

    def lfs(self, place: str, asked: str, body: bytes) -> None:
        """A Git LFS server: its batch API and the objects themselves, which an upload has to have verified."""
        if self.command == "PUT":
            (LFS / asked).write_bytes(body)
            self.answer(200, {}, b"")
        elif self.command == "GET":
            self.answer(200, {}, (LFS / asked).read_bytes())
        elif asked == "verify":
            wanted = json.loads(body)
            size = (LFS / wanted["oid"]).stat().st_size
            self.answer(200 if size == wanted["size"] else 409, {}, b"")
        else:
            batch = json.loads(body)
            objects = [lfs_object(each, batch["operation"], place) for each in batch["objects"]]
            content = json.dumps({"transfer": "basic", "objects": objects}).encode()
            self.answer(200, {"content-type": "application/vnd.git-lfs+json"}, content)


def serve_https(secret: str) -> None:
    """Until the container ends."""
    run(
        *(
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-keyout",
            "/tmp/key.pem",
            "-out",
            "/tmp/new.pem",
        ),
        *("-days", "2", "-subj", "/CN=git.test", "-addext", "subjectAltName=DNS:git.test"),
    )
    Backend.secret = secret
    server = http.server.ThreadingHTTPServer(("", 443), Backend)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain("/tmp/new.pem", "/tmp/key.pem")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever).start()
    Path("/tmp/new.pem").rename("/tmp/cert.pem")


if __name__ == "__main__":
    make_repositories()
    serve_git()
    serve_ssh(sys.argv[1])
    serve_https(sys.argv[1])
