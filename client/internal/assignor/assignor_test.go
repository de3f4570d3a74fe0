package assignor

import (
	"bufio"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// kafkasCase is a line of testdata: a group, and what Kafka's assignors make of it.
type kafkasCase struct {
	Topics  map[string][][]string `json:"topics"` // racks of each partition's replicas
	Members []struct {
		ID, Instance, Rack string
		Topics             []string
	} `json:"members"`
	Range      map[string][]string `json:"range"`
	RoundRobin map[string][]string `json:"roundrobin"`
}

func TestRangeAndRoundRobinAreKafkas(t *testing.T) {
	file, err := os.Open("testdata/kafka-4.3.1.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, 1<<20)
	n := 0
	for ; lines.Scan(); n++ {
		var c kafkasCase
		if err := json.Unmarshal(lines.Bytes(), &c); err != nil {
			t.Fatal(err)
		}
		topics := map[string]Topic{}
		for name, racks := range c.Topics {
			topics[name] = Topic{Partitions: int32(len(racks)), Racks: racks}
		}
		var members []Member
		for _, m := range c.Members {
			members = append(members, Member{ID: m.ID, InstanceID: m.Instance, Rack: m.Rack, Topics: m.Topics, Generation: NoGeneration})
		}
		for _, a := range []struct {
			assignor Assignor
			want     map[string][]string
		}{{Range{}, c.Range}, {RoundRobin{}, c.RoundRobin}} {
			got := map[string][]string{}
			for id, list := range a.assignor.Assign(topics, members) {
				got[id] = []string{}
				for _, tp := range list {
					got[id] = append(got[id], fmt.Sprintf("%s-%d", tp.Topic, tp.Partition))
				}
			}
			if !maps.EqualFunc(got, a.want, slices.Equal) {
				t.Errorf("line %d: %s:\n got %v\nwant %v", n+1, a.assignor.Name(), got, a.want)
			}
		}
	}
	if lines.Err() != nil || n < 100 {
		t.Fatalf("%d cases, %v", n, lines.Err())
	}
}

// What members tell each other is, byte for byte, what Kafka's tell; ours reads all older versions.
func TestBytesAreKafkas(t *testing.T) {
	text, err := os.ReadFile("testdata/kafka-4.3.1.txt")
	if err != nil {
		t.Fatal(err)
	}
	owned := []TopicPartition{{"a", 0}, {"a", 2}, {"b", 1}}
	self := Member{ID: "m", Topics: []string{"b", "a"}, Owned: owned, Generation: 7, Rack: "r1"}
	for line := range strings.Lines(string(text)) {
		var what, digits string
		var version int
		if _, err := fmt.Sscan(line, &what, &version, &digits); err != nil {
			t.Fatal(err)
		}
		bytes, err := hex.DecodeString(digits)
		if err != nil {
			t.Fatal(err)
		}
		var ours []byte
		switch what {
		case "subscription":
			m, err := ReadSubscription(Range{}, "m", "", bytes)
			if err != nil || !slices.Equal(slices.Sorted(slices.Values(m.Topics)), []string{"a", "b"}) {
				t.Errorf("version %d: %+v, %v", version, m, err)
			}
			if version >= 1 && !slices.Equal(m.Owned, owned) || version >= 2 && m.Generation != 7 || version < 2 && m.Generation != NoGeneration || version == 3 && m.Rack != "r1" {
				t.Errorf("version %d: %+v", version, m)
			}
			if version < subscriptionVersion {
				continue
			}
			ours = Subscription(Range{}, &self, nil)
		case "assignment":
			list, err := ReadAssignment(bytes)
			if err != nil || !slices.Equal(list, owned) {
				t.Errorf("%v, %v", list, err)
			}
			ours = Assignment(owned)
		case "sticky":
			m := Member{}
			Sticky{}.Ownership(&m, 3, bytes)
			slices.SortFunc(m.Owned, Compare)
			if !slices.Equal(m.Owned, owned) || m.Generation != 7 {
				t.Errorf("sticky: %+v", m)
			}
			ours = Sticky{}.UserData(owned, 7)
		case "cooperative-sticky":
			ours = CooperativeSticky{}.UserData(owned, 7)
		}
		if hex.EncodeToString(ours) != digits && what != "sticky" { // Kafka writes a map's topics in any order
			t.Errorf("%s version %d:\nours   %x\nKafka's %s", what, version, ours, digits)
		}
	}
}

// world is a random group and its topics.
type world struct {
	rng     *rand.Rand
	topics  map[string]Topic
	members []Member
	next    int
}

func newWorld(seed uint64) *world {
	w := &world{rng: rand.New(rand.NewPCG(seed, 7)), topics: map[string]Topic{}}
	for n := range 1 + w.rng.IntN(5) {
		w.topics[fmt.Sprintf("t%d", n)] = Topic{Partitions: int32(1 + w.rng.IntN(12))}
	}
	for range 1 + w.rng.IntN(6) {
		w.join(seed%2 == 0)
	}
	return w
}

func (w *world) join(alike bool) {
	w.next++
	m := Member{ID: fmt.Sprintf("m%d-%d", w.rng.IntN(100), w.next), Generation: NoGeneration}
	for _, t := range sortedKeys(w.topics) {
		if alike || w.rng.IntN(3) > 0 {
			m.Topics = append(m.Topics, t)
		}
	}
	if w.rng.IntN(5) == 0 {
		m.Topics = append(m.Topics, "not there")
	}
	w.members = append(w.members, m)
}

// churn changes something: a member comes or goes, a topic grows or goes.
func (w *world) churn(alike bool) string {
	switch w.rng.IntN(4) {
	case 0:
		w.join(alike)
		return "a member joined"
	case 1:
		if len(w.members) > 1 {
			w.members = slices.Delete(w.members, 0, 1)
		}
		return "a member left"
	case 2:
		names := sortedKeys(w.topics)
		name := names[w.rng.IntN(len(names))]
		w.topics[name] = Topic{Partitions: w.topics[name].Partitions + 1}
		return name + " grew"
	default:
		return "nothing"
	}
}

// check holds an assignment against what every assignor promises. complete: every partition that
// somebody subscribes to has an owner.
func check(topics map[string]Topic, members []Member, got map[string][]TopicPartition, complete bool) error {
	owner := map[TopicPartition]string{}
	wanted := map[string]bool{}
	for _, m := range members {
		list, there := got[m.ID]
		if !there {
			return fmt.Errorf("member %s has no entry", m.ID)
		}
		if !slices.IsSortedFunc(list, Compare) {
			return fmt.Errorf("member %s: not sorted: %v", m.ID, list)
		}
		for _, t := range m.Topics {
			wanted[t] = true
		}
		for _, tp := range list {
			if was, twice := owner[tp]; twice {
				return fmt.Errorf("%v has two owners, %s and %s", tp, was, m.ID)
			}
			owner[tp] = m.ID
			if !slices.Contains(m.Topics, tp.Topic) || tp.Partition < 0 || tp.Partition >= topics[tp.Topic].Partitions {
				return fmt.Errorf("%v is not for %s", tp, m.ID)
			}
		}
	}
	if len(got) != len(members) {
		return fmt.Errorf("%d members, %d entries", len(members), len(got))
	}
	for name, t := range topics {
		for p := range t.Partitions {
			if _, there := owner[TopicPartition{name, p}]; complete && wanted[name] && !there {
				return fmt.Errorf("%s-%d has no owner", name, p)
			}
		}
	}
	return nil
}

// unbalanced gives a partition that could move to a member with at least two fewer.
func unbalanced(members []Member, got map[string][]TopicPartition) error {
	for _, rich := range members {
		for _, tp := range got[rich.ID] {
			for _, poor := range members {
				if slices.Contains(poor.Topics, tp.Topic) && len(got[poor.ID])+2 <= len(got[rich.ID]) {
					return fmt.Errorf("%s has %d, %s has %d and could have %v", rich.ID, len(got[rich.ID]), poor.ID, len(got[poor.ID]), tp)
				}
			}
		}
	}
	return nil
}

func TestEveryAssignorCoversEverythingOnce(t *testing.T) {
	for seed := range uint64(300) {
		w := newWorld(seed)
		for _, a := range []Assignor{Range{}, RoundRobin{}, Sticky{}, CooperativeSticky{}} {
			if err := check(w.topics, w.members, a.Assign(w.topics, w.members), true); err != nil {
				t.Fatalf("seed %d: %s: %v", seed, a.Name(), err)
			}
		}
	}
}

// Sticky is balanced after every change, moves nothing when nothing changes, and moves no more than
// balance needs: a partition changes hands only where its owner has gone or had too many.
func TestStickyIsBalancedAndSticky(t *testing.T) {
	for seed := range uint64(300) {
		alike := seed%2 == 0
		w := newWorld(seed)
		for round := range int32(12) {
			got := Sticky{}.Assign(w.topics, w.members)
			if err := check(w.topics, w.members, got, true); err != nil {
				t.Fatalf("seed %d, round %d: %v", seed, round, err)
			}
			if err := unbalanced(w.members, got); err != nil {
				t.Fatalf("seed %d, round %d: %v", seed, round, err)
			}
			total := 0
			for _, list := range got {
				total += len(list)
			}
			for _, m := range w.members {
				kept := 0
				for _, tp := range m.Owned {
					if slices.Contains(got[m.ID], tp) {
						kept++
					}
				}
				// With equal subscriptions nobody gives up what leaves it with no more than its share.
				if least := total / len(w.members); alike && !slices.Contains(m.Topics, "not there") && kept < min(len(m.Owned), least) {
					t.Fatalf("seed %d, round %d: %s had %v and got %v; its share is %d", seed, round, m.ID, m.Owned, got[m.ID], least)
				}
			}
			w.apply(got, round)
			again := Sticky{}.Assign(w.topics, w.members)
			if !maps.EqualFunc(got, again, slices.Equal) {
				t.Fatalf("seed %d, round %d: nothing changed, yet\n%v became\n%v", seed, round, got, again)
			}
			w.churn(alike)
		}
	}
}

func (w *world) apply(got map[string][]TopicPartition, generation int32) {
	for i := range w.members {
		w.members[i].Owned, w.members[i].Generation = got[w.members[i].ID], generation
	}
}

// Nobody is given a partition that somebody else still owns, and a few rounds lead to a balanced
// assignment in which everything is owned: two with equal subscriptions.
func TestCooperativeStickyNeverMakesTwoOwners(t *testing.T) {
	for seed := range uint64(1000) {
		w := newWorld(seed)
		alike := seed%2 == 0 && !slices.ContainsFunc(w.members, func(m Member) bool { return len(m.Topics) > len(w.topics) })
		generation := int32(0)
		for round := range 12 {
			most := 4
			if alike {
				most = 2
			}
			for turn := 1; ; turn++ {
				before := map[TopicPartition]string{}
				for _, m := range w.members {
					for _, tp := range m.Owned {
						before[tp] = m.ID
					}
				}
				got := CooperativeSticky{}.Assign(w.topics, w.members)
				if err := check(w.topics, w.members, got, turn == most); err != nil {
					t.Fatalf("seed %d, round %d, turn %d: %v", seed, round, turn, err)
				}
				for id, list := range got {
					for _, tp := range list {
						if was := before[tp]; was != "" && was != id {
							t.Fatalf("seed %d, round %d: %v went to %s while %s owned it", seed, round, tp, id, was)
						}
					}
				}
				generation++
				w.apply(got, generation)
				if turn < most {
					continue
				}
				if err := unbalanced(w.members, got); err != nil {
					t.Fatalf("seed %d, round %d: %v", seed, round, err)
				}
				break
			}
			w.churn(alike)
		}
	}
}

// A member that missed a rebalance claims, in its old generation, what somebody else has now. The
// latest generation counts (KIP-792).
func TestTrap28OldGenerationOwnsNothing(t *testing.T) {
	topics := map[string]Topic{"t": {Partitions: 2}}
	p0, p1 := TopicPartition{"t", 0}, TopicPartition{"t", 1}
	late := Member{ID: "a", Topics: []string{"t"}, Owned: []TopicPartition{p0, p1}, Generation: 5}
	now := Member{ID: "b", Topics: []string{"t"}, Owned: []TopicPartition{p0}, Generation: 7}
	got := CooperativeSticky{}.Assign(topics, []Member{late, now})
	if !slices.Equal(got["a"], []TopicPartition{p1}) || !slices.Equal(got["b"], []TopicPartition{p0}) {
		t.Errorf("assigned %v", got)
	}
	// Whatever moves away from who claims it, in whichever generation, moves in two steps.
	late.Owned, now.Owned = []TopicPartition{p0, p1}, nil
	got = CooperativeSticky{}.Assign(topics, []Member{late, now})
	if len(got["a"]) != 1 || len(got["b"]) != 0 {
		t.Errorf("assigned %v although a has not given anything up", got)
	}
	// Two claims of one generation cannot both be true: nobody may have it before both gave it up.
	late.Generation, now.Owned = 7, []TopicPartition{p0}
	got = CooperativeSticky{}.Assign(topics, []Member{late, now})
	if slices.Contains(got["a"], p0) || slices.Contains(got["b"], p0) {
		t.Errorf("assigned %v although both claim %v", got, p0)
	}
	// Members too old for a generation in their subscription tell it in their user data.
	old := kmsg.ConsumerMemberMetadata{Version: 1, Topics: []string{"t"}, UserData: CooperativeSticky{}.UserData(nil, 7)}
	m, err := ReadSubscription(CooperativeSticky{}, "b", "", old.AppendTo(nil))
	if err != nil || m.Generation != 7 {
		t.Errorf("%+v, %v", m, err)
	}
}

// Whatever a member or a leader sends, reading it ends, and dividing by it keeps its promises.
func FuzzReadSubscription(f *testing.F) {
	self := Member{Topics: []string{"t", "u"}, Owned: []TopicPartition{{"t", 1}}, Generation: 3, Rack: "r"}
	for _, a := range []Assignor{Range{}, Sticky{}, CooperativeSticky{}} {
		f.Add(Subscription(a, &self, self.Owned))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		topics := map[string]Topic{"t": {Partitions: 3}, "u": {Partitions: 1}}
		for _, a := range []Assignor{Range{}, RoundRobin{}, Sticky{}, CooperativeSticky{}} {
			m, err := ReadSubscription(a, "x", "", b)
			if err != nil {
				continue
			}
			members := []Member{m, {ID: "y", Topics: []string{"t"}, Generation: NoGeneration}}
			if err := check(topics, members, a.Assign(topics, members), false); err != nil {
				t.Fatalf("%s: %v", a.Name(), err)
			}
		}
		if list, err := ReadAssignment(b); err == nil && !slices.IsSortedFunc(list, Compare) {
			t.Fatalf("not sorted: %v", list)
		}
	})
}
