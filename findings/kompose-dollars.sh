#!/bin/sh
# kompose rewrites each dollar sign of a Compose command: `$$HOME` becomes `$(HOME)`, and `$$?` becomes `$()?`.
#
# Expected: Compose's `$$` is a literal dollar sign (compose-spec, Interpolation). `echo $$HOME` reaches the container as
#   `echo $HOME`, for its shell. In a Kubernetes manifest that text may stand as it is: a container's args are expanded for
#   `$(NAME)` alone, which is escaped as `$$(NAME)` (kubectl explain pod.spec.containers.args).
# Seen: the args hold `echo $(HOME)`. The kubelet replaces that if the manifest sets a variable of that name; if it doesn't, the
#   shell runs a program called HOME. `$$?` and `$$!` lose their meaning, as `$()` is a substitution of nothing; `$${HOME}` and
#   `$$(hostname)` are syntax errors. In `environment`, `$$(NAME)` becomes `$(NAME)`, which the kubelet replaces too. There is
#   no warning.
# Versions: kompose 1.37.0, Go 1.26.8.
# Matters: whatever an entrypoint computes when it starts (a host's name, an exit status) is wrong or ends the container, in
#   files that Compose runs without complaint. Keep such scripts in a file of the image.
set -eu
dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
export GOTOOLCHAIN=go1.26.8 GOPATH="$dir/go" GOCACHE="$dir/cache" GOFLAGS=-mod=mod

cat > stated <<'END'
- echo $(HOME)
- echo $(){HOME}
- echo $()(hostname)
- false; echo $()?
value: $(NAME)
the one before, by the shell: ?
END

printf 'module try\n\ngo 1.24\n\nrequire github.com/kubernetes/kompose v1.37.0\n' > go.mod
go build -o kompose github.com/kubernetes/kompose 2> log
cat > compose.yaml <<'END'
services:
  web:
    image: busybox
    command: ["echo $$HOME", "echo $${HOME}", "echo $$(hostname)", "false; echo $$?"]
    environment: {OTHER: "$$(NAME)"}
END
./kompose convert --stdout 2>> log | sed -n '/[$]/s/^ *//p' > seen
status=$(sed -n 's/^- \(false.*\)/\1/p' seen)
echo "the one before, by the shell: $(sh -c "$status")" >> seen
diff -u stated seen && echo "OK: as stated"
