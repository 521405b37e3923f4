package judge

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
)

// A block is a range of addresses that no name may lead to without `private = true`.
type block struct {
	prefix netip.Prefix
	name   string
}

func blocks(entries ...[2]string) []block {
	made := make([]block, len(entries))
	for i, entry := range entries {
		made[i] = block{netip.MustParsePrefix(entry[0]), entry[1]}
	}
	return made
}

// notGlobal are the ranges of IANA's special-purpose address registries (RFC 6890 and its updates) that are not
// globally reachable, with multicast and what is reserved.
var notGlobal = blocks(
	[2]string{"0.0.0.0/8", "this network"},
	[2]string{"10.0.0.0/8", "private"},
	[2]string{"100.64.0.0/10", "shared by carriers"},
	[2]string{"127.0.0.0/8", "loopback"},
	[2]string{"169.254.0.0/16", "link-local"},
	[2]string{"172.16.0.0/12", "private"},
	[2]string{"192.0.0.0/24", "IETF protocol assignments"},
	[2]string{"192.0.2.0/24", "documentation"},
	[2]string{"192.88.99.0/24", "6to4 relay anycast"},
	[2]string{"192.168.0.0/16", "private"},
	[2]string{"198.18.0.0/15", "benchmarking"},
	[2]string{"198.51.100.0/24", "documentation"},
	[2]string{"203.0.113.0/24", "documentation"},
	[2]string{"224.0.0.0/4", "multicast"},
	[2]string{"240.0.0.0/4", "reserved"},
	[2]string{"::/128", "unspecified"},
	[2]string{"::1/128", "loopback"},
	[2]string{"64:ff9b:1::/48", "local translation"},
	[2]string{"100::/64", "discard-only"},
	[2]string{"100:0:0:1::/64", "dummy"},
	[2]string{"2001::/23", "IETF protocol assignments"},
	[2]string{"2001:db8::/32", "documentation"},
	[2]string{"2002::/16", "6to4, of which the registry does not say whether it is reachable"},
	[2]string{"3fff::/20", "documentation"},
	[2]string{"5f00::/16", "segment routing"},
	[2]string{"fc00::/7", "private"},
	[2]string{"fe80::/10", "link-local"},
	[2]string{"fec0::/10", "site-local"},
	[2]string{"ff00::/8", "multicast"},
)

// global are the exceptions inside of notGlobal that the registries call globally reachable.
var global = blocks(
	[2]string{"192.0.0.9/32", "PCP anycast"},
	[2]string{"192.0.0.10/32", "TURN anycast"},
	[2]string{"2001:1::1/128", "PCP anycast"},
	[2]string{"2001:1::2/128", "TURN anycast"},
	[2]string{"2001:1::3/128", "DNS-SD anycast"},
	[2]string{"2001:3::/32", "AMT"},
	[2]string{"2001:4:112::/48", "AS112"},
	[2]string{"2001:20::/28", "ORCHIDv2"},
	[2]string{"2001:30::/28", "drone identification"},
)

// never are the ranges that `private = true` does not open either: they lead to the bundle itself, or to many.
var never = blocks(
	[2]string{"0.0.0.0/8", "this network"},
	[2]string{"127.0.0.0/8", "loopback"},
	[2]string{"224.0.0.0/4", "multicast"},
	[2]string{"255.255.255.255/32", "broadcast"},
	[2]string{"::/128", "unspecified"},
	[2]string{"::1/128", "loopback"},
	[2]string{"ff00::/8", "multicast"},
)

