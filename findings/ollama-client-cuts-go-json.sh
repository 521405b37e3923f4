#!/bin/sh
# Clients that read JSON lines by httpx's iter_lines break on U+0085 inside a string; JSON from Go hides it for U+2028.
#
# Expected: newline-delimited JSON is cut at newlines. RFC 8259 lets U+0085, U+2028 and U+2029 stand in a string as they are.
# Seen: httpx cuts at all that str.splitlines() takes for a line's end, these three among them. The official client of Ollama feeds these
#   pieces to json.loads, and an answer whose text holds a U+0085 raises JSONDecodeError in the middle of a stream. Go's
#   encoding/json always escapes U+2028 and U+2029 and never U+0085, so with a server written in Go, as Ollama is, tests with the two
#   well-known ones pass.
# Versions: ollama 0.6.3, httpx 0.28.1 (httpx2 2.16.2 cuts alike), Go 1.26.8.
# Matters: Docker's and Podman's event and log streams, Ollama and many Go services speak JSON lines. With httpx, split iter_bytes() or
#   iter_text() at "\n" yourself. requests' iter_lines() without decode_unicode is right.
set -eu
dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
export GOTOOLCHAIN=go1.26.8 GOPATH="$dir/go" GOCACHE="$dir/cache"
python3 -m venv venv
venv/bin/pip install -q ollama==0.6.3 httpx==0.28.1 requests==2.34.2

cat > stated <<'END'
U+000A: ollama reads 'a\nb', requests 1 line
U+2028: ollama reads 'a\u2028b', requests 1 line
U+2029: ollama reads 'a\u2029b', requests 1 line
U+0085: ollama raises JSONDecodeError, requests 1 line
END

cat > serve.go <<'END'
package main

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"strconv"
)

func main() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	fmt.Println(listener.Addr())
	panic(http.Serve(listener, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var in struct{ Model string }
		_ = json.NewDecoder(r.Body).Decode(&in)
		point, _ := strconv.ParseInt(in.Model, 16, 32)
		w.Header().Set("Content-Type", "application/x-ndjson")
		_ = json.NewEncoder(w).Encode(map[string]any{"model": in.Model, "response": "a" + string(rune(point)) + "b", "done": true})
	})))
}
END
go build -o serve serve.go

cat > try.py <<'END'
import json
import subprocess

import ollama
import requests

with subprocess.Popen(["./serve"], stdout=subprocess.PIPE, text=True) as server:
    url = "http://" + server.stdout.readline().strip()
    client = ollama.Client(url, trust_env=False)
    for point in ("000A", "2028", "2029", "0085"):
        try:
            seen = "reads " + ascii("".join(part.response for part in client.generate(point, "p", stream=True)))
        except json.JSONDecodeError as error:
            seen = f"raises {type(error).__name__}"
        with requests.post(url, json={"model": point}, stream=True, proxies={"http": ""}, timeout=20) as answer:
            lines = list(answer.iter_lines())
        print(f"U+{point}: ollama {seen}, requests {len(lines)} line")
    server.kill()
END
venv/bin/python try.py > seen
diff -u stated seen && echo "OK: as stated"
