#!/bin/sh
# httpx and httpx2 return the first member of a gzip body and drop the rest, without an error.
#
# Expected: the whole body. RFC 9110 8.4.1.3 defines the coding gzip as the format of RFC 1952, whose section 2.2
#   lets a file be several members in a row; RFC 9110 leaves no exception. Origins make such bodies by joining parts that were
#   compressed before (pigz, bgzip, log shippers, Prometheus-compatible stores).
# Seen: status 200, "first" alone, no exception. requests and aiohttp return both members.
# Versions: httpx 0.28.1, httpx2 2.16.2; the others are requests 2.34.2 (urllib3 2.8.0) and aiohttp 3.14.5.
# Matters: a proxy that decodes a body to look at it sees other bytes than its client will; and a client behind it loses
#   data that every byte counter on the way has seen.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
python3 -m venv venv
venv/bin/pip install -q httpx==0.28.1 httpx2==2.16.2 requests==2.34.2 urllib3==2.8.0 aiohttp==3.14.5

cat > stated <<'END'
requests 200 b'first\nsecond\n'
aiohttp 200 b'first\nsecond\n'
httpx 200 b'first\n'
httpx2 200 b'first\n'
END

cat > try.py <<'END'
import asyncio
import gzip
import http.server
import threading

import aiohttp
import httpx
import httpx2
import requests

BODY = gzip.compress(b"first\n") + gzip.compress(b"second\n")


class Origin(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(BODY)))
        self.end_headers()
        self.wfile.write(BODY)

    def log_message(self, *_):
        pass


async def with_aiohttp(url):
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        return answer.status, await answer.read()


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Origin)
threading.Thread(target=server.serve_forever, daemon=True).start()
url = f"http://127.0.0.1:{server.server_port}/"
answer = requests.get(url, proxies={"http": ""}, timeout=20)
print("requests", answer.status_code, answer.content)
print("aiohttp", *asyncio.run(with_aiohttp(url)))
for library in (httpx, httpx2):
    answer = library.get(url, trust_env=False)
    print(library.__name__, answer.status_code, answer.content)
END
venv/bin/python try.py > seen
diff -u stated seen && echo "OK: as stated"
