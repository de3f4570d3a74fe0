package sim

import (
	"cmp"
	"slices"
)

// What must hold of the records of one partition. A record that a reader was given is committed, so it stays what it is and
// where it is; one that was acknowledged by all in-sync replicas is committed too; and the order of a
// partition does not contradict the order in which its producers were told of it.

// finals are the last looks at a partition, one for each node that was asked.
func (p *partition) finals() map[int32]*final {
	all := map[int32]*final{}
	for _, r := range p.reads {
		if !r.Final {
			continue
		}
		f := all[r.Node]
		if f == nil {
			f = &final{records: map[int64]Record{}, start: r.LogStart}
			all[r.Node] = f
		}
		f.start = max(f.start, r.LogStart)
		for _, rec := range r.Records {
			f.records[rec.Offset] = rec
		}
	}
	return all
}

// final is everything that one node has of a partition at the end.
type final struct {
	start   int64
	records map[int64]Record
}

// lost: what was acknowledged is there in the end, where it was said to be, on every replica that is asked.
func (c *checking) lost(p *partition) {
	finals := p.finals()
	nodes := make([]int32, 0, len(finals))
	for node := range finals {
		nodes = append(nodes, node)
	}
	slices.Sort(nodes)
	for _, s := range p.batches {
		if s.acked == nil || p.mortal || !c.h.finished {
			continue
		}
		if len(nodes) == 0 {
			c.fail(nothingLost, "%v: %v was acknowledged, and nobody has read the partition at the end", p, s)
			return
		}
		c.examined(nothingLost, len(s.values))
		for _, node := range nodes {
			c.lostOn(p, node, finals[node], s)
		}
	}
}

func (c *checking) lostOn(p *partition, node int32, f *final, s *sent) {
	for i, v := range s.values {
		at := s.acked.Offset + int64(i)
		if at < f.start && at < p.trimmed || f.records[at].Value == v {
			continue
		}
		found := "nothing"
		if rec, ok := f.records[at]; ok {
			found = rec.Value
		}
		c.fail(nothingLost, "%v: %s of %v was acknowledged at %d by node %d after %v; in the end node %d has %s there, and begins at %d",
			p, v, s, at, s.acked.Node, s.acked.Until, node, found, f.start)
		return
	}
}

// doubled: a record is in one place. What was sent again without a producer id may come again.
func (c *checking) doubled(p *partition) {
	told := map[*sent]bool{}
	for _, r := range p.reads {
		for _, rec := range r.Records {
			s := p.of[rec.Value]
			if s == nil || told[s] || s.mayRepeat() {
				continue
			}
			c.examined(nothingDoubled, 1)
			if at := p.place[rec.Value]; at != rec.Offset {
				told[s] = true
				c.fail(nothingDoubled, "%v: %s of %v is at %d and, as %s read from node %d after %v, at %d", p, rec.Value, s, at, r.Reader, r.Node, r.Until, rec.Offset)
			}
		}
	}
	for _, s := range p.batches {
		for _, a := range s.attempts {
			if s.acked != nil && a.Outcome == Done && a.Acks == -1 && a.Offset != s.acked.Offset && !s.mayRepeat() {
				c.fail(nothingDoubled, "%v: %v was acknowledged at %d by node %d and at %d by node %d", p, s, s.acked.Offset, s.acked.Node, a.Offset, a.Node)
				break
			}
		}
	}
}

func (s *sent) mayRepeat() bool { return len(s.attempts) > 1 && s.attempts[0].Producer < 0 }

