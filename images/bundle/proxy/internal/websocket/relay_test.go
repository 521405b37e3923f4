package websocket

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"testing"

	"bottle/proxy/internal/policy"
	"bottle/proxy/internal/scan"
)

const token = "ghp_" + "0123456789abcdefghijABCDEFGHIJ012345" // made up

func set(t *testing.T) *scan.Set {
	s, err := scan.New([]policy.Pattern{{Name: "token", Regex: `gh[pousr]_[A-Za-z0-9]{36}`}}, []scan.Secret{{Name: "api", Value: "the-secret-of-the-bottle"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// frame makes a frame; first is its first byte.
func frame(first byte, masked bool, payload string) []byte {
	f := []byte{first}
	bit := byte(0)
	if masked {
		bit = 0x80
	}
	switch n := len(payload); {
	case n < 126:
		f = append(f, bit|byte(n))
	case n < 1<<16:
		f = binary.BigEndian.AppendUint16(append(f, bit|126), uint16(n))
	default:
		f = binary.BigEndian.AppendUint64(append(f, bit|127), uint64(n))
	}
	if !masked {
		return append(f, payload...)
	}
	key := []byte{1, 2, 3, 4}
	f = append(f, key...)
	for i := range len(payload) {
		f = append(f, payload[i]^key[i&3])
	}
	return f
}

func relay(t *testing.T, masked, blot bool, frames ...[]byte) (string, error) {
	var out bytes.Buffer
	r := &Relay{In: bufio.NewReader(bytes.NewReader(bytes.Join(frames, nil))), Out: NewSink(&out), Masked: masked, Set: set(t), Blot: blot, Limit: 1 << 20, Moved: func(int) {}}
	err := r.Run()
	return out.String(), err
}

func TestFramesPassUnchanged(t *testing.T) {
	for _, masked := range []bool{true, false} {
		frames := [][]byte{
			frame(0x81, masked, "hello"), frame(0x82, masked, strings.Repeat("b", 300)), frame(0x81, masked, strings.Repeat("c", 70000)), frame(0x81, masked, ""),
			frame(0x01, masked, "a message ghp_ in "), frame(0x89, masked, "a ping in between"), frame(0x00, masked, "three "), frame(0x80, masked, "pieces: ghp_"),
			frame(0x8a, masked, ""), frame(0x88, masked, "\x03\xe8bye"),
		}
		got, err := relay(t, masked, !masked, frames...)
		// A ping may be overtaken by no part of a message, and wait for the end of a frame that is held back.
		if err != io.EOF || len(got) != len(bytes.Join(frames, nil)) || !strings.HasPrefix(got, string(bytes.Join(frames[:4], nil))) {
			t.Errorf("masked %t: %v, %d bytes of %d", masked, err, len(got), len(bytes.Join(frames, nil)))
		}
	}
}

func TestSecretsInFramesOfEveryKind(t *testing.T) {
	for name, frames := range map[string][][]byte{
		"text":         {frame(0x81, true, "x"+token)},
		"binary":       {frame(0x82, true, "x"+token)},
		"ping":         {frame(0x89, true, token)},
		"pong":         {frame(0x8a, true, token)},
		"close":        {frame(0x88, true, "\x03\xe8"+token)},
		"fragments":    {frame(0x01, true, token[:20]), frame(0x89, true, "ping"), frame(0x00, true, token[20:30]), frame(0x80, true, token[30:])},
		"two pings":    {frame(0x89, true, token[:20]), frame(0x89, true, token[20:])},
		"large":        {frame(0x82, true, strings.Repeat("x", 40000)+token)},
		"two messages": {frame(0x81, true, token[:20]), frame(0x81, true, token[20:])},
	} {
		got, err := relay(t, true, false, frames...)
		var wrong *Error
		if !errors.As(err, &wrong) || wrong.Code != PolicyViolation {
			t.Errorf("%s: %v", name, err)
		}
		plain := []byte{}
		for i := range len(got) {
			plain = append(plain, got[i]^byte(i&3+1))
		}
		if name == "fragments" && len(got) > 6 {
			t.Errorf("%s: %d bytes left", name, len(got))
		}
		if bytes.Contains(plain, []byte(token[:20])) && name != "two pings" && name != "two messages" {
			t.Errorf("%s: part of it left", name)
		}
	}
}

func TestEchoesAreBlottedOut(t *testing.T) {
	got, err := relay(t, false, true, frame(0x01, false, "you said the-secret-of"), frame(0x80, false, "-the-bottle!"), frame(0x89, false, "the-secret-of-the-bottle"))
	if err != io.EOF || strings.Contains(got, "secret") || !strings.Contains(got, "you said *") || !strings.HasSuffix(got, "************************") {
		t.Errorf("%v %q", err, got)
	}
}

// What the rule has taken out of messages leaves frames as long as they were.
func TestSecretsAreTakenOutOfFrames(t *testing.T) {
	for _, frames := range [][][]byte{
		{frame(0x81, true, "a "+token+" b")}, {frame(0x89, true, token)}, {frame(0x01, true, token[:20]), frame(0x80, true, token[20:])},
	} {
		var out bytes.Buffer
		names := []string{}
		r := &Relay{In: bufio.NewReader(bytes.NewReader(bytes.Join(frames, nil))), Out: NewSink(&out), Masked: true, Set: set(t), Blot: true, Limit: 1 << 20, Moved: func(int) {},
			Blotted: func(found *scan.Finding) { names = append(names, found.Name) }}
		if err := r.Run(); err != io.EOF || len(names) != 1 || out.Len() != len(bytes.Join(frames, nil)) {
			t.Errorf("%v, %v, %d bytes", err, names, out.Len())
		}
		plain := []byte{}
		for i := range out.Len() {
			plain = append(plain, out.Bytes()[i]^byte(i&3+1))
		}
		if bytes.Contains(plain, []byte(token[:8])) || bytes.Contains(out.Bytes(), []byte(token[:8])) {
			t.Error("part of it left")
		}
	}
}

// What the operator lets go leaves as it came, and what comes after it is looked at as well.
func TestTheOperatorIsAskedAboutEachSecret(t *testing.T) {
	sent := [][]byte{frame(0x81, true, "a "+token+" and "+token+" b"), frame(0x89, true, token), frame(0x81, true, "c")}
	for _, yes := range []bool{true, false} {
		var out bytes.Buffer
		asked := 0
		r := &Relay{In: bufio.NewReader(bytes.NewReader(bytes.Join(sent, nil))), Out: NewSink(&out), Masked: true, Set: set(t), Limit: 1 << 20, Moved: func(int) {},
			Ask: func(*scan.Finding) error {
				if asked++; yes {
					return nil
				}
				return &Error{PolicyViolation, "no"}
			}}
		err := r.Run()
		var wrong *Error
		switch {
		case yes && (err != io.EOF || asked != 3 || !bytes.Equal(out.Bytes(), bytes.Join(sent, nil))):
			t.Errorf("%v, asked %d times: %q", err, asked, out.Bytes())
		case !yes && (!errors.As(err, &wrong) || asked != 1 || out.Len() != 0):
			t.Errorf("%v, asked %d times: %q", err, asked, out.Bytes())
		}
	}
}

func TestBrokenFrames(t *testing.T) {
	for name, f := range map[string][]byte{
		"an extension": frame(0xc1, true, "x"), "unmasked": frame(0x81, false, "x"), "an unknown kind": frame(0x83, true, "x"), "a ping in pieces": frame(0x09, true, "x"),
		"a long ping": frame(0x89, true, strings.Repeat("x", 126)), "no beginning": frame(0x80, true, "x"),
	} {
		var wrong *Error
		if got, err := relay(t, true, false, f); !errors.As(err, &wrong) || wrong.Code != ProtocolError || got != "" {
			t.Errorf("%s: %v %q", name, err, got)
		}
	}
	var wrong *Error
	if _, err := relay(t, true, false, frame(0x82, true, strings.Repeat("x", 1<<20+1))); !errors.As(err, &wrong) || wrong.Code != TooBig {
		t.Errorf("too big: %v", err)
	}
}

func TestTheLastWordComesBetweenFrames(t *testing.T) {
	var out bytes.Buffer
	s := NewSink(&out)
	s.write([]byte{0x81, 2, 'a'}, true)
	if s.Close(PolicyViolation, "no") {
		t.Error("closed in the middle of a frame")
	}
	s.write([]byte{'b'}, false)
	if want := "\x81\x02ab\x88\x04\x03\xf0no"; out.String() != want {
		t.Errorf("%q", out.String())
	}
	if s.write([]byte("more"), false) == nil {
		t.Error("a frame after the last word")
	}
}
