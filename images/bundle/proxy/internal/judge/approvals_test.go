package judge

import (
	"testing"

	"bottle/proxy/internal/policy"
)

// An approval ends by itself, without a reload (W21). Held by Judge.granted.
func TestAnApprovalEndsByItself(t *testing.T) {
	host := Host{"host.test", 443}
	judge := New(&policy.Policy{Approvals: []policy.Approval{{
		Until:   100,
		Hosts:   []policy.Rule{{Host: host.Name, For: []string{policy.Agent}}},
		Tunnels: []policy.Tunnel{{Host: host.Name, Port: host.Port}},
	}}})
	for now, want := range map[float64]bool{99.9: true, 100: false, 101: false} {
		judge.now = func() float64 { return now }
		if got := judge.Names(policy.Agent, host.Name); got != want {
			t.Errorf("at %v, the host: %t", now, got)
		}
		if _, got := judge.Tunnel(policy.Git, host); got != want {
			t.Errorf("at %v, the tunnel: %t", now, got)
		}
	}
}
