package client

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"barnabas/client/hooks"
	"barnabas/client/internal/accumulator"
	"barnabas/client/internal/cluster"
)

// This file is step (c), which the accumulator decides: a record goes into its partition's queue of
// batches, once there is metadata of the topic and memory for the record.

// producerTopic is what the producer keeps of a topic.
type producerTopic struct {
	producer    *Producer
	name        string
	partitioner *topicPartitioner
	lastUse     atomic.Int64 // Unix ms
	queues      atomic.Pointer[[]*queue]
	mu          sync.Mutex // guards growing queues
}

// recordOverhead bounds what a record takes beside key, value and headers: a length of up to 5
// bytes, attributes, a timestamp of up to 10, an offset of up to 5, three lengths of up to 5.
const recordOverhead = 36

// recordBytes is what a record counts for, at most and before compression.
func recordBytes(r *ProducerRecord) int64 {
	n := int64(recordOverhead + len(r.Key) + len(r.Value))
	for i := range r.Headers {
		n += int64(10 + len(r.Headers[i].Key) + len(r.Headers[i].Value))
	}
	return n
}

// append serialises a record into the last batch of its partition's queue.
func (p *Producer) append(q *queue, r *ProducerRecord, of int64, done callback, bytes int64, now time.Time) accumulator.Appended {
	in := accumulator.Record[callback]{Key: r.Key, Value: r.Value, TimestampMs: now.UnixMilli(), Bytes: bytes, Transaction: of, Done: done}
	if !r.Timestamp.IsZero() {
		in.TimestampMs = r.Timestamp.UnixMilli()
	}
	if len(r.Headers) > 0 {
		h := p.acc.Headers()
		defer p.acc.ReleaseHeaders(h)
		for i := range r.Headers {
			h.Add(r.Headers[i].Key, r.Headers[i].Value)
		}
		in.Headers = h.All()
	}
	return q.Append(&in, now)
}

// awaitMemory waits for buffer.memory as WhenBufferFull says.
func (p *Producer) awaitMemory(ctx context.Context, bytes int64, deadline time.Time) error {
	switch p.cfg.whenFull {
	case WaitWhenFull:
		deadline = time.Time{}
	case FailWhenFull:
		deadline = time.Now()
	case FailAfterMaxBlock:
	}
	began := time.Now()
	err := p.memory.Take(ctx, bytes, deadline, p.closed, ErrClosed)
	if told := p.c.cfg.Hooks.Waited; told != nil {
		told(hooks.Waited{Took: time.Since(began), Err: err})
	}
	return err
}

// awaitTopic gives the topic and its number of partitions, waiting for metadata until the deadline
// where they are not known yet.
func (p *Producer) awaitTopic(ctx context.Context, name string, now, deadline time.Time) (*producerTopic, int32, error) {
	t := p.topic(name)
	if ms := now.UnixMilli(); t.lastUse.Load()+1000 < ms {
		t.lastUse.Store(ms)
	}
	if info := p.c.meta.Snapshot().Topics[name]; info != nil && len(info.Partitions) > 0 {
		return t, int32(len(info.Partitions)), nil
	}
	return t.awaitMetadata(ctx, deadline)
}

func (t *producerTopic) awaitMetadata(ctx context.Context, deadline time.Time) (*producerTopic, int32, error) {
	p := t.producer
	limited, cancel := context.WithDeadlineCause(ctx, deadline, errors.New("max.block.ms has passed"))
	defer cancel()
	stop := context.AfterFunc(p.ctx, cancel)
	defer stop()
	var last error
	s, err := p.c.meta.Await(limited, func(s *cluster.Snapshot) (bool, error) {
		info := s.Topics[t.name]
		if info == nil {
			return false, nil
		}
		if last = info.Err; last != nil && !retriable(last) {
			return false, last
		}
		return len(info.Partitions) > 0, nil
	})
	switch {
	case err == nil:
		return t, int32(len(s.Topics[t.name].Partitions)), nil
	case p.ctx.Err() != nil:
		return nil, 0, ErrClosed
	case last != nil && !errors.Is(err, last):
		if errors.Is(last, ErrUnknownTopicOrPartition) {
			last = fmt.Errorf("%w: the topic does not exist, and the brokers make none by themselves (auto.create.topics.enable)", last)
		}
		return nil, 0, fmt.Errorf("%w: %w", err, last)
	default:
		return nil, 0, err
	}
}

// renewed asks for the number of partitions anew, as long as the deadline allows, and otherwise believes what is known.
func (t *producerTopic) renewed(ctx context.Context, known int32, deadline time.Time) int32 {
	limited, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	defer context.AfterFunc(t.producer.ctx, cancel)()
	s, err := t.producer.c.meta.Renew(limited)
	if err != nil || s.Topics[t.name] == nil {
		return known
	}
	return max(known, int32(len(s.Topics[t.name].Partitions)))
}

// topic gives what the producer keeps of a topic, making it at the first record.
func (p *Producer) topic(name string) *producerTopic {
	if t := (*p.topics.byName.Load())[name]; t != nil {
		return t
	}
	p.topics.Lock()
	defer p.topics.Unlock()
	known := *p.topics.byName.Load()
	if t := known[name]; t != nil {
		return t
	}
	t := &producerTopic{producer: p, name: name, partitioner: newTopicPartitioner(&p.cfg, p.c.random.Uint32())}
	t.queues.Store(&[]*queue{})
	next := maps.Clone(known)
	next[name] = t
	p.topics.byName.Store(&next)
	return t
}

// queue gives the queue of a partition; partitions is how many the topic has.
func (t *producerTopic) queue(partition, partitions int32) *queue {
	if qs := *t.queues.Load(); int(partition) < len(qs) {
		return qs[partition]
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	qs := slices.Clone(*t.queues.Load())
	for n := int32(len(qs)); n < max(partitions, partition+1); n++ {
		qs = append(qs, t.producer.acc.NewQueue(t.name, n))
	}
	t.queues.Store(&qs)
	return qs[partition]
}

// wantedTopics keeps the topics in use in the metadata (metadata.max.idle.ms).
func (p *Producer) wantedTopics(now time.Time) cluster.Wanted {
	var names []string
	for name, t := range *p.topics.byName.Load() {
		if now.UnixMilli()-t.lastUse.Load() <= p.c.cfg.metadataMaxIdle.Milliseconds() || t.busy() {
			names = append(names, name)
		}
	}
	return cluster.Wanted{Names: names, MayCreate: p.c.cfg.allowAutoCreation}
}

func (t *producerTopic) busy() bool {
	return slices.ContainsFunc(*t.queues.Load(), func(q *queue) bool { return !q.Empty() })
}
