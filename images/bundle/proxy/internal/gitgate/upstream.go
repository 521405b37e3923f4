package gitgate

import (
	"fmt"
	"path/filepath"
	"strings"

	"bottle/proxy/internal/policy"
)

// wayTo is the configuration that makes git take the one way there is to a repository's upstream.
func wayTo(name string, repository policy.Repository) [][2]string {
	switch repository.Scheme {
	case "https", "http":
		return [][2]string{
			{"http.proxy", fmt.Sprintf("http://127.0.0.1:%d", egressPort)},
			{"http.sslCAInfo", egressCA()},
			// Where the upstream is, the policy says, and not the upstream.
			{"http.followRedirects", "false"},
			{"http.emptyAuth", "false"},
			// A push is then framed as git frames it, whatever the upstream speaks.
			{"http.version", "HTTP/1.1"},
			{"http.lowSpeedLimit", "1"},
			{"http.lowSpeedTime", "300"},
			{"http.userAgent", "git/2"},
		}
	case "ssh":
		return [][2]string{{"core.sshCommand", sshCommand(name)}, {"ssh.variant", "ssh"}}
	case "git":
		return [][2]string{{"core.gitProxy", tunnelCommand}}
	}
	return nil
}

// sshCommand is OpenSSH without anything of its own: one key, the pinned host keys, no agent, no configuration, and the
// tunnel that egress allows. NAME is of a form that needs no quotes.
func sshCommand(name string) string {
	options := []string{
		"BatchMode=yes", "CheckHostIP=no", "ClearAllForwardings=yes", "ConnectTimeout=30", "ControlPath=none", "ForwardAgent=no",
		"GlobalKnownHostsFile=/dev/null", "GSSAPIAuthentication=no", "HashKnownHosts=no", "IdentitiesOnly=yes", "IdentityAgent=none",
		"IdentityFile=" + filepath.Join(sshDirectory(), name+".key"),
		"LogLevel=ERROR", "PasswordAuthentication=no", "PermitLocalCommand=no", "PreferredAuthentications=publickey",
		"ProxyCommand=" + tunnelCommand + " %h %p",
		"ServerAliveCountMax=4", "ServerAliveInterval=15", "StrictHostKeyChecking=yes", "UpdateHostKeys=no",
		"UserKnownHostsFile=" + filepath.Join(sshDirectory(), name+".known_hosts"),
	}
	quoted := make([]string, len(options))
	for i, option := range options {
		quoted[i] = "-o '" + option + "'"
	}
	return "ssh -F none " + strings.Join(quoted, " ")
}

// explain adds what an operator can do about what a git said of the upstream.
func explain(said string) string {
	switch {
	case strings.Contains(said, "terminal prompts disabled"), strings.Contains(said, "Authentication failed"):
		return said + ` (the upstream wants a credential: egress.credentials with for = ["git"])`
	case strings.Contains(said, "Host key verification failed"):
		return said + " (the upstream's host key is not the one in known_hosts)"
	case strings.Contains(said, "Permission denied (publickey"):
		return said + " (the upstream does not take the deploy key: ssh_key)"
	}
	return said
}
