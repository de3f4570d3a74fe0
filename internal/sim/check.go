package sim

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Violation is something that clients must never see, by the name of the checker that found it.
type Violation struct {
	Checker string
	What    string
}

func (v Violation) String() string { return v.Checker + ": " + v.What }

// Verdict is what all checkers say of one history.
type Verdict struct {
	Violations []Violation
	// Examined counts what each checker has looked at: one that looked at nothing has shown nothing.
	Examined map[string]int
	// Undecided counts the topics of which it was not found out in time whether they are linearisable.
	Undecided int
}

// mostViolations bounds what one checker tells of one history.
const mostViolations = 5

// The names of the checkers.
const (
	nothingLost       = "nothing lost"
	nothingDoubled    = "nothing doubled"
	nothingReordered  = "nothing reordered"
	nothingPhantom    = "nothing phantom"
	nothingDiverged   = "nothing diverged"
	watermarkStays    = "watermark never goes back"
	oneLeader         = "one leader acknowledges"
	offsetsKept       = "committed offsets"
	metadataOrdered   = "metadata linearisable"
	metadataMonotonic = "metadata monotonic"
)

// Checkers are the names of all, in the order of Check.
func Checkers() []string {
	return []string{
		nothingLost, nothingDoubled, nothingReordered, nothingPhantom, nothingDiverged, watermarkStays, oneLeader, offsetsKept,
		metadataOrdered, metadataMonotonic,
	}
}

// Check says what is wrong with a history that has ended. It must not be called in a bubble: what bounds the search for an order
// of changes of metadata is real time.
func Check(h *History) Verdict {
	h.mu.Lock()
	defer h.mu.Unlock()
	c := &checking{h: h, verdict: Verdict{Examined: map[string]int{}}, told: map[string]int{}}
	h.identify()
	for _, p := range c.partitions() {
		c.lost(p)
		c.doubled(p)
		c.reordered(p)
		c.phantom(p)
		c.diverged(p)
		c.watermark(p)
		c.leaders(p)
	}
	c.offsets()
	c.metadata()
	for name, n := range c.told {
		if n > mostViolations {
			c.verdict.Violations = append(c.verdict.Violations, Violation{name, fmt.Sprintf("and %d more", n-mostViolations)})
		}
	}
	slices.SortStableFunc(c.verdict.Violations, func(a, b Violation) int {
		return slices.Index(Checkers(), a.Checker) - slices.Index(Checkers(), b.Checker)
	})
	return c.verdict
}

// checking is one Check.
type checking struct {
	h       *History
	verdict Verdict
	told    map[string]int
}

func (c *checking) examined(checker string, n int) { c.verdict.Examined[checker] += n }

func (c *checking) fail(checker, format string, args ...any) {
	if c.told[checker]++; c.told[checker] <= mostViolations {
		c.verdict.Violations = append(c.verdict.Violations, Violation{checker, fmt.Sprintf(format, args...)})
	}
}

// partition is what a history has of one.
type partition struct {
	Place
	attempts []*Attempt
	batches  []*sent // attempts by what they bring
	of       map[string]*sent
	reads    []*Read
	ends     []*End
	trimmed  int64 // below it records may be gone
	mortal   bool  // its topic may have been deleted

	seen  map[int64]Record // by offset: what readers saw first
	place map[string]int64 // by value: where they saw it first
}

// sent is one batch with all attempts to get it written, in their order.
type sent struct {
	values   []string
	attempts []*Attempt
	acked    *Attempt // the first that was acknowledged by all in-sync replicas
}

func (s *sent) String() string {
	a := s.attempts[0]
	return fmt.Sprintf("%s (%s, producer %d epoch %d sequence %d, %d attempts)", strings.Join(s.values, ","), a.Client, a.Producer, a.Epoch, a.Sequence, len(s.attempts))
}

func (p *partition) String() string {
	if p.ID == ([16]byte{}) {
		return fmt.Sprintf("%s-%d", p.Topic, p.Partition)
	}
	return fmt.Sprintf("%s(%x)-%d", p.Topic, p.ID[:3], p.Partition)
}

