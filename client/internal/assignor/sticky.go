package assignor

import (
	"cmp"
	"encoding/binary"
	"slices"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// Sticky divides evenly and leaves as much as it can with the members that had it: the numbers of
// partitions of two members differ by at most one, unless the one with fewer subscribes to no
// topic of which the other has a partition to spare. All give everything up before each rebalance;
// what they had travels in their user data. Kafka: StickyAssignor (KIP-54, KIP-341).
type Sticky struct{}

// Name is "sticky".
func (Sticky) Name() string { return "sticky" }

// Cooperative is false.
func (Sticky) Cooperative() bool { return false }

// UserData tells what the member had before it gave it up.
func (Sticky) UserData(owned []TopicPartition, generation int32) []byte {
	data := kmsg.StickyMemberMetadata{Generation: generation}
	for topic, partitions := range byTopic(owned) {
		data.CurrentAssignment = append(data.CurrentAssignment,
			kmsg.StickyMemberMetadataCurrentAssignment{Topic: topic, Partitions: partitions})
	}
	return data.AppendTo(nil)
}

// Ownership takes what the member had from its user data alone: its subscription says nothing of
// it, or too much, since everything has been given up.
func (Sticky) Ownership(m *Member, _ int16, userData []byte) {
	m.Owned, m.Generation = nil, NoGeneration
	var data kmsg.StickyMemberMetadata
	if len(userData) == 0 || data.ReadFrom(userData) != nil {
		return
	}
	for _, t := range data.CurrentAssignment {
		for _, p := range t.Partitions {
			m.Owned = append(m.Owned, TopicPartition{t.Topic, p})
		}
	}
	m.Generation = data.Generation
}

// Assign divides.
func (Sticky) Assign(topics map[string]Topic, members []Member) map[string][]TopicPartition {
	return newStickyWork(topics, members).assign()
}

// CooperativeSticky is Sticky whose members keep what they own during a rebalance: a partition
// that is to change its owner is first assigned to nobody, and the member that gave it up joins
// again, which gives it to the new one. Kafka: CooperativeStickyAssignor (KIP-429).
type CooperativeSticky struct{}

// Name is "cooperative-sticky".
func (CooperativeSticky) Name() string { return "cooperative-sticky" }

// Cooperative is true.
func (CooperativeSticky) Cooperative() bool { return true }

// UserData is the generation, for leaders that do not know the subscription's own field (KIP-792).
func (CooperativeSticky) UserData(_ []TopicPartition, generation int32) []byte {
	return binary.BigEndian.AppendUint32(nil, uint32(generation))
}

// Ownership takes the generation from the user data of members whose subscription is too old to
// tell it.
func (CooperativeSticky) Ownership(m *Member, version int16, userData []byte) {
	if version < firstWithGeneration {
		m.Generation = NoGeneration
		if len(userData) >= 4 {
			m.Generation = int32(binary.BigEndian.Uint32(userData))
		}
	}
}

// Assign divides, and leaves out what somebody else still owns.
func (CooperativeSticky) Assign(topics map[string]Topic, members []Member) map[string][]TopicPartition {
	w := newStickyWork(topics, members)
	out := w.assign()
	for id, list := range out {
		out[id] = slices.DeleteFunc(list, func(tp TopicPartition) bool {
			c, claimed := w.claims[tp]
			return claimed && (c.owner == nil || c.owner.ID != id)
		})
	}
	return out
}

// claim is who says to own a partition. Of several members the one of the latest generation owns
// it: the others missed a rebalance and do not know that they lost it (KIP-792). Where that leaves
// more than one nobody does.
type claim struct {
	owner      *Member // nil: contested, or the owner may not have it any more
	generation int32
}

type stickyWork struct {
	topics      map[string]Topic
	members     []*Member
	subscribers map[string][]*Member
	claims      map[TopicPartition]claim
	assigned    map[*Member][]TopicPartition
}

func newStickyWork(topics map[string]Topic, members []Member) *stickyWork {
	w := &stickyWork{
		topics: topics, members: sorted(members), claims: map[TopicPartition]claim{}, assigned: map[*Member][]TopicPartition{},
	}
	w.subscribers = subscribers(topics, w.members)
	for _, m := range w.members {
		subscribed := make(map[string]bool, len(m.Topics))
		for _, t := range m.Topics {
			subscribed[t] = true
		}
		seen := make(map[TopicPartition]bool, len(m.Owned))
		for _, tp := range m.Owned {
			if !seen[tp] {
				seen[tp] = true
				w.claim(m, tp, subscribed[tp.Topic])
			}
		}
	}
	return w
}

func (w *stickyWork) claim(m *Member, tp TopicPartition, subscribed bool) {
	mine := claim{m, m.Generation}
	if !subscribed || tp.Partition < 0 || tp.Partition >= w.topics[tp.Topic].Partitions {
		mine.owner = nil
	}
	switch c, claimed := w.claims[tp]; {
	case !claimed || m.Generation > c.generation:
		w.claims[tp] = mine
	case m.Generation == c.generation:
		w.claims[tp] = claim{nil, c.generation}
	}
}

func (w *stickyWork) assign() map[string][]TopicPartition {
	var free []TopicPartition
	for _, topic := range sortedKeys(w.subscribers) {
		for p := range w.topics[topic].Partitions {
			tp := TopicPartition{topic, p}
			if owner := w.claims[tp].owner; owner != nil {
				w.assigned[owner] = append(w.assigned[owner], tp)
			} else {
				free = append(free, tp)
			}
		}
	}
	if w.allAlike() {
		w.share(free)
	} else {
		w.spread(free)
		w.balance()
	}
	out := make(map[string][]TopicPartition, len(w.members))
	for _, m := range w.members {
		list := w.assigned[m]
		slices.SortFunc(list, Compare)
		out[m.ID] = list
	}
	return out
}

// allAlike tells whether every member subscribes to every topic.
func (w *stickyWork) allAlike() bool {
	for _, s := range w.subscribers {
		if len(s) != len(w.members) {
			return false
		}
	}
	return true
}

// share is for members that all may have everything: each is entitled to the same number, and
// those that have most already get the ones that are left over.
func (w *stickyWork) share(free []TopicPartition) {
	total := len(free)
	for _, list := range w.assigned {
		total += len(list)
	}
	least, extra := total/len(w.members), total%len(w.members)
	most := slices.Clone(w.members)
	slices.SortStableFunc(most, func(a, b *Member) int { return cmp.Compare(len(w.assigned[b]), len(w.assigned[a])) })
	room := make(map[*Member]int, len(most))
	for i, m := range most {
		quota := least
		if i < extra {
			quota++
		}
		list := w.assigned[m]
		if len(list) > quota {
			free = append(free, list[quota:]...)
			w.assigned[m] = list[:quota:quota]
		}
		room[m] = quota - len(w.assigned[m])
	}
	slices.SortFunc(free, Compare)
	next := 0
	for _, tp := range free {
		for room[w.members[next]] == 0 {
			next = (next + 1) % len(w.members)
		}
		m := w.members[next]
		w.assigned[m] = append(w.assigned[m], tp)
		room[m]--
		next = (next + 1) % len(w.members)
	}
}

// spread gives what is free to those that have least, beginning with what few may have.
func (w *stickyWork) spread(free []TopicPartition) {
	slices.SortStableFunc(free, func(a, b TopicPartition) int {
		return cmp.Compare(len(w.subscribers[a.Topic]), len(w.subscribers[b.Topic]))
	})
	for _, tp := range free {
		m := w.poorest(tp.Topic)
		w.assigned[m] = append(w.assigned[m], tp)
	}
}

func (w *stickyWork) poorest(topic string) *Member {
	return slices.MinFunc(w.subscribers[topic], func(a, b *Member) int {
		return cmp.Compare(len(w.assigned[a]), len(w.assigned[b]))
	})
}

// balance moves single partitions from members that have at least two more than somebody who may
// have them. Every move makes the sum of squares smaller, so this ends.
func (w *stickyWork) balance() {
	for moved := true; moved; {
		moved = false
		richest := slices.Clone(w.members)
		slices.SortStableFunc(richest, func(a, b *Member) int { return cmp.Compare(len(w.assigned[b]), len(w.assigned[a])) })
		for _, from := range richest {
			// From the end, where what was free before is: what a member owned moves last.
			for i := len(w.assigned[from]) - 1; i >= 0; i-- {
				tp := w.assigned[from][i]
				to := w.poorest(tp.Topic)
				if len(w.assigned[from]) < len(w.assigned[to])+2 {
					continue
				}
				w.assigned[from] = slices.Delete(w.assigned[from], i, i+1)
				w.assigned[to] = append(w.assigned[to], tp)
				moved = true
			}
		}
	}
}
