package disk

import (
	"maps"
	"math/rand/v2"
	"slices"
)

// sectorBytes is what a disk writes whole, or so it says.
const sectorBytes = 512

// Crash returns the disk as it may look after a power cut, the same for the same history and seed,
// and kills m (ErrPowerLost), whatever its callers are doing. Of each directory a prefix of the
// unflushed changes survives, a rename as a whole. Of each file's unflushed changes: nothing, or
// all, or a prefix whose last write is cut at any byte, or any sectors, some of them torn inside,
// with zeros where a file has grown and its content was lost.
func (m *Mem) Crash(seed uint64) *Mem {
	m.mu.Lock()
	defer m.mu.Unlock()
	// Drawn before any is settled, since settling a rename moves the other directory too.
	upTo := map[*node]int{}
	for d := range m.dirty {
		if d.dir != nil {
			upTo[d] = d.settled + dice(seed, d).IntN(len(d.dir.pending)+1)
		}
	}
	for d, n := range upTo { // in no order: the outcome is the union
		m.settle(d, n)
	}
	next := &Mem{dirty: map[*node]bool{}, locks: map[string]string{}, capacity: m.capacity}
	next.fault.Store(m.fault.Load())
	next.root = next.survivor(m.root, seed, map[*node]bool{})
	next.used = next.root.closeAll()
	m.die(ErrPowerLost)
	return next
}

// dice are a node's own, so that what befalls one file does not depend on what else there is.
func dice(seed uint64, n *node) *rand.Rand { return rand.New(rand.NewPCG(seed, hash(n.born))) }

// survivor builds what is left of n. above holds the directories it is in.
func (m *Mem) survivor(n *node, seed uint64, above map[*node]bool) *node {
	s := &node{born: n.born, modTime: n.modTime}
	if n.dir == nil {
		s.durable = n.durable.clone()
		tear(&s.durable, n, dice(seed, n))
		s.live = s.durable.clone()
		return s
	}
	s.dir = &directory{live: map[string]*node{}}
	above[n] = true
	for name, kid := range n.dir.durable {
		if above[kid] {
			continue // renames that survived in part can leave a loop
		}
		c := m.survivor(kid, seed, above)
		c.parent = s
		s.dir.live[name] = c
	}
	delete(above, n)
	s.dir.durable = maps.Clone(s.dir.live)
	return s
}

// tear adds to a platter what of the file's unflushed changes reached it.
func tear(platter *image, n *node, r *rand.Rand) {
	switch fate := r.IntN(8); fate {
	case 0: // nothing did
	case 1:
		for _, c := range n.pending {
			c.apply(platter)
		}
	case 2, 3:
		whole := r.IntN(len(n.pending) + 1)
		for _, c := range n.pending[:whole] {
			c.apply(platter)
		}
		if whole < len(n.pending) {
			if c := n.pending[whole]; c.kind == OpWrite {
				platter.writeAt(c.data[:r.IntN(len(c.data)+1)], c.off)
			}
		}
	default:
		tornInside := fate >= 6
		lost := 1 + r.IntN(15) // of 16
		for _, c := range n.pending {
			tearChange(platter, c, r, lost, tornInside)
		}
		if grown := n.live.size - platter.size; grown > 0 && r.IntN(3) == 0 {
			platter.truncate(platter.size + 1 + r.Int64N(grown))
		}
	}
}

func tearChange(platter *image, c fileChange, r *rand.Rand, lost int, tornInside bool) {
	if c.kind != OpWrite {
		if r.IntN(16) >= lost {
			c.apply(platter)
		}
		return
	}
	for sector := range sectors(c) {
		switch {
		case r.IntN(16) < lost:
		case tornInside && r.IntN(4) == 0:
			sector.data = sector.data[:r.IntN(len(sector.data)+1)]
			sector.apply(platter)
		default:
			sector.apply(platter)
		}
	}
}

// sectors splits a write where the disk would.
func sectors(c fileChange) func(yield func(fileChange) bool) {
	return func(yield func(fileChange) bool) {
		for off, data := c.off, c.data; len(data) > 0; {
			n := min(len(data), sectorBytes-int(off%sectorBytes))
			if !yield(fileChange{kind: OpWrite, off: off, data: slices.Clip(data[:n])}) {
				return
			}
			off, data = off+int64(n), data[n:]
		}
	}
}
