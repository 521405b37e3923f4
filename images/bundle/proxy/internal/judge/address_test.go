package judge

import (
	"net/netip"
	"testing"
)

func TestAddresses(t *testing.T) {
	const refused, private, open = 0, 1, 2 // never; with `private = true` alone; always
	for text, want := range map[string]int{
		"192.0.2.1": private, "10.0.0.1": private, "172.31.255.255": private, "172.32.0.1": open, "192.168.1.1": private, "100.64.0.1": private,
		"169.254.1.1": private, "198.18.0.1": private, "240.0.0.1": private, "8.8.8.8": open, "192.0.0.9": open, "192.0.0.8": private,
		"127.0.0.1": refused, "127.255.255.254": refused, "0.0.0.0": refused, "224.0.0.1": refused, "255.255.255.255": refused,
		"169.254.169.254": refused, "169.254.170.2": refused, "168.63.129.16": refused, "100.100.100.200": refused, "fd00:ec2::254": refused,
		"2606:4700::1111": open, "fd00::1": private, "fe80::1": private, "2001:db8::1": private, "::": refused, "::1": refused, "ff02::1": refused,
		// IPv4 in IPv6 clothes is what it embeds: mapped, compatible, translated, 6to4, Teredo, ISATAP.
		"::ffff:127.0.0.1": refused, "::ffff:10.0.0.1": private, "::ffff:8.8.8.8": open, "::127.0.0.1": refused, "::10.0.0.1": private, "::8.8.8.8": open,
		"64:ff9b::127.0.0.1": refused, "64:ff9b::10.0.0.1": private, "64:ff9b::8.8.8.8": open, "64:ff9b::169.254.169.254": refused,
		"64:ff9b:1::8.8.8.8": private, "64:ff9b:1::169.254.169.254": refused, "64:ff9b:1:a9fe:a9:fe00::": refused,
		"2002:7f00:1::1": refused, "2002:a00:1::1": private, "2002:808:808::1": private, "2002:a9fe:a9fe::1": refused,
		"2001:0:808:808:0:0:f5ff:fffe": private, "2001:0:7f00:1::": refused, "2001:0:808:808::5601:5601": refused,
		"::ffff:0:169.254.169.254": refused, "2606:4700::5efe:169.254.169.254": refused, "2606:4700::200:5efe:10.0.0.1": private,
	} {
		address := netip.MustParseAddr(text)
		without, with := Address(address, false) == "", Address(address, true) == ""
		if without != (want == open) || with != (want != refused) {
			t.Errorf("%s: without private %t (%s), with it %t (%s)", text, without, Address(address, false), with, Address(address, true))
		}
	}
}

func TestHosts(t *testing.T) {
	for text, want := range map[string]string{
		"Example.COM": "example.com:80", "example.com.": "example.com:80", "example.com:8443": "example.com:8443", "[2001:DB8::1]:443": "[2001:db8::1]:443",
		"[::ffff:10.0.0.1]": "10.0.0.1:80", "a_b.example": "a_b.example:80", "xn--bcher-kva.example": "xn--bcher-kva.example:80",
	} {
		if host, err := ParseHost(text, 80); err != nil || host.String() != want {
			t.Errorf("%s: %s %v", text, host, err)
		}
	}
	for _, text := range []string{"", ".", "a..b", "-a.b", "127.1", "2130706433", "0x7f.1", "0x7f000001", "[::1", "::1]", "fe80::1%eth0", "a b", "bücher.example", "a:0", "a:65536", "a:+1", "a:", "a/b", "a@b", "user:pw@host"} {
		if host, err := ParseHost(text, 80); err == nil {
			t.Errorf("%q is taken for %s", text, host)
		}
	}
}
