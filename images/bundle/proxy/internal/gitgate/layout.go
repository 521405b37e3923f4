// Package gitgate is git-gate: a server for git's own protocol that fetches from a repository's upstream before it
// serves, and scans what is pushed before it forwards it there.
//
// git itself does git's work. What is here is who gets a git, for how long and with which limits; what a push may do;
// and the way to the upstream.
package gitgate

import (
	"os"
	"path/filepath"
)

// Ports; sidecars/layout.py has the same.
const (
	Port = 9418
	// egressPort is egress's listener for git-gate alone.
	egressPort = 9098
)

// Where things are in the image.
const (
	hooks         = "/usr/local/libexec/bottle/git-hooks"
	tunnelCommand = "/usr/local/libexec/bottle/git-tunnel"
)

// run is where the bundle's run-time files are.
func run() string {
	if directory := os.Getenv("BOTTLE_RUN"); directory != "" {
		return directory
	}
	return "/run/bottle"
}

func policyFile() string     { return filepath.Join(run(), "policy.json") }
func switchFile() string     { return filepath.Join(run(), "kill-switch") }
func knownFile() string      { return filepath.Join(run(), "known-secrets.json") }
func egressCA() string       { return filepath.Join(run(), "ca", "egress-ca.pem") }
func sshDirectory() string   { return filepath.Join(run(), "git-gate") }
func auditDirectory() string { return filepath.Join(run(), "state", "audit", "git-gate") }

// compiler prints the policy as it is now.
var compiler = []string{"python3", "-I", "-m", "sidecars.policy", "--json"}
