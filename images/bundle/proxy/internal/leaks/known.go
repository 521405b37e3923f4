package leaks

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
)

// maxNeedle bounds the length of a needle, in bytes.
const maxNeedle = 32 << 10

// Known describes the bottle's own credentials in their usual encodings, without holding any: of each needle, that is
// of one credential in one encoding, it has the length, a hash of the first bytes that can be rolled over a text, and a
// digest of the whole. It may be shared by goroutines.
type Known struct {
	key     uint64
	window  int
	drop    uint64 // key to the power of window: what the byte that leaves the window counts.
	needles map[uint32][]needle
	// A bit for each value that the lowest bits of a head may have: most places of a text are done with it alone.
	maybe [1 << 13 / 64]uint64
}

type needle struct {
	name   string
	length int
	digest [sha256.Size]byte
}

// ParseKnown reads a description: {"key": HEX, "window": N, "needles": [{"name", "length", "head", "sha256": HEX}]}.
// Where h0 = 0 and h = h * key + byte + 1 modulo 2^64 over the first N bytes of the needle, head is the upper half of h.
func ParseKnown(description []byte) (*Known, error) {
	var raw struct {
		Key     string
		Window  int
		Needles []struct {
			Name   string
			Length int
			Head   uint32
			SHA256 string
		}
	}
	if err := json.Unmarshal(description, &raw); err != nil {
		return nil, fmt.Errorf("known secrets: %w", err)
	}
	k := &Known{window: raw.Window, needles: map[uint32][]needle{}, drop: 1}
	if _, err := fmt.Sscanf(raw.Key, "%x", &k.key); err != nil || raw.Window < 1 || raw.Window > maxNeedle {
		return nil, fmt.Errorf("known secrets: key or window is missing")
	}
	for range k.window {
		k.drop *= k.key
	}
	for i, each := range raw.Needles {
		n := needle{name: each.Name, length: each.Length}
		digest, err := hex.DecodeString(each.SHA256)
		if err != nil || len(digest) != sha256.Size || n.length < k.window || n.length > maxNeedle {
			return nil, fmt.Errorf("known secrets: needles[%d]: a wrong length or digest", i)
		}
		copy(n.digest[:], digest)
		k.needles[each.Head] = append(k.needles[each.Head], n)
		k.maybe[each.Head&(1<<13-1)/64] |= 1 << (each.Head % 64)
	}
	return k, nil
}

// find calls found for each needle in data, with the credential's name and where it is.
func (k *Known) find(data []byte, found func(name string, offset, length int)) {
	if len(k.needles) == 0 || len(data) < k.window {
		return
	}
	key, drop, window := k.key, k.drop, k.window
	hash := uint64(0)
	for _, b := range data[:window] {
		hash = hash*key + uint64(b) + 1
	}
	for end := window; ; end++ {
		head := uint32(hash >> 32)
		if k.maybe[head&(1<<13-1)/64]&(1<<(head%64)) != 0 {
			k.check(data, end-window, head, found)
		}
		if end == len(data) {
			return
		}
		hash = hash*key + uint64(data[end]) + 1 - drop*(uint64(data[end-window])+1)
	}
}

func (k *Known) check(data []byte, offset int, head uint32, found func(name string, offset, length int)) {
	for _, n := range k.needles[head] {
		if offset+n.length <= len(data) && sha256.Sum256(data[offset:offset+n.length]) == n.digest {
			found(n.name, offset, n.length)
		}
	}
}
