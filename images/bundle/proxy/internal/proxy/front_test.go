package proxy

import (
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"bottle/proxy/internal/judge"
)

// Every place that a request names has to be the same one (W6), whatever door it came by. Held by front.target.
func TestEveryPlaceIsTheSame(t *testing.T) {
	tunnel := &judge.Host{Name: "plain.test", Port: 443}
	to := func(name string, port uint16) netip.AddrPort { return netip.AddrPortFrom(judge.StandIn(name), port) }
	for name, row := range map[string]struct {
		front        front
		target, host string
		want         string // of the refusal; "" for none
	}{
		"a redirected connection":                  {front{kind: Redirected, destination: to("plain.test", 80)}, "/", "plain.test", ""},
		"a redirected connection, to another port": {front{kind: Redirected, destination: to("plain.test", 8080)}, "/", "plain.test", "goes to port 8080"},
		"the same, named":                          {front{kind: Redirected, destination: to("plain.test", 8080)}, "/", "plain.test:8080", ""},
		"a redirected connection, to another host": {front{kind: Redirected, destination: to("origin.test", 80)}, "/", "plain.test", "was made for another host"},
		"the same, by TLS":                         {front{kind: Redirected, destination: to("origin.test", 443), secure: true, sni: "plain.test", tunnel: tunnel}, "/", "plain.test", "was made for another host"},
		"a redirected connection of nowhere":       {front{kind: Redirected}, "/", "plain.test", "goes to port 0"},
		"the absolute form":                        {front{}, "http://plain.test/", "plain.test", ""},
		"the absolute form, to another host":       {front{}, "http://plain.test/", "origin.test", "the Host header names origin.test:80"},
		"a tunnel":                                 {front{tunnel: tunnel, secure: true, sni: "plain.test"}, "/", "plain.test", ""},
		"the absolute form in a tunnel":            {front{tunnel: tunnel, secure: true}, "https://plain.test/", "plain.test", ""},
		"another host's absolute form in a tunnel": {front{tunnel: tunnel, secure: true}, "https://origin.test/", "origin.test", "the tunnel leads to plain.test:443"},
		"another scheme in a tunnel":               {front{tunnel: tunnel, secure: true}, "http://plain.test:443/", "plain.test:443", "the scheme"},
		"another server name":                      {front{tunnel: tunnel, secure: true, sni: "origin.test"}, "/", "plain.test", "the TLS server name is origin.test"},
		"another Host in a tunnel":                 {front{tunnel: tunnel, secure: true}, "/", "origin.test", "the Host header names origin.test:443"},
		"another port in a tunnel":                 {front{tunnel: tunnel, secure: true}, "/", "plain.test:8443", "the Host header names plain.test:8443"},
		"no Host":                                  {front{kind: TransparentHTTP}, "/", "", "no Host"},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := http.NewRequest("GET", row.target, nil)
			if err != nil {
				t.Fatal(err)
			}
			r.Host = row.host
			host, _, refusal := row.front.target(r)
			switch {
			case row.want == "" && (refusal != nil || host.Name != "plain.test"):
				t.Errorf("%v, %v", host, refusal)
			case row.want != "" && (refusal == nil || !strings.Contains(refusal.Reason, row.want)):
				t.Errorf("%v, %v", host, refusal)
			}
		})
	}
}

// Whoever reaches a listener by another network than the agent's or loopback is not served (W3). Held by Door.admits.
func TestADoorAdmitsItsOwnNetwork(t *testing.T) {
	internal := netip.MustParsePrefix("10.9.0.0/28")
	for arrived, want := range map[string]bool{
		"127.0.0.1:8888": true, "[::1]:8888": true, "10.9.0.2:8888": true, "[::ffff:10.9.0.2]:8888": true,
		"10.9.0.16:8888": false, "172.17.0.2:8888": false, "[fd00::2]:8888": false,
	} {
		door := Door{Internal: internal}
		if got := door.admits(net.TCPAddrFromAddrPort(netip.MustParseAddrPort(arrived))); got != want {
			t.Errorf("%s: %t", arrived, got)
		}
	}
}
