#!/bin/sh
# go-git sends a push that was to be atomic, or to carry options, without either when the server does not offer it.
#
# Expected: what git does. A server says whether it takes `atomic` and `push-options` (gitprotocol-capabilities(5)); where it does not,
#   `git push --atomic` and `git push -o` end before anything is sent, with "the receiving end does not support ...". go-git's
#   PushOptions says of Atomic that it sets option to be an atomic push.
# Seen: go-git leaves both out without an error. One of two branches is refused by the server's update hook, and the other one has
#   landed. A push whose options nobody got succeeds. git-receive-pack offers push options only where receive.advertisePushOptions is
#   set, so that the second is the rule; `atomic` is offered by default.
# Versions: git 2.39.5; go-git 5.19.3; Go 1.26.8.
# Matters: a program that pushes a tag together with its branch, or a lock with what it guards, leaves half of it behind a gate that
#   refuses one of them; and a ci.skip or a reviewer in the options is lost. Read the capabilities first, which the session of a
#   transport has in its AdvertisedReferences, or push with git.
set -eu
dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
export GOTOOLCHAIN=go1.26.8 GOPATH="$dir/go" GOCACHE="$dir/cache" HOME="$dir"
export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@example.com GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@example.com

cat > stated <<'END'
no atomic, git --atomic: fatal: the receiving end does not support --atomic push
  landed:
no atomic, go-git: command error on refs/heads/locked: hook declined
  landed: main
no options, git -o: fatal: the receiving end does not support push options
  landed:
no options, go-git: <nil>
  the hook got 0 options
  landed: main
END

cat > main.go <<'END'
package main

import (
	"fmt"
	"os"

	"github.com/go-git/go-git/v5"
	"github.com/go-git/go-git/v5/config"
)

func main() {
	repository, err := git.PlainOpen("work")
	if err != nil {
		panic(err)
	}
	options := git.PushOptions{Atomic: os.Args[1] == "atomic"}
	for _, branch := range os.Args[2:] {
		options.RefSpecs = append(options.RefSpecs, config.RefSpec("refs/heads/"+branch+":refs/heads/"+branch))
	}
	if !options.Atomic {
		options.Options = map[string]string{"reviewer": "somebody"}
	}
	fmt.Println(repository.Push(&options))
}
END
go mod init try 2> log
go get github.com/go-git/go-git/v5@v5.19.3 2>> log
go build -o push . 2>> log

fresh() {
    rm -rf server work told
    git init --quiet --bare --initial-branch=main server
    git -C server config "$1" false
    printf '#!/bin/sh\ntest "$1" != refs/heads/locked\n' > server/hooks/update
    printf '#!/bin/sh\necho "${GIT_PUSH_OPTION_COUNT:-0}" > ../told\n' > server/hooks/pre-receive
    chmod +x server/hooks/update server/hooks/pre-receive
    git init --quiet --initial-branch=main work
    git -C work commit --quiet --allow-empty -m one
    git -C work branch locked
    git -C work remote add origin "$dir/server"
}
landed() { echo "  landed: $(git -C server for-each-ref --format='%(refname:short)' | tr '\n' ' ')" | sed 's/ *$//'; }
{
    fresh receive.advertiseAtomic
    echo "no atomic, git --atomic: $(git -C work push --quiet --atomic origin main locked 2>&1 | head -n 1)"
    landed
    fresh receive.advertiseAtomic
    echo "no atomic, go-git: $(./push atomic main locked)"
    landed
    fresh receive.advertisePushOptions
    echo "no options, git -o: $(git -C work push --quiet -o reviewer=somebody origin main 2>&1 | head -n 1)"
    landed
    fresh receive.advertisePushOptions
    echo "no options, go-git: $(./push options main)"
    echo "  the hook got $(cat told) options"
    landed
} > seen
diff -u stated seen && echo "OK: as stated"
