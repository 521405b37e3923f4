package main

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"time"

	"bottle/proxy/internal/audit"
	"bottle/proxy/internal/policy"
	"bottle/proxy/internal/proxy"
	"bottle/proxy/internal/resolver"
)

// internal is the network that agents are in ($BOTTLE_INTERNAL), the zero prefix where it is not told.
func internal() (netip.Prefix, error) {
	text := os.Getenv("BOTTLE_INTERNAL")
	if text == "" {
		return netip.Prefix{}, nil
	}
	prefix, err := netip.ParsePrefix(text)
	if err != nil {
		return prefix, errors.New("BOTTLE_INTERNAL: " + text + " is not a network such as 10.0.0.0/28")
	}
	return prefix.Masked(), nil
}

// addressIn waits until this container has an address in the network.
func addressIn(network netip.Prefix) netip.Addr {
	for ; ; time.Sleep(time.Second) {
		addresses, err := net.InterfaceAddrs()
		if err != nil {
			continue
		}
		for _, address := range addresses {
			if own, ok := address.(*net.IPNet); ok {
				if found, ok := netip.AddrFromSlice(own.IP); ok && network.Contains(found.Unmap()) {
					return found.Unmap()
				}
			}
		}
	}
}

// sidecars is the name by which agents know the bundle.
const sidecars = "sidecars"

// serveTransparent serves clients that know no proxy: names lead to this address, TLS is told by its server name, and
// plain HTTP by its Host header. What can't be listened on is said; the proxy itself goes on.
func serveTransparent(engine *proxy.Engine, network netip.Prefix) {
	own := addressIn(network)
	names := &resolver.Resolver{
		Address: own,
		Allowed: func(name string) bool { return name == sidecars || engine.State().Judge.Names(policy.Agent, name) },
		Asked: func(name string, allowed bool) {
			entry := audit.Entry{Event: "dns", Verdict: "refused", Host: name, Consumer: policy.Agent}
			if allowed {
				entry.Verdict = "allowed"
			}
			engine.Audit.Write(entry)
		},
	}
	complain := func(what string, err error) {
		audit.Print("pipelock.not_transparent", map[string]any{"listener": what, "reason": err.Error()})
	}
	if socket, err := net.ListenPacket("udp", netip.AddrPortFrom(own, 53).String()); err != nil {
		complain("udp 53", err)
	} else {
		go names.ServeUDP(socket)
	}
	if listener, err := net.Listen("tcp", netip.AddrPortFrom(own, 53).String()); err != nil {
		complain("tcp 53", err)
	} else {
		go names.ServeTCP(listener)
	}
	for port, kind := range map[uint16]proxy.DoorKind{80: proxy.TransparentHTTP, 443: proxy.TransparentTLS} {
		listener, err := net.Listen("tcp", netip.AddrPortFrom(own, port).String())
		if err != nil {
			complain("tcp "+listenerName(port), err)
			continue
		}
		go engine.Serve(proxy.Door{Listener: listener, Consumer: policy.Agent, Kind: kind, Internal: network})
	}
}

func listenerName(port uint16) string {
	if port == 80 {
		return "80"
	}
	return "443"
}
