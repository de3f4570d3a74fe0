package group

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// hundred is a commit of 100 partitions.
func hundred(group string) *kmsg.OffsetCommitRequest {
	r := committing(group, "", -1, "wide", 0, 1)
	for p := int32(1); p < 100; p++ {
		r.Topics[0].Partitions = append(r.Topics[0].Partitions, kmsg.OffsetCommitRequestTopicPartition{Partition: p, Offset: 1, LeaderEpoch: 4})
	}
	return r
}

func wide() image {
	topics := image{}
	topics.add("wide", 1, 100)
	return topics
}

func BenchmarkCommitHundredPartitions(b *testing.B) {
	s, topics := New(Defaults(), rand.NewPCG(1, 1)), wide()
	s.Loaded(began)
	requests := make([]*kmsg.OffsetCommitRequest, 100)
	for i := range requests {
		requests[i] = hundred(fmt.Sprintf("group-%d", i))
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		e := s.Handle(began, Token(i), Client{}, topics, requests[i%len(requests)])
		for _, r := range e.Records {
			if err := s.Replay(r, began); err != nil {
				b.Fatal(err)
			}
		}
		s.Appended()
	}
}

// BenchmarkLoad replays old commits of 1,000 groups of 100 partitions.
func BenchmarkLoad(b *testing.B) {
	var w writer
	for g := range 1000 {
		for p := range int32(100) {
			w.expect(1, 40)
			w.commit(fmt.Sprintf("group-%d", g), "wide", committed{offset: 5, at: 6, expires: never, topicID: [16]byte{1}, partition: p, epoch: 7})
		}
	}
	b.ReportAllocs()
	var s *Shard
	for i := 0; b.Loop(); i++ {
		if i%(10*len(w.records)) == 0 {
			s = New(Defaults(), rand.NewPCG(1, 1))
		}
		if err := s.Replay(w.records[i%len(w.records)], began); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkHeartbeat(b *testing.B) {
	s, topics := New(Defaults(), rand.NewPCG(1, 1)), wide()
	s.Loaded(began)
	var beats []*kmsg.HeartbeatRequest
	for i := range 1000 {
		r := joining(fmt.Sprintf("group-%d", i%10), "", "wide")
		r.Version = 3
		for _, r := range s.Handle(began, Token(i), Client{ID: "c"}, topics, r).Records {
			if err := s.Replay(r, began); err != nil {
				b.Fatal(err)
			}
		}
	}
	s.Appended()
	s.Tick(began.Add(3*time.Second), topics)
	for id, g := range s.groups {
		for _, m := range g.order {
			beats = append(beats, beating(id, m.id, g.generation))
		}
	}
	b.ReportAllocs()
	now := began
	for i := 0; b.Loop(); i++ {
		now = now.Add(time.Millisecond)
		s.Handle(now, Token(i), Client{}, topics, beats[i%len(beats)])
	}
}

// TestMemoryOfOffsets: 1,000 groups with 100 offsets each.
func TestMemoryOfOffsets(t *testing.T) {
	s, topics := New(Defaults(), rand.NewPCG(1, 1)), wide()
	s.Loaded(began)
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	for g := range 1000 {
		for _, r := range s.Handle(began, 1, Client{}, topics, hundred(fmt.Sprintf("group-%d", g))).Records {
			if err := s.Replay(r, began); err != nil {
				t.Fatal(err)
			}
		}
		s.Appended()
	}
	perOffset := float64(heap()-before) / 100_000
	runtime.KeepAlive(s)
	t.Logf("%.0f bytes an offset", perOffset)
	const most = 200
	if perOffset > most && !underRace {
		t.Errorf("an offset takes %.0f bytes, want at most %d", perOffset, most)
	}
}
