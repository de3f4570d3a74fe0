package controller

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"barnabas/internal/metadata"
)

// early is a cluster of one broker on which an internal topic has just been made, and then others join, in order from 2 on.
func early(t *testing.T, seed uint64, topic string, partitions int, others ...*metadata.Broker) *view {
	t.Helper()
	v := testView(t, seed, &metadata.Broker{ID: 1, Directories: registration(1).Directories})
	v.settings = loadConfig(t, fmt.Sprintf("%snum.partitions=%d", coordinatorSettings(topic), partitions))
	records, resp := autoCreateTopics(v, []string{topic}, topicDefaults{})
	if resp.Topics[0].ErrorCode != 0 || resp.Topics[0].ReplicationFactor != 1 {
		t.Fatalf("%+v", resp.Topics[0])
	}
	v.replay(t, records)
	for i, b := range others {
		b.ID, b.Epoch = int32(i+2), int64(i+2)
		if b.Directories == nil {
			b.Directories = registration(b.ID).Directories
		}
		v.replay(t, []metadata.Record{b.Record()})
	}
	return v
}

func (v *view) topic(t testing.TB, name string) *metadata.Topic {
	t.Helper()
	topic, ok := v.image.Topic(name)
	if !ok {
		t.Fatalf("there is no %s", name)
	}
	return topic
}

// growing are the partitions that get a replica now.
func (v *view) growing(t testing.TB, name string) (numbers []int32) {
	for n, p := range v.topic(t, name).Partitions {
		if len(p.Adding) > 0 {
			numbers = append(numbers, int32(n))
		}
	}
	return numbers
}

// catchUp has all replicas of partitions come into sync.
func (v *view) catchUp(t testing.TB, name string, numbers ...int32) {
	t.Helper()
	topic := v.topic(t, name)
	for _, n := range numbers {
		p := topic.Partitions[n]
		proposal := metadata.ISRProposal{Topic: topic.ID, Partition: n, LeaderEpoch: p.LeaderEpoch, PartitionEpoch: p.PartitionEpoch}
		for _, id := range p.Replicas {
			b, _ := v.image.Broker(id)
			proposal.ISR = append(proposal.ISR, metadata.Member{Broker: id, Epoch: b.Epoch})
		}
		leader, _ := v.image.Broker(p.Leader)
		records, outcomes, err := v.partitions().AlterISR(leader.ID, leader.Epoch, []metadata.ISRProposal{proposal})
		if err != nil || outcomes[0] != metadata.ISRAccepted {
			t.Fatalf("%s-%d: %v, %v", name, n, outcomes, err)
		}
		v.replay(t, records)
	}
}

// TestInternalTopicsGetReplicasAsBrokersJoin: a topic of groups that was made on one broker comes to as many replicas as are
// asked for or as there are brokers, a bounded number of partitions at a time and each of them by one, in other racks where
// there are any, spread over brokers and their directories. Leaders, and their epochs, stay.
func TestInternalTopicsGetReplicasAsBrokersJoin(t *testing.T) {
	const limit = 4
	for seed := range uint64(200) {
		random := rand.New(rand.NewPCG(seed, 11))
		others := brokers(1 + random.IntN(5))
		racks, absent := 1+random.IntN(3), 0
		for i, b := range others {
			if racks > 1 {
				b.Rack = new(fmt.Sprint("rack", i%racks))
			}
			if random.IntN(4) == 0 {
				b.Fenced, absent = true, absent+1
			} else if random.IntN(6) == 0 {
				b.ShuttingDown, absent = true, absent+1
			}
		}
		v := early(t, seed, offsetsTopic, 1+random.IntN(12), others...)
		want := min(3, 1+len(others)-absent)
		for rounds := 0; ; rounds++ {
			before := v.topic(t, offsetsTopic).Partitions
			records := v.raiseInternal(limit)
			v.replay(t, records)
			growing := v.growing(t, offsetsTopic)
			if len(growing) > limit || rounds > 100 {
				t.Fatalf("seed %d: %d partitions at once, in round %d", seed, len(growing), rounds)
			}
			for n, p := range v.topic(t, offsetsTopic).Partitions {
				added := len(p.Replicas) - len(before[n].Replicas)
				if added < 0 || added > 1 || p.Replicas[0] != 1 || p.Leader != 1 || p.LeaderEpoch != 0 {
					t.Fatalf("seed %d: %+v, before %+v", seed, p, before[n])
				}
				for _, id := range p.Adding {
					if b, _ := v.image.Broker(id); b.Fenced || b.ShuttingDown {
						t.Fatalf("seed %d: a replica on %+v", seed, b)
					}
				}
			}
			if len(growing) == 0 {
				break
			}
			random.Shuffle(len(growing), func(i, j int) { growing[i], growing[j] = growing[j], growing[i] })
			v.catchUp(t, offsetsTopic, growing[:1+random.IntN(len(growing))]...)
		}
		v.wantSpread(t, seed, want, racks == 1)
	}
}

