package prefetch

import (
	"slices"
	"time"
)

// Claim is a partition that a broker is asked for, as it stood when it was claimed. Every claim is
// given back by what the broker answered, or by Release or Return.
type Claim[R any] struct {
	TopicPartition
	TopicID     [16]byte
	LeaderEpoch int32 // as the metadata has it
	Offset      int64 // to fetch
	ReadEpoch   int32 // leader epoch of what lies before Offset
	Start       Start // to resolve
	node        int32
	cur         *cursor[R]
}

// Work is what a broker is to be asked for at once: the starts to resolve and the positions to
// confirm, or else records.
type Work[R any] struct {
	Resolve []Claim[R]
	Confirm []Claim[R]
	Fetch   []Claim[R]
	Crowded bool      // some partition was left out because Take has not taken what it has
	Again   time.Time // when there is more to claim, if nothing happens before; zero: not then
}

// Empty tells whether there is nothing to ask for.
func (w *Work[R]) Empty() bool { return len(w.Resolve)+len(w.Confirm)+len(w.Fetch) == 0 }

// Claim marks what a broker is to be asked for as busy.
func (s *Store[R]) Claim(now time.Time, node int32) Work[R] {
	var w Work[R]
	room := s.room()
	for _, cur := range s.inOrder() {
		if cur.source() != node || cur.busy || cur.stopped {
			continue
		}
		if cur.replica >= 0 && !now.Before(cur.replicaUntil) {
			s.readLeader(cur) // which may name it again
			if cur.leader != node {
				continue
			}
		}
		// What another fetcher has yet to decode comes before what we would fetch.
		if cur.holder >= 0 && cur.holder != node {
			continue
		}
		if now.Before(cur.notUntil) {
			if w.Again.IsZero() || cur.notUntil.Before(w.Again) {
				w.Again = cur.notUntil
			}
			continue
		}
		switch {
		case cur.start.Kind == Committed:
		case cur.start.Kind != Known:
			w.Resolve = append(w.Resolve, cur.claim(node))
		case cur.validate:
			w.Confirm = append(w.Confirm, cur.claim(node))
		case cur.paused:
		case !room || cur.pending >= s.cfg.MaxPartitionBytes:
			w.Crowded = true
		default:
			w.Fetch = append(w.Fetch, cur.claim(node))
		}
	}
	if len(w.Resolve)+len(w.Confirm) > 0 {
		w.Fetch = nil
	}
	// A broker fills an answer up in the order of the request, so each time another is first.
	if n := len(w.Fetch); n > 0 {
		turn := (s.turns[node] + 1) % n
		s.turns[node] = turn
		w.Fetch = append(w.Fetch[turn:n:n], w.Fetch[:turn]...)
	}
	for _, list := range [][]Claim[R]{w.Resolve, w.Confirm, w.Fetch} {
		for i := range list {
			list[i].cur.busy = true
		}
	}
	return w
}

// source is the node that a partition is read from. Only records come from a replica that is not
// the leader; what it cannot answer for is the leader's to say.
func (cur *cursor[R]) source() int32 {
	if cur.replica >= 0 && cur.start.Kind == Known && !cur.validate {
		return cur.replica
	}
	return cur.leader
}

// readLeader reads from the leader again; true where it was another replica before.
func (s *Store[R]) readLeader(cur *cursor[R]) bool {
	if cur.replica < 0 {
		return false
	}
	cur.replica = -1
	s.signals.Fetchers = true
	return true
}

func (cur *cursor[R]) claim(node int32) Claim[R] {
	return Claim[R]{
		TopicPartition: cur.tp, TopicID: cur.topicID, LeaderEpoch: cur.epoch, Offset: cur.next, ReadEpoch: cur.nextEpoch,
		Start: cur.start, node: node, cur: cur,
	}
}

// free ends a claim. Whoever is to be asked next may not be whom it was claimed for.
func (s *Store[R]) free(c *Claim[R]) {
	c.cur.busy = false
	if c.cur.source() != c.node {
		s.signals.Fetchers = true
	}
}

// Release gives back what was claimed when the request failed as a whole: it is asked for again
// after a while, and records of the leader.
func (s *Store[R]) Release(now time.Time, claims ...Claim[R]) {
	for i := range claims {
		s.free(&claims[i])
		s.readLeader(claims[i].cur)
		s.backOff(now, claims[i].cur)
	}
	s.signals.Metadata = true
}

// Return gives back what was claimed, to be asked for again at once: the broker has nothing new, or
// was not asked.
func (s *Store[R]) Return(claims ...Claim[R]) {
	for i := range claims {
		s.free(&claims[i])
	}
}

// backOff leaves a partition alone for a while. The leader may be another by then.
func (s *Store[R]) backOff(now time.Time, cur *cursor[R]) {
	cur.failures++
	cur.notUntil = now.Add(s.cfg.Backoff(cur.failures))
	s.signals.Fetchers = true
}

// Route takes in who leads which partition, false where nobody is known to, and which brokers are
// known.
func (s *Store[R]) Route(leader func(TopicPartition) (Leader, bool), known func(node int32) bool) {
	for _, cur := range s.inOrder() {
		l, ok := leader(cur.tp)
		another := ok && l.TopicID != cur.topicID && cur.topicID != [16]byte{}
		switch {
		case !ok, another && cur.anew == waits, !another && cur.isBehind(l):
			cur.leader = -1
			s.signals.Metadata = true
			continue
		case another && cur.anew == restarts:
			s.drop(cur)
			old := cur
			cur = newCursor[R](old.tp, Start{Kind: Committed})
			s.succeed(old, cur)
			s.signals.Begin = true
		case another && !cur.stopped:
			s.stop(cur, ErrTopicRecreated)
			continue
		}
		// A new leader may have less than the old one had.
		cur.validate = cur.validate || cur.nextEpoch >= 0 && l.Epoch > cur.epoch
		if l.Node != cur.leader || cur.replica >= 0 && !known(cur.replica) {
			s.readLeader(cur)
		}
		if l.Epoch >= cur.nextEpoch {
			cur.behind = 0
		}
		cur.topicID, cur.leader, cur.epoch = l.TopicID, l.Node, l.Epoch
	}
	s.signals.Fetchers, s.signals.Sources = true, true
}

// maxBehind is how often in a row the metadata may have a leader epoch before that of what was read,
// until it is believed: a broker that does not yet know the leader would soon have heard of it, and
// there may be none any more that knows that epoch.
const maxBehind = 10

// isBehind tells whether the metadata is older than what was read, or committed, of the partition: the
// leader that it names is none any more, and could not confirm anything.
func (cur *cursor[R]) isBehind(l Leader) bool {
	if l.Epoch < 0 || l.Epoch >= cur.nextEpoch || cur.behind == maxBehind {
		return false
	}
	cur.behind++
	return true
}

// Sources gives the nodes that something is to be asked of, sorted.
func (s *Store[R]) Sources() []int32 {
	var nodes []int32
	for _, cur := range s.cursors {
		if node := cur.source(); node >= 0 && !slices.Contains(nodes, node) {
			nodes = append(nodes, node)
		}
	}
	slices.Sort(nodes)
	return nodes
}
