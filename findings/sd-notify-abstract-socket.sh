#!/bin/sh
# Two libraries named sd-notify, Rust's and PyPI's, can't send to an abstract NOTIFY_SOCKET.
#
# Expected: sd_notify(3): a NOTIFY_SOCKET that begins with "@" is a socket of the abstract namespace, and libraries send there as
#   well as to a path.
# Seen: the crate sd-notify, the most used one in Rust, and sd-notify of PyPI look for a file of that name; both report
#   "No such file or directory", and programs commonly ignore that. The crate libsystemd and PyPI's sdnotify send.
# Versions: sd-notify 0.5.0 and libsystemd 0.7.2 of crates.io; sd-notify 0.1.0 and sdnotify 0.3.2 of PyPI.
# Matters: a supervisor without a writable directory, as in a container with a read-only root, has only abstract sockets (systemd
#   itself uses them for its own workers). There such a daemon runs, and never becomes ready. Remedy: a readiness check from
#   outside (a port, a command), or the other library.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
python3 -m venv venv
venv/bin/pip install -q sdnotify==0.3.2 sd-notify==0.1.0
mkdir src
cat > Cargo.toml <<'END'
[package]
name = "try"
version = "0.1.0"
edition = "2021"
[dependencies]
sd-notify = "=0.5.0"
libsystemd = "=0.7.2"
END
cat > src/main.rs <<'END'
fn main() {
    if std::env::args().nth(1).unwrap() == "sd-notify" {
        sd_notify::notify(&[sd_notify::NotifyState::Ready]).unwrap();
    } else {
        libsystemd::daemon::notify(false, &[libsystemd::daemon::NotifyState::Ready]).unwrap();
    }
}
END
cargo build -q 2> log

cat > stated <<'END'
crate sd-notify: path heard, abstract not heard
crate libsystemd: path heard, abstract heard
PyPI sd-notify: path heard, abstract not heard
PyPI sdnotify: path heard, abstract heard
END

cat > try.py <<'END'
import os, socket, subprocess

PYTHON = ("venv/bin/python", "-c")
PROGRAMS = {
    "crate sd-notify": ("target/debug/try", "sd-notify"),
    "crate libsystemd": ("target/debug/try", "libsystemd"),
    "PyPI sd-notify": (*PYTHON, "import sd_notify; sd_notify.Notifier().ready()"),
    "PyPI sdnotify": (*PYTHON, "import sdnotify; sdnotify.SystemdNotifier().notify('READY=1')"),
}


def heard(address, name, command):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as manager:
        manager.bind(address)
        name = name or "@" + manager.getsockname()[1:].decode()
        subprocess.run(command, env={**os.environ, "NOTIFY_SOCKET": name}, stderr=subprocess.DEVNULL)
        try:
            return "heard" if manager.recv(4096).startswith(b"READY=1") else "?"
        except BlockingIOError:
            return "not heard"


for number, (name, command) in enumerate(PROGRAMS.items()):
    path = os.path.abspath(f"{number}.sock")
    print(f"{name}: path {heard(path, path, command)}, abstract {heard('', '', command)}")
END
python3 try.py > seen
diff -u stated seen && echo "OK: as stated"
