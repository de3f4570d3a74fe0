package group

import (
	"errors"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

func TestWhoMayCommit(t *testing.T) {
	b := newBench(t, nil)
	ids := b.stable("g", 2, "flights")
	if got := b.commit("solo", "", -1, "flights", 0, 5); got != 0 {
		t.Fatalf("a consumer without a group: %d", got)
	}
	pending := ask[*kmsg.JoinGroupResponse](b, joining("g", "", "flights")).MemberID
	for what, test := range map[string]struct {
		group, member string
		generation    int32
		version       int16
		want          *kerr.Error
	}{
		"member":                      {"g", ids[1], 1, 9, nil},
		"member of the past":          {"g", ids[1], 0, 9, kerr.IllegalGeneration},
		"member of the future":        {"g", ids[1], 2, 9, kerr.IllegalGeneration},
		"member without generation":   {"g", ids[1], -1, 9, kerr.IllegalGeneration},
		"stranger":                    {"g", "who", 1, 9, kerr.UnknownMemberID},
		"pending member":              {"g", pending, 1, 9, kerr.UnknownMemberID},
		"administrator, busy group":   {"g", "", -1, 9, kerr.UnknownMemberID},
		"administrator, simple group": {"solo", "", -1, 9, nil},
		"stranger, simple group":      {"solo", "who", 3, 9, kerr.UnknownMemberID},
		"generation without member":   {"solo", "", 3, 9, kerr.UnknownMemberID},
		"and in a busy group":         {"g", "", 1, 9, kerr.UnknownMemberID},
		"no group":                    {"none", "who", 3, 9, kerr.GroupIDNotFound},
		"no group, old client":        {"none", "who", 3, 8, kerr.IllegalGeneration},
	} {
		r := committing(test.group, test.member, test.generation, "flights", 1, 7)
		r.Version = test.version
		got := ask[*kmsg.OffsetCommitResponse](b, r).Topics[0].Partitions[0].ErrorCode
		if got != codeFor(test.want) {
			t.Errorf("%s: %v, want %s", what, kerr.ErrorForCode(got), name(test.want))
		}
	}
	b.send(joining("g", ids[0], "flights"))
	if got := b.commit("g", ids[1], 1, "flights", 2, 9); got != 0 {
		t.Errorf("commit before rejoining: %d", got)
	}
}

func TestCommitKeepsTheSessionAlive(t *testing.T) {
	b := newBench(t, nil)
	ids := b.stable("g", 1, "flights")
	for i := range int64(20) {
		b.pass(5 * time.Second)
		if got := b.commit("g", ids[0], 1, "flights", 0, i); got != 0 {
			t.Fatalf("commit %d: %d", i, got)
		}
	}
}

func TestWhatIsCommitted(t *testing.T) {
	b := newBench(t, func(c *Config) { c.OffsetMetadataMaxBytes = 4 })
	r := kmsg.NewPtrOffsetCommitRequest()
	r.Version, r.Group, r.Generation = 10, "g", -1
	id := [16]byte{15: 1}
	part := func(n int32, offset int64, metadata string) (p kmsg.OffsetCommitRequestTopicPartition) {
		p.Partition, p.Offset, p.LeaderEpoch, p.Metadata = n, offset, 2, &metadata
		return p
	}
	r.Topics = []kmsg.OffsetCommitRequestTopic{
		{TopicID: id, Partitions: []kmsg.OffsetCommitRequestTopicPartition{part(0, 5, "abcd"), part(1, 5, "abcde"), part(2, 5, "ümä\U0001f6eb"), part(3, 6, "\U0001f6eb\U0001f6ec"), part(4, 5, ""), part(-1, 5, "")}},
		{TopicID: [16]byte{9}, Partitions: []kmsg.OffsetCommitRequestTopicPartition{part(0, 5, "")}},
	}
	got := ask[*kmsg.OffsetCommitResponse](b, r)
	tooLarge, unknown := kerr.OffsetMetadataTooLarge.Code, kerr.UnknownTopicOrPartition.Code
	for i, want := range []int16{0, tooLarge, tooLarge, 0, unknown, unknown} {
		if p := got.Topics[0].Partitions[i]; p.ErrorCode != want || p.Partition != r.Topics[0].Partitions[i].Partition {
			t.Errorf("partition %d: code %d, want %d", p.Partition, p.ErrorCode, want)
		}
	}
	if got.Topics[0].TopicID != id || got.Topics[1].Partitions[0].ErrorCode != kerr.UnknownTopicID.Code {
		t.Errorf("topics: %+v", got.Topics)
	}
	for _, restart := range []bool{false, true} {
		if restart {
			b.reload()
		}
		f := kmsg.NewPtrOffsetFetchRequest()
		f.Version = 10
		f.Groups = []kmsg.OffsetFetchRequestGroup{{Group: "g", Topics: []kmsg.OffsetFetchRequestGroupTopic{
			{TopicID: id, Partitions: []int32{0, 1, 3}}, {TopicID: [16]byte{9}, Partitions: []int32{0}},
		}}}
		at := ask[*kmsg.OffsetFetchResponse](b, f).Groups[0].Topics
		p := at[0].Partitions
		if p[0].Offset != 5 || *p[0].Metadata != "abcd" || p[0].LeaderEpoch != 2 || p[1].Offset != -1 || p[1].LeaderEpoch != -1 || *p[1].Metadata != "" || p[2].Offset != 6 {
			t.Errorf("restart %v: fetched %+v", restart, p)
		}
		if p := at[1].Partitions[0]; p.ErrorCode != kerr.UnknownTopicID.Code || p.Offset != -1 {
			t.Errorf("restart %v: fetched of an unknown id: %+v", restart, p)
		}
	}
	if got := b.commit("g", "", -1, "nowhere", 0, 5); got != unknown {
		t.Errorf("commit to an unknown topic: %d", got)
	}
}

func TestFetchInEveryVersion(t *testing.T) {
	b := newBench(t, nil)
	b.commit("g", "", -1, "flights", 2, 7)
	b.commit("g", "", -1, "airports", 1, 8)
	for version := int16(1); version <= 10; version++ {
		r := kmsg.NewPtrOffsetFetchRequest()
		r.Version = version
		byName := kmsg.OffsetFetchRequestGroupTopic{Topic: "flights", TopicID: [16]byte{15: 1}, Partitions: []int32{2, 0}}
		if version < firstManyGroups {
			r.Group, r.Topics = "g", []kmsg.OffsetFetchRequestTopic{{Topic: "flights", Partitions: []int32{2, 0}}}
		} else {
			r.Groups = []kmsg.OffsetFetchRequestGroup{{Group: "g", Topics: []kmsg.OffsetFetchRequestGroupTopic{byName}}, {Group: "g"}, {Group: "none"}}
		}
		var got kmsg.OffsetFetchResponse
		got.Version = version
		if err := got.ReadFrom(ask[*kmsg.OffsetFetchResponse](b, r).AppendTo(nil)); err != nil {
			t.Fatalf("version %d: %v", version, err)
		}
		if version < firstManyGroups {
			if p := got.Topics[0].Partitions; p[0].Offset != 7 || p[1].Offset != -1 || p[0].ErrorCode != 0 {
				t.Fatalf("version %d: %+v", version, p)
			}
			if r.Topics = nil; version >= 2 {
				if all := ask[*kmsg.OffsetFetchResponse](b, r).Topics; len(all) != 2 || all[0].Topic != "airports" || all[0].Partitions[0].Offset != 8 {
					t.Fatalf("version %d of all: %+v", version, all)
				}
			}
			continue
		}
		if p := got.Groups[0].Topics[0].Partitions; p[0].Offset != 7 || p[1].Offset != -1 {
			t.Fatalf("version %d: %+v", version, p)
		}
		if all := got.Groups[1].Topics; len(all) != 2 || all[0].Partitions[0].Offset != 8 || (version >= firstByTopicID && all[0].TopicID != [16]byte{15: 2}) {
			t.Fatalf("version %d of all: %+v", version, all)
		}
		if none := got.Groups[2]; none.ErrorCode != 0 || len(none.Topics) != 0 {
			t.Fatalf("version %d of no group: %+v", version, none)
		}
	}
}

func transactional(group, topic string, partition int32, offset int64) Record {
	var w writer
	w.commit(group, topic, committed{offset: offset, expires: never, partition: partition})
	return w.records[0]
}

// TestTrap25FetchOfStableOffsets: in a rebalance the new owner of a partition must not start from an
// offset that an open transaction of the old one is about to move.
func TestTrap25FetchOfStableOffsets(t *testing.T) {
	b := newBench(t, nil)
	b.commit("g", "", -1, "flights", 0, 5)
	fetch := func(stable bool) kmsg.OffsetFetchResponseGroupTopicPartition {
		r := kmsg.NewPtrOffsetFetchRequest()
		r.Version, r.RequireStable = 9, stable
		r.Groups = []kmsg.OffsetFetchRequestGroup{{Group: "g", Topics: []kmsg.OffsetFetchRequestGroupTopic{{Topic: "flights", Partitions: []int32{0}}}}}
		return ask[*kmsg.OffsetFetchResponse](b, r).Groups[0].Topics[0].Partitions[0]
	}
	want := func(when string, stable bool, code int16, offset int64) {
		t.Helper()
		if p := fetch(stable); p.ErrorCode != code || p.Offset != offset {
			t.Fatalf("%s, stable %v: code %d offset %d, want %d and %d", when, stable, p.ErrorCode, p.Offset, code, offset)
		}
	}
	unstable := kerr.UnstableOffsetCommit.Code
	offer := func(producer, offset int64) {
		t.Helper()
		if err := b.s.replayTransactional(producer, transactional("g", "flights", 0, offset)); err != nil {
			t.Fatal(err)
		}
	}
	offer(77, 9)
	want("while the transaction is open", true, unstable, -1)
	want("while the transaction is open", false, 0, 5)
	all := kmsg.NewPtrOffsetFetchRequest()
	all.Version, all.RequireStable = 9, true
	all.Groups = []kmsg.OffsetFetchRequestGroup{{Group: "g"}}
	if p := ask[*kmsg.OffsetFetchResponse](b, all).Groups[0].Topics[0].Partitions[0]; p.ErrorCode != unstable || p.Offset != -1 {
		t.Fatalf("fetch of all: %+v", p)
	}
	b.s.endTransaction(78, true)
	want("after another one's end", true, unstable, -1)
	b.s.endTransaction(77, false)
	want("after it was aborted", true, 0, 5)

	offer(77, 9)
	b.s.endTransaction(77, true)
	want("after it was committed", true, 0, 9)

	// The later record counts, whatever ends first.
	offer(77, 10)
	b.commit("g", "", -1, "flights", 0, 11)
	offer(78, 12)
	offer(79, 13)
	b.s.endTransaction(78, true)
	want("with two still open", true, unstable, -1)
	want("with two still open", false, 0, 12)
	b.s.endTransaction(77, true)
	want("the first one's end", false, 0, 12)
	b.s.endTransaction(79, false)
	want("after all", true, 0, 12)
	offer(77, 14)
	offer(78, 15)
	b.s.endTransaction(78, true)
	b.s.endTransaction(77, true)
	want("after the earlier one's later end", true, 0, 15)
	if len(b.s.pending) != 0 {
		t.Fatalf("left over: %v", b.s.pending)
	}
	if err := b.s.replayTransactional(1, Record{Key: []byte{0, 1}}); !errors.Is(err, ErrMalformed) {
		t.Fatalf("a broken record: %v", err)
	}
}

// TestTrap26TopicMadeAgainDoesNotInheritOffsets: what was committed for a deleted topic must not be
// where a consumer of the new topic of that name starts.
func TestTrap26TopicMadeAgainDoesNotInheritOffsets(t *testing.T) {
	b := newBench(t, nil)
	for p := range int32(4) {
		b.commit("g", "", -1, "flights", p, 100)
		b.commit("h", "", -1, "flights", p, 100)
	}
	b.commit("g", "", -1, "airports", 0, 7)
	// The new topic is there before the coordinator has cleaned up.
	b.topics.add("flights", 9, 4)
	if got := b.offset("g", "flights", 0); got != -1 {
		t.Fatalf("the new topic inherits offset %d", got)
	}
	if got := b.commit("g", "", -1, "flights", 1, 3); got != 0 {
		t.Fatalf("commit to the new topic: %d", got)
	}
	b.take(b.s.TopicsDeleted(b.now, []string{"flights"}, [][16]byte{{15: 1}}))
	for _, restart := range []bool{false, true} {
		if restart {
			b.reload()
		}
		for at, want := range map[partitionOf]int64{{"flights", 0}: -1, {"flights", 1}: 3, {"airports", 0}: 7} {
			if got := b.offset("g", at.topic, at.partition); got != want {
				t.Errorf("restart %v: %v is at %d, want %d", restart, at, got, want)
			}
		}
		if got := b.state("h"); got != Dead {
			t.Errorf("restart %v: the group without offsets is %v", restart, got)
		}
	}
	// Offsets of unknown topic ids, as before Kafka 4.1, go with the name.
	b.log = append(b.log, Record{Key: transactional("old", "flights", 0, 1).Key, Value: transactional("old", "flights", 0, 1).Value})
	b.reload()
	if got := b.offset("old", "flights", 0); got != 1 {
		t.Fatalf("an offset without a topic id: %d", got)
	}
	b.take(b.s.TopicsDeleted(b.now, []string{"flights"}, [][16]byte{{15: 9}}))
	if got := b.state("old"); got != Dead {
		t.Fatalf("the group is %v", got)
	}
}

func TestDeletedTopicsAreCleanedInHelpings(t *testing.T) {
	b := newBench(t, nil)
	b.topics.add("wide", 7, 3*maxChoreRecords)
	for g := range 3 {
		r := committing(string(rune('a'+g)), "", -1, "wide", 0, 1)
		for p := int32(1); p < maxChoreRecords; p++ {
			r.Topics[0].Partitions = append(r.Topics[0].Partitions, kmsg.OffsetCommitRequestTopicPartition{Partition: p, Offset: 1})
		}
		b.send(r)
	}
	before := len(b.log)
	b.take(b.s.TopicsDeleted(b.now, []string{"wide"}, [][16]byte{{15: 7}}))
	if got := len(b.log) - before; got != maxChoreRecords {
		t.Fatalf("the first helping is %d records", got)
	}
	if due, ok := b.s.Deadline(); !ok || due.After(b.now) {
		t.Fatal("the rest is not due")
	}
	b.pass(0)
	if len(b.s.groups) != 0 {
		t.Fatalf("%d groups are left", len(b.s.groups))
	}
}

// TestTrap28CooperativeRejoinKeepsItsGeneration: a member that missed a generation says so in what it
// sends to the leader (KIP-792). The coordinator hands that on untouched, the newest of it, after a
// restart too, and nothing that the member does in the old generation counts.
func TestTrap28CooperativeRejoinKeepsItsGeneration(t *testing.T) {
	b := newBench(t, nil)
	owning := func(generation int32, partitions ...int32) []byte {
		m := kmsg.NewConsumerMemberMetadata()
		m.Version, m.Topics, m.Generation = 3, []string{"flights"}, generation
		m.OwnedPartitions = []kmsg.ConsumerMemberMetadataOwnedPartition{{Topic: "flights", Partitions: partitions}}
		return m.AppendTo(nil)
	}
	join := func(member string, metadata []byte) *kmsg.JoinGroupRequest {
		r := joining("g", member)
		r.Protocols = []kmsg.JoinGroupRequestProtocol{{Name: "range", Metadata: metadata}}
		return r
	}
	var ids []string
	var tokens []Token
	for range 3 {
		r := ask[*kmsg.JoinGroupResponse](b, join("", owning(-1)))
		ids, tokens = append(ids, r.MemberID), append(tokens, b.send(join(r.MemberID, owning(-1))))
	}
	b.pass(6 * time.Second)
	b.syncAll("g", ids, tokens)

	// Generation 2: member 2 joins it, but its assignment never reaches it: it still thinks that it
	// owns partition 2 of generation 1, which member 1 owns now.
	tokens = []Token{b.send(join(ids[0], owning(1, 0))), b.send(join(ids[1], owning(1, 1))), b.send(join(ids[2], owning(1, 2)))}
	for _, at := range tokens {
		b.code(at, nil)
	}
	b.send(syncing("g", ids[0], 2, ids[0], "0", ids[1], "1 2"))
	b.send(syncing("g", ids[1], 2))
	for what, code := range map[string]int16{
		"heartbeat": b.beat("g", ids[2], 1),
		"commit":    b.commit("g", ids[2], 1, "flights", 2, 55),
		"sync":      codeOf(b.answers[b.send(syncing("g", ids[2], 1))]),
	} {
		if code != kerr.IllegalGeneration.Code {
			t.Fatalf("%s in the old generation gets %d", what, code)
		}
	}
	if got := b.offset("g", "flights", 2); got != -1 {
		t.Fatalf("the old owner has committed %d", got)
	}
	b.reload()
	// Generation 3: it claims what it had in generation 1, first with yet an older claim.
	early := b.send(join(ids[2], owning(0, 2, 3)))
	late := b.send(join(ids[2], owning(1, 2)))
	b.code(early, kerr.RebalanceInProgress)
	b.send(join(ids[1], owning(2, 1, 2)))
	leader := b.send(join(ids[0], owning(2, 0)))
	b.code(late, nil)
	owners := make(map[int32][]int32) // of the newest generation that claims the partition
	for _, m := range answer[*kmsg.JoinGroupResponse](b, leader).Members {
		var claim kmsg.ConsumerMemberMetadata
		if err := claim.ReadFrom(m.ProtocolMetadata); err != nil {
			t.Fatal(err)
		}
		for _, p := range claim.OwnedPartitions[0].Partitions {
			owners[p] = append(owners[p], claim.Generation)
		}
	}
	if diff := cmp.Diff(map[int32][]int32{0: {2}, 1: {2}, 2: {2, 1}}, owners); diff != "" {
		t.Fatalf("the leader cannot tell the old claim from the new one:\n%s", diff)
	}
}

func TestManyPartitionsCostLittle(t *testing.T) {
	b := newBench(t, nil)
	b.topics.add("wide", 3, 100)
	r := committing("g", "", -1, "wide", 0, 1)
	for p := int32(1); p < 100; p++ {
		r.Topics[0].Partitions = append(r.Topics[0].Partitions, kmsg.OffsetCommitRequestTopicPartition{Partition: p, Offset: 1, LeaderEpoch: 4})
	}
	b.hold = true
	allocs := testing.AllocsPerRun(100, func() {
		e := b.s.Handle(b.now, 1, Client{}, b.topics, r)
		for _, record := range e.Records {
			if err := b.s.Replay(record, b.now); err != nil {
				t.Fatal(err)
			}
		}
		b.s.Appended()
	})
	const most = 12 // of them none per partition
	if allocs > most && !underRace {
		t.Errorf("committing 100 partitions makes %v allocations, want at most %d", allocs, most)
	}
	beat := beating("g", "m", 1)
	if allocs := testing.AllocsPerRun(100, func() { b.s.Handle(b.now, 1, Client{}, b.topics, beat) }); allocs > 2 {
		t.Errorf("a heartbeat makes %v allocations", allocs)
	}
}

// TestOffsetsAreAMap compares the store of a group with a plain map.
func TestOffsetsAreAMap(t *testing.T) {
	for seed := range uint64(200) {
		rnd := rand.New(rand.NewPCG(seed, 5))
		g, model := &group{id: "g"}, make(map[partitionOf]int64)
		for range 300 {
			at := partitionOf{strings.Repeat("t", rnd.IntN(3)+1), int32(rnd.IntN(1 + rnd.IntN(40)))}
			before, had := model[at]
			var was committed
			var wasThere bool
			if rnd.IntN(3) > 0 {
				model[at] = rnd.Int64()
				_, was, wasThere = g.setOffset(at.topic, committed{partition: at.partition, offset: model[at]})
			} else {
				delete(model, at)
				_, was, wasThere = g.dropOffset(at.topic, at.partition)
			}
			if wasThere != had || was.offset != before {
				t.Fatalf("seed %d: %v was %d, %v; want %d, %v", seed, at, was.offset, wasThere, before, had)
			}
		}
		got := make(map[partitionOf]int64)
		for _, topic := range g.sortedTopics() {
			last := int32(-1)
			for _, c := range topic.parts {
				if c.partition <= last {
					t.Fatalf("seed %d: partitions are out of order", seed)
				}
				last, got[partitionOf{topic.name, c.partition}] = c.partition, c.offset
			}
		}
		if diff := cmp.Diff(model, got); diff != "" {
			t.Fatalf("seed %d:\n%s", seed, diff)
		}
	}
}
