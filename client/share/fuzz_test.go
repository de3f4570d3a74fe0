package share

import (
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/client/hooks"
	"barnabas/client/internal/cluster"
	"barnabas/client/internal/sharemember"
	"barnabas/client/internal/sharesession"
	"barnabas/internal/batch"
)

// Whatever a broker puts into an answer, each offset that it says to be acquired is accounted for once: as a
// record, a gap or something to be released.
func FuzzAcquired(f *testing.F) {
	for codec := batch.None; codec <= batch.Zstd; codec++ {
		b := batch.NewBuilder(batch.BuilderOptions{Codec: codec})
		for i := range 5 {
			b.Append(int64(i), []byte("key"), []byte("value"), []batch.Header{{Key: []byte("h"), Value: nil}})
		}
		built, err := b.Build()
		if err != nil {
			f.Fatal(err)
		}
		f.Add([]byte(built), int64(0), int64(4), int64(9), int64(12))
		f.Add(append([]byte(built), built[:30]...), int64(2), int64(3), int64(3), int64(8))
	}
	f.Add([]byte(batch.BuildEndTransaction(batch.EndTransaction{ProducerID: 3})), int64(0), int64(0), int64(-1), int64(1))
	f.Fuzz(func(t *testing.T, raw []byte, first, last, next, end int64) {
		d := decoder{checker: batch.NewChecker(), topic: "t"} // a fuzzer does not find checksums
		ranges := []acquired{{FirstOffset: next, LastOffset: end, DeliveryCount: 2}, {FirstOffset: first, LastOffset: last, DeliveryCount: 1}}
		got := d.decode(raw, ranges)
		runs := slices.Clone(got.Runs)
		for i, r := range got.Records {
			if r.Offset != got.Offsets[i] || r.DeliveryCount < 1 {
				t.Fatalf("record %d is at %d, delivery %d", r.Offset, got.Offsets[i], r.DeliveryCount)
			}
			runs = append(runs, run{First: r.Offset, Last: r.Offset})
		}
		slices.SortFunc(runs, func(a, b run) int { return int(min(max(a.First-b.First, -1), 1)) })
		for _, r := range tidy(ranges) {
			at := r.FirstOffset
			for len(runs) > 0 && runs[0].First == at && runs[0].Last <= r.LastOffset && runs[0].Last >= at {
				at = runs[0].Last + 1
				runs = runs[1:]
			}
			if at != r.LastOffset+1 {
				t.Fatalf("of %d to %d nothing is said from %d on; left are %v", r.FirstOffset, r.LastOffset, at, runs)
			}
		}
		if len(runs) > 0 {
			t.Fatalf("%v were not acquired", runs)
		}
	})
}

// Whatever bytes come as an answer, they are refused or taken, without a panic, and nothing waits for ever.
func FuzzAnswers(f *testing.F) {
	part := sharesession.Partition{TopicID: [16]byte{1}}
	for _, key := range []int16{76, 78, 79} {
		resp := kmsg.ResponseForKey(key)
		for version := int16(firstShareVersion); version <= cluster.Newest[key]; version++ {
			resp.SetVersion(version)
			switch r := resp.(type) {
			case *kmsg.ShareFetchResponse:
				r.Topics = []kmsg.ShareFetchResponseTopic{{TopicID: part.TopicID, Partitions: []kmsg.ShareFetchResponseTopicPartition{{
					Records: make([]byte, 70), AcquiredRecords: []acquired{{FirstOffset: 1, LastOffset: 3, DeliveryCount: 1}},
				}}}}
			case *kmsg.ShareAcknowledgeResponse:
				r.Topics = []kmsg.ShareAcknowledgeResponseTopic{{TopicID: part.TopicID, Partitions: []kmsg.ShareAcknowledgeResponseTopicPartition{{ErrorCode: 6}}}}
			case *kmsg.ShareGroupHeartbeatResponse:
				r.MemberEpoch = 1
				r.Assignment = &kmsg.ShareGroupHeartbeatResponseAssignment{TopicPartitions: []kmsg.ShareGroupHeartbeatResponseAssignmentTopicPartition{{TopicID: part.TopicID, Partitions: []int32{0, -1}}}}
			}
			f.Add(key, version, resp.AppendTo(nil))
		}
	}
	f.Fuzz(func(t *testing.T, key, version int16, body []byte) {
		if key != 76 && key != 78 && key != 79 || version < firstShareVersion || version > cluster.Newest[key] {
			return
		}
		resp := kmsg.ResponseForKey(key)
		resp.SetVersion(version)
		if cluster.Decode(resp, body) != nil {
			return
		}
		now := time.Unix(1000, 0)
		k := &Consumer{checker: batch.NewChecker(), news: make(chan struct{}, 1), cfg: defaultConfig()}
		k.set.Hooks = &hooks.Hooks{}
		k.mu.answered = make(chan struct{})
		k.mu.ended = true // no goroutines
		k.mu.store = sharesession.New(sharesession.Config{MaxPollRecords: 10, Backoff: func(int) time.Duration { return time.Second }},
			func(r *Record, h *sharesession.Held) { r.held = h })
		s := k.mu.store
		s.Assign(now, map[sharesession.Partition]string{part: "t"})
		s.Route(func(string, sharesession.Partition) (int32, bool) { return 1, true })
		s.Want(true)
		s.Claim(now, 1)
		switch r := resp.(type) {
		case *kmsg.ShareGroupHeartbeatResponse:
			m := sharemember.New(sharemember.Config{MaxPollInterval: time.Minute, RetryBackoff: time.Second, RetryBackoffMax: time.Second, Jitter: func() float64 { return 0 }})
			m.Subscribe(now, []string{"t"})
			m.Found(now, 1, 1, nil)
			m.Answered(now, 2, r, nil)
			for _, list := range m.Assignment() {
				if len(list) == 0 || list[0] < 0 || !slices.IsSorted(list) {
					t.Fatalf("assigned are %v", list)
				}
			}
			return
		case *kmsg.ShareFetchResponse:
			a := (&broker{k: k, node: 1}).read(r)
			s.Answered(now, 1, &a)
		case *kmsg.ShareAcknowledgeResponse:
			a := readAcknowledge(r)
			s.Answered(now, 1, &a)
		}
		records, _ := s.Take(now)
		for i := range records {
			_ = s.Mark(now, records[i].held, sharesession.Accept)
		}
		s.Close(now, cluster.ErrClosed)
		for range 3 {
			if s.Claim(now, 1).Task == sharesession.Nothing {
				break
			}
			s.Failed(now, 1, cluster.ErrClosed)
		}
		if !s.Closed() {
			t.Fatal("it does not close")
		}
	})
}
