package group

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

func TestDescribe(t *testing.T) {
	b := newBench(t, nil)
	ids := b.stable("g", 2, "flights")
	b.commit("solo", "", -1, "flights", 0, 1)
	for version := int16(0); version <= 6; version++ {
		r := kmsg.NewPtrDescribeGroupsRequest()
		r.Version, r.Groups = version, []string{"g", "solo", "none"}
		got := ask[*kmsg.DescribeGroupsResponse](b, r)
		g, solo, gone := got.Groups[0], got.Groups[1], got.Groups[2]
		if g.State != "Stable" || g.ProtocolType != "consumer" || g.Protocol != "range" || len(g.Members) != 2 {
			t.Fatalf("version %d: %+v", version, g)
		}
		m := g.Members[1]
		if m.MemberID != ids[1] || m.ClientID != "app" || m.ClientHost != "/127.0.0.1" || string(m.MemberAssignment) != "of "+ids[1]+" in 1" || !slices.Equal(m.ProtocolMetadata, subscription("flights")) {
			t.Fatalf("version %d: member %+v", version, m)
		}
		if solo.State != "Empty" || solo.ProtocolType != "" || solo.ErrorCode != 0 || solo.AuthorizedOperations != -1<<31 {
			t.Fatalf("version %d: %+v", version, solo)
		}
		if want := map[bool]int16{true: kerr.GroupIDNotFound.Code}[version >= 6]; gone.State != "Dead" || gone.ErrorCode != want || (want != 0) != (gone.ErrorMessage != nil) {
			t.Fatalf("version %d: %+v", version, gone)
		}
	}
	b.send(joining("g", ids[0], "flights"))
	r := kmsg.NewPtrDescribeGroupsRequest()
	r.Groups = []string{"g"}
	if g := ask[*kmsg.DescribeGroupsResponse](b, r).Groups[0]; g.State != "PreparingRebalance" || g.Protocol != "" || len(g.Members) != 2 || len(g.Members[0].ProtocolMetadata) != 0 {
		t.Fatalf("in a rebalance: %+v", g)
	}
}

func TestList(t *testing.T) {
	b := newBench(t, nil)
	b.stable("g", 1, "flights")
	b.commit("solo", "", -1, "flights", 0, 1)
	for what, test := range map[string]struct {
		states, types []string
		want          []string
	}{
		"all":         {nil, nil, []string{"g", "solo"}},
		"stable":      {[]string{"sTable"}, nil, []string{"g"}},
		"empty":       {[]string{" EMPTY ", "Dead"}, nil, []string{"solo"}},
		"no state":    {[]string{"bogus"}, nil, nil},
		"classic":     {nil, []string{"consumer", "Classic"}, []string{"g", "solo"}},
		"other types": {nil, []string{"consumer", "share"}, nil},
	} {
		r := kmsg.NewPtrListGroupsRequest()
		r.Version, r.StatesFilter, r.TypesFilter = 5, test.states, test.types
		var got []string
		for _, g := range ask[*kmsg.ListGroupsResponse](b, r).Groups {
			got = append(got, g.Group)
			if g.GroupType != "classic" || (g.Group == "g" && (g.ProtocolType != "consumer" || g.GroupState != "Stable")) {
				t.Errorf("%s: %+v", what, g)
			}
		}
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%s:\n%s", what, diff)
		}
	}
}

func TestDeleteGroups(t *testing.T) {
	b := newBench(t, nil)
	ids := b.stable("busy", 1, "flights")
	gone := b.stable("left", 1, "flights")
	b.commit("left", gone[0], 1, "flights", 0, 5)
	b.commit("left", gone[0], 1, "airports", 3, 5)
	b.send(leaving("left", gone[0]))
	b.commit("solo", "", -1, "flights", 0, 1)
	r := kmsg.NewPtrDeleteGroupsRequest()
	r.Version, r.Groups = 2, []string{"busy", "left", "solo", "none", "left"}
	got := ask[*kmsg.DeleteGroupsResponse](b, r)
	for i, want := range []int16{kerr.NonEmptyGroup.Code, 0, 0, kerr.GroupIDNotFound.Code, 0} {
		if got.Groups[i].ErrorCode != want {
			t.Errorf("deleting %s: %d, want %d", r.Groups[i], got.Groups[i].ErrorCode, want)
		}
	}
	for _, restart := range []bool{false, true} {
		if restart {
			b.reload()
		}
		if len(b.s.groups) != 1 || b.beat("busy", ids[0], 1) != 0 {
			t.Fatalf("restart %v: left over: %v", restart, b.s.groups)
		}
	}
	// And it can be made again.
	if again := b.stable("left", 1, "flights"); b.offset("left", "flights", 0) != -1 || b.beat("left", again[0], 1) != 0 {
		t.Fatal("the group made again is not a new one")
	}
}

