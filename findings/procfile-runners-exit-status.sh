#!/bin/sh
# Two runners of Procfiles do not say how the process ended that ended them.
#
# Expected: a runner that stops because one process has ended exits as that process did: with its code, and with 128 + n for a
#   signal, as a shell does.
# Seen: honcho exits with the code, but with 256 - n for a signal: 247 for SIGKILL, where a container's engine would show 137. foreman
#   of npm (the command nf) always exits with 0, and tells of a process that exited with 7 as "exit code null".
# Versions: honcho 2.0.0 of PyPI, foreman 3.0.1 of npm.
# Matters: an image whose entry point is such a runner looks healthy to `restart: on-failure` and to CI after its program has
#   failed, and an OOM kill (137) is not recognised as one. Who replaces the runner by a supervisor that keeps exit codes will see
#   failures that were there before.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
python3 -m venv venv
venv/bin/pip install -q honcho==2.0.0
npm install --silent --no-fund --no-audit foreman@3.0.1 > log 2>&1

cat > stated <<'END'
honcho: exit 7 -> 7
honcho: exit 0 -> 0
honcho: killed by SIGKILL -> 247
foreman: exit 7 -> 0
foreman: exit 0 -> 0
foreman: killed by SIGKILL -> 0
foreman says of the first: Exited with exit code null
END

try() {
    name=$1
    printf 'web: %s\n' "$2" > Procfile
    for runner in honcho foreman; do
        case $runner in
        honcho) command=venv/bin/honcho ;;
        foreman) command=node_modules/.bin/nf ;;
        esac
        code=0
        timeout 60 "$command" start > "said.$runner.$name" 2>&1 || code=$?
        echo "$runner: $name -> $code" >> "codes.$runner"
    done
}
try "exit 7" 'sh -c "exit 7"'
try "exit 0" 'sh -c "exit 0"'
# The runner's shell replaces itself by the command here, so that it is the process itself that is killed.
try "killed by SIGKILL" 'exec sh -c "kill -9 \$\$"'
{
    cat codes.honcho codes.foreman
    printf 'foreman says of the first: '
    sed 's/\x1b\[[0-9;]*m//g' "said.foreman.exit 7" | grep -o 'Exited with.*'
} > seen
diff -u stated seen && echo "OK: as stated"