// metadata are the services by which clouds hand out credentials. docs/policy.md has the same table.
var metadata = blocks(
	[2]string{"169.254.169.0/24", "AWS, Google Cloud, Azure, OpenStack, Oracle, DigitalOcean, Hetzner, IBM and others"},
	[2]string{"169.254.170.2/32", "AWS ECS"},
	[2]string{"169.254.170.23/32", "AWS EKS Pod Identity"},
	[2]string{"169.254.0.23/32", "Tencent Cloud"},
	[2]string{"169.254.10.10/32", "Tencent Cloud"},
	[2]string{"169.254.42.42/32", "Scaleway"},
	[2]string{"100.100.100.200/32", "Alibaba Cloud"},
	[2]string{"168.63.129.16/32", "Azure WireServer"},
	[2]string{"192.0.0.192/32", "Oracle Cloud Classic"},
	[2]string{"fd00:ec2::/32", "AWS"},
	[2]string{"fd20:ce::254/128", "Google Cloud"},
	[2]string{"fd00:42::42/128", "Scaleway"},
	[2]string{"fe80::a9fe:a9fe/128", "OpenStack"},
)

func find(list []block, address netip.Addr) (string, bool) {
	for _, b := range list {
		if b.prefix.Contains(address) {
			return b.name, true
		}
	}
	return "", false
}

var (
	translated      = netip.MustParsePrefix("64:ff9b::/96")    // RFC 6052
	translatedLocal = netip.MustParsePrefix("64:ff9b:1::/48")  // RFC 8215
	sixToFour       = netip.MustParsePrefix("2002::/16")       // RFC 3056
	teredo          = netip.MustParsePrefix("2001::/32")       // RFC 4380
	compatible      = netip.MustParsePrefix("::/96")           // RFC 4291, 2.5.5.1
	siit            = netip.MustParsePrefix("::ffff:0:0:0/96") // RFC 2765
	isatap          = [2]uint32{0x00005efe, 0x02005efe}        // RFC 5214, 6.1
)

// embedded returns the IPv4 addresses that an IPv6 address may be another way to.
func embedded(address netip.Addr) []netip.Addr {
	if !address.Is6() {
		return nil
	}
	b := address.As16()
	four := func(i int) netip.Addr { return netip.AddrFrom4([4]byte(b[i : i+4])) }
	switch {
	case address.Is4In6():
		return []netip.Addr{address.Unmap()}
	case translated.Contains(address), siit.Contains(address):
		return []netip.Addr{four(12)}
	case translatedLocal.Contains(address):
		// A /48 of RFC 6052 leaves out the bits 64 to 71; a longer prefix inside of it ends with the address.
		readings := []netip.Addr{netip.AddrFrom4([4]byte{b[6], b[7], b[9], b[10]}), four(12)}
		return slices.DeleteFunc(readings, func(a netip.Addr) bool { return a.As4()[0] == 0 })
	case sixToFour.Contains(address):
		return []netip.Addr{four(2)}
	case teredo.Contains(address):
		client := binary.BigEndian.Uint32(b[12:]) ^ 0xffffffff
		var plain [4]byte
		binary.BigEndian.PutUint32(plain[:], client)
		return []netip.Addr{four(4), netip.AddrFrom4(plain)}
	case compatible.Contains(address) && address != netip.IPv6Unspecified() && address != netip.IPv6Loopback():
		return []netip.Addr{four(12)}
	}
	if id := binary.BigEndian.Uint32(b[8:]); id == isatap[0] || id == isatap[1] {
		return []netip.Addr{four(12)}
	}
	return nil
}

// Address returns why a name may not lead to that address, or "". private is its rule's.
func Address(address netip.Addr, private bool) string {
	address = address.WithZone("").Unmap()
	for _, candidate := range append([]netip.Addr{address}, embedded(address)...) {
		if cloud, found := find(metadata, candidate); found {
			return fmt.Sprintf("%s is the metadata service of a cloud (%s)", address, cloud)
		}
		if name, found := find(never, candidate); found {
			return fmt.Sprintf("%s is not an address that a host may have (%s)", address, name)
		}
		if _, exempt := find(global, candidate); exempt || private {
			continue
		}
		if name, found := find(notGlobal, candidate); found {
			return fmt.Sprintf("%s is not globally reachable (%s); the rule has to say `private = true`", address, name)
		}
	}
	return ""
}
