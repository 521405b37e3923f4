#!/bin/sh
# kompose makes of a Compose healthcheck that is a shell line a liveness probe whose program has the line for its name.
#
# Expected: a `test` that is a string, or a list that begins with CMD-SHELL, is a line for the container's shell (compose-spec,
#   healthcheck). In a manifest it is `exec: command: [/bin/sh, -c, LINE]`, since a probe's command runs in no shell
#   (kubectl explain pod.spec.containers.livenessProbe.exec.command).
# Seen: both forms become a command of one word, the line with its blanks and operators. No program has that name, so the
#   probe can't succeed. A list that begins with CMD becomes what it should be. A probe's times are cut to whole seconds: a timeout
#   of 1500ms is 1, and of an interval of 500ms nothing is left, which Kubernetes reads as its default, 10 s.
# Versions: kompose 1.37.0, Go 1.26.8.
# Matters: Compose only marks a container as unhealthy. Kubernetes kills it, here for ever, after `failureThreshold` periods,
#   and the events name a file that was not found. Write `[CMD, sh, -c, LINE]`, which both understand.
set -eu
dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
export GOTOOLCHAIN=go1.26.8 GOPATH="$dir/go" GOCACHE="$dir/cache" GOFLAGS=-mod=mod

cat > stated <<'END'
string:
  command:
    - test -e /ready || exit 1
  initialDelaySeconds: 20
  timeoutSeconds: 1
cmd-shell:
  command:
    - test -e /ready || exit 1
  periodSeconds: 15
cmd:
  command:
    - sh
    - -c
    - test -e /ready || exit 1
  periodSeconds: 15
END

printf 'module try\n\ngo 1.24\n\nrequire github.com/kubernetes/kompose v1.37.0\n' > go.mod
go build -o kompose github.com/kubernetes/kompose 2> log
probe() {
    echo "$1:"
    printf 'services:\n  web:\n    image: busybox\n    healthcheck: {%s}\n' "$2" > compose.yaml
    ./kompose convert --stdout 2>> log > manifests
    sed -n '/livenessProbe:/,/^ *name:/p' manifests | grep -v 'livenessProbe:\|exec:\|name:' | sed 's/^              */  &/' |
        sed 's/^ *- /    - /; s/^ *\([a-zA-Z]*:\)/  \1/'
}
probe string 'test: "test -e /ready || exit 1", interval: 500ms, timeout: 1500ms, start_period: 20s' > seen
probe cmd-shell 'test: [CMD-SHELL, "test -e /ready || exit 1"], interval: 15s' >> seen
probe cmd 'test: [CMD, sh, -c, "test -e /ready || exit 1"], interval: 15s' >> seen
diff -u stated seen && echo "OK: as stated"
