package main

import (
	"errors"
	"maps"
	"net"
	"net/netip"
	"os"
	"time"

	"bottle/proxy/internal/audit"
	"bottle/proxy/internal/judge"
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

func door(listener net.Listener, kind proxy.DoorKind, network netip.Prefix) proxy.Door {
	return proxy.Door{Listener: listener, Consumer: policy.Agent, Kind: kind, Internal: network}
}

// serveTransparent serves clients that know no proxy: names lead to this address, where ports are served by their
// functions. What can't be listened on is said; the proxy itself goes on.
func serveTransparent(network netip.Prefix, log *audit.Log, current func() *judge.Judge, ports map[uint16]func(net.Listener) error) {
	own := addressIn(network)
	names := &resolver.Resolver{
		Address: own,
		Allowed: func(name string) bool { return name == sidecars || current().Names(policy.Agent, name) },
		Asked: func(name string, allowed bool) {
			entry := audit.Entry{Event: "dns", Verdict: "refused", Host: name, Consumer: policy.Agent}
			if allowed {
				entry.Verdict = "allowed"
			}
			log.Write(entry)
		},
	}
	if socket, err := net.ListenPacket("udp", netip.AddrPortFrom(own, 53).String()); err != nil {
		notTransparent(err)
	} else {
		go names.ServeUDP(socket)
	}
	all := map[uint16]func(net.Listener) error{53: names.ServeTCP}
	maps.Copy(all, ports)
	for port, serve := range all {
		listener, err := net.Listen("tcp", netip.AddrPortFrom(own, port).String())
		if err != nil {
			notTransparent(err)
			continue
		}
		go serve(listener)
	}
}

func notTransparent(err error) {
	audit.Print("pipelock.not_transparent", map[string]any{"reason": err.Error()})
}
