package client

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/client/hooks"
	"barnabas/client/internal/accumulator"
	"barnabas/client/internal/cluster"
)

// This file is step (f): what a broker answers decides what becomes of the batches of a request,
// and the callbacks of those that are done with run.

func partitionOf(q *queue) TopicPartition { return TopicPartition{q.Topic, q.Partition} }

// receive takes in answers until run has ended.
func (s *sender) receive() {
	for f := range s.flights {
		resp, err := f.call.Wait(s.p.ctx)
		answer, _ := resp.(*kmsg.ProduceResponse)
		if answer != nil {
			s.answered(time.Now(), time.Duration(answer.ThrottleMillis)*time.Millisecond)
		}
		s.settle(f, answer, err)
		// Only now: with a sixth request on its way while the failure of the first has not been
		// looked at, the leader would no longer recognise the first when it comes again.
		<-s.slots
	}
}

// answered takes in that the broker works, and how long it wants to be left alone.
func (s *sender) answered(now time.Time, throttle time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.since = now
	if throttle > 0 {
		s.mu.notUntil = now.Add(throttle)
	}
}

// settle tells each batch what became of it.
func (s *sender) settle(f *flight, answer *kmsg.ProduceResponse, failure error) {
	now := time.Now()
	stale := failure != nil && staleMetadata(failure)
	var parts map[partitionKey]*kmsg.ProduceResponseTopicPartition
	if answer != nil {
		parts = index(answer)
	}
	for i, b := range f.batches {
		tp := partitionOf(b.Queue)
		o := accumulator.Lost(nil) // acks=0: nobody says where
		var part *kmsg.ProduceResponseTopicPartition
		switch {
		case failure != nil:
			o.Err = &PartitionError{tp, failure}
		case answer != nil:
			part = parts[f.key(answer, i)]
			o = readOutcome(tp, part)
		}
		if o.Err != nil && staleMetadata(o.Err) {
			stale = true
		}
		o.Hinted = part != nil && o.Err != nil && s.takeHint(tp, part, answer)
		b.Queue.Resolve(b, o, now)
	}
	if stale {
		s.p.c.meta.Update()
	}
}

// partitionKey finds a partition in a response, which names topics by name or, from version 13, by id.
type partitionKey struct {
	topic     string
	id        [16]byte
	partition int32
}

func index(answer *kmsg.ProduceResponse) map[partitionKey]*kmsg.ProduceResponseTopicPartition {
	parts := make(map[partitionKey]*kmsg.ProduceResponseTopicPartition, len(answer.Topics))
	for i := range answer.Topics {
		t := &answer.Topics[i]
		for j := range t.Partitions {
			parts[partitionKey{t.Topic, t.TopicID, t.Partitions[j].Partition}] = &t.Partitions[j]
		}
	}
	return parts
}

func (f *flight) key(answer *kmsg.ProduceResponse, i int) partitionKey {
	q := f.batches[i].Queue
	if answer.Version < firstProduceWithTopicIDs {
		return partitionKey{topic: q.Topic, partition: q.Partition}
	}
	return partitionKey{id: f.ids[i], partition: q.Partition}
}

// errNoAnswer is what a broker's answer lacks that names other partitions than were sent.
var errNoAnswer = errors.New("the answer leaves the partition out")

func readOutcome(tp TopicPartition, part *kmsg.ProduceResponseTopicPartition) accumulator.Outcome {
	o := accumulator.Lost(nil)
	if part == nil {
		o.Err = &PartitionError{tp, fmt.Errorf("%w: %w", ErrUnknownServerError, errNoAnswer)}
		return o
	}
	switch code := Error(part.ErrorCode); code {
	case 0:
		o.BaseOffset, o.AppendTimeMs = part.BaseOffset, part.LogAppendTime
		return o
	case ErrDuplicateSequenceNumber:
		return o // it is written; where, the broker no longer remembers
	default:
		o.Err = &PartitionError{tp, CodeError(part.ErrorCode, part.ErrorMessage)}
		for i := range part.ErrorRecords {
			r := &part.ErrorRecords[i]
			if o.PerRecord == nil {
				o.PerRecord = map[int32]error{}
			}
			o.PerRecord[r.RelativeOffset] = &PartitionError{tp, CodeError(part.ErrorCode, r.ErrorMessage)}
		}
		return o
	}
}

