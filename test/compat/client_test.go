//go:build compat

package compat

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"barnabas/client"
	"barnabas/test/compat/rig"
)

var recordTests = []clientTest{
	{name: "records", run: recordsTest},
	{name: "read committed", needs: []need{transactions}, run: func(t *testing.T, p *site) { ourReadCommitted(t, p.addr) }},
}

func ourClient(t *testing.T, addr string, options ...client.Option) *client.Client {
	t.Helper()
	c, err := client.New(append([]client.Option{client.Brokers(strings.Split(addr, ",")...)}, options...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// ourOwnProducer is one with a client of its own; both are closed when the test ends.
func ourOwnProducer(t *testing.T, addr string, options ...client.ProducerOption) *client.Producer {
	t.Helper()
	return ourProducerOf(t, ourClient(t, addr), options...)
}

// ourProducerOf is a client's, closed when the test ends.
func ourProducerOf(t *testing.T, c *client.Client, options ...client.ProducerOption) *client.Producer {
	t.Helper()
	p, err := c.NewProducer(options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		_ = p.Close(ctx) // what was to arrive each test looks at itself
	})
	return p
}

func uniqueTopic(name string) string { return fmt.Sprintf("%s-%d", name, time.Now().UnixNano()) }

func recordsTest(t *testing.T, p *site) {
	addr := p.addr
	for _, codec := range codecs {
		for _, acks := range []string{"0", "1", "all"} {
			t.Run("to franz-go, codec "+codec+" acks "+acks, func(t *testing.T) { ourProducer(t, addr, codec, acks) })
		}
		t.Run("from franz-go, codec "+codec, func(t *testing.T) { ourConsumer(t, addr, codec) })
	}
	t.Run("starts", func(t *testing.T) { ourStarts(t, addr) })
	t.Run("same partitions as franz-go", func(t *testing.T) { samePartitions(t, addr) })
	t.Run("out of range", func(t *testing.T) { ourOutOfRange(t, addr) })
}

// ourProducer sends what franz-go then reads, field by field.
func ourProducer(t *testing.T, addr, codec, acks string) {
	topic := uniqueTopic("our-producer")
	createTopic(t, addr, topic, 3)
	c := ourClient(t, addr)
	k, err := client.ParseCodec(codec)
	if err != nil {
		t.Fatal(err)
	}
	a, err := client.ParseAcks(acks)
	if err != nil {
		t.Fatal(err)
	}
	p, err := c.NewProducer(client.Compression(k), client.WithAcks(a), client.BatchSize(2000))
	if err != nil {
		t.Fatal(err)
	}
	ctx := within(t, patience)
	wrote := sample(topic, 7)
	failed := make(chan error, len(wrote))
	for _, r := range wrote {
		out := client.ProducerRecord{Topic: topic, Partition: client.ToPartition(1), Key: r.Key, Value: r.Value, Timestamp: r.Timestamp}
		for _, h := range r.Headers {
			out.Headers = append(out.Headers, client.Header{Key: h.Key, Value: h.Value})
		}
		if err := p.Send(ctx, out, func(_ client.RecordMetadata, err error) { failed <- err }); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Close(ctx); err != nil {
		t.Fatal(err)
	}
	for range wrote {
		if err := <-failed; err != nil {
			t.Fatal(err)
		}
	}
	if acks != "all" { // seen by readers once it is on disk, which nobody waited for
		rig.Eventually(t, patience, "what was not waited for is there", func() bool {
			ends, err := admin(t, addr).ListEndOffsets(ctx, topic)
			return err == nil && ends[topic][1].Offset == int64(len(wrote))
		})
	}
	read := readAll(t, addr, topic)[1]
	if len(read) != len(wrote) {
		t.Fatalf("read %d records, wrote %d", len(read), len(wrote))
	}
	for i, r := range read {
		w := wrote[i]
		if string(r.Key) != string(w.Key) || (r.Key == nil) != (w.Key == nil) ||
			string(r.Value) != string(w.Value) || (r.Value == nil) != (w.Value == nil) ||
			!r.Timestamp.Equal(w.Timestamp) || fmt.Sprint(r.Headers) != fmt.Sprint(w.Headers) {
			t.Fatalf("record %d: read %v, wrote %v", i, r, w)
		}
	}
}

// ourConsumer reads what franz-go wrote, field by field.
func ourConsumer(t *testing.T, addr, codec string) {
	topic := uniqueTopic("our-consumer")
	createTopic(t, addr, topic, 1)
	ctx := within(t, patience)
	cl := kgoClient(t, addr, kgo.ProducerBatchCompression(kgoCodecs[codec]), kgo.ProducerBatchMaxBytes(1_000_000))
	wrote := sample(topic, 8)
	if err := cl.ProduceSync(ctx, wrote...).FirstErr(); err != nil {
		t.Fatal(err)
	}
	got := ourRead(t, addr, topic, client.Earliest, len(wrote))
	for i, r := range got {
		w := wrote[i]
		headers := ""
		for _, h := range r.Headers {
			headers += fmt.Sprintf("%s=%v;", h.Key, h.Value)
		}
		want := ""
		for _, h := range w.Headers {
			want += fmt.Sprintf("%s=%v;", h.Key, h.Value)
		}
		if string(r.Key) != string(w.Key) || (r.Key == nil) != (w.Key == nil) ||
			string(r.Value) != string(w.Value) || (r.Value == nil) != (w.Value == nil) ||
			!r.Timestamp.Equal(w.Timestamp) || r.Offset != w.Offset || headers != want {
			t.Fatalf("record %d: read %v, wrote %v", i, r, w)
		}
	}
}

func ourRead(t *testing.T, addr, topic string, from client.Position, n int, options ...client.ConsumerOption) []client.Record {
	t.Helper()
	ctx := within(t, patience)
	k, err := ourClient(t, addr).NewConsumer(options...)
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	if err := k.AssignTopic(ctx, topic, from); err != nil {
		t.Fatal(err)
	}
	var all []client.Record
	for len(all) < n {
		records, err := k.Poll(ctx)
		if err != nil {
			t.Fatalf("after %d of %d records: %v", len(all), n, err)
		}
		all = append(all, records...)
	}
	if len(all) != n {
		t.Fatalf("read %d records, expected %d", len(all), n)
	}
	return all
}

func ourStarts(t *testing.T, addr string) {
	topic := uniqueTopic("our-starts")
	createTopic(t, addr, topic, 1)
	p, err := ourClient(t, addr).NewProducer(client.Linger(0), client.BatchSize(300))
	if err != nil {
		t.Fatal(err)
	}
	ctx := within(t, patience)
	at := yesterday
	for i := range 100 {
		r := client.ProducerRecord{Topic: topic, Value: fmt.Appendf(nil, "%d", i), Timestamp: at.Add(time.Duration(i) * time.Second)}
		if err := p.Send(ctx, r, nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Close(ctx); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		from  client.Position
		first int64
	}{
		{client.Earliest, 0},
		{client.AtOffset(57), 57},
		{client.AtTime(at.Add(30*time.Second - time.Millisecond)), 30},
		{client.AtTime(at), 0},
	} {
		got := ourRead(t, addr, topic, c.from, 100-int(c.first))
		if got[0].Offset != c.first {
			t.Errorf("from %v: the first offset is %d, expected %d", c.from, got[0].Offset, c.first)
		}
	}
}

func samePartitions(t *testing.T, addr string) {
	topic := uniqueTopic("our-partitions")
	createTopic(t, addr, topic, 12)
	ctx := within(t, patience)
	cl := kgoClient(t, addr)
	for i := range 100 {
		key := fmt.Appendf(nil, "key %d", i*i)
		r, err := cl.ProduceSync(ctx, &kgo.Record{Topic: topic, Key: key}).First()
		if err != nil {
			t.Fatal(err)
		}
		if ours := client.KeyPartition(key, 12); ours != r.Partition {
			t.Fatalf("key %q: franz-go chooses %d, we %d", key, r.Partition, ours)
		}
	}
}

// ourReadCommitted leaves out what a transaction of franz-go's wrote and then aborted.
func ourReadCommitted(t *testing.T, addr string) {
	ctx := within(t, patience)
	topic := uniqueTopic("our-transactions")
	createTopic(t, addr, topic, 1)
	cl := kgoClient(t, addr, kgo.TransactionalID(topic))
	for i, end := range []kgo.TransactionEndTry{kgo.TryCommit, kgo.TryAbort, kgo.TryCommit} {
		if err := cl.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			if err := cl.ProduceSync(ctx, &kgo.Record{Topic: topic, Value: fmt.Appendf(nil, "transaction %d", i)}).FirstErr(); err != nil {
				t.Fatal(err)
			}
		}
		if err := cl.EndTransaction(ctx, end); err != nil {
			t.Fatal(err)
		}
	}
	for isolation, want := range map[client.Isolation]int{client.ReadCommitted: 6, client.ReadUncommitted: 9} {
		got := ourRead(t, addr, topic, client.Earliest, want, client.IsolationLevel(isolation))
		aborted := 0
		for _, r := range got {
			if string(r.Value) == "transaction 1" {
				aborted++
			}
		}
		if aborted != want-6 {
			t.Errorf("isolation %d: %d records of the aborted transaction", isolation, aborted)
		}
	}
}

func ourOutOfRange(t *testing.T, addr string) {
	topic := uniqueTopic("our-range")
	createTopic(t, addr, topic, 1)
	ctx := within(t, patience)
	cl := kgoClient(t, addr)
	for range 10 {
		if err := cl.ProduceSync(ctx, &kgo.Record{Topic: topic, Value: []byte("v")}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	offsets := kadm.Offsets{}
	offsets.AddOffset(topic, 0, 4, -1)
	if _, err := admin(t, addr).DeleteRecords(ctx, offsets); err != nil {
		t.Fatal(err)
	}
	if got := ourRead(t, addr, topic, client.AtOffset(1), 6, client.AutoOffsetReset(client.Earliest)); got[0].Offset != 4 {
		t.Errorf("reset to %d, expected 4", got[0].Offset)
	}
	k, err := ourClient(t, addr).NewConsumer(client.NoAutoOffsetReset())
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	tp := client.TopicPartition{Topic: topic, Partition: 0}
	if err := k.Assign(map[client.TopicPartition]client.Position{tp: client.AtOffset(1)}); err != nil {
		t.Fatal(err)
	}
	if _, err := k.Poll(ctx); !errors.Is(err, client.ErrOffsetOutOfRange) {
		t.Errorf("error %v, expected OFFSET_OUT_OF_RANGE", err)
	}
	if err := k.Seek(tp, client.AtOffset(9)); err != nil {
		t.Fatal(err)
	}
	if got, err := k.Poll(ctx); err != nil || got[0].Offset != 9 {
		t.Errorf("after Seek: %v, %v", got, err)
	}
	short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	if _, err := k.Poll(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("at the end: %v", err)
	}
}
