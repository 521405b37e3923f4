package real

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"bottle/proxy/internal/policy"
)

type config struct {
	Mode     string   `json:"mode"`
	Allow    []string `json:"api_allowlist"`
	Patterns struct {
		Defaults bool             `json:"include_defaults"`
		Patterns []policy.Pattern `json:"patterns"`
	} `json:"dlp"`
	KillSwitch map[string]string `json:"kill_switch"`
	Sentry     map[string]bool   `json:"sentry"`
	TLS        map[string]any    `json:"tls_interception"`
	SSRF       struct {
		Allow []string `json:"ip_allowlist"`
	} `json:"ssrf"`
}

func render(t *testing.T, text string) (c config) {
	t.Helper()
	p, err := policy.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	rendered, err := Render(p, Paths{KillSwitch: "/run/bottle/kill-switch"})
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(rendered, &c); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestItEnforcesTheAgentsHostsAndThePolicysPatterns(t *testing.T) {
	c := render(t, `{"egress": {"hosts": [{"host": "api.example.com", "for": ["agent"]}, {"host": "api.example.com", "port": 8443, "for": ["agent"]},
		{"host": "example.org", "wildcard": true, "for": ["agent", "git"]}, {"host": "git.example.com", "for": ["git"]}]},
		"pipelock": {"patterns": [{"name": "staff-id", "regex": "ACME-[0-9]{6}"}]},
		"approvals": [{"kind": "host", "hosts": [{"host": "approved.example", "for": ["agent"]}]}]}`)
	if c.Mode != "strict" { // The allowlist is enforced in strict mode only.
		t.Errorf("mode %s", c.Mode)
	}
	if want := []string{"api.example.com", "*.example.org", "approved.example"}; !slices.Equal(c.Allow, want) {
		t.Errorf("hosts %v", c.Allow)
	}
	if len(c.Patterns.Patterns) != 1 || c.Patterns.Patterns[0].Name != "staff-id" || c.Patterns.Defaults {
		t.Errorf("patterns %v", c.Patterns)
	}
	if c.KillSwitch["sentinel_file"] != "/run/bottle/kill-switch" || c.Sentry["enabled"] {
		t.Errorf("%v %v", c.KillSwitch, c.Sentry)
	}
	for _, network := range c.SSRF.Allow {
		if network[:4] == "127." || network[:4] == "169." || network[:3] == "::1" {
			t.Errorf("it may go to %s", network)
		}
	}
}

// It opens TLS where the policy says so, and egress does in any case.
func TestItOpensTLSWhereThePolicySaysSo(t *testing.T) {
	if c := render(t, `{"pipelock": {"inspect": true}}`); c.TLS["enabled"] != true {
		t.Errorf("%v", c.TLS)
	}
}

func TestNothingIsAllowedWhereNothingIsListed(t *testing.T) {
	if c := render(t, `{}`); !slices.Equal(c.Allow, []string{"nothing.invalid"}) {
		t.Errorf("hosts %v", c.Allow)
	}
}

// Each of these has a default that gets in the way of ordinary clients: events of 64 KiB and answers of 5 MiB end, a URL of
// 2 KiB and the 61st request of a minute are refused, and so is what looks random.
func TestItsLimitsAreNotInTheWay(t *testing.T) {
	p, err := policy.Parse([]byte(`{}`))
	if err != nil {
		t.Fatal(err)
	}
	text, err := Render(p, Paths{})
	if err != nil {
		t.Fatal(err)
	}
	var rendered map[string]any
	if err := json.Unmarshal(text, &rendered); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]any{
		"response_scanning.enabled":                          true, // Without it an event stream is held as a whole.
		"response_scanning.include_defaults":                 false,
		"response_scanning.action":                           "warn",
		"response_scanning.sse_streaming.action":             "warn",
		"response_scanning.sse_streaming.max_event_bytes":    16.0 * (1 << 20),
		"tls_interception.max_response_bytes":                256.0 * (1 << 20),
		"fetch_proxy.max_response_mb":                        256.0,
		"fetch_proxy.timeout_seconds":                        86_400.0,
		"forward_proxy.max_tunnel_seconds":                   86_400.0,
		"forward_proxy.idle_timeout_seconds":                 3600.0,
		"request_body_scanning.max_body_bytes":               64.0 * (1 << 20),
		"request_body_scanning.action":                       "block",
		"request_body_scanning.header_mode":                  "all",
		"fetch_proxy.monitoring.max_requests_per_minute":     1e6,
		"fetch_proxy.monitoring.max_url_length":              65_536.0,
		"fetch_proxy.monitoring.entropy_threshold":           8.0,
		"fetch_proxy.monitoring.subdomain_entropy_threshold": 8.0,
		"seed_phrase_detection.enabled":                      false,
		"dlp.scan_env":                                       false,
		"metrics_listen":                                     "127.0.0.1:18888",
		"tls_interception.enabled":                           false,
		"media_policy.enabled":                               false,
	} {
		var found any = rendered
		for _, key := range strings.Split(path, ".") {
			section, _ := found.(map[string]any)
			found = section[key]
		}
		if found != want {
			t.Errorf("%s is %v", path, found)
		}
	}
}
