// Bottle-gate is git-gate: a git server that scans what is pushed to it. `bottle-gate serve` is the server. By its other
// names it is what git runs: its pre-receive hook, and git-tunnel, by which upstreams without HTTP are reached.
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"bottle/proxy/internal/gitgate"
)

func main() {
	syscall.Umask(0o077)
	var err error
	switch name := filepath.Base(os.Args[0]); {
	case name == "pre-receive":
		os.Exit(gitgate.PreReceive())
	case name == "git-tunnel" && len(os.Args) == 3:
		err = gitgate.Tunnel(os.Args[1], os.Args[2])
	case len(os.Args) == 2 && os.Args[1] == "serve":
		err = gitgate.Serve()
	default:
		fmt.Fprintln(os.Stderr, "usage: bottle-gate serve")
		os.Exit(64)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "git-gate: %s\n", err)
		os.Exit(1)
	}
}
