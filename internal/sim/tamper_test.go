package sim

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"

	"barnabas/internal/clustertest"
)

// tampering is something that a cluster might have done to what clients saw in a whole world, and who has to notice.
type tampering struct {
	name    string
	noticed string // by which checker
	// do changes a history that is in order; false where it holds nothing to change.
	do func(*tampered) bool
}

// tampered is the history of a world that lived.
type tampered struct {
	*History
	dice *rand.Rand
}

// TestCheckersNoticeWhatIsDoneToAWorld tampers with what clients saw in a world in which all was well, one thing at a time. A
// checker that finds a fault in a story of three events need not find it among the faults, repeats and lost answers of a whole
// world, in which much may be that is not so.
func TestCheckersNoticeWhatIsDoneToAWorld(t *testing.T) {
	for seed := range clustertest.Seeds(3) {
		r, _, _ := runSeed(t, seed)
		if t.Failed() {
			return
		}
		Check(r.history) // which names topics by their ids, where only one had the name
		for _, x := range tamperings {
			h := &tampered{copyOf(r.history), rand.New(rand.NewPCG(seed, 1))}
			if !x.do(h) {
				t.Logf("seed %d: %s: there is nothing of it", seed, x.name)
				continue
			}
			if v := Check(h.History); !slices.ContainsFunc(v.Violations, func(v Violation) bool { return v.Checker == x.noticed }) {
				t.Errorf("seed %d: %s: %q finds nothing (%d topics undecided); the others find %v", seed, x.name, x.noticed, v.Undecided, v.Violations)
			}
		}
	}
}

// copyOf is a history of the same events.
func copyOf(h *History) *History {
	c := NewHistory()
	c.finished, c.moment = h.finished, h.moment
	c.attempts, c.reads, c.ends, c.commits = copies(h.attempts), copies(h.reads), copies(h.ends), copies(h.commits)
	c.fetches, c.changes, c.sights, c.trims = copies(h.fetches), copies(h.changes), copies(h.sights), copies(h.trims)
	for _, r := range c.reads {
		r.Records = slices.Clone(r.Records)
	}
	return c
}

func copies[E any](events []*E) (all []*E) {
	for _, e := range events {
		c := *e
		all = append(all, &c)
	}
	return all
}

// drawn is one of the events that fit; nil where there is none.
func drawn[E any](h *tampered, events []*E, fit func(*E) bool) *E {
	fits := slices.DeleteFunc(slices.Clone(events), func(e *E) bool { return !fit(e) })
	if len(fits) == 0 {
		return nil
	}
	return fits[h.dice.IntN(len(fits))]
}

// acknowledged draws a batch that was acknowledged by all in-sync replicas at once.
func (h *tampered) acknowledged() *Attempt {
	return drawn(h, h.attempts, func(a *Attempt) bool {
		return a.Outcome == Done && a.Acks == -1 && len(a.Values) > 0 && h.tries(a) == 1
	})
}

func (h *tampered) tries(of *Attempt) (n int) {
	for _, a := range h.attempts {
		if a.Place == of.Place && a.Values[0] == of.Values[0] {
			n++
		}
	}
	return n
}

// final draws what one replica had of a partition in the end, where that is something.
func (h *tampered) final(follower bool) *Read {
	acks := map[Place]bool{}
	for _, a := range h.attempts {
		acks[a.Place] = a.Acks == -1
	}
	return drawn(h, h.reads, func(r *Read) bool { return r.Final && r.Follower == follower && len(r.Records) > 9 && acks[r.Place] })
}

// sight draws one that shows a value.
func (h *tampered) sight(final bool) *Sight {
	return drawn(h, h.sights, func(s *Sight) bool { return s.Final == final && s.Exists && s.Value != "" })
}

