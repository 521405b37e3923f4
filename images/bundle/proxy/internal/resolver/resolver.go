// Package resolver answers the agent's queries for names: allowed ones lead to the bundle itself, all others do not exist.
// It forwards nothing, ever.
package resolver

import (
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"bottle/proxy/internal/judge"
)

const (
	ttlS        = 5
	queryLimit  = 512 // bytes of a query that is looked at: a longer one carries something else
	tcpTimeout  = 10 * time.Second
	connections = 32
)

// A Resolver answers for one address, or for one of each name's.
type Resolver struct {
	// Address is the bundle's, where allowed names lead.
	Address netip.Addr
	// Of is where an allowed name leads by itself; nil where all lead to Address.
	Of func(name string) netip.Addr
	// Allowed decides about a normalized name.
	Allowed func(name string) bool
	// Asked is told of each name that was asked for.
	Asked func(name string, allowed bool)
}

// answer returns the reply to a query, or nil for what is none.
func (r *Resolver) answer(query []byte) []byte {
	var parser dnsmessage.Parser
	header, err := parser.Start(query)
	if err != nil || header.Response || len(query) > queryLimit {
		return nil
	}
	reply := dnsmessage.Header{ID: header.ID, Response: true, OpCode: header.OpCode, RecursionDesired: header.RecursionDesired, RecursionAvailable: true, Authoritative: true}
	question, err := parser.Question()
	if err != nil || header.OpCode != 0 || question.Class != dnsmessage.ClassINET {
		reply.RCode = dnsmessage.RCodeNotImplemented
		return pack(dnsmessage.Message{Header: reply})
	}
	name, err := judge.Normalize(question.Name.String())
	allowed := err == nil && r.Allowed(name)
	r.Asked(judge.Cut(strings.TrimSuffix(question.Name.String(), ".")), allowed)
	address := r.Address
	if allowed && r.Of != nil {
		address = r.Of(name)
	}
	message := dnsmessage.Message{Header: reply, Questions: []dnsmessage.Question{question}}
	switch {
	case !allowed:
		message.RCode = dnsmessage.RCodeNameError
	case question.Type == dnsmessage.TypeA && address.Is4():
		message.Answers = []dnsmessage.Resource{{Header: resource(question), Body: &dnsmessage.AResource{A: address.As4()}}}
	case question.Type == dnsmessage.TypeAAAA && address.Is6():
		message.Answers = []dnsmessage.Resource{{Header: resource(question), Body: &dnsmessage.AAAAResource{AAAA: address.As16()}}}
	}
	return pack(message)
}

func resource(question dnsmessage.Question) dnsmessage.ResourceHeader {
	return dnsmessage.ResourceHeader{Name: question.Name, Type: question.Type, Class: question.Class, TTL: ttlS}
}

func pack(message dnsmessage.Message) []byte {
	packed, err := message.Pack()
	if err != nil {
		return nil
	}
	return packed
}

// ServeUDP answers datagrams until the socket is closed.
func (r *Resolver) ServeUDP(socket net.PacketConn) error {
	buffer := make([]byte, queryLimit+1)
	for {
		n, from, err := socket.ReadFrom(buffer)
		if err != nil {
			return err
		}
		if reply := r.answer(buffer[:n]); reply != nil {
			socket.WriteTo(reply, from)
		}
	}
}

// ServeTCP answers connections until the listener is closed.
func (r *Resolver) ServeTCP(listener net.Listener) error {
	free := make(chan struct{}, connections)
	for {
		conn, err := listener.Accept()
		if err != nil {
			return err
		}
		free <- struct{}{}
		go func() {
			defer func() { conn.Close(); <-free }()
			r.serve(conn)
		}()
	}
}

func (r *Resolver) serve(conn net.Conn) {
	for {
		conn.SetDeadline(time.Now().Add(tcpTimeout))
		var size [2]byte
		if _, err := io.ReadFull(conn, size[:]); err != nil {
			return
		}
		length := binary.BigEndian.Uint16(size[:])
		if length > queryLimit {
			return
		}
		query := make([]byte, length)
		if _, err := io.ReadFull(conn, query); err != nil {
			return
		}
		reply := r.answer(query)
		if reply == nil {
			return
		}
		if _, err := conn.Write(binary.BigEndian.AppendUint16(nil, uint16(len(reply)))); err != nil {
			return
		}
		if _, err := conn.Write(reply); err != nil {
			return
		}
	}
}
