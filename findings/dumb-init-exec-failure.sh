#!/bin/sh
# dumb-init exits with 2 when its command is missing or not executable.
#
# Expected: 127 for a command that isn't found and 126 for one that can't be executed, as POSIX has it for the shell, env, nice and
#   nohup, as `docker run` documents it, and as tini does it.
# Seen: dumb-init exits with 2 in both cases. (catatonit 0.1.7 has a number of its own too: 1.)
# Versions: dumb-init 1.2.5.
# Matters: with dumb-init as entrypoint, a launcher or an orchestrator that takes 127 and 126 for "the image is wrong, don't retry"
#   sees an ordinary failure of the program, and restarts it for ever; 2 is what many programs use for bad arguments.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
python3 -m venv venv
venv/bin/pip install -q dumb-init==1.2.5.post1

cat > stated <<'END'
env: missing 127, not executable 126
nohup: missing 127, not executable 126
venv/bin/dumb-init: missing 2, not executable 2
END

touch file
status() {
    code=0
    "$@" > log 2>&1 || code=$?
    echo "$code"
}
for program in env nohup venv/bin/dumb-init; do
    echo "$program: missing $(status "$program" ./missing), not executable $(status "$program" ./file)"
done > seen
diff -u stated seen && echo "OK: as stated"
