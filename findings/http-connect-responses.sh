#!/bin/sh
# A proxy that answers CONNECT with a 2xx other than 200 has, for most clients, refused; for https-proxy-agent it has answered
# the request inside the tunnel.
#
# Expected: a tunnel. RFC 9110 9.3.6: any 2xx (successful) response means that the proxy has switched to tunnel mode, and 15.2 lets
#   interim responses come before it.
# Seen: 201 and 204 are an error for requests, aiohttp, undici and Go, although the tunnel stands. https-proxy-agent, on which
#   much of npm's code relies, gives its caller the proxy's 204 as the origin's answer: a POST looks done that nobody received.
#   A 103 before the 200 is an error too for requests, undici and Go. httpx alone accepts all of them.
# Versions: requests 2.34.2 (urllib3 2.8.0), httpx 0.28.1, aiohttp 3.14.5, undici 7.30.2, https-proxy-agent 9.1.0 and Go 1.26.8.
# Matters: a proxy must answer CONNECT with exactly 200 and nothing before it. And a client library may hand a proxy's
#   refusal to its caller as the origin's answer: a refusal has to say whose it is.
set -eu
dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
export GOTOOLCHAIN=go1.26.8 GOPATH="$dir/go" GOCACHE="$dir/cache"
python3 -m venv venv
venv/bin/pip install -q requests==2.34.2 urllib3==2.8.0 httpx==0.28.1 aiohttp==3.14.5
npm install --silent --no-fund --no-audit --prefix . undici@7.30.2 https-proxy-agent@9.1.0

cat > stated <<'END'
200 requests 200
200 httpx 200
200 aiohttp 200
200 undici 200
200 https-proxy-agent 200
200 go 200
201 requests failed
201 httpx 200
201 aiohttp failed
201 undici failed
201 https-proxy-agent 201
201 go failed
204 requests failed
204 httpx 200
204 aiohttp failed
204 undici failed
204 https-proxy-agent 204
204 go failed
103+200 requests failed
103+200 httpx 200
103+200 aiohttp 200
103+200 undici failed
103+200 https-proxy-agent 200
103+200 go failed
END

cat > try.mjs <<'END'
import fs from "node:fs";
import https from "node:https";
import { HttpsProxyAgent } from "https-proxy-agent";
import { ProxyAgent, fetch } from "undici";

const [library, proxy, url] = process.argv.slice(2);
const ca = fs.readFileSync("ca.pem");
const failed = () => {
  console.log("failed");
  process.exit();
};
const done = (status) => {
  console.log(status);
  process.exit();
};
if (library === "undici") {
  const dispatcher = new ProxyAgent({ uri: proxy, requestTls: { ca } });
  fetch(url, { dispatcher }).then((answer) => done(answer.status), failed);
} else {
  https.get(url, { agent: new HttpsProxyAgent(proxy), ca }, (answer) => done(answer.statusCode)).on("error", failed);
}
END

cat > try.go <<'END'
package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"net/url"
	"os"
)

func main() {
	authority, _ := os.ReadFile("ca.pem")
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(authority)
	proxy, _ := url.Parse(os.Args[1])
	client := http.Client{Transport: &http.Transport{Proxy: http.ProxyURL(proxy), TLSClientConfig: &tls.Config{RootCAs: roots}}}
	answer, err := client.Get(os.Args[2])
	if err != nil {
		fmt.Println("failed")
		return
	}
	fmt.Println(answer.StatusCode)
}
END
go build -o try-go try.go

cat > try.py <<'END'
import asyncio
import contextlib
import http.server
import socket
import ssl
import subprocess
import threading

import aiohttp
import httpx
import requests

ANSWERS = {
    "200": b"HTTP/1.1 200 OK\r\n\r\n",
    "201": b"HTTP/1.1 201 Created\r\n\r\n",
    "204": b"HTTP/1.1 204 No Content\r\n\r\n",
    "103+200": b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
}
URL = "https://origin.example/"


class Origin(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


def copy(source, sink):
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


def tunnel(client, answer, origin):
    head = b""
    while b"\r\n\r\n" not in head:
        head += client.recv(65536)
    client.sendall(answer)
    upstream = socket.create_connection(origin)
    threading.Thread(target=copy, args=(upstream, client), daemon=True).start()
    copy(client, upstream)


def serve(listener, answer, origin):
    while True:
        client, _ = listener.accept()
        threading.Thread(target=tunnel, args=(client, answer, origin), daemon=True).start()


def python(call):
    try:
        return call()
    except (requests.RequestException, httpx.HTTPError, aiohttp.ClientError):
        return "failed"


async def with_aiohttp(proxy, context):
    async with aiohttp.ClientSession() as session, session.get(URL, proxy=proxy, ssl=context) as answer:
        return answer.status


def other(*argv):
    return subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60).stdout.strip()


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Origin)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("ca.pem", "key.pem")
server.socket = context.wrap_socket(server.socket, server_side=True)
threading.Thread(target=server.serve_forever, daemon=True).start()
trust = ssl.create_default_context(cafile="ca.pem")
for name, answer in ANSWERS.items():
    listener = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=serve, args=(listener, answer, server.server_address), daemon=True).start()
    proxy = f"http://127.0.0.1:{listener.getsockname()[1]}"
    print(name, "requests", python(lambda: requests.get(URL, proxies={"https": proxy}, verify="ca.pem").status_code))
    print(name, "httpx", python(lambda: httpx.get(URL, proxy=proxy, verify=trust).status_code))
    print(name, "aiohttp", python(lambda: asyncio.run(with_aiohttp(proxy, trust))))
    print(name, "undici", other("node", "try.mjs", "undici", proxy, URL))
    print(name, "https-proxy-agent", other("node", "try.mjs", "https-proxy-agent", proxy, URL))
    print(name, "go", other("./try-go", proxy, URL))
END
openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out ca.pem -days 2 -subj /CN=origin.example \
    -addext subjectAltName=DNS:origin.example 2> openssl.log || { cat openssl.log; exit 1; }
env -u NO_PROXY -u no_proxy -u REQUESTS_CA_BUNDLE -u CURL_CA_BUNDLE venv/bin/python try.py > seen
diff -u stated seen && echo "OK: as stated"
