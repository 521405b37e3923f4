#!/bin/sh
# Content-Encoding: gzip, gzip and two lines of Content-Encoding: gzip are one and the same, but not to Go and aiohttp.
#
# Expected: one result for both spellings. RFC 9110 5.3 lets any recipient, so any proxy too, join the lines of a list-valued field
#   into one with commas, and 8.4 makes Content-Encoding such a list. So either both are decoded or both are left alone.
# Seen: written as one line, Go and aiohttp leave the body alone. Written as two lines, both undo the first coding only: the
#   caller gets something that is still gzip. Go in addition deletes the whole field, both lines, and sets Uncompressed, so that
#   its caller can't learn that another coding is left. httpx and requests decode both spellings to the end.
# Versions: Go 1.26.8, aiohttp 3.14.5; httpx 0.28.1, requests 2.34.2 with urllib3 2.8.0.
# Matters: a proxy that joins field lines (or splits them, as HTTP/2 stacks may) changes what its clients receive; and one that
#   is built on Go's transport sends a body on that its headers no longer describe, unless it sets DisableCompression.
set -eu
dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
export GOTOOLCHAIN=go1.26.8 GOPATH="$dir/go" GOCACHE="$dir/cache"
python3 -m venv venv
venv/bin/pip install -q requests==2.34.2 urllib3==2.8.0 httpx==0.28.1 aiohttp==3.14.5

cat > stated <<'END'
one line, requests: plain text
one line, httpx: plain text
one line, aiohttp: twice gzip
one line, go: twice gzip; left of the field: ["gzip, gzip"]; Uncompressed: false
two lines, requests: plain text
two lines, httpx: plain text
two lines, aiohttp: once gzip
two lines, go: once gzip; left of the field: []; Uncompressed: true
END

cat > try.go <<'END'
package main

import (
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"os"
)

func main() {
	client := http.Client{Transport: &http.Transport{}}
	answer, err := client.Get(os.Args[1])
	if err != nil {
		panic(err)
	}
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		panic(err)
	}
	fmt.Printf("%s %q %v\n", hex.EncodeToString(body), answer.Header["Content-Encoding"], answer.Uncompressed)
}
END
go build -o try-go try.go

cat > try.py <<'END'
import asyncio
import gzip
import http.server
import subprocess
import threading

import aiohttp
import httpx
import requests

ONCE = gzip.compress(b"text", mtime=0)
TWICE = gzip.compress(ONCE, mtime=0)
NAMES = {b"text": "plain text", ONCE: "once gzip", TWICE: "twice gzip"}


class Origin(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        for value in {"/one": ["gzip, gzip"], "/two": ["gzip", "gzip"]}[self.path]:
            self.send_header("Content-Encoding", value)
        self.send_header("Content-Length", str(len(TWICE)))
        self.end_headers()
        self.wfile.write(TWICE)

    def log_message(self, *_):
        pass


async def with_aiohttp(url):
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        return await answer.read()


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Origin)
threading.Thread(target=server.serve_forever, daemon=True).start()
for path, name in {"/one": "one line", "/two": "two lines"}.items():
    url = f"http://127.0.0.1:{server.server_port}{path}"
    print(f"{name}, requests:", NAMES[requests.get(url, proxies={"http": ""}, timeout=20).content])
    print(f"{name}, httpx:", NAMES[httpx.get(url, trust_env=False).content])
    print(f"{name}, aiohttp:", NAMES[asyncio.run(with_aiohttp(url))])
    argv = ["./try-go", url]
    body, rest = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip().split(" ", 1)
    field, uncompressed = rest.rsplit(" ", 1)
    print(f"{name}, go: {NAMES[bytes.fromhex(body)]}; left of the field: {field}; Uncompressed: {uncompressed}")
END
venv/bin/python try.py > seen
diff -u stated seen && echo "OK: as stated"