var tamperings = []tampering{
	{"a follower has lost its end", nothingLost, func(h *tampered) bool {
		r := h.final(true)
		if r != nil {
			r.Records = r.Records[:len(r.Records)-1]
		}
		return r != nil
	}},
	{"the leader has lost its end", nothingLost, func(h *tampered) bool {
		r := h.final(false)
		if r != nil {
			r.Records = r.Records[:len(r.Records)-1]
		}
		return r != nil
	}},
	{"a batch is there twice", nothingDoubled, func(h *tampered) bool {
		r := h.final(false)
		if r != nil {
			last := r.Records[len(r.Records)-1]
			r.Records = append(r.Records, Record{last.Offset + 1, last.Epoch, last.Value})
			r.Watermark++
		}
		return r != nil
	}},
	{"two records have changed places", nothingReordered, func(h *tampered) bool {
		a := h.acknowledged()
		if a == nil || len(a.Values) < 2 {
			return false
		}
		swap := map[string]string{a.Values[0]: a.Values[1], a.Values[1]: a.Values[0]}
		for _, r := range h.reads {
			for i, rec := range r.Records {
				if to := swap[rec.Value]; r.Place == a.Place && to != "" {
					r.Records[i].Value = to
				}
			}
		}
		return true
	}},
	{"a record that was refused is read", nothingPhantom, func(h *tampered) bool {
		a := h.acknowledged()
		if a != nil {
			a.Outcome, a.Offset, a.Err = Refused, -1, kerr.NotEnoughReplicas
		}
		return a != nil
	}},
	{"a follower has another record at one offset", nothingDiverged, func(h *tampered) bool {
		r := h.final(true)
		if r != nil {
			r.Records[len(r.Records)/2].Value = r.Records[len(r.Records)/2-1].Value
		}
		return r != nil
	}},
	{"a follower has a record in another leader's epoch", nothingDiverged, func(h *tampered) bool {
		r := h.final(true)
		if r != nil {
			r.Records[len(r.Records)-1].Epoch++
		}
		return r != nil
	}},
	{"the end falls", watermarkStays, func(h *tampered) bool {
		e := drawn(h, h.ends, func(e *End) bool { return e.LeaderEpoch >= 0 && e.Offset > 500 }) // more than can be under way
		if e != nil {
			e.Offset = 0
		}
		return e != nil
	}},
	{"a deposed leader has acknowledged", oneLeader, func(h *tampered) bool {
		a := drawn(h, h.attempts, func(a *Attempt) bool { return a.Outcome == Done && a.Acks == -1 && a.Offset > 500 && len(a.Values) > 0 })
		if a == nil {
			return false
		}
		for _, r := range h.reads {
			for i, rec := range r.Records {
				if r.Place == a.Place && slices.Contains(a.Values, rec.Value) {
					r.Records[i].Epoch = -1
				}
			}
		}
		return true
	}},
	{"a group is put back in the end", offsetsKept, func(h *tampered) bool {
		f := drawn(h, h.fetches, func(f *Committed) bool { return f.Final && f.Offset > 20 })
		if f != nil {
			f.Offset = -1
		}
		return f != nil
	}},
	{"a group is where nobody has put it", offsetsKept, func(h *tampered) bool {
		f := drawn(h, h.fetches, func(f *Committed) bool { return f.Offset > 20 })
		if f != nil {
			f.Offset += 1_000_000
		}
		return f != nil
	}},
	{"an altered topic is as it was", metadataOrdered, func(h *tampered) bool {
		s := h.sight(true)
		if s == nil {
			return false
		}
		var before *Change // that was over when the one that is shown was asked for
		for _, c := range h.changes {
			if c.Topic == s.Topic && c.Value == s.Value {
				before = drawn(h, h.changes, func(o *Change) bool {
					return o.Topic == s.Topic && o.Value != "" && o.Outcome == Done && c.Outcome == Done && o.before(&c.Span)
				})
			}
		}
		if before != nil {
			s.Value = before.Value
		}
		return before != nil
	}},
	{"a topic that is there is gone on one node in the end", metadataOrdered, func(h *tampered) bool {
		s := drawn(h, h.sights, func(s *Sight) bool {
			return s.Final && s.Exists && s.Value != "" && !slices.ContainsFunc(h.changes, func(c *Change) bool { // which might be done at last
				return c.Topic == s.Topic && c.Kind == DeleteTopic && c.Outcome == Unknown
			})
		})
		if s != nil {
			s.Exists, s.Value = false, ""
		}
		return s != nil
	}},
	{"a node shows a value that nobody has set", metadataMonotonic, func(h *tampered) bool {
		s := h.sight(false)
		if s != nil {
			s.Value += "0"
		}
		return s != nil
	}},
	{"a node goes back to what it has shown first", metadataMonotonic, func(h *tampered) bool {
		fits := func(s *Sight) bool { return s.Exists && s.ID != [16]byte{} && s.Partitions > 1 }
		s := drawn(h, h.sights, fits)
		if s == nil {
			return false
		}
		seen := slices.DeleteFunc(slices.Clone(h.sights), func(o *Sight) bool { return o.Node != s.Node || o.Topic != s.Topic })
		for i, before := range seen {
			for _, later := range seen[i+1 : min(i+sightsCompared, len(seen))] {
				if fits(before) && fits(later) && before.ID == later.ID && before.before(&later.Span) {
					later.Partitions = before.Partitions - 1
					return true
				}
			}
		}
		return false
	}},
}