// wantSpread: each partition of the topic of groups has so many replicas, all in sync, in as many racks as it can; without
// racks each broker that joined has as many as the others, but for two, and each of its directories, but for one.
func (v *view) wantSpread(t *testing.T, seed uint64, want int, even bool) {
	t.Helper()
	inRacks, onBroker, inDirectory := map[string]bool{}, map[int32]int{}, map[metadata.UUID]int{}
	for _, b := range v.image.Brokers() {
		if !b.Fenced && !b.ShuttingDown {
			inRacks[rackOf(b)] = true
			onBroker[b.ID] = 0
			for _, d := range b.Directories {
				inDirectory[d] = 0
			}
		}
	}
	for _, p := range v.topic(t, offsetsTopic).Partitions {
		racks := map[string]bool{}
		for i, id := range p.Replicas {
			b, _ := v.image.Broker(id)
			racks[rackOf(b)] = true
			onBroker[id]++
			inDirectory[p.Directories[i]]++
		}
		if len(p.Replicas) != want || len(p.ISR) != want || len(racks) != min(len(inRacks), want) {
			t.Fatalf("seed %d: %+v in racks %v of %v, want %d", seed, p, racks, inRacks, want)
		}
	}
	if !even {
		return
	}
	delete(onBroker, 1)
	least, most := 1<<30, 0
	for id, n := range onBroker {
		least, most = min(least, n), max(most, n)
		b, _ := v.image.Broker(id)
		if one, other := inDirectory[b.Directories[0]], inDirectory[b.Directories[1]]; max(one-other, other-one) > 1 {
			t.Fatalf("seed %d: %d and %d replicas in the directories of broker %d", seed, one, other, id)
		}
	}
	if most > least+2 && len(onBroker) > 0 { // the last partition may have its replica on the emptiest already
		t.Fatalf("seed %d: spread as %v", seed, onBroker)
	}
}

// TestRaisingLeavesAlone what an operator does, what nobody leads, and brokers that are not there.
func TestRaisingLeavesAlone(t *testing.T) {
	one := func(b metadata.Broker) func(*testing.T) *view {
		return func(t *testing.T) *view { return early(t, 1, offsetsTopic, 2, &b) }
	}
	for name, c := range map[string]struct {
		view  func(*testing.T) *view
		limit int
		want  int
	}{
		"nothing":                {one(metadata.Broker{}), 5, 2},
		"beyond the limit":       {one(metadata.Broker{}), 1, 1},
		"at the limit":           {one(metadata.Broker{}), 0, 0},
		"a fenced broker":        {one(metadata.Broker{Fenced: true}), 5, 0},
		"one that shuts down":    {one(metadata.Broker{ShuttingDown: true}), 5, 0},
		"one that is cordoned":   {one(metadata.Broker{Cordoned: registration(2).Directories}), 5, 0},
		"a factor that is lower": {configured("offsets.topic.replication.factor=1"), 5, 0},
		"one that is reached": {func(t *testing.T) *view {
			v := configured("offsets.topic.replication.factor=2")(t)
			v.replay(t, v.raiseInternal(5))
			v.catchUp(t, offsetsTopic, 0, 1)
			return v
		}, 5, 0},
		"a reassignment": {func(t *testing.T) *view {
			v := early(t, 1, offsetsTopic, 2, brokers(2)...)
			record, why := v.reassign(v.topic(t, offsetsTopic), 0, []int32{3}, true)
			if why != nil {
				t.Fatal(why)
			}
			v.replay(t, []metadata.Record{record})
			return v
		}, 5, 1},
		"what nobody leads": {func(t *testing.T) *view {
			v := early(t, 1, offsetsTopic, 2, brokers(2)...)
			b, _ := v.image.Broker(1)
			fenced := &metadata.BrokerChangeRecord{Id: 1, Epoch: b.Epoch, Fenced: new(true)}
			v.replay(t, append([]metadata.Record{fenced}, v.partitions().Fence(1)...))
			return v
		}, 5, 0},
		"a replica on a broker that is gone": {func(t *testing.T) *view {
			v := early(t, 1, offsetsTopic, 2, brokers(1)...)
			v.replay(t, v.raiseInternal(5))
			v.catchUp(t, offsetsTopic, 0, 1)
			gone := &metadata.BrokerChangeRecord{Id: 2, Epoch: 2, Fenced: new(true)}
			third := &metadata.Broker{ID: 3, Epoch: 3}
			v.replay(t, append(append([]metadata.Record{gone}, v.partitions().Fence(2)...), third.Record()))
			return v
		}, 5, 2},
		"a topic of users": {func(t *testing.T) *view {
			v := testView(t, 1, brokers(1)...)
			v.create(t, createRequest(2, "orders"))
			v.replay(t, []metadata.Record{(&metadata.Broker{ID: 2, Epoch: 2}).Record()})
			return v
		}, 5, 0},
	} {
		v := c.view(t)
		if got := len(v.raiseInternal(c.limit)); got != c.want {
			t.Errorf("%s: %d partitions get replicas, want %d", name, got, c.want)
		}
	}
}

