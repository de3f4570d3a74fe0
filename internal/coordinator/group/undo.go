package group

import (
	"slices"
	"time"
)

// change is what a replayed record replaced.
type change struct {
	group     string
	topic     string // "": the group's own record
	partition int32
	had       bool
	before    committed
	stored    []byte // the group's record before; nil: none
}

// replacement is a static member that took its place under a new id without a rebalance.
type replacement struct {
	member             *member
	id, newID          string
	protocols          []protocol
	session, rebalance time.Duration
}

func (s *Shard) note(c change) {
	if !s.loading {
		s.journal = append(s.journal, c)
	}
}

// Appended says that the records of all Effects so far are in the log: they can only be lost together
// with this Shard's leadership from now on.
func (s *Shard) Appended() {
	clear(s.journal)
	clear(s.undecided)
	clear(s.replaced)
	s.journal, s.undecided, s.replaced = s.journal[:0], s.undecided[:0], s.replaced[:0]
}

// Failed says that the records of the Effects since the last Appended were refused before anything of
// them was written. Durable state goes back to what it was then. Everybody whose answer waited for
// them gets code, the log's own error, as its API says it: the caller drops its copies of those
// Replies. A group that was told an assignment which is lost joins again; one that was only being
// made is gone; a static member that had replaced another gives way to it.
func (s *Shard) Failed(now time.Time, code int16) Effects {
	s.begin(now)
	for _, r := range s.undecided {
		s.out.Replies = append(s.out.Replies, r.Refused(code))
	}
	var touched []string
	for _, c := range slices.Backward(s.journal) {
		s.undo(&c)
		if c.topic == "" && !slices.Contains(touched, c.group) {
			touched = append(touched, c.group)
		}
	}
	for _, was := range slices.Backward(s.replaced) {
		s.giveBack(&was)
	}
	for _, id := range slices.Backward(touched) {
		if g := s.groups[id]; g != nil {
			s.afterUndo(g, code)
		}
	}
	s.Appended() // nothing is open any more
	return s.take()
}

func (s *Shard) undo(c *change) {
	g := s.groupFor(c.group)
	switch {
	case c.topic == "":
		g.stored = c.stored
	case c.had:
		g.setOffset(c.topic, c.before)
	default:
		g.dropOffset(c.topic, c.partition)
	}
	if c.topic != "" {
		s.dissolveIfBare(g)
	}
}

// giveBack gives the place back to the member id that was replaced, if nothing else has happened to it.
func (s *Shard) giveBack(was *replacement) {
	m := was.member
	g := m.group
	if s.groups[g.id] != g || g.members[was.newID] != m || g.state != Stable {
		return
	}
	g.count(m, -1)
	m.protocols, m.session, m.rebalance = was.protocols, was.session, was.rebalance
	g.count(m, 1)
	g.rename(m, was.id)
	s.keepAlive(m)
}

// afterUndo brings what a group does in line with its record, which has gone back.
func (s *Shard) afterUndo(g *group, code int16) {
	if g.stored == nil {
		s.neverMade(g, code)
		return
	}
	v, err := readGroupValue(g.stored)
	if err != nil {
		panic("BUG: Replay took a record that cannot be read: " + err.Error())
	}
	switch {
	case g.size() == 0 && g.state == Empty && len(g.pending) == 0 && g.generation < v.Generation:
		// It had been deleted, and is back.
		if err := g.restore(); err != nil {
			panic("BUG: Replay took a record that cannot be read: " + err.Error())
		}
		for _, m := range g.order {
			s.keepAlive(m)
		}
	case g.generation < v.Generation:
		g.generation = v.Generation // deleted, and others are already making it anew: no number is used twice
	case g.state == Stable && g.generation != v.Generation:
		for _, m := range g.order {
			m.assignment = nil
		}
		s.prepareRebalance(g)
	}
}

// neverMade ends a group whose first record was refused.
func (s *Shard) neverMade(g *group, code int16) {
	for _, m := range slices.Clone(g.order) {
		s.endJoin(m, coordinatorCode(code))
		s.endSync(m, nil, coordinatorCode(code))
	}
	for _, m := range slices.Clone(g.order) {
		s.remove(g, m.id)
	}
	s.deleted(g)
}