func TestOffsetDelete(t *testing.T) {
	b := newBench(t, nil)
	ids := b.stable("g", 1, "flights")
	b.commit("g", ids[0], 1, "flights", 0, 1)
	b.commit("g", ids[0], 1, "airports", 0, 2)
	b.commit("g", ids[0], 1, "airports", 1, 3)
	if err := b.s.replayTransactional(5, transactional("g", "airports", 2, 9)); err != nil {
		t.Fatal(err)
	}
	r := kmsg.NewPtrOffsetDeleteRequest()
	r.Group = "g"
	for _, topic := range []string{"flights", "airports", "none"} {
		r.Topics = append(r.Topics, kmsg.OffsetDeleteRequestTopic{Topic: topic, Partitions: []kmsg.OffsetDeleteRequestTopicPartition{{Partition: 0}, {Partition: 2}, {Partition: 99}}})
	}
	before := len(b.log)
	got := ask[*kmsg.OffsetDeleteResponse](b, r)
	subscribed, unknown := kerr.GroupSubscribedToTopic.Code, kerr.UnknownTopicOrPartition.Code
	for i, want := range [][]int16{{subscribed, subscribed, unknown}, {0, 0, unknown}, {unknown, unknown, unknown}} {
		for j, p := range got.Topics[i].Partitions {
			if p.ErrorCode != want[j] {
				t.Errorf("%s %d: %d, want %d", got.Topics[i].Topic, p.Partition, p.ErrorCode, want[j])
			}
		}
	}
	if n := len(b.log) - before; n != 2 { // the committed one, and the pending one
		t.Errorf("%d tombstones", n)
	}
	if a, c, f := b.offset("g", "airports", 0), b.offset("g", "airports", 1), b.offset("g", "flights", 0); a != -1 || c != 3 || f != 1 {
		t.Errorf("left: %d %d %d", a, c, f)
	}
	b.s.endTransaction(5, true)
	if got := b.offset("g", "airports", 2); got != -1 {
		t.Errorf("the transaction has brought %d back", got)
	}
	for group, want := range map[string]*kerr.Error{"": kerr.InvalidGroupID, "none": kerr.GroupIDNotFound} {
		r.Group = group
		if got := ask[*kmsg.OffsetDeleteResponse](b, r); got.ErrorCode != want.Code || len(got.Topics) != 0 {
			t.Errorf("group %q: %+v", group, got)
		}
	}
	b.send(leaving("g", ids[0]))
	r.Group, r.Topics = "g", r.Topics[:1]
	if got := ask[*kmsg.OffsetDeleteResponse](b, r); got.ErrorCode != 0 || got.Topics[0].Partitions[0].ErrorCode != 0 {
		t.Errorf("of an empty group: %+v", got)
	}
	connect := joining("workers", "")
	connect.Version, connect.ProtocolType = 3, "connect"
	b.send(connect)
	r.Group = "workers"
	if got := ask[*kmsg.OffsetDeleteResponse](b, r); got.ErrorCode != kerr.NonEmptyGroup.Code {
		t.Errorf("of a busy group of another type: %+v", got)
	}
}

// The rules of KIP-211.

