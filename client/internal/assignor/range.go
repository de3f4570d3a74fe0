package assignor

import (
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Range divides each topic by itself: neighbouring partitions go to the same member, and the first
// members get one more where it does not come out even. Partition n of every topic with the same
// members and number of partitions goes to the same member. Where members and replicas tell their
// racks, a member gets partitions of its own rack as far as the shares allow (KIP-881).
// Kafka: RangeAssignor.
type Range struct{ noUserData }

// Name is "range".
func (Range) Name() string { return "range" }

// Assign divides.
func (Range) Assign(topics map[string]Topic, members []Member) map[string][]TopicPartition {
	out := emptyAssignment(members)
	order := sorted(members)
	subscribed := subscribers(topics, order)
	var shares []*rangeShare
	byRack := false
	for _, topic := range sortedKeys(subscribed) {
		s := newRangeShare(topic, topics[topic], subscribed[topic])
		shares = append(shares, s)
		byRack = byRack || s.byRack
	}
	if byRack {
		matchRacks(shares, out)
	}
	for _, s := range shares {
		s.assign(func(*Member, int32) bool { return true }, out)
	}
	for _, list := range out {
		slices.SortFunc(list, Compare)
	}
	return out
}

// rangeShare is how far a topic has been divided.
type rangeShare struct {
	topic      string
	members    []*Member
	partitions int32
	racks      []map[string]bool // of each partition; nil where no member tells its rack
	byRack     bool
	unassigned []int32
	count      map[*Member]int
	least      int // everybody's share
	extra      int // how many members still get one more
}

func newRangeShare(name string, t Topic, members []*Member) *rangeShare {
	s := &rangeShare{
		topic: name, members: members, partitions: t.Partitions, count: make(map[*Member]int, len(members)),
		least: int(t.Partitions) / len(members), extra: int(t.Partitions) % len(members),
	}
	for p := range t.Partitions {
		s.unassigned = append(s.unassigned, p)
	}
	consumers, replicas := map[string]bool{}, map[string]bool{}
	for _, m := range members {
		if m.Rack != "" {
			consumers[m.Rack] = true
		}
	}
	if len(consumers) == 0 {
		return s
	}
	s.racks = make([]map[string]bool, t.Partitions)
	for p := range s.racks {
		s.racks[p] = map[string]bool{}
		if p < len(t.Racks) {
			for _, rack := range t.Racks[p] {
				s.racks[p][rack], replicas[rack] = true, true
			}
		}
	}
	// Where every partition has a replica in every rack there is nothing to match.
	shared := false
	for rack := range consumers {
		shared = shared || replicas[rack]
	}
	s.byRack = shared && slices.ContainsFunc(s.racks, func(r map[string]bool) bool { return !maps.Equal(r, replicas) })
	return s
}

// room is how many more partitions a member may get.
func (s *rangeShare) room(m *Member) int {
	n := s.least - s.count[m]
	if s.extra > 0 {
		n++
	}
	return max(n, 0)
}

func (s *rangeShare) matches(m *Member, partition int32) bool {
	return m.Rack == "" || int(partition) < len(s.racks) && s.racks[partition][m.Rack]
}

func (s *rangeShare) give(m *Member, partitions []int32, out map[string][]TopicPartition) {
	for _, p := range partitions {
		out[m.ID] = append(out[m.ID], TopicPartition{s.topic, p})
	}
	s.count[m] += len(partitions)
	if s.count[m] > s.least {
		s.extra--
	}
	// Both lists ascend.
	s.unassigned = slices.DeleteFunc(s.unassigned, func(p int32) bool {
		if len(partitions) == 0 || partitions[0] != p {
			return false
		}
		partitions = partitions[1:]
		return true
	})
}

// assign gives each member its share of what is left and may be given to it.
func (s *rangeShare) assign(may func(*Member, int32) bool, out map[string][]TopicPartition) {
	for _, m := range s.members {
		if len(s.unassigned) == 0 {
			return
		}
		var take []int32
		room := s.room(m)
		for _, p := range s.unassigned {
			if len(take) == room {
				break
			}
			if may(m, p) {
				take = append(take, p)
			}
		}
		if len(take) > 0 {
			s.give(m, take, out)
		}
	}
}

// matchRacks gives partitions to members of their racks first. Topics that have the same members
// and as many partitions keep to giving partition n of all of them to one member.
func matchRacks(shares []*rangeShare, out map[string][]TopicPartition) {
	alike := map[string][]*rangeShare{}
	for _, s := range shares {
		var key strings.Builder
		key.WriteString(strconv.Itoa(len(s.racks)))
		for _, m := range s.members {
			key.WriteByte(0)
			key.WriteString(m.ID)
		}
		alike[key.String()] = append(alike[key.String()], s)
	}
	for _, key := range sortedKeys(alike) {
		together := alike[key]
		switch {
		case len(together) > 1:
			matchTogether(together, out)
		case together[0].byRack:
			together[0].assign(together[0].matches, out)
		}
	}
}

func matchTogether(together []*rangeShare, out map[string][]TopicPartition) {
	left := slices.Clone(together[0].members)
	for p := range int32(len(together[0].racks)) {
		at := slices.IndexFunc(left, func(m *Member) bool {
			return !slices.ContainsFunc(together, func(s *rangeShare) bool { return !s.matches(m, p) || s.room(m) == 0 })
		})
		if at < 0 {
			continue
		}
		m := left[at]
		for _, s := range together {
			s.give(m, []int32{p}, out)
		}
		if !slices.ContainsFunc(together, func(s *rangeShare) bool { return s.room(m) > 0 }) {
			left = slices.Delete(left, at, at+1)
		}
		if len(left) == 0 {
			return
		}
	}
}
