package resolver

import (
	"net/netip"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

func ask(t *testing.T, r *Resolver, name string, kind dnsmessage.Type) dnsmessage.Message {
	t.Helper()
	query := dnsmessage.Message{Header: dnsmessage.Header{ID: 7, RecursionDesired: true},
		Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName(name), Type: kind, Class: dnsmessage.ClassINET}}}
	packed, err := query.Pack()
	if err != nil {
		t.Fatal(err)
	}
	var reply dnsmessage.Message
	if err := reply.Unpack(r.answer(packed)); err != nil {
		t.Fatal(err)
	}
	return reply
}

func TestAllowedNamesLeadToTheBundleAndNoOthersExist(t *testing.T) {
	var asked []string
	r := &Resolver{Address: netip.MustParseAddr("10.0.0.2"), Allowed: func(name string) bool { return name == "api.example.com" },
		Asked: func(name string, _ bool) { asked = append(asked, name) }}
	reply := ask(t, r, "API.example.com.", dnsmessage.TypeA)
	if len(reply.Answers) != 1 || reply.Answers[0].Body.(*dnsmessage.AResource).A != [4]byte{10, 0, 0, 2} || reply.ID != 7 {
		t.Errorf("allowed, A: %v", reply)
	}
	// No error and no address: a client that asks for both families goes on with the other one.
	for _, kind := range []dnsmessage.Type{dnsmessage.TypeAAAA, dnsmessage.TypeTXT, dnsmessage.TypeHTTPS} {
		if reply := ask(t, r, "api.example.com.", kind); reply.RCode != dnsmessage.RCodeSuccess || len(reply.Answers) != 0 {
			t.Errorf("allowed, %v: %v", kind, reply)
		}
	}
	for _, name := range []string{"denied.example.", "secret.api.example.com.", "2.0.0.10.in-addr.arpa."} {
		if reply := ask(t, r, name, dnsmessage.TypeA); reply.RCode != dnsmessage.RCodeNameError {
			t.Errorf("%s: %v", name, reply)
		}
	}
	if len(asked) != 7 {
		t.Errorf("asked: %v", asked)
	}
}

func TestWhatIsNoQueryGetsNoAnswer(t *testing.T) {
	r := &Resolver{Allowed: func(string) bool { return true }, Asked: func(string, bool) {}}
	for _, packet := range [][]byte{nil, {1, 2, 3}, make([]byte, queryLimit+1)} {
		if reply := r.answer(packet); reply != nil && len(packet) != 12 {
			t.Errorf("%d bytes: %v", len(packet), reply)
		}
	}
}
