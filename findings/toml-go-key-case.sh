#!/bin/sh
# BurntSushi/toml sets a struct's field from any key that differs in case alone; from two such keys it takes one at random.
#
# Expected: TOML keys are case-sensitive, so `allow` and `Allow` are two keys. A decoder into a struct with the tag `toml:"allow"`
#   takes the first and lists the second in MetaData.Undecoded(), which is this library's way to find unknown keys; go-toml, with
#   DisallowUnknownFields, refuses the document.
# Seen: both libraries match the tag without regard to case, and neither reports the other key. go-toml takes the last. BurntSushi's
#   decoder goes over a Go map, whose order is random by design: one program, one document, and the field is now true, now false.
#   Which value wins more often isn't stated here, only that over 1,000 decodings both do.
# Versions: BurntSushi/toml 1.6.0, pelletier/go-toml 2.4.3, Go 1.26.8.
# Matters: a configuration that a strict parser elsewhere (tomllib, a schema) takes for a typing error is a coin toss in a Go
#   daemon, and a check of Undecoded() does not find it. Whoever renders TOML for such a daemon must refuse keys that differ in case alone.
set -eu
dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
export GOTOOLCHAIN=go1.26.8 GOPATH="$dir/go" GOCACHE="$dir/cache"

cat > stated <<'END'
BurntSushi/toml: false, error <nil>, undecoded []
BurntSushi/toml: true, error <nil>, undecoded []
go-toml, strict: false, error <nil>
END

cat > main.go <<'END'
package main

import (
	"fmt"
	"strings"

	burntsushi "github.com/BurntSushi/toml"
	pelletier "github.com/pelletier/go-toml/v2"
)

const document = "allow = true\nAllow = false\n"

type policy struct {
	Allow bool `toml:"allow"`
}

func main() {
	for range 1000 {
		var into policy
		meta, err := burntsushi.Decode(document, &into)
		fmt.Printf("BurntSushi/toml: %v, error %v, undecoded %v\n", into.Allow, err, meta.Undecoded())
		into = policy{}
		decoder := pelletier.NewDecoder(strings.NewReader(document))
		err = decoder.DisallowUnknownFields().Decode(&into)
		fmt.Printf("go-toml, strict: %v, error %v\n", into.Allow, err)
	}
}
END
go mod init try 2> log
go get github.com/BurntSushi/toml@v1.6.0 github.com/pelletier/go-toml/v2@v2.4.3 2>> log
go run . > all
LC_ALL=C sort -u all > seen
diff -u stated seen && echo "OK: as stated"