// takeHint learns of a new leader from the refusal of the old one.
func (s *sender) takeHint(tp TopicPartition, part *kmsg.ProduceResponseTopicPartition, answer *kmsg.ProduceResponse) bool {
	if part.ErrorCode != int16(ErrNotLeaderOrFollower) || part.CurrentLeader.LeaderID == s.node {
		return false
	}
	brokers := make([]cluster.Broker, 0, len(answer.Brokers))
	for _, b := range answer.Brokers {
		brokers = append(brokers, cluster.NewBroker(b.NodeID, b.Host, b.Port, b.Rack))
	}
	hint := cluster.Hint{Topic: tp.Topic, Partition: tp.Partition, Leader: part.CurrentLeader.LeaderID, LeaderEpoch: part.CurrentLeader.LeaderEpoch}
	return s.p.c.meta.Hint(hint, brokers)
}

// callbacks: one goroutine runs the callbacks given to Send, batch after batch. Each
// partition hands its batches over in order, so its callbacks run in order. A slow callback holds
// up other callbacks, and when buffer.memory is used up Send; it holds up no request.
type callbacks struct {
	p    *Producer
	wake chan struct{} // one slot

	mu struct { // never held while a callback runs
		sync.Mutex
		ended []finished
		last  bool
	}
}

// finished is a batch whose callbacks are to run, or a Flush that waits for those before it.
type finished struct {
	batch *producerBatch
	flush chan struct{}
}

func newCallbacks(p *Producer) *callbacks { return &callbacks{p: p, wake: make(chan struct{}, 1)} }

func (c *callbacks) add(b *producerBatch) { c.put(finished{batch: b}) }

func (c *callbacks) put(f finished) {
	c.mu.Lock()
	c.mu.ended = append(c.mu.ended, f)
	c.mu.Unlock()
	c.signal()
}

func (c *callbacks) signal() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// await waits until the callbacks of all that has been added have run.
func (c *callbacks) await(ctx context.Context) error {
	mark := make(chan struct{})
	c.put(finished{flush: mark})
	select {
	case <-mark:
		return nil
	case <-c.p.ctx.Done():
		return ErrClosed
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// end lets run return once what has been added is done. Nothing may be added after it.
func (c *callbacks) end() {
	c.mu.Lock()
	c.mu.last = true
	c.mu.Unlock()
	c.signal()
}

func (c *callbacks) run() {
	var spare []finished
	for {
		c.mu.Lock()
		todo, last := c.mu.ended, c.mu.last
		c.mu.ended = spare[:0]
		c.mu.Unlock()
		for i, f := range todo {
			if f.batch != nil {
				c.finish(f.batch)
			} else {
				close(f.flush)
			}
			todo[i] = finished{}
		}
		spare = todo
		switch {
		case len(todo) > 0:
		case last:
			return
		default:
			<-c.wake
		}
	}
}

// finish gives back the batch's memory, so that a callback that sends finds some, and then runs
// the callbacks.
func (c *callbacks) finish(b *producerBatch) {
	c.p.memory.Release(b.Memory)
	o := &b.Outcome
	tp := partitionOf(b.Queue)
	failure := o.Err
	var named *PartitionError
	if failure != nil && !errors.As(failure, &named) {
		failure = &PartitionError{tp, failure}
	}
	c.p.meter.Written(len(b.Records), b.Attempts, failure)
	if told := c.p.c.cfg.Hooks.Written; told != nil {
		told(hooks.Written{
			Partition: hooks.Partition{Topic: tp.Topic, Number: tp.Partition}, Records: len(b.Records), Bytes: b.Size, Memory: b.Memory,
			Attempts: b.Attempts, Took: time.Since(b.Born()), Err: failure,
		})
	}
	for i := range b.Records {
		r := &b.Records[i]
		if r.Done == nil {
			continue
		}
		m := RecordMetadata{Topic: tp.Topic, Partition: tp.Partition, Offset: -1}
		ms := r.TimestampMs
		if o.AppendTimeMs >= 0 {
			ms = o.AppendTimeMs
		}
		m.Timestamp = time.UnixMilli(ms)
		if failure == nil {
			if o.BaseOffset >= 0 {
				m.Offset = o.BaseOffset + int64(i)
			}
			r.Done(m, nil)
			continue
		}
		err := failure
		if own, ok := o.PerRecord[int32(i)]; ok {
			err = own
		}
		r.Done(m, err)
	}
	c.p.acc.Forget(b)
}
