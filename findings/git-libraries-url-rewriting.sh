#!/bin/sh
# go-git reads url.<base>.insteadOf and doesn't apply it; dulwich's push ignores pushInsteadOf.
#
# Expected: a library that reads ~/.gitconfig treats a remote's URL as git does (git-config(1), url.<base>.insteadOf): each URL that
#   starts with the value is rewritten, for pushes by pushInsteadOf first.
# Seen: go-git clones and fetches from the URL as written, unless the section stands in the repository's own configuration.
#   dulwich rewrites for clone and fetch, but pushes to the URL that pushInsteadOf should have replaced. pygit2 (libgit2)
#   rewrites clones and fetches as git does.
# Versions: git 2.39.5; go-git 5.19.3; dulwich 1.2.21; pygit2 1.21.0.
# Matters: a git gate that is installed by insteadOf in the global configuration does not exist for programs built on go-git,
#   nor for the pushes of those built on dulwich. They ask for the real host: where there is no other way out, they
#   fail, and the error names a URL that git on the same machine never uses.
set -eu
dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
export GOTOOLCHAIN=go1.26.8 GOPATH="$dir/go" GOCACHE="$dir/cache"
python3 -m venv venv
venv/bin/pip install -q dulwich==1.2.21 pygit2==1.21.0

cat > stated <<'END'
insteadOf, clone by git: rewritten
insteadOf, clone by dulwich: rewritten
insteadOf, clone by pygit2: rewritten
insteadOf, clone by go-git: as written
insteadOf, fetch by git: rewritten
insteadOf, fetch by dulwich: rewritten
insteadOf, fetch by pygit2: rewritten
insteadOf, fetch by go-git: as written
insteadOf in the repository's own file, fetch by go-git: rewritten
pushInsteadOf, push by git: rewritten
pushInsteadOf, push by dulwich: as written
END

cat > main.go <<'END'
package main

import (
	"fmt"
	"os"

	"github.com/go-git/go-git/v5"
)

func main() {
	var err error
	if os.Args[1] == "clone" {
		_, err = git.PlainClone(os.Args[3], false, &git.CloneOptions{URL: os.Args[2]})
	} else {
		var repository *git.Repository
		if repository, err = git.PlainOpen(os.Args[3]); err == nil {
			err = repository.Fetch(&git.FetchOptions{RemoteName: "origin"})
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
END
go mod init try 2> log
go get github.com/go-git/go-git/v5@v5.19.3 2>> log
go mod tidy 2>> log
go build -o go-git .

cat > try.py <<'END'
import contextlib
import os
import subprocess
import sys

import pygit2
from dulwich import porcelain

URL = "http://127.0.0.1:9/repository.git"  # nobody listens there
NOWHERE = {"errstream": open(os.devnull, "wb")}


def run(*argv):
    subprocess.run(argv, check=True, stdout=log, stderr=log)


def report(what, call):
    try:
        with contextlib.redirect_stderr(log):
            call()
    except Exception as error:
        print(f"{what}: as written" if "127.0.0.1" in str(error) + tail() else f"{what}: {error!r}")
    else:
        print(f"{what}: rewritten")


def tail():
    log.flush()
    with open("log") as written:
        return written.read()[-300:]


def configure(key):
    with open(os.environ["HOME"] + "/.gitconfig", "w") as file:
        file.write(f'[user]\nname = a\nemail = a@example.com\n[url "file://{os.getcwd()}/real.git"]\n{key} = {URL}\n')


def with_remote(name):
    run("git", "init", "-q", name)
    run("git", "-C", name, "remote", "add", "origin", URL)
    run("git", "-C", name, "commit", "-q", "--allow-empty", "-m", name)
    return name


log = open("log", "a")
configure("insteadOf")
run("git", "init", "-q", "--bare", "real.git")
run("git", "-C", with_remote("first"), "push", "-q", "origin", "HEAD:refs/heads/main", "HEAD:refs/heads/master")
report("insteadOf, clone by git", lambda: run("git", "clone", "-q", URL, "c1"))
report("insteadOf, clone by dulwich", lambda: porcelain.clone(URL, "c2", **NOWHERE))
report("insteadOf, clone by pygit2", lambda: pygit2.clone_repository(URL, "c3"))
report("insteadOf, clone by go-git", lambda: run("./go-git", "clone", URL, "c4"))
report("insteadOf, fetch by git", lambda: run("git", "-C", with_remote("f1"), "fetch", "-q", "origin"))
report("insteadOf, fetch by dulwich", lambda: porcelain.fetch(with_remote("f2"), "origin", **NOWHERE))
report("insteadOf, fetch by pygit2", lambda: pygit2.Repository(with_remote("f3")).remotes["origin"].fetch())
report("insteadOf, fetch by go-git", lambda: run("./go-git", "fetch", URL, with_remote("f4")))
run("git", "-C", with_remote("f5"), "config", f"url.file://{os.getcwd()}/real.git.insteadOf", URL)
report("insteadOf in the repository's own file, fetch by go-git", lambda: run("./go-git", "fetch", URL, "f5"))
configure("pushInsteadOf")
report("pushInsteadOf, push by git", lambda: run("git", "-C", with_remote("p1"), "push", "-q", "origin", "HEAD:refs/heads/p1"))
report("pushInsteadOf, push by dulwich", lambda: porcelain.push(with_remote("p2"), "origin", "HEAD:refs/heads/p2", **NOWHERE))
END
mkdir home
env -u HTTP_PROXY -u http_proxy HOME="$dir/home" venv/bin/python try.py > seen
diff -u stated seen && echo "OK: as stated"
