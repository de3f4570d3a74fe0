package group

import (
	"bytes"
	"encoding/binary"
	"math"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

func randomCommitted(dice *rand.Rand) committed {
	c := committed{
		offset: dice.Int64(), at: dice.Int64(), expires: never, partition: dice.Int32(), epoch: dice.Int32N(100) - 1,
		metadata: strings.Repeat("m", []int{0, 1, 63, 126, 127, 128, 4096, math.MaxInt16 + 1}[dice.IntN(8)]),
	}
	if dice.IntN(2) == 0 {
		binary.BigEndian.PutUint64(c.topicID[8:], dice.Uint64())
	}
	if dice.IntN(4) == 0 {
		c.expires = dice.Int64()
	}
	return c
}

func kmsgValue(c *committed) kmsg.OffsetCommitValue {
	v := kmsg.OffsetCommitValue{
		Version: offsetValueVersion, Offset: c.offset, LeaderEpoch: c.epoch, Metadata: c.metadata,
		CommitTimestamp: c.at, ExpireTimestamp: c.expires, TopicID: c.topicID,
	}
	if c.expires != never {
		v.Version = offsetValueWithExpiry
	}
	return v
}

// A committed offset is written byte for byte as kmsg writes it, and what is read of it is what kmsg reads, also where
// bytes are missing, changed or left over.
func TestOffsetsAreEncodedAsKmsgDoes(t *testing.T) {
	for seed := range uint64(2000) {
		dice := rand.New(rand.NewPCG(seed, 1))
		c := randomCommitted(dice)
		want := kmsgValue(&c)
		value := appendOffsetValue(nil, &c)
		if judge := want.AppendTo(nil); !bytes.Equal(value, judge) {
			t.Fatalf("seed %d: written as\n%x, kmsg writes\n%x", seed, value, judge)
		}
		var w writer
		w.forget(strings.Repeat("g", dice.IntN(300)), strings.Repeat("t", dice.IntN(249)), c.partition)
		for _, damage := range []func([]byte) []byte{
			func(b []byte) []byte { return b },
			func(b []byte) []byte { return b[:dice.IntN(len(b))] },
			func(b []byte) []byte { return append(bytes.Clone(b), 0) },
			func(b []byte) []byte { b = bytes.Clone(b); b[dice.IntN(len(b))] ^= 1 << dice.IntN(8); return b },
		} {
			b := damage(value)
			if v, ok := viewOffsetValue(b); ok {
				var judge kmsg.OffsetCommitValue
				err := judge.ReadFrom(b)
				judge.ExpireTimestamp = never
				if err != nil || !reflect.DeepEqual(judge, v) {
					t.Fatalf("seed %d: %x is read as %+v, kmsg says %+v, %v", seed, b, v, judge, err)
				}
			}
			b = damage(w.records[0].Key)
			if k, ok := viewOffsetKey(b); ok {
				var judge kmsg.OffsetCommitKey
				if err := judge.ReadFrom(b); err != nil || judge != k {
					t.Fatalf("seed %d: %x is read as %+v, kmsg says %+v, %v", seed, b, k, judge, err)
				}
			}
		}
		if _, ok := viewOffsetValue(value); ok != (c.expires == never) {
			t.Fatalf("seed %d: an ordinary value is left to kmsg: %x", seed, value)
		}
		if _, ok := viewOffsetKey(w.records[0].Key); !ok {
			t.Fatalf("seed %d: an ordinary key is left to kmsg: %x", seed, w.records[0].Key)
		}
	}
}

// What a Shard remembers of its records does not lie in memory that was given back.
func TestRecycledRecordsAreForgotten(t *testing.T) {
	topics := image{}
	topics.add("t", 7, 8)
	s := New(Defaults(), rand.NewPCG(1, 1))
	began := time.UnixMilli(1_000_000)
	s.Loaded(began)
	token := Token(0)
	handle := func(req kmsg.Request) []Reply {
		token++
		e := s.Handle(began, token, Client{ID: "c"}, topics, req)
		for _, r := range e.Records {
			if err := s.Replay(r, began); err != nil {
				t.Fatal(err)
			}
		}
		replies := e.Replies
		s.Recycle(e)
		return replies
	}
	join := kmsg.NewPtrJoinGroupRequest()
	join.Version, join.Group, join.ProtocolType, join.SessionTimeoutMillis, join.RebalanceTimeoutMillis = 3, "g", "consumer", 10_000, 10_000
	join.Protocols = []kmsg.JoinGroupRequestProtocol{{Name: "range", Metadata: []byte("all of them")}}
	handle(join)
	at, _ := s.Deadline()
	e := s.Tick(at, topics)
	joined := e.Replies[0].Response.(*kmsg.JoinGroupResponse)
	sync := kmsg.NewPtrSyncGroupRequest()
	sync.Group, sync.Generation, sync.MemberID = "g", joined.Generation, joined.MemberID
	sync.GroupAssignment = []kmsg.SyncGroupRequestGroupAssignment{{MemberID: joined.MemberID, MemberAssignment: []byte("these")}}
	handle(sync)
	stored := bytes.Clone(s.groups["g"].stored)
	for i := range 20 {
		commit := kmsg.NewPtrOffsetCommitRequest()
		commit.Version, commit.Group, commit.Generation, commit.MemberID = 5, "g", joined.Generation, joined.MemberID
		meta := strings.Repeat("x", i)
		commit.Topics = []kmsg.OffsetCommitRequestTopic{{Topic: "t", Partitions: []kmsg.OffsetCommitRequestTopicPartition{{Partition: int32(i % 8), Offset: int64(i), Metadata: &meta}}}}
		handle(commit)
		if c := s.groups["g"].committed("t", int32(i%8)); c == nil || c.offset != int64(i) || c.metadata != meta {
			t.Fatalf("commit %d stands as %+v", i, c)
		}
	}
	if !bytes.Equal(stored, s.groups["g"].stored) {
		t.Error("the group's own record has changed with the offsets")
	}
	if c := s.groups["g"].committed("t", 1); c.offset != 17 || c.metadata != strings.Repeat("x", 17) {
		t.Errorf("partition 1 stands as %+v", c)
	}
}
