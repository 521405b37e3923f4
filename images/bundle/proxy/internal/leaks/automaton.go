package leaks

import "sort"

// An automaton finds all occurrences of a set of literals in one pass (Aho and Corasick, 1975), without regard to the
// case of ASCII letters.
type automaton struct {
	class  [256]uint8 // Bytes that no literal tells apart share a class.
	stride uint32
	next   []uint32  // Indexed by state + class; states are multiples of stride.
	output [][]int32 // What ends in a state, by state / stride - firstOutput.
	first  uint32    // The lowest state in which something ends.
}

// A hit is an occurrence of a literal. The offset is that of its first byte.
type hit struct {
	offset  int
	literal int32
}

func fold(b byte) byte {
	if 'A' <= b && b <= 'Z' {
		return b + 'a' - 'A'
	}
	return b
}

// A node of the trie that the automaton is made from.
type node struct {
	child  map[byte]int
	fail   int
	output []int32
}

// newAutomaton returns the automaton of literals, which are in lower case and not empty.
func newAutomaton(literals []string) *automaton {
	nodes := trie(literals)
	order := link(nodes)
	a := &automaton{}
	classes := a.classify(literals)
	a.stride = uint32(classes)
	// States in which something ends come last, so that one comparison tells.
	state := make([]uint32, len(nodes))
	var quiet, loud []int
	for _, n := range order {
		if len(nodes[n].output) == 0 {
			quiet = append(quiet, n)
		} else {
			loud = append(loud, n)
		}
	}
	for i, n := range append(quiet, loud...) {
		state[n] = uint32(i) * a.stride
	}
	a.first = uint32(len(quiet)) * a.stride
	a.next = make([]uint32, len(nodes)*classes)
	for _, n := range loud {
		a.output = append(a.output, nodes[n].output)
	}
	for _, n := range order { // Breadth first: the row of a node's fail link is complete before its own.
		row := a.next[state[n] : state[n]+a.stride]
		if n != 0 {
			fail := state[nodes[n].fail]
			copy(row, a.next[fail:fail+a.stride])
		}
		for b, child := range nodes[n].child {
			row[a.class[b]] = state[child]
		}
	}
	return a
}

func trie(literals []string) []node {
	nodes := []node{{child: map[byte]int{}}}
	for id, literal := range literals {
		at := 0
		for i := range len(literal) {
			child, ok := nodes[at].child[literal[i]]
			if !ok {
				child = len(nodes)
				nodes = append(nodes, node{child: map[byte]int{}})
				nodes[at].child[literal[i]] = child
			}
			at = child
		}
		nodes[at].output = append(nodes[at].output, int32(id))
	}
	return nodes
}

// link sets each node's fail link, adds what ends there to its output, and returns the nodes breadth first.
func link(nodes []node) []int {
	order := []int{0}
	for i := 0; i < len(order); i++ {
		parent := order[i]
		for b, child := range nodes[parent].child {
			order = append(order, child)
			if parent == 0 {
				continue
			}
			at := nodes[parent].fail
			for at != 0 && nodes[at].child[b] == 0 {
				at = nodes[at].fail
			}
			nodes[child].fail = nodes[at].child[b]
			nodes[child].output = append(nodes[child].output, nodes[nodes[child].fail].output...)
		}
	}
	return order
}

// classify fills a.class and returns the number of classes. Class 0 is for the bytes that are in no literal.
func (a *automaton) classify(literals []string) int {
	used := map[byte]bool{}
	for _, literal := range literals {
		for i := range len(literal) {
			used[literal[i]] = true
		}
	}
	bytes := make([]byte, 0, len(used))
	for b := range used {
		bytes = append(bytes, b)
	}
	sort.Slice(bytes, func(i, j int) bool { return bytes[i] < bytes[j] })
	for i, b := range bytes {
		a.class[b] = uint8(i + 1)
	}
	for b := range 256 {
		a.class[b] = a.class[fold(byte(b))]
	}
	return len(bytes) + 1
}

// find appends the hits in data to hits, in the order in which they end. lengths are those of the literals.
func (a *automaton) find(data []byte, lengths []int, hits []hit) []hit {
	state := uint32(0)
	next, class, first := a.next, &a.class, a.first
	for i, b := range data {
		state = next[state+uint32(class[b])]
		if state < first {
			continue
		}
		for _, id := range a.output[(state-first)/a.stride] {
			hits = append(hits, hit{i + 1 - lengths[id], id})
		}
	}
	return hits
}