// configured is the topic of groups of one broker, with two more that have joined, under other settings.
func configured(lines ...string) func(*testing.T) *view {
	return func(t *testing.T) *view {
		v := early(t, 1, offsetsTopic, 2, brokers(2)...)
		v.settings = loadConfig(t, lines...)
		return v
	}
}

// TestRaisingGoesOnWhereABrokerHasGoneAgain: partitions that wait for a new replica on a broker that died do not keep others
// from getting theirs.
func TestRaisingGoesOnWhereABrokerHasGoneAgain(t *testing.T) {
	v := early(t, 1, offsetsTopic, 4, brokers(1)...)
	v.replay(t, v.raiseInternal(2))
	if first := v.growing(t, offsetsTopic); !slices.Equal(first, []int32{0, 1}) || len(v.raiseInternal(2)) != 0 {
		t.Fatalf("%v at once", first)
	}
	gone := &metadata.BrokerChangeRecord{Id: 2, Epoch: 2, Fenced: new(true)}
	third := &metadata.Broker{ID: 3, Epoch: 3, Directories: registration(3).Directories}
	v.replay(t, append(append([]metadata.Record{gone}, v.partitions().Fence(2)...), third.Record()))
	v.replay(t, v.raiseInternal(2))
	if p := v.topic(t, offsetsTopic).Partitions[2]; !slices.Equal(p.Replicas, []int32{1, 3}) {
		t.Fatalf("%+v", p)
	}
}

// TestRaisedTopicAsksForMoreInSync: an internal topic whose coordinator's settings ask for more than one in-sync replica does so
// once all its partitions come to three, as one does that is made with three; not before, not where it has a value of its
// own, and not again when that was taken back.
func TestRaisedTopicAsksForMoreInSync(t *testing.T) {
	for _, topic := range []string{transactionsTopic, shareStateTopic} {
		for _, own := range []string{"", "1"} {
			v := early(t, 1, topic, 3, brokers(3)...)
			v.settings = loadConfig(t, coordinatorSettings(topic)+"replication.factor=4")
			set := func(value *string) {
				v.replay(t, []metadata.Record{&metadata.ConfigRecord{Kind: 2, Name: topic, Key: "min.insync.replicas", Value: value}})
			}
			if own != "" {
				set(&own)
			}
			for {
				v.replay(t, v.raiseInternal(2))
				growing := v.growing(t, topic)
				if len(growing) == 0 {
					break
				}
				least := 9
				for _, p := range v.topic(t, topic).Partitions {
					least = min(least, len(p.Replicas))
				}
				want := own
				if own == "" && least >= 3 {
					want = "2"
				}
				if got := v.image.Config(metadata.TopicResource, topic)["min.insync.replicas"]; got != want {
					t.Fatalf("%s: with %d replicas at least min.insync.replicas is %q, want %q", topic, least, got, want)
				}
				v.catchUp(t, topic, growing[0])
			}
			if p := v.topic(t, topic).Partitions[2]; len(p.ISR) != 4 {
				t.Fatalf("%+v", p)
			}
			set(nil)
			if records := v.raiseInternal(2); len(records) > 0 {
				t.Fatalf("%s: taken back, and set again: %v", topic, records)
			}
		}
	}
}
