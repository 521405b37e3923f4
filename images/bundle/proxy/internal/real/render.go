// Package real runs the engine that pipelock's own project publishes, in the place of ours.
package real

import (
	"encoding/json"
	"slices"

	"bottle/proxy/internal/policy"
)

// Paths are where things are that its configuration names.
type Paths struct {
	Certificate, Key, KillSwitch string
}

const (
	dayS      = 86_400
	unlimited = 1_000_000
	// answerLimit bounds an answer that it holds to look through, and so its memory, in bytes. A longer one is refused.
	answerLimit = 256 << 20
	bodyLimit   = 64 << 20
	eventLimit  = 16 << 20
	// noEntropy is what no text's entropy exceeds, in bits a character.
	noEntropy = 8.0
)

// nowhere stands in for an empty allowlist, which it takes for a mistake. RFC 6761 keeps the name from ever being one.
const nowhere = "nothing.invalid"

// Render writes its configuration. JSON is YAML.
func Render(p *policy.Policy, paths Paths) ([]byte, error) {
	type object = map[string]any
	var hosts []string
	add := func(rules []policy.Rule) {
		for _, rule := range rules {
			name := rule.Host
			if rule.Wildcard {
				name = "*." + name
			}
			if slices.Contains(rule.For, policy.Agent) && !slices.Contains(hosts, name) {
				hosts = append(hosts, name)
			}
		}
	}
	add(p.Egress.Hosts)
	for _, approval := range p.Approvals {
		add(approval.Hosts)
	}
	if len(hosts) == 0 {
		hosts = []string{nowhere}
	}
	patterns := []object{}
	for _, pattern := range p.Pipelock.Patterns {
		patterns = append(patterns, object{"name": pattern.Name, "regex": pattern.Regex, "severity": "critical"})
	}
	return json.MarshalIndent(object{
		"version": 1,
		// The allowlist is enforced in strict mode only.
		"mode":          "strict",
		"api_allowlist": hosts,
		// Its user reaches egress alone, which resolves the name anew and judges the address by the policy. A list of names
		// here (trusted_domains) would do as well, but in strict mode a reload that adds one is refused.
		"ssrf": object{"ip_allowlist": []string{"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7"}},
		"fetch_proxy": object{
			"listen":          "0.0.0.0:8888",
			"timeout_seconds": dayS,
			"max_response_mb": answerLimit >> 20,
			// Its defaults are for browsing agents: 60 requests a minute to a host, no URL of 2 KiB, nothing that looks random.
			"monitoring": object{"max_requests_per_minute": unlimited, "max_data_per_minute": 0, "max_url_length": 65_536,
				"entropy_threshold": noEntropy, "subdomain_entropy_threshold": noEntropy},
		},
		"forward_proxy": object{"enabled": true, "max_tunnel_seconds": dayS, "idle_timeout_seconds": 3600},
		// What it opens it holds as a whole, and looks through by patterns that are built in, at seconds of CPU time for a
		// megabyte. What it does not open it passes on as it comes, to egress, which opens all of it and judges and scans each
		// request. The name that the TLS asks for has to be the tunnel's in either case.
		"tls_interception": object{"enabled": p.Pipelock.Inspect, "ca_cert": paths.Certificate, "ca_key": paths.Key,
			"max_response_bytes": answerLimit},
		// By default it takes the metadata out of images, and refuses audio, video and most kinds of images.
		"media_policy": object{"enabled": false},
		"request_body_scanning": object{"enabled": true, "action": "block", "scan_headers": true, "header_mode": "all",
			"max_body_bytes": bodyLimit},
		// What a model streams is not cut because it speaks of instructions. Its patterns would be told of in the log alone,
		// and take two thirds of its CPU time; some are built in, and look through all the same.
		"response_scanning": object{"enabled": true, "action": "warn", "include_defaults": false, "patterns": []object{},
			"sse_streaming": object{"enabled": true, "action": "warn", "max_event_bytes": eventLimit}},
		"seed_phrase_detection": object{"enabled": false},
		// The policy's patterns and no others: its own take every JWT and every long number for a secret. The environment
		// of its process holds none.
		"dlp": object{"scan_env": false, "include_defaults": false, "patterns": patterns},
		// Its figures are the operator's, not the agent's.
		"metrics_listen": "127.0.0.1:18888",
		"kill_switch":    object{"sentinel_file": paths.KillSwitch},
		"logging":        object{"format": "json", "output": "stdout", "include_allowed": true, "include_blocked": true},
		"sentry":         object{"enabled": false},
	}, "", "  ")
}
