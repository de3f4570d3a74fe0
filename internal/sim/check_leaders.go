package sim

import (
	"cmp"
	"slices"
)

// leaders: no two leaders acknowledge side by side. Two acknowledgements never give one offset to different records, and
// along the offsets of what was acknowledged leader epochs do not fall: a leader whose epoch is over adds nothing
// behind what its successor has.
func (c *checking) leaders(p *partition) {
	at := map[int64]*sent{}
	for _, s := range p.batches {
		if s.acked == nil {
			continue
		}
		c.examined(oneLeader, 1)
		for i := range s.values {
			offset := s.acked.Offset + int64(i)
			if other := at[offset]; other != nil && other != s {
				c.fail(oneLeader, "%v: offset %d was acknowledged for %v by node %d after %v, and for %v by node %d after %v", p, offset,
					other, other.acked.Node, other.acked.Until, s, s.acked.Node, s.acked.Until)
				break
			}
			at[offset] = s
		}
	}
	type place struct {
		Record
		s *sent
	}
	var known []place
	for _, s := range p.batches {
		if s.acked == nil {
			continue
		}
		if offset, read := p.place[s.values[0]]; read {
			known = append(known, place{p.seen[offset], s})
		}
	}
	slices.SortFunc(known, func(a, b place) int { return cmp.Compare(a.Offset, b.Offset) })
	for i := 1; i < len(known); i++ {
		if a, b := known[i-1], known[i]; b.Epoch < a.Epoch {
			c.fail(oneLeader, "%v: %v was acknowledged by node %d in epoch %d at %d, and behind it %v by node %d in epoch %d at %d", p,
				a.s, a.s.acked.Node, a.Epoch, a.Offset, b.s, b.s.acked.Node, b.Epoch, b.Offset)
		}
	}
}
