// Package commitlogtest writes data directories through commitlog itself, for tests that show them to others: Apache Kafka's
// tools above all. It decides what such a directory holds, so that every kind of file is there; only tests use it.
package commitlogtest

import (
	"context"
	"fmt"
	"time"

	"barnabas/internal/batch"
	"barnabas/internal/commitlog"
	"barnabas/internal/disk"
)

// Topic is the name of the sample's log; its partition is 0.
const Topic = "sample"

// Sample writes a data directory with one log of several segments: every codec, records with and without keys, values and
// headers, idempotent and transactional producers, committed and aborted transactions, three leader epochs. With clean the
// directory is closed; otherwise it is left as a process leaves it that is killed once everything has been acknowledged: call
// release when it has been looked at.
func Sample(path string, clean bool) (release func(), err error) {
	d, err := commitlog.OpenDir(context.Background(), commitlog.DirOptions{FS: disk.OS, Path: path, NodeID: 1, ClusterID: "sampleAAAAAAAAAAAAAAAA"})
	if err != nil {
		return nil, err
	}
	cfg := commitlog.DefaultConfig()
	cfg.SegmentBytes, cfg.IndexIntervalBytes = 64<<10, 1024
	l, err := d.Log(commitlog.TopicPartition{Topic: Topic}, [16]byte{5, 4, 3, 2, 1}, cfg)
	if err == nil {
		err = fill(l)
	}
	if err == nil {
		err = l.Flush(context.Background())
	}
	if err != nil || clean {
		if e := d.Close(); err == nil {
			err = e
		}
		return func() {}, err
	}
	return func() { _ = d.Close() }, nil
}

// fill appends what Sample promises.
func fill(l *commitlog.Log) error {
	checker := batch.NewChecker()
	now := time.Now().UnixMilli()
	w := writer{log: l, checker: checker, sequences: map[int64]int32{}, now: now}
	for i := range 600 {
		w.epoch = int32(i / 200)
		if err := w.write(i); err != nil {
			return fmt.Errorf("batch %d: %w", i, err)
		}
	}
	return nil
}

type writer struct {
	log       *commitlog.Log
	checker   *batch.Checker
	sequences map[int64]int32
	epoch     int32
	now       int64
}

// write appends the i-th batch; every seventh is transactional, and some of those are followed by a marker.
func (w *writer) write(i int) error {
	b := batch.NewBuilder(batch.BuilderOptions{Codec: batch.Codec(i % 5), Checker: w.checker})
	n := 1 + i%4
	for k := range n {
		var key, value []byte
		if k%2 == 0 {
			key = fmt.Appendf(nil, "key-%d", i)
		}
		if k%3 < 2 {
			value = fmt.Appendf(nil, "value %d of batch %d: %0200d", k, i, i)
		}
		b.Append(w.now+int64(i*10+k), key, value, []batch.Header{{Key: []byte("number"), Value: fmt.Append(nil, k)}})
	}
	id, transactional := int64(1000+i%3), i%7 == 0
	if transactional {
		id = 2000 + int64(i%2)
	}
	if i%5 > 0 || transactional {
		b.SetProducer(id, 0, w.sequences[id], transactional)
		w.sequences[id] += int32(n)
	}
	made, err := b.Build()
	if err != nil {
		return err
	}
	if err := w.append(made, commitlog.Client); err != nil {
		return err
	}
	if i%21 != 0 {
		return nil
	}
	return w.append(batch.BuildEndTransaction(batch.EndTransaction{
		Commit: i%2 == 0, ProducerID: id, CoordinatorEpoch: 1, TimestampMs: w.now + int64(i*10+9),
	}), commitlog.Coordinator)
}

func (w *writer) append(b batch.Batch, origin commitlog.Origin) error {
	_, err := w.log.Append(b, commitlog.AppendOptions{LeaderEpoch: w.epoch, NowMs: w.now, Origin: origin})
	return err
}
