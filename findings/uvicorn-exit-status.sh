#!/bin/sh
# uvicorn's exit status after a clean stop depends on the signal, and on the number of workers.
#
# Expected: one status for one event. Asked to stop by SIGTERM, with nothing in flight, a server ends with 0, as hypercorn, gunicorn
#   and daphne do; or, if it chooses to die of the signal it was sent, it does so for each signal and in each mode.
# Seen: uvicorn with one process shuts down in order, lifespan included, and then raises the signal again: it dies of SIGTERM (143
#   for a shell or a container engine). SIGINT ends the very same server with 0, since click takes the KeyboardInterrupt.
#   With --workers 2, both signals end it with 0.
# Versions: uvicorn 0.54.0, hypercorn 0.18.0, gunicorn 27.0.1, daphne 4.2.3.
# Matters: an init that counts 143 as a failure reports each ordinary stop of uvicorn as one, and one that counts it as a success
#   everywhere misses real deaths by signal. And adding --workers changes which of the two is right.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
python3 -m venv venv
venv/bin/pip install -q uvicorn==0.54.0 hypercorn==0.18.0 gunicorn==27.0.1 daphne==4.2.3

cat > stated <<'END'
SIGTERM uvicorn -15
SIGTERM uvicorn --workers 2 0
SIGTERM hypercorn 0
SIGTERM gunicorn 0
SIGTERM daphne 0
SIGINT uvicorn 0
SIGINT uvicorn --workers 2 0
SIGINT hypercorn 0
SIGINT gunicorn 0
SIGINT daphne 0
END

cat > app.py <<'END'
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
    else:
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})


def wsgi(environ, start_response):
    start_response("204 No Content", [])
    return []
END

cat > try.py <<'END'
import http.client
import signal
import socket
import subprocess
import time


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return str(listener.getsockname()[1])


def wait_for_an_answer(port):
    while True:
        try:
            client = http.client.HTTPConnection("127.0.0.1", int(port), timeout=20)
            client.request("GET", "/")
            client.getresponse()
            client.close()
            return
        except OSError:
            time.sleep(0.1)


def servers(port):
    yield "uvicorn", ["uvicorn", "--port", port, "app:app"]
    yield "uvicorn --workers 2", ["uvicorn", "--workers", "2", "--port", port, "app:app"]
    yield "hypercorn", ["hypercorn", "--bind", f"127.0.0.1:{port}", "app:app"]
    yield "gunicorn", ["gunicorn", "--bind", f"127.0.0.1:{port}", "app:wsgi"]
    yield "daphne", ["daphne", "-p", port, "app:app"]


for number in (signal.SIGTERM, signal.SIGINT):
    port = free_port()
    for name, argv in servers(port):
        with open("log", "ab") as log:
            process = subprocess.Popen(["venv/bin/" + argv[0], *argv[1:]], stdout=log, stderr=log, start_new_session=True)
        wait_for_an_answer(port)
        process.send_signal(number)
        print(number.name, name, process.wait(60), flush=True)
END
timeout 300 venv/bin/python try.py > seen || cat log
diff -u stated seen && echo "OK: as stated"
