package sim

import (
	"cmp"
	"slices"
)

// watermark: what a consumer may see only grows. A new leader learns its predecessor's watermark late, so a fetch that
// it answers can show a lower one (in Kafka too), with nothing between that was not committed. What holds is this:
//
//   - no answer has records beyond the watermark that it tells;
//   - of the answers of one leader, told apart by the epoch that readers name (KIP-320), a later one has no lower
//     watermark than an earlier one, whoever asked;
//   - the end that ListOffsets tells never falls, leaders change or not (KIP-207): not below what any earlier answer in the same
//     leader epoch or an earlier one told, nor below what it let be read;
//   - what a reader was let read is there for it later: no answer starts the log beyond it unless records were deleted.
func (c *checking) watermark(p *partition) {
	for _, r := range p.reads {
		c.examined(watermarkStays, 1)
		if n := len(r.Records); n > 0 && r.Records[n-1].Offset >= r.Watermark {
			c.fail(watermarkStays, "%v: %s was given %d by node %d after %v, and told that the watermark is %d", p, r.Reader, r.Records[n-1].Offset, r.Node, r.Until, r.Watermark)
		}
		if r.LogStart > p.trimmed {
			c.fail(watermarkStays, "%v: node %d told %s after %v that the log begins at %d, and no records were deleted from %d on", p, r.Node, r.Reader, r.Until, r.LogStart, p.trimmed)
		}
	}
	c.inOneEpoch(p)
	c.endsOf(p)
}

// told is that one node has said, in an epoch, that everything below an offset is committed.
type told struct {
	Span
	epoch  int32
	offset int64
	node   int32
	who    string
}

func (c *checking) inOneEpoch(p *partition) {
	byEpoch := map[int32][]told{}
	for _, r := range p.reads {
		if r.LeaderEpoch >= 0 && !r.Follower {
			byEpoch[r.LeaderEpoch] = append(byEpoch[r.LeaderEpoch], told{r.Span, r.LeaderEpoch, r.Watermark, r.Node, r.Reader})
		}
	}
	for _, all := range byEpoch {
		c.ascending(p, all, all)
	}
}

// endsOf compares each answer to ListOffsets with all that came before it.
func (c *checking) endsOf(p *partition) {
	var ends, before []told
	for _, e := range p.ends {
		if e.LeaderEpoch >= 0 {
			ends = append(ends, told{e.Span, e.LeaderEpoch, e.Offset, e.Node, e.Reader})
		}
	}
	before = slices.Clone(ends)
	for _, r := range p.reads {
		// The epoch is that of who answers, not of the record: an older leader that lives on has heard less.
		if n := len(r.Records); n > 0 && r.LeaderEpoch >= 0 {
			before = append(before, told{r.Span, r.LeaderEpoch, r.Records[n-1].Offset + 1, r.Node, r.Reader})
		}
	}
	for _, s := range p.batches {
		if s.acked == nil || s.acked != s.attempts[0] {
			continue // which leader has acknowledged what an earlier one had written is not known
		}
		if offset, read := p.place[s.values[len(s.values)-1]]; read {
			before = append(before, told{s.acked.Span, p.seen[offset].Epoch, offset + 1, s.acked.Node, s.attempts[0].Client})
		}
	}
	c.ascending(p, before, ends)
}

// ascending: none of the later answers tells less than one that came before, in an epoch that is no later.
func (c *checking) ascending(p *partition, earlier, later []told) {
	earlier, later = slices.Clone(earlier), slices.Clone(later)
	slices.SortFunc(earlier, func(a, b told) int { return cmp.Compare(a.Returned, b.Returned) })
	slices.SortFunc(later, func(a, b told) int { return cmp.Compare(a.Invoked, b.Invoked) })
	most := map[int32]told{} // by epoch
	next := 0
	for _, now := range later {
		for ; next < len(earlier) && earlier[next].Returned < now.Invoked; next++ {
			if e := earlier[next]; e.offset > most[e.epoch].offset {
				most[e.epoch] = e
			}
		}
		for epoch, e := range most {
			if epoch <= now.epoch && e.offset > now.offset {
				c.fail(watermarkStays, "%v: %s was told %d by node %d after %v in epoch %d, and %s later, after %v, %d by node %d in epoch %d", p,
					e.who, e.offset, e.node, e.Until, e.epoch, now.who, now.Until, now.offset, now.node, now.epoch)
				break
			}
		}
	}
}
