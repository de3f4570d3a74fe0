package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

const gib = 1 << 30

// buffered bounds the records that a producer holds at once; franz-go blocks beyond it.
const buffered = 100_000

var codecs = map[string]kgo.CompressionCodec{"none": kgo.NoCompression(), "lz4": kgo.Lz4Compression()}

func producerOpts(topic, codec string) []kgo.Opt {
	return []kgo.Opt{
		kgo.DefaultProduceTopic(topic), kgo.RequiredAcks(kgo.AllISRAcks()), kgo.MaxBufferedRecords(buffered),
		kgo.ProducerLinger(0), kgo.ProducerBatchMaxBytes(1<<20 - 4096), kgo.ProducerBatchCompression(codecs[codec]),
	}
}

// payloads are half random, half repeated, so that a codec has something to do.
func payloads(size int) [][]byte {
	rng := rand.New(rand.NewPCG(1, 2))
	pool := make([][]byte, 1024)
	for i := range pool {
		pool[i] = make([]byte, size)
		for j := range pool[i] {
			if pool[i][j] = 'a'; j < size/2 {
				pool[i][j] = byte(rng.Uint32())
			}
		}
	}
	return pool
}

// failures keeps the first error of many callbacks.
type failures struct {
	n     atomic.Int64
	first atomic.Value
}

func (f *failures) note(err error) {
	if err != nil {
		f.n.Add(1)
		f.first.CompareAndSwap(nil, err.Error())
	}
}

func (f *failures) err() error {
	if n := f.n.Load(); n > 0 {
		return fmt.Errorf("%d records failed: %v", n, f.first.Load())
	}
	return nil
}

// produce sends n records as fast as they are taken.
func produce(ctx context.Context, v variant, topic, codec string, n, size int) (sample, error) {
	cl, err := v.broker.client(producerOpts(topic, codec)...)
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	if err := cl.Ping(ctx); err != nil {
		return nil, err
	}
	pool := payloads(size)
	var failed failures
	cpu, start := v.broker.cpuSeconds(), time.Now()
	for i := range n {
		cl.Produce(ctx, &kgo.Record{Value: pool[i%len(pool)]}, func(_ *kgo.Record, err error) { failed.note(err) })
	}
	if err := cl.Flush(ctx); err != nil {
		return nil, err
	}
	took := time.Since(start).Seconds()
	cpu = v.broker.cpuSeconds() - cpu
	return sample{"rate": float64(n) / took, "cpu": cpu / (float64(n*size) / gib)}, failed.err()
}

// consume reads n records from the start.
func consume(ctx context.Context, v variant, topic string, n, size int) (sample, error) {
	cl, err := v.broker.client(kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchMaxBytes(50<<20), kgo.FetchMaxPartitionBytes(4<<20))
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	cpu, start := v.broker.cpuSeconds(), time.Now()
	for seen := 0; seen < n; {
		fetches := cl.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			return nil, err
		}
		seen += fetches.NumRecords()
	}
	took := time.Since(start).Seconds()
	cpu = v.broker.cpuSeconds() - cpu
	return sample{"rate": float64(n) / took, "cpu": cpu / (float64(n*size) / gib)}, nil
}

// syncSend has senders that each wait for their acknowledgement before they send again.
func syncSend(ctx context.Context, v variant, topic string, senders, size int, d time.Duration) (sample, error) {
	cl, err := v.broker.client(producerOpts(topic, "none")...)
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	if err := cl.ProduceSync(ctx, &kgo.Record{Value: []byte("first")}).FirstErr(); err != nil {
		return nil, err
	}
	value := make([]byte, size)
	took := make([][]int64, senders)
	var failed failures
	cpu, start := v.broker.cpuSeconds(), time.Now()
	stop := start.Add(d)
	var wg sync.WaitGroup
	for i := range senders {
		wg.Go(func() {
			for time.Now().Before(stop) {
				at := time.Now()
				err := cl.ProduceSync(ctx, &kgo.Record{Value: value}).FirstErr()
				failed.note(err)
				took[i] = append(took[i], int64(time.Since(at)))
			}
		})
	}
	wg.Wait()
	elapsed := time.Since(start).Seconds()
	cpu = v.broker.cpuSeconds() - cpu
	all := slices.Concat(took...)
	n := float64(len(all))
	return sample{"rate": n / elapsed, "cpu": cpu / n * 1e6, "p50": quantile(all, .5), "p99": quantile(all, .99)}, failed.err()
}

