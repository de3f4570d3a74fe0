package group

import (
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
)

func (s *Shard) rebalanceOrCompleteJoin(g *group) {
	switch g.state {
	case Empty, CompletingRebalance, Stable:
		s.prepareRebalance(g)
	default:
		s.maybeCompleteJoin(g)
	}
}

// prepareRebalance starts a join phase: every member has to come back, up to the longest rebalance
// timeout among them. They learn of it from their heartbeats. An empty group waits for more members
// instead.
func (s *Shard) prepareRebalance(g *group) {
	if g.state == CompletingRebalance {
		for _, m := range g.order {
			m.assignment = nil
			s.endSync(m, nil, kerr.RebalanceInProgress.Code)
		}
	}
	s.forgetSyncs(g)
	first := g.state == Empty
	g.to(PreparingRebalance, s.now)
	if first {
		wait, longest := s.config.GroupInitialRebalanceDelay, g.rebalanceTimeout()
		if wait == 0 {
			wait, longest = togetherWithin, min(togetherAtMost, longest)
		}
		g.delay = initialDelay{current: wait, remaining: max(longest-wait, 0)}
		s.setJoinTimer(g, wait)
		return
	}
	if g.allJoined() {
		s.completeJoin(g)
		return
	}
	s.setJoinTimer(g, g.rebalanceTimeout())
}

// A new group that waits for nobody (group.initial.rebalance.delay.ms=0) still takes in the members that start together:
// those that come, or get their ids, within togetherWithin of each other, for togetherAtMost in all. Without that the
// first of them makes a generation of its own, and finds out about the others from its next heartbeat, seconds later.
const (
	togetherWithin = 5 * time.Millisecond
	togetherAtMost = 100 * time.Millisecond
)

func (s *Shard) forgetSyncs(g *group) {
	for _, m := range g.order {
		m.owesSync = false
	}
	g.unsynced = 0
	s.stop(&g.syncTimer)
}

// maybeCompleteJoin ends the join phase when nobody is missing. The first one of an empty group lasts
// its time: more may come.
func (s *Shard) maybeCompleteJoin(g *group) {
	if g.state == PreparingRebalance && g.before != Empty && g.allJoined() {
		s.completeJoin(g)
	}
}

// completeJoin ends the join phase: who has come is in the next generation. A static member that has
// not stays until its session ends: it is being started again.
func (s *Shard) completeJoin(g *group) {
	s.stop(&g.joinTimer)
	s.dropMissing(g)
	if g.size() > 0 && !g.electJoined() {
		// Only static members, and none has come: wait for one, or for their sessions to end.
		s.setJoinTimer(g, g.rebalanceTimeout())
		return
	}
	g.generation++
	g.protocol = ""
	if g.size() == 0 {
		g.readSubscriptions()
		g.to(Empty, s.now)
		s.w.group(g.id, g.value(nil))
		return
	}
	g.protocol = g.selectProtocol()
	g.readSubscriptions()
	g.to(CompletingRebalance, s.now)
	for _, m := range g.order {
		if !m.join.deaf {
			s.keepAlive(m)
		}
		if m.join.on {
			s.finishJoin(m, g.joined(m, m.join.version))
		}
		m.fresh, m.owesSync = false, true
	}
	g.unsynced = g.size()
	s.setSyncTimer(g)
}

func (s *Shard) dropMissing(g *group) {
	var missing []string
	for _, m := range g.order {
		if !m.join.on && m.instance == nil {
			missing = append(missing, m.id)
		}
	}
	for _, id := range missing {
		s.remove(g, id)
	}
}

// electJoined makes sure that the leader is one that has come, and if possible one whose connection is
// still there: everybody waits for what it assigns.
func (g *group) electJoined() bool {
	if g.leader != nil && g.leader.join.listens() {
		return true
	}
	if at := slices.IndexFunc(g.order, func(m *member) bool { return m.join.listens() }); at >= 0 {
		g.leader = g.order[at]
		return true
	}
	if g.leader != nil && g.leader.join.on {
		return true
	}
	at := slices.IndexFunc(g.order, func(m *member) bool { return m.join.on })
	if at >= 0 {
		g.leader = g.order[at]
	}
	return at >= 0
}
