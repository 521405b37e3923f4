// Bottle-supervise is the daemon by which the agent asks and the operator answers.
package main

import (
	"os"
	"runtime/debug"

	"bottle/proxy/internal/supervise"
)

func main() {
	// It is idle nearly always: memory is worth more than a few collections.
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(50)
	}
	os.Exit(supervise.Main())
}
