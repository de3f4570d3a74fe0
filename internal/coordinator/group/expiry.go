package group

import (
	"maps"
	"slices"
	"strings"
	"time"
)

// expiry is the work that is nobody's request: offsets and groups past their time (KIP-211), and the
// offsets of topics that were deleted. It is done in helpings of maxChoreRecords.
type expiry struct {
	timer   timer
	groups  []string // still to be looked at in this pass
	deleted []deletedTopic
	passAt  time.Time // the next pass
}

type deletedTopic struct {
	name   string
	id     [16]byte
	groups []string // still to be looked at
}

func (s *Shard) setExpiry() {
	s.expiry.timer.run = (*Shard).chores
	s.expiry.passAt = s.now.Add(s.config.OffsetsRetentionCheckInterval)
	s.set(&s.expiry.timer, s.expiry.passAt)
}

// chores does a helping of the work, and comes back at once when there is more.
func (s *Shard) chores() {
	s.cleanDeleted()
	if len(s.w.records) < maxChoreRecords && !s.expiry.passAt.After(s.now) {
		s.expiry.passAt = s.now.Add(s.config.OffsetsRetentionCheckInterval)
		s.expiry.groups = slices.Sorted(maps.Keys(s.groups))
	}
	for len(s.expiry.groups) > 0 && len(s.w.records) < maxChoreRecords {
		if g := s.groups[s.expiry.groups[0]]; g != nil {
			s.expire(g)
		}
		s.expiry.groups = s.expiry.groups[1:]
	}
	if len(s.expiry.groups)+len(s.expiry.deleted) > 0 {
		s.set(&s.expiry.timer, s.now)
		return
	}
	s.set(&s.expiry.timer, s.expiry.passAt)
}

// expire writes tombstones for what is past its time, and for the group itself when it is empty and
// nothing is left.
func (s *Shard) expire(g *group) {
	expired, base := 0, func(c *committed) int64 { return c.at }
	switch {
	case g.protocolType == "": // consumers that assign themselves: from the commit
	case g.state == Empty:
		if g.since != never {
			base = func(*committed) int64 { return g.since }
		}
	case g.protocolType == consumerType && g.readable && g.state == Stable: // what nobody subscribes to
	default:
		return
	}
	nowMillis := s.now.UnixMilli()
	total, _ := g.offsetCount()
	for _, topic := range g.sortedTopics() {
		if g.subscribedTo(topic.name) {
			continue
		}
		for i := range topic.parts {
			c := &topic.parts[i]
			past := nowMillis-base(c) >= s.config.OffsetsRetention.Milliseconds()
			if c.expires != never {
				past = nowMillis >= c.expires
			}
			if past && !s.isUnstable(g.id, topic.name, c.partition) {
				s.w.forget(g.id, topic.name, c.partition)
				expired++
			}
		}
	}
	if expired == total && g.state == Empty && len(g.pending) == 0 && len(s.pending[g.id]) == 0 {
		s.w.group(g.id, nil)
	}
}

// TopicsDeleted drops what was committed for topics that are gone, so that it does not count in
// topics made again under their names (trap 26). ids name the same topics in the same order; an
// offset that is known to be of another topic of that name stays.
func (s *Shard) TopicsDeleted(now time.Time, names []string, ids [][16]byte) Effects {
	s.begin(now)
	groups := slices.Sorted(maps.Keys(s.groups))
	for i, name := range names {
		d := deletedTopic{name: strings.Clone(name), groups: groups}
		if i < len(ids) {
			d.id = ids[i]
		}
		s.expiry.deleted = append(s.expiry.deleted, d)
	}
	s.cleanDeleted()
	if len(s.expiry.deleted) > 0 {
		s.set(&s.expiry.timer, now)
	}
	return s.take()
}

func (s *Shard) cleanDeleted() {
	for len(s.expiry.deleted) > 0 {
		d := &s.expiry.deleted[0]
		for ; len(d.groups) > 0; d.groups = d.groups[1:] {
			if len(s.w.records) >= maxChoreRecords {
				return
			}
			if g := s.groups[d.groups[0]]; g != nil {
				s.forgetTopic(g, d)
			}
		}
		s.expiry.deleted = s.expiry.deleted[1:]
	}
}

func (s *Shard) forgetTopic(g *group, d *deletedTopic) {
	if t := g.topics[d.name]; t != nil {
		for i := range t.parts {
			if c := &t.parts[i]; !c.ofOtherTopic(d.id) {
				s.w.forget(g.id, t.name, c.partition)
			}
		}
	}
	for _, at := range s.pendingOnly(g) {
		if at.topic == d.name {
			s.w.forget(g.id, at.topic, at.partition)
		}
	}
}