// identify gives places whose actors did not know the topic's id the only one that the name ever had.
func (h *History) identify() {
	ids := map[string][16]byte{}
	ambiguous := map[string]bool{}
	note := func(topic string, id [16]byte) {
		if id == ([16]byte{}) {
			return
		}
		if known, ok := ids[topic]; ok && known != id {
			ambiguous[topic] = true
		}
		ids[topic] = id
	}
	places := h.places()
	for _, p := range places {
		note(p.Topic, p.ID)
	}
	for _, c := range h.changes {
		if c.Kind == CreateTopic {
			note(c.Topic, c.ID)
		}
	}
	for _, p := range places {
		if id, ok := ids[p.Topic]; ok && !ambiguous[p.Topic] && p.ID == ([16]byte{}) {
			p.ID = id
		}
	}
}

// places are those of all events.
func (h *History) places() (all []*Place) {
	for _, e := range h.attempts {
		all = append(all, &e.Place)
	}
	for _, e := range h.reads {
		all = append(all, &e.Place)
	}
	for _, e := range h.ends {
		all = append(all, &e.Place)
	}
	for _, e := range h.commits {
		all = append(all, &e.Place)
	}
	for _, e := range h.fetches {
		all = append(all, &e.Place)
	}
	for _, e := range h.trims {
		all = append(all, &e.Place)
	}
	return all
}

// partitions sorts the history by partition.
func (c *checking) partitions() []*partition {
	all := map[Place]*partition{}
	of := func(at Place) *partition {
		p := all[at]
		if p == nil {
			p = &partition{Place: at, of: map[string]*sent{}, mortal: c.h.mayBeDeleted(at)}
			all[at] = p
		}
		return p
	}
	for _, a := range c.h.attempts {
		of(a.Place).add(a)
	}
	for _, r := range c.h.reads {
		p := of(r.Place)
		p.reads = append(p.reads, r)
	}
	for _, e := range c.h.ends {
		p := of(e.Place)
		p.ends = append(p.ends, e)
	}
	for _, t := range c.h.trims {
		p := of(t.Place)
		p.trimmed = max(p.trimmed, t.Before)
	}
	sorted := make([]*partition, 0, len(all))
	for _, p := range all {
		p.look()
		sorted = append(sorted, p)
	}
	slices.SortFunc(sorted, func(a, b *partition) int {
		return cmp.Or(cmp.Compare(a.Topic, b.Topic), slices.Compare(a.ID[:], b.ID[:]), cmp.Compare(a.Place.Partition, b.Place.Partition))
	})
	return sorted
}

// mayBeDeleted: a deletion of the topic's name was asked for that is not known to have come before it.
func (h *History) mayBeDeleted(at Place) bool {
	for _, d := range h.changes {
		if d.Kind != DeleteTopic || d.Topic != at.Topic {
			continue
		}
		after := slices.ContainsFunc(h.changes, func(c *Change) bool {
			return c.Kind == CreateTopic && c.Topic == at.Topic && c.ID == at.ID && c.Outcome == Done && d.Outcome == Done && d.before(&c.Span)
		})
		if !after {
			return true
		}
	}
	return false
}

func (p *partition) add(a *Attempt) {
	p.attempts = append(p.attempts, a)
	if len(a.Values) == 0 {
		return
	}
	s := p.of[a.Values[0]]
	if s == nil {
		s = &sent{values: a.Values}
		p.batches = append(p.batches, s)
		for _, v := range a.Values {
			p.of[v] = s
		}
	}
	s.attempts = append(s.attempts, a)
	if s.acked == nil && a.Outcome == Done && a.Acks == -1 {
		s.acked = a
	}
}

// look puts together what all readers saw.
func (p *partition) look() {
	p.seen, p.place = map[int64]Record{}, map[string]int64{}
	for _, r := range p.reads {
		for _, rec := range r.Records {
			if _, known := p.seen[rec.Offset]; !known {
				p.seen[rec.Offset] = rec
			}
			if _, known := p.place[rec.Value]; !known {
				p.place[rec.Value] = rec.Offset
			}
		}
	}
}