// latency produces at a fixed rate to one partition, and takes the time from the instant at which a record was due to its
// acknowledgement and to a consumer's hand. The first two seconds are not counted: connections and code warm up in them.
func latency(ctx context.Context, v variant, topic string, rate, size int, d time.Duration) (sample, error) {
	cons, err := v.broker.client(kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchMaxWait(500*time.Millisecond))
	if err != nil {
		return nil, err
	}
	defer cons.Close()
	const warm = 2 * time.Second
	total, skipped := int((warm+d).Seconds()*float64(rate)), int(warm.Seconds()*float64(rate))
	ends := make(chan []int64, 1)
	go func() { ends <- receive(ctx, cons, total, skipped) }()
	s, err := ackLatency(ctx, v, topic, 1, rate, size, warm, d)
	if err != nil {
		return nil, err
	}
	select {
	case received := <-ends:
		s["end p50"], s["end p99"] = quantile(received, .5), quantile(received, .99)
		return s, nil
	case <-time.After(20 * time.Second):
		return nil, fmt.Errorf("the consumer did not see %d records", total)
	}
}

// ackLatency sends records when they are due, over all partitions in turn, and takes the time from when each was due to its
// acknowledgement, after a time to warm up.
func ackLatency(ctx context.Context, v variant, topic string, partitions, rate, size int, warm, d time.Duration) (sample, error) {
	prod, err := v.broker.client(append(producerOpts(topic, "none"), kgo.RecordPartitioner(kgo.ManualPartitioner()))...)
	if err != nil {
		return nil, err
	}
	defer prod.Close()
	total, skipped := int((warm+d).Seconds()*float64(rate)), int(warm.Seconds()*float64(rate))
	var failed failures
	var mu sync.Mutex
	acks := make([]int64, 0, total-skipped)
	value := make([]byte, size)
	cpu := 0.0
	pace(total, time.Second/time.Duration(rate), func(i int, due time.Time) {
		if i == skipped {
			cpu = v.broker.cpuSeconds()
		}
		key := binary.BigEndian.AppendUint64(nil, uint64(due.UnixNano()))
		prod.Produce(ctx, &kgo.Record{Key: key, Value: value, Partition: int32(i % partitions)}, func(_ *kgo.Record, err error) {
			took := int64(time.Since(due))
			failed.note(err)
			if i >= skipped {
				mu.Lock()
				acks = append(acks, took)
				mu.Unlock()
			}
		})
	})
	if err := prod.Flush(ctx); err != nil {
		return nil, err
	}
	cpu = v.broker.cpuSeconds() - cpu
	return sample{
		"ack p50": quantile(acks, .5), "ack p99": quantile(acks, .99), "cpu": cpu / float64(total-skipped) * 1e6,
	}, failed.err()
}

func receive(ctx context.Context, cl *kgo.Client, total, skipped int) []int64 {
	var took []int64
	for seen := 0; seen < total && ctx.Err() == nil; {
		fetches := cl.PollFetches(ctx)
		now := time.Now().UnixNano()
		fetches.EachRecord(func(r *kgo.Record) {
			if seen++; seen > skipped && len(r.Key) == 8 {
				took = append(took, now-int64(binary.BigEndian.Uint64(r.Key)))
			}
		})
	}
	return took
}

// quantile is in milliseconds.
func quantile(ns []int64, q float64) float64 {
	if len(ns) == 0 {
		return -1
	}
	slices.Sort(ns)
	return float64(ns[min(len(ns)-1, int(q*float64(len(ns))))]) / 1e6
}
