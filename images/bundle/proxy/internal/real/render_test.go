package real

import (
	"encoding/json"
	"slices"
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

func TestNothingIsAllowedWhereNothingIsListed(t *testing.T) {
	if c := render(t, `{}`); !slices.Equal(c.Allow, []string{"nothing.invalid"}) {
		t.Errorf("hosts %v", c.Allow)
	}
}
