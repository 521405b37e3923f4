#!/bin/sh
# A push that does not fit http.postBuffer is two POSTs to git-receive-pack: the first one carries nothing but "0000".
#
# Expected: a push over smart HTTP is one GET of info/refs and one POST to git-receive-pack, whatever its size; gitprotocol-http(5)
#   describes these two, and git-config(1) says of http.postBuffer only that larger bodies are sent chunked.
# Seen: above http.postBuffer (1 MiB), git first POSTs a lone flush packet, four bytes long, to learn whether it must
#   authenticate before it sends a body that it can't repeat. receive-pack takes it for a push of no commands and answers 200; no hook
#   runs. Then the same URL gets the pack, chunked and without a length.
# Versions: git 2.39.5.
# Matters: a gate that counts pushes, meters them, asks a person, or demands commands in the body of such a POST meets an empty
#   push before each large one, and must let it through. A gate's tests with small repositories never see it.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"

cat > stated <<'END'
small push
GET /gate.git/info/refs?service=git-receive-pack
POST /gate.git/git-receive-pack with a length: commands and a pack
the hook ran
large push
GET /gate.git/info/refs?service=git-receive-pack
POST /gate.git/git-receive-pack with a length: 0000
POST /gate.git/git-receive-pack chunked: commands and a pack
the hook ran
END

cat > backend.py <<'END'
import http.server
import os
import subprocess


class Gate(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def body(self):
        if "Content-Length" in self.headers:
            return self.rfile.read(int(self.headers["Content-Length"])), "with a length:"
        data = b""
        while size := int(self.rfile.readline(), 16):
            data += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return data, "chunked:"

    def answer(self):
        data = b""
        if self.command == "POST":
            data, framing = self.body()
            what = "0000" if data == b"0000" else "commands and a pack"
            print("POST", self.path, framing, what, file=seen, flush=True)
        else:
            print("GET", self.path, file=seen, flush=True)
        path, _, query = self.path.partition("?")
        cgi = {
            "GIT_PROJECT_ROOT": os.getcwd(),
            "GIT_HTTP_EXPORT_ALL": "1",
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "REQUEST_METHOD": self.command,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
        }
        done = subprocess.run(["git", "http-backend"], input=data, env=os.environ | cgi, stdout=subprocess.PIPE, check=True)
        head, _, body = done.stdout.partition(b"\r\n\r\n")
        self.send_response(200)
        for line in head.decode().splitlines():
            self.send_header(*line.split(": ", 1))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = answer

    def log_message(self, *_):
        pass


seen = open("seen", "a")
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Gate)
print(server.server_port, flush=True)
server.serve_forever()
END

push() { # SIZE OF THE PUSHED FILE
    head -c "$1" /dev/urandom > work/file
    git -C work add file
    git -C work -c user.name=a -c user.email=a@example.com commit -q -m "$1"
    env -u HTTP_PROXY -u http_proxy git -C work -c protocol.version=2 push -q "http://127.0.0.1:$port/gate.git" HEAD:refs/heads/main
}

git init -q work
git init -q --bare gate.git
git -C gate.git config http.receivepack true
printf '#!/bin/sh\necho the hook ran >> "%s/seen"\n' "$dir" > gate.git/hooks/pre-receive
chmod +x gate.git/hooks/pre-receive
mkfifo announced
python3 backend.py > announced &
trap 'kill $!; rm -rf "$dir"' EXIT
read -r port < announced
echo small push >> seen
push 1000
echo large push >> seen
push 2000000
diff -u stated seen && echo "OK: as stated"
