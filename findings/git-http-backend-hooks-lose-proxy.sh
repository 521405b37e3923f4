#!/bin/sh
# In a hook that runs under git http-backend, HTTP_PROXY is refused by Go and dropped in silence by Python.
#
# Expected: a pre-receive hook that scans or forwards a push reaches http:// services by the proxy of its environment, under
#   git http-backend as under git-daemon or sshd. githooks(5) lists what a hook inherits, and says nothing of CGI.
# Seen: http-backend is a CGI program, and its REQUEST_METHOD reaches receive-pack and the hook. There, Go's net/http refuses
#   to send anything by http:// while a proxy is set, be it by the lower-case name; requests and httpx (by urllib's getproxies()) forget
#   HTTP_PROXY without a word and go direct. Both mean to guard CGI scripts, where a request's Proxy header becomes HTTP_PROXY.
#   https:// is not touched, as HTTPS_PROXY has no such header.
# Versions: git 2.39.5; Go 1.26.8; requests 2.34.2, httpx 0.28.1 on Python 3.11.
# Matters: a git gate that moves from git:// to smart HTTP finds its scanner or its forwarder broken or, with Python, past the
#   proxy. Remedy: remove REQUEST_METHOD in the hook before anything else runs, as the CGI part is over by then.
set -eu
dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
export GOTOOLCHAIN=go1.26.8 GOPATH="$dir/go" GOCACHE="$dir/cache"
python3 -m venv venv
venv/bin/pip install -q requests==2.34.2 httpx==0.28.1

cat > stated <<'END'
HTTP_PROXY
  go: refusing to use HTTP_PROXY value in CGI environment; see golang.org/s/cgihttpproxy
  requests: direct
  httpx: direct
http_proxy
  go: refusing to use HTTP_PROXY value in CGI environment; see golang.org/s/cgihttpproxy
  requests: http://127.0.0.1:9
  httpx: http://127.0.0.1:9
HTTP_PROXY, and the hook removes REQUEST_METHOD
  go: http://127.0.0.1:9
  requests: http://127.0.0.1:9
  httpx: http://127.0.0.1:9
END

cat > which.go <<'END'
package main

import (
	"fmt"
	"net/http"
)

func main() {
	request, _ := http.NewRequest("GET", "http://origin.example/", nil)
	proxy, err := http.ProxyFromEnvironment(request)
	switch {
	case err != nil:
		fmt.Println("  go:", err)
	case proxy == nil:
		fmt.Println("  go: direct")
	default:
		fmt.Println("  go:", proxy)
	}
}
END
go build -o which-go which.go

cat > which.py <<'END'
import httpx
import requests

client = httpx.Client()
pool = client._transport_for_url(httpx.URL("http://origin.example/"))._pool
url = getattr(pool, "_proxy_url", None)
print("  requests:", requests.utils.get_environ_proxies("http://origin.example/").get("http", "direct"))
print("  httpx:", f"{url.scheme.decode()}://{url.host.decode()}:{url.port}" if url else "direct")
END

cat > backend.py <<'END'
import http.server
import os
import subprocess
import sys

ROOT, LISTENER = os.getcwd(), ("127.0.0.1", 0)
PROXY = ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy")
CLEAN = {name: value for name, value in os.environ.items() if name not in PROXY}


class Gate(http.server.BaseHTTPRequestHandler):
    def answer(self):
        path, _, query = self.path.partition("?")
        cgi = {
            "GIT_PROJECT_ROOT": ROOT,
            "GIT_HTTP_EXPORT_ALL": "1",
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "REQUEST_METHOD": self.command,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            sys.argv[1]: "http://127.0.0.1:9",
        }
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        done = subprocess.run(["git", "http-backend"], input=body, env=CLEAN | cgi, stdout=subprocess.PIPE, check=True)
        head, _, body = done.stdout.partition(b"\r\n\r\n")
        self.send_response(200)
        for line in head.decode().splitlines():
            self.send_header(*line.split(": ", 1))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = answer

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(LISTENER, Gate)
print(server.server_port, flush=True)
server.serve_forever()
END

push() { # VARIABLE LINE-OF-THE-HOOK
    git init -q --bare gate.git
    git -C gate.git config http.receivepack true
    printf '%s\n' '#!/bin/sh' "$2" "'$dir/which-go'" "'$dir/venv/bin/python' '$dir/which.py'" > gate.git/hooks/pre-receive
    chmod +x gate.git/hooks/pre-receive
    mkfifo port
    venv/bin/python backend.py "$1" > port &
    # shellcheck disable=SC2094  # a FIFO: the server writes its port, we read it
    read -r port < port
    env -u HTTP_PROXY -u http_proxy git -C work push "http://127.0.0.1:$port/gate.git" HEAD:refs/heads/main 2>&1 |
        sed -n 's/^remote: \(  .*[^ ]\) *$/\1/p'
    kill $!
    rm -r port gate.git
}

git init -q work
git -C work -c user.name=a -c user.email=a@example.com commit -q --allow-empty -m one
{
    echo HTTP_PROXY
    push HTTP_PROXY :
    echo http_proxy
    push http_proxy :
    echo 'HTTP_PROXY, and the hook removes REQUEST_METHOD'
    push HTTP_PROXY 'unset REQUEST_METHOD'
} > seen
diff -u stated seen && echo "OK: as stated"
