// Package judge decides which requests may leave. It does no I/O; pipelock and egress share it.
package judge

import (
	"crypto/sha256"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// A Host is a normalized host name or address, and a port.
type Host struct {
	Name string
	Port int
}

func (h Host) String() string {
	if strings.Contains(h.Name, ":") {
		return fmt.Sprintf("[%s]:%d", h.Name, h.Port)
	}
	return fmt.Sprintf("%s:%d", h.Name, h.Port)
}

// Address returns what the name spells, if it is an address.
func (h Host) Address() (netip.Addr, bool) {
	address, err := netip.ParseAddr(h.Name)
	return address, err == nil
}

// StandIn is the address that a name has inside the bundle, where pipelock asks for one before it connects: no host's, and
// each name's own, so that egress knows by it which name a connection was made for. An address stands for itself.
func StandIn(name string) netip.Addr {
	if address, err := netip.ParseAddr(name); err == nil {
		return address
	}
	sum := sha256.Sum256([]byte(name))
	return netip.AddrFrom4([4]byte{10, sum[0], sum[1], sum[2]})
}

// ParseHost reads HOST[:PORT] as it stands in a request. defaultPort stands in for a port that is not there.
func ParseHost(text string, defaultPort int) (Host, error) {
	name, port := text, defaultPort
	if colon := strings.LastIndexByte(text, ':'); colon >= 0 && !strings.HasSuffix(text, "]") {
		digits := text[colon+1:]
		number, err := strconv.ParseUint(digits, 10, 16)
		if err != nil || number == 0 || digits[0] == '+' {
			return Host{}, fmt.Errorf("%q has no port that can be used", Cut(text))
		}
		name, port = text[:colon], int(number)
	}
	name, err := Normalize(name)
	return Host{name, port}, err
}

// Normalize returns a host name in lower case and without a final dot, or an address in its canonical form without
// brackets. Other spellings of addresses, which inet_aton(3) and browsers read (127.1, 0x7f000001), are errors.
func Normalize(name string) (string, error) {
	bare := name
	if strings.HasPrefix(name, "[") {
		if !strings.HasSuffix(name, "]") || !strings.Contains(name, ":") {
			return "", fmt.Errorf("%q is not a host", Cut(name))
		}
		bare = name[1 : len(name)-1]
	}
	if address, err := netip.ParseAddr(bare); err == nil {
		if address.Zone() != "" {
			return "", fmt.Errorf("%q has a zone", Cut(name))
		}
		return address.Unmap().String(), nil
	}
	lower := strings.ToLower(strings.TrimSuffix(name, "."))
	if len(lower) > 253 {
		return "", fmt.Errorf("%q is too long for a host name", Cut(name))
	}
	last := ""
	for label := range strings.SplitSeq(lower, ".") {
		if !isLabel(label) {
			return "", fmt.Errorf("%q is not a host name", Cut(name))
		}
		last = label
	}
	if strings.Trim(last, "0123456789") == "" || strings.HasPrefix(last, "0x") {
		return "", fmt.Errorf("%q is neither a host name nor an address in its usual form", Cut(name))
	}
	return lower, nil
}

// isLabel allows underscores, which RFC 1123 does not and names of services have.
func isLabel(label string) bool {
	if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
		return false
	}
	for i := range len(label) {
		c := label[i]
		if !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' || c == '_') {
			return false
		}
	}
	return true
}

// Cut shortens what a client sent, for messages and logs.
func Cut(text string) string {
	const limit = 200
	if len(text) > limit {
		return text[:limit] + "…"
	}
	return text
}
