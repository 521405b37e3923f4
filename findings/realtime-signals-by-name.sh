#!/bin/sh
# A stop signal SIGRTMIN+3 is another number to a program that is linked with musl than to the engine that sends it.
#
# Expected: the name that an image gives (STOPSIGNAL SIGRTMIN+3, as for systemd) is the signal that a program gets which asks its C
#   library for SIGRTMIN + 3.
# Seen: Docker's reader of signal names has 34 for SIGRTMIN built in, whatever the image. glibc says the same; musl keeps 34 for itself
#   and says 35. So the engine sends 37, and a program of musl's waits for 38: it has no handler for what comes, and dies of it.
# Versions: github.com/moby/sys/signal v0.7.1 (Go module); ziglang 0.13.0 of PyPI, which brings both C libraries to link with.
# Matters: images on Alpine that stop by a realtime signal lose the work of their handler, and exit with 165 (128 + 37). The same
#   between a supervisor of one library and a static daemon of the other. Remedy: write the number that the program waits for.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
export ZIG_GLOBAL_CACHE_DIR="$dir/zig" GOFLAGS=-mod=mod
python3 -m venv venv
venv/bin/pip install -q ziglang==0.13.0
cat > waits.c <<'END'
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

static void handler(int number) { (void)number; _exit(0); }

int main(void)
{
    signal(SIGRTMIN + 3, handler);
    printf("%d\n", SIGRTMIN + 3);
    fflush(stdout);
    for (;;) pause();
}
END
for libc in gnu musl; do
    venv/bin/python -m ziglang cc -target "$(uname -m)-linux-$libc" waits.c -o "waits-$libc"
done
mkdir engine
cat > engine/go.mod <<'END'
module engine

go 1.21

require github.com/moby/sys/signal v0.7.1
END
cat > engine/main.go <<'END'
package main

import (
	"fmt"

	"github.com/moby/sys/signal"
)

func main() {
	number, err := signal.ParseSignal("SIGRTMIN+3")
	if err != nil {
		panic(err)
	}
	fmt.Println(int(number))
}
END
(cd engine && go run . > sent 2> log)

cat > stated <<'END'
the engine sends 37
gnu: waits for 37, ends with 0
musl: waits for 38, ends with 165
END
{
    sent=$(cat engine/sent)
    echo "the engine sends $sent"
    for libc in gnu musl; do
        mkfifo "said-$libc"
        "./waits-$libc" > "said-$libc" &
        read -r number < "said-$libc"
        kill "-$sent" $!
        code=0
        wait $! 2> /dev/null || code=$?
        echo "$libc: waits for $number, ends with $code"
    done
} > seen
diff -u stated seen && echo "OK: as stated"
