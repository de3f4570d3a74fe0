package client

import (
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/client/internal/cluster"
	"barnabas/client/internal/prefetch"
	"barnabas/internal/batch"
)

// Whatever a broker puts into a Fetch response, decoding ends, and positions do not move back.
func FuzzFetchedBatches(f *testing.F) {
	for codec := batch.None; codec <= batch.Zstd; codec++ {
		b := batch.NewBuilder(batch.BuilderOptions{Codec: codec})
		b.SetProducer(3, 1, 0, codec == batch.Zstd)
		for i := range 5 {
			b.Append(int64(i), []byte("key"), []byte("value"), []batch.Header{{Key: []byte("h"), Value: nil}})
		}
		built, err := b.Build()
		if err != nil {
			f.Fatal(err)
		}
		f.Add([]byte(built), int64(2), int64(0), false)
		f.Add(append([]byte(built), built[:30]...), int64(0), int64(1), true)
	}
	f.Add([]byte(batch.BuildEndTransaction(batch.EndTransaction{ProducerID: 3})), int64(0), int64(0), true)
	c, err := New()
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { c.Close() })
	f.Fuzz(func(t *testing.T, raw []byte, from, aborted int64, committed bool) {
		from = max(from, 0)
		k := &Consumer{c: c, cfg: defaultConsumerConfig(), checker: batch.NewChecker(), news: make(chan struct{}, 1)}
		k.cfg.checkCRCs = false // a fuzzer does not find checksums
		if committed {
			k.cfg.isolation = ReadCommitted
		}
		k.mu.ahead = prefetch.New(k.cfg.prefetch(c), spotOf)
		tp := prefetch.TopicPartition{Topic: "t"}
		k.mu.ahead.Add(tp, anyTopic, AtOffset(from).start)
		k.mu.ahead.Route(func(prefetch.TopicPartition) (prefetch.Leader, bool) { return prefetch.Leader{Node: 1}, true },
			func(int32) bool { return true })
		k.mu.ahead.Signals() // there is nobody to be woken
		now := time.Unix(1000, 0)
		work := k.mu.ahead.Claim(now, 1)
		part := kmsg.NewFetchResponseTopicPartition()
		part.RecordBatches = raw
		part.AbortedTransactions = []kmsg.FetchResponseTopicPartitionAbortedTransaction{{ProducerID: 3, FirstOffset: aborted}}
		got, some := k.mu.ahead.Fetched(now, 1, &work.Fetch[0], &part)
		if !some {
			return
		}
		newFetcher(k, 1).decode([]fetched{got})
		if again := k.mu.ahead.Claim(now, 1); len(again.Fetch) > 0 && again.Fetch[0].Offset < from {
			t.Fatalf("from %d back to %d", from, again.Fetch[0].Offset)
		}
		for range 1000 {
			records, err := k.takeReady()
			if records == nil && err == nil {
				return
			}
			for _, r := range records {
				if r.Offset < from {
					t.Fatalf("offset %d, asked for %d", r.Offset, from)
				}
			}
		}
	})
}

// Whatever bytes come as an answer, they are refused or taken, without a panic.
func FuzzResponses(f *testing.F) {
	for _, key := range []int16{0, 1, 2, 3, 8, 9, 18, 22, 23, 68} {
		resp := kmsg.ResponseForKey(key)
		for version := range cluster.Newest[key] + 1 {
			resp.SetVersion(version)
			f.Add(key, version, resp.AppendTo(nil))
		}
	}
	full := kmsg.NewPtrMetadataResponse()
	full.Version = 12
	topic := kmsg.NewMetadataResponseTopic()
	topic.Topic = kmsg.StringPtr("t")
	topic.Partitions = []kmsg.MetadataResponseTopicPartition{{Partition: 1, Leader: 2}, {Partition: -1}, {Partition: 7}}
	full.Topics = append(full.Topics, topic)
	full.Brokers = []kmsg.MetadataResponseBroker{{NodeID: 1, Host: "::1", Port: -1}}
	f.Add(int16(3), int16(12), full.AppendTo(nil))
	f.Fuzz(func(t *testing.T, key, version int16, body []byte) {
		most, ours := cluster.Newest[key]
		if !ours || version < 0 || version > most {
			return
		}
		resp := kmsg.ResponseForKey(key)
		resp.SetVersion(version)
		if cluster.Decode(resp, body) != nil {
			return
		}
		tp := TopicPartition{"t", 0}
		switch r := resp.(type) {
		case *kmsg.MetadataResponse:
			known, next := &cluster.Snapshot{}, &cluster.Snapshot{}
			known.Take(&cluster.Snapshot{}, r)
			next.Take(known, r)
			next.Partition(tp.Topic, tp.Partition)
		case *kmsg.ProduceResponse:
			for _, part := range index(r) {
				readOutcome(tp, part)
			}
		case *kmsg.FetchResponse:
			indexFetch(r)
			fetchBrokers(r)
		}
	})
}

func FuzzParseUUID(f *testing.F) {
	f.Add("AAAAAAAAAAAAAAAAAAAAAQ")
	f.Add("")
	f.Fuzz(func(t *testing.T, s string) {
		if u, err := ParseUUID(s); err == nil && u.String() != s {
			if again, err := ParseUUID(u.String()); err != nil || again != u {
				t.Fatalf("%q is read as %v", s, u)
			}
		}
	})
}