// reordered: what a producer wrote comes in the order of its sequence numbers; and a batch that was acknowledged before another was
// first sent, by whomever, comes before it.
func (c *checking) reordered(p *partition) {
	type origin struct {
		producer int64
		epoch    int16
	}
	last := map[origin]Record{}
	for _, offset := range p.offsets() {
		s := p.of[p.seen[offset].Value]
		if s == nil || s.attempts[0].Producer < 0 {
			continue
		}
		a := s.attempts[0]
		from := origin{a.Producer, a.Epoch}
		at := int64(a.Sequence) + int64(slices.Index(s.values, p.seen[offset].Value))
		before, known := last[from]
		c.examined(nothingReordered, 1)
		if known && at < before.Offset { // the sequence number, here
			c.fail(nothingReordered, "%v: offset %d is %s, sequence %d of producer %d in epoch %d, behind %s, sequence %d",
				p, offset, p.seen[offset].Value, at, a.Producer, a.Epoch, before.Value, before.Offset)
		}
		if !known || at > before.Offset {
			last[from] = Record{Offset: at, Value: p.seen[offset].Value}
		}
	}
	var acked []*sent
	for _, s := range p.batches {
		if s.acked != nil && !s.mayRepeat() {
			acked = append(acked, s)
		}
	}
	slices.SortFunc(acked, func(a, b *sent) int { return cmp.Compare(b.acked.Offset, a.acked.Offset) }) // from the end
	var early *sent                                                                                     // acknowledged first of all that lie behind
	for _, s := range acked {
		if early != nil && early.acked.Offset > s.acked.Offset && early.acked.before(&s.attempts[0].Span) {
			c.fail(nothingReordered, "%v: %v was acknowledged at %d after %v, and %v, sent first after %v, at %d",
				p, early, early.acked.Offset, early.acked.Until, s, s.attempts[0].Since, s.acked.Offset)
		}
		if early == nil || s.acked.Returned < early.acked.Returned {
			early = s
		}
	}
}

// offsets are those that anybody has read, ascending.
func (p *partition) offsets() []int64 {
	all := make([]int64, 0, len(p.seen))
	for offset := range p.seen {
		all = append(all, offset)
	}
	slices.Sort(all)
	return all
}

// phantom: what is read somebody has sent, to this partition, before it was read, and was not refused for good.
func (c *checking) phantom(p *partition) {
	for _, r := range p.reads {
		for _, rec := range r.Records {
			c.examined(nothingPhantom, 1)
			s := p.of[rec.Value]
			switch {
			case s == nil:
				c.fail(nothingPhantom, "%v: %s read %q at %d from node %d after %v, and nobody has written it here", p, r.Reader, rec.Value, rec.Offset, r.Node, r.Until)
			case r.Returned < s.attempts[0].Invoked:
				c.fail(nothingPhantom, "%v: %s read %q at %d from node %d after %v, before it was sent", p, r.Reader, rec.Value, rec.Offset, r.Node, r.Until)
			case s.refused():
				c.fail(nothingPhantom, "%v: %s read %q of %v at %d from node %d after %v, and it was refused: %v",
					p, r.Reader, rec.Value, s, rec.Offset, r.Node, r.Until, s.attempts[0].Err)
			}
		}
	}
}

func (s *sent) refused() bool {
	return !slices.ContainsFunc(s.attempts, func(a *Attempt) bool { return a.Outcome != Refused })
}

// diverged: an offset has one record, whoever reads it from whomever, and it is the one that was acknowledged there. What a
// reader is given has no holes, and leader epochs that do not fall.
func (c *checking) diverged(p *partition) {
	for _, r := range p.reads {
		next := r.From
		for i, rec := range r.Records {
			c.examined(nothingDiverged, 1)
			if first := p.seen[rec.Offset]; first.Value != rec.Value || first.Epoch != rec.Epoch {
				c.fail(nothingDiverged, "%v: offset %d was read as %q of epoch %d, and by %s from node %d after %v as %q of epoch %d",
					p, rec.Offset, first.Value, first.Epoch, r.Reader, r.Node, r.Until, rec.Value, rec.Epoch)
			}
			if rec.Offset != next {
				c.fail(nothingDiverged, "%v: %s read from %d of node %d after %v, and was given %d where %d should be", p, r.Reader, r.From, r.Node, r.Until, rec.Offset, next)
			}
			if i > 0 && rec.Epoch < r.Records[i-1].Epoch {
				c.fail(nothingDiverged, "%v: the record at %d is of epoch %d, and the one before of %d", p, rec.Offset, rec.Epoch, r.Records[i-1].Epoch)
			}
			next = rec.Offset + 1
		}
	}
	for _, s := range p.batches {
		for i, v := range s.values {
			if s.acked == nil {
				break
			}
			if rec, read := p.seen[s.acked.Offset+int64(i)]; read && rec.Value != v {
				c.fail(nothingDiverged, "%v: %s of %v was acknowledged at %d by node %d after %v, and %q was read there",
					p, v, s, rec.Offset, s.acked.Node, s.acked.Until, rec.Value)
				break
			}
		}
	}
}
