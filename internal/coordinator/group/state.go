package group

import (
	"bytes"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// replayGroup is how a group's record changes.
func (s *Shard) replayGroup(r Record) error {
	k, err := readGroupKey(r.Key)
	if err != nil {
		return err
	}
	g := s.groups[k.Group]
	if r.Value == nil {
		if g != nil {
			s.note(change{group: g.id, stored: g.stored})
			g.stored = nil
			s.deleted(g)
		}
		return nil
	}
	stored := bytes.Clone(r.Value) // what is kept of v, assignments above all, lies in it
	v, err := readGroupValue(stored)
	if err != nil {
		return err
	}
	if g == nil {
		g = s.create(strings.Clone(k.Group))
	}
	s.note(change{group: g.id, stored: g.stored})
	g.stored = stored
	if !s.loading {
		g.settle(&v, s.now)
	}
	return nil
}

// settle brings a live group to what its new record says: the assignments count from here on. The
// record of a group that is being made, or is empty, says nothing that is not known.
func (g *group) settle(v *kmsg.GroupMetadataValue, now time.Time) {
	if len(v.Members) == 0 || v.Generation != g.generation {
		return
	}
	for i := range v.Members {
		if m := g.members[v.Members[i].MemberID]; m != nil {
			m.assignment = v.Members[i].Assignment
		}
	}
	if g.state == CompletingRebalance {
		g.to(Stable, now)
	}
}

// deleted takes the group itself away; offsets that it still has are then those of a group without
// members.
func (s *Shard) deleted(g *group) {
	for _, id := range slices.Sorted(maps.Keys(g.pending)) {
		s.remove(g, id)
	}
	if g.size() == 0 {
		s.stop(&g.joinTimer)
		s.stop(&g.syncTimer)
		*g = group{id: g.id, topics: g.topics, since: never}
	}
	s.dissolveIfBare(g)
}

func (s *Shard) dissolveIfBare(g *group) {
	if g.bare() {
		s.stop(&g.joinTimer)
		s.stop(&g.syncTimer)
		delete(s.groups, g.id)
	}
}

func (s *Shard) groupFor(id string) *group {
	if g := s.groups[id]; g != nil {
		return g
	}
	return s.create(id)
}

// restore makes the group what its record says.
func (g *group) restore() error {
	v, err := readGroupValue(g.stored)
	if err != nil {
		return err
	}
	g.generation, g.protocolType, g.since = v.Generation, v.ProtocolType, v.CurrentStateTimestamp
	if v.Protocol != nil {
		g.protocol = *v.Protocol
	}
	for i := range v.Members {
		from := &v.Members[i]
		if g.members[from.MemberID] != nil || (from.InstanceID != nil && g.static[*from.InstanceID] != nil) {
			continue // no shard ever wrote that
		}
		session := time.Duration(from.SessionTimeoutMillis) * time.Millisecond
		rebalance := time.Duration(from.RebalanceTimeoutMillis) * time.Millisecond
		if rebalance < 0 { // version 0 had none
			rebalance = session
		}
		g.add(&member{
			group: g, id: from.MemberID, instance: from.InstanceID,
			client:  Client{ID: from.ClientID, Host: from.ClientHost},
			session: session, rebalance: rebalance,
			protocols:  []protocol{{name: g.protocol, metadata: from.Subscription}},
			assignment: from.Assignment,
		}, v.ProtocolType)
	}
	if v.Leader != nil && g.members[*v.Leader] != nil {
		g.leader = g.members[*v.Leader]
	}
	g.state = Empty
	if g.size() > 0 {
		g.state = Stable
	}
	g.readSubscriptions()
	return nil
}

// Loaded ends the load: the log has no more records. Every member gets a whole session from now, so
// that none is dropped for heartbeats that it sent to the broker before.
func (s *Shard) Loaded(now time.Time) {
	s.begin(now)
	s.loading = false
	for _, id := range slices.Sorted(maps.Keys(s.groups)) {
		g := s.groups[id]
		if g.stored != nil {
			if err := g.restore(); err != nil {
				panic("BUG: Replay took a record that cannot be read: " + err.Error())
			}
		}
		for _, m := range g.order {
			s.keepAlive(m)
		}
		if g.size() > s.config.GroupMaxSize {
			s.prepareRebalance(g) // the limit was lowered: who comes back last has to go
		}
	}
	s.setExpiry()
	s.take() // nobody waits yet, and no join phase is complete
}

// Forget says that nobody waits for the answer to t any more. The member stays what it is, for its
// client may come back over another connection, but only as long as a session lasts from now: what
// waits here is no sign of life any more.
func (s *Shard) Forget(now time.Time, t Token) {
	m := s.waiting[t]
	switch {
	case m == nil:
		return
	case m.join.on && m.join.token == t:
		m.join.deaf = true
	default:
		m.sync.deaf = true
	}
	delete(s.waiting, t)
	s.now = now
	s.keepAlive(m)
}

// Unload ends the Shard: this broker no longer leads the partition. Everybody who waits here, and
// everybody whose promised answer has not yet been appended, gets code.
func (s *Shard) Unload(code int16) []Reply {
	s.begin(s.now)
	for _, t := range slices.Sorted(maps.Keys(s.waiting)) {
		m := s.waiting[t]
		if m == nil {
			continue
		}
		if m.join.on && m.join.token == t {
			s.endJoin(m, code)
		} else {
			s.endSync(m, nil, code)
		}
	}
	for _, r := range s.undecided {
		s.out.Replies = append(s.out.Replies, r.Refused(code))
	}
	s.undecided, s.journal, s.groups, s.timers = nil, nil, nil, nil
	return s.take().Replies
}