func TestOffsetsExpireAfterTheGroupIsEmpty(t *testing.T) {
	b := newBench(t, nil)
	ids := b.stable("g", 1, "flights")
	b.commit("g", ids[0], 1, "flights", 0, 5)
	live := func(d time.Duration) {
		for end := b.now.Add(d); b.now.Before(end); {
			b.pass(5 * time.Second)
			b.beat("g", ids[0], 1)
		}
	}
	b.s.config.OffsetsRetention = time.Hour
	live(3 * time.Hour)
	if got := b.offset("g", "flights", 0); got != 5 {
		t.Fatalf("the offset of a topic in use is %d", got)
	}
	b.send(leaving("g", ids[0]))
	b.reload()
	b.pass(59 * time.Minute)
	if got := b.offset("g", "flights", 0); got != 5 {
		t.Fatalf("the offset is %d before its time", got)
	}
	b.pass(11 * time.Minute)
	if b.state("g") != Dead {
		t.Fatalf("the group is %v after its time", b.state("g"))
	}
	b.reload()
	if b.state("g") != Dead {
		t.Fatal("it comes back")
	}
}

func TestOffsetsOfTopicsNotSubscribedExpire(t *testing.T) {
	b := newBench(t, func(c *Config) { c.OffsetsRetention = time.Hour })
	ids := b.stable("g", 1, "flights")
	b.commit("g", ids[0], 1, "flights", 0, 5)
	b.commit("g", ids[0], 1, "airports", 0, 6)
	for end := b.now.Add(75 * time.Minute); b.now.Before(end); {
		b.pass(5 * time.Second)
		b.beat("g", ids[0], 1)
	}
	if f, a := b.offset("g", "flights", 0), b.offset("g", "airports", 0); f != 5 || a != -1 {
		t.Fatalf("left: %d of the topic in use, %d of the other", f, a)
	}
	if b.state("g") != Stable {
		t.Fatalf("group is %v", b.state("g"))
	}
}

func TestOffsetsWithoutGroupExpireAfterTheirCommit(t *testing.T) {
	b := newBench(t, func(c *Config) { c.OffsetsRetention = time.Hour })
	b.commit("solo", "", -1, "flights", 0, 5)
	b.pass(30 * time.Minute)
	b.commit("solo", "", -1, "flights", 1, 6)
	own := committing("solo", "", -1, "flights", 2, 7)
	own.Version, own.RetentionTimeMillis = 4, (3 * time.Hour).Milliseconds()
	b.send(own)
	if err := b.s.replayTransactional(5, transactional("solo", "flights", 0, 9)); err != nil {
		t.Fatal(err)
	}
	b.pass(45 * time.Minute) // 1:15
	if got := b.offset("solo", "flights", 0); got != 5 {
		t.Fatalf("an offset that a transaction is about to move has expired: %d", got)
	}
	b.s.endTransaction(5, false)
	b.pass(10 * time.Minute) // 1:25
	for p, want := range []int64{-1, 6, 7} {
		if got := b.offset("solo", "flights", int32(p)); got != want {
			t.Fatalf("after 1:25 partition %d is at %d, want %d", p, got, want)
		}
	}
	b.reload()
	b.pass(time.Hour) // 2:25
	for p, want := range []int64{-1, -1, 7} {
		if got := b.offset("solo", "flights", int32(p)); got != want {
			t.Fatalf("after 2:25 partition %d is at %d, want %d", p, got, want)
		}
	}
	b.pass(75 * time.Minute)
	if b.state("solo") != Dead {
		t.Fatalf("group is %v", b.state("solo"))
	}
}

func TestExpiryComesInHelpings(t *testing.T) {
	b := newBench(t, func(c *Config) { c.OffsetsRetention = time.Hour })
	b.topics.add("wide", 7, maxChoreRecords)
	for g := range 4 {
		r := committing(string(rune('a'+g)), "", -1, "wide", 0, 1)
		for p := int32(1); p < maxChoreRecords*3/4; p++ {
			r.Topics[0].Partitions = append(r.Topics[0].Partitions, kmsg.OffsetCommitRequestTopicPartition{Partition: p, Offset: 1})
		}
		b.send(r)
	}
	b.pass(time.Hour - time.Minute)
	b.now = b.now.Add(11 * time.Minute)
	helpings := 0
	for ; len(b.s.groups) > 0; helpings++ {
		due, _ := b.s.Deadline()
		if due.After(b.now) {
			t.Fatalf("after %d helpings the rest is not due", helpings)
		}
		before := len(b.log)
		b.take(b.s.Tick(b.now, b.topics))
		if n := len(b.log) - before; n > 2*maxChoreRecords {
			t.Fatalf("a helping of %d", n)
		}
	}
	if helpings < 2 {
		t.Fatal("all at once")
	}
}
