// Package assignor divides the partitions of a group's topics among its members, as Kafka's own
// assignors do, and reads and writes what members tell each other about it: subscriptions and
// assignments, which brokers carry without looking inside. It is called by the member that leads a
// group. Everything is a function of its arguments; it knows neither clocks nor brokers.
package assignor

import (
	"cmp"
	"slices"
)

// TopicPartition names one partition.
type TopicPartition struct {
	Topic     string
	Partition int32
}

// Compare orders by topic, then by number.
func Compare(a, b TopicPartition) int {
	return cmp.Or(cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition))
}

// NoGeneration says that a member has never been part of a generation, or does not tell.
const NoGeneration = -1

// Member is what a group's leader knows of a member.
type Member struct {
	ID         string
	InstanceID string   // "" for a dynamic member
	Topics     []string // that it subscribes to
	Owned      []TopicPartition
	Generation int32  // in which it owned them; NoGeneration where unknown
	Rack       string // "" where it does not tell
}

// Topic is what is known of a topic.
type Topic struct {
	ID         [16]byte
	Partitions int32
	Racks      [][]string // of each partition's replicas; nil where nothing is known
}

// Assignor is one way to divide.
type Assignor interface {
	// Name is the protocol's name, by which a group's members agree on one.
	Name() string
	// Cooperative tells whether members may keep what they own during a rebalance (KIP-429).
	Cooperative() bool
	// UserData is what a member adds to its subscription: what it owned, and in which generation.
	UserData(owned []TopicPartition, generation int32) []byte
	// Ownership reads a member's user data into Owned and Generation, where this assignor takes
	// them from there.
	Ownership(m *Member, version int16, userData []byte)
	// Assign gives to each member its partitions, sorted; every member has an entry. Topics that
	// do not exist are left out. Members must not be empty.
	Assign(topics map[string]Topic, members []Member) map[string][]TopicPartition
}

// ByName gives Kafka's assignor of that name, or nil.
func ByName(name string) Assignor {
	for _, a := range []Assignor{Range{}, RoundRobin{}, Sticky{}, CooperativeSticky{}} {
		if a.Name() == name {
			return a
		}
	}
	return nil
}

// sorted orders members as Kafka does: static ones first, by instance id, so that a member that
// comes back under a new member id finds its old place.
func sorted(members []Member) []*Member {
	out := make([]*Member, len(members))
	for i := range members {
		out[i] = &members[i]
	}
	slices.SortFunc(out, func(a, b *Member) int {
		switch {
		case a.InstanceID != "" && b.InstanceID != "":
			return cmp.Compare(a.InstanceID, b.InstanceID)
		case a.InstanceID != "":
			return -1
		case b.InstanceID != "":
			return 1
		default:
			return cmp.Compare(a.ID, b.ID)
		}
	})
	return out
}

// subscribers gives the members of each topic that exists, in their order.
func subscribers(topics map[string]Topic, members []*Member) map[string][]*Member {
	out := map[string][]*Member{}
	for _, m := range members {
		for _, name := range m.Topics {
			// A member that names a topic twice is its last subscriber so far.
			if have := out[name]; topics[name].Partitions > 0 && (len(have) == 0 || have[len(have)-1] != m) {
				out[name] = append(have, m)
			}
		}
	}
	return out
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

func emptyAssignment(members []Member) map[string][]TopicPartition {
	out := make(map[string][]TopicPartition, len(members))
	for i := range members {
		out[members[i].ID] = nil
	}
	return out
}

// noUserData is for assignors that remember nothing.
type noUserData struct{}

func (noUserData) UserData([]TopicPartition, int32) []byte { return nil }
func (noUserData) Ownership(*Member, int16, []byte)        {}
func (noUserData) Cooperative() bool                       { return false }

// RoundRobin deals all partitions out to all members in turn. Kafka: RoundRobinAssignor.
type RoundRobin struct{ noUserData }

// Name is "roundrobin".
func (RoundRobin) Name() string { return "roundrobin" }

// Assign deals out.
func (RoundRobin) Assign(topics map[string]Topic, members []Member) map[string][]TopicPartition {
	out := emptyAssignment(members)
	order := sorted(members)
	subscribed := subscribers(topics, order)
	next := 0
	for _, topic := range sortedKeys(subscribed) {
		takes := make(map[*Member]bool, len(subscribed[topic]))
		for _, m := range subscribed[topic] {
			takes[m] = true
		}
		for p := range topics[topic].Partitions {
			for !takes[order[next]] {
				next = (next + 1) % len(order)
			}
			id := order[next].ID
			out[id] = append(out[id], TopicPartition{topic, p})
			next = (next + 1) % len(order)
		}
	}
	return out
}
