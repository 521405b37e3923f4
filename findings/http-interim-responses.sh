#!/bin/sh
# requests and urllib3 return an interim response as the final one; undici fails on a 100 it did not ask for.
#
# Expected: status 200 and the body, from every client. RFC 9110 15.2: a client must be able to parse any number of 1xx
#   responses before the final one, expected or not, and may ignore those it did not expect.
# Seen: after 103 (Early Hints) or 102, requests and urllib3 stop: status 103, empty body, no exception (http.client, beneath
#   them, skips 100 alone). undici, and with it Node's own fetch, skips 102 and 103, and takes an unsolicited 100 for a broken
#   connection. httpx and aiohttp are right in each case.
# Versions: requests 2.34.2 with urllib3 2.8.0 on Python 3.11, 3.12 and 3.13; undici 7.30.2; httpx 0.28.1; aiohttp 3.14.5.
# Matters: a proxy that passes interim responses on, as RFC 9110 15.2 demands, breaks correct exchanges of these clients: those of
#   the first kind if it passes on 103, those of the second if it passes on 100. To HTTP/1.1 clients that sent no Expect,
#   dropping them is the only choice that none of these clients minds.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
python3 -m venv venv
venv/bin/pip install -q requests==2.34.2 urllib3==2.8.0 httpx==0.28.1 aiohttp==3.14.5
npm install --silent --no-fund --no-audit --prefix . undici@7.30.2

cat > stated <<'END'
100 requests 200 final
100 urllib3 200 final
100 httpx 200 final
100 aiohttp 200 final
100 undici failed: bad response
102 requests 102 (no body)
102 urllib3 102 (no body)
102 httpx 200 final
102 aiohttp 200 final
102 undici 200 final
103 requests 103 (no body)
103 urllib3 103 (no body)
103 httpx 200 final
103 aiohttp 200 final
103 undici 200 final
END

cat > try.mjs <<'END'
import { fetch } from "undici";
try {
  const answer = await fetch(process.argv[2]);
  console.log(answer.status, await answer.text());
} catch (error) {
  console.log("failed:", error.cause?.message ?? error.message);
}
END

cat > try.py <<'END'
import asyncio
import socket
import subprocess
import threading

import aiohttp
import httpx
import requests
import urllib3

REASONS = {"100": "Continue", "102": "Processing", "103": "Early Hints"}
FINAL = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nfinal"


def serve(listener):
    while True:
        connection, _ = listener.accept()
        with connection:
            head = b""
            while b"\r\n\r\n" not in head:
                head += connection.recv(65536)
            status = head.split()[1].decode().strip("/")
            connection.sendall(f"HTTP/1.1 {status} {REASONS[status]}\r\n\r\n".encode() + FINAL)


def with_requests(url):
    answer = requests.get(url, proxies={"http": ""}, timeout=20)
    return answer.status_code, answer.text or "(no body)"


def with_urllib3(url):
    answer = urllib3.PoolManager().request("GET", url)
    return answer.status, answer.data.decode() or "(no body)"


def with_httpx(url):
    answer = httpx.get(url, trust_env=False)
    return answer.status_code, answer.text


def with_aiohttp(url):
    async def get():
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            return answer.status, await answer.text()

    return asyncio.run(get())


def with_undici(url):
    return [subprocess.run(["node", "try.mjs", url], capture_output=True, text=True, check=True).stdout.rstrip("\n")]


listener = socket.create_server(("127.0.0.1", 0))
threading.Thread(target=serve, args=(listener,), daemon=True).start()
for status in REASONS:
    for client in (with_requests, with_urllib3, with_httpx, with_aiohttp, with_undici):
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/{status}"
        print(status, client.__name__.removeprefix("with_"), *client(url))
END
venv/bin/python try.py > seen
diff -u stated seen && echo "OK: as stated"
