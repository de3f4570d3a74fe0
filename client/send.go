package client

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/client/internal/accumulator"
	"barnabas/client/internal/cluster"
	"barnabas/client/internal/produce"
	"barnabas/internal/batch"
)

// This file is steps (d) and (e): batches go to the leaders of their partitions, in order, and with
// numbers of a producer id that a broker gave, see the accumulator's sequences.

// flight is a Produce request on its way.
type flight struct {
	call    *cluster.Call
	batches []*producerBatch
	ids     [][16]byte // the topic of each batch, as it went out; zero where by name
}

// firstProduceWithTopicIDs is the version of Produce from which topics have ids and no names.
const firstProduceWithTopicIDs = 13

// collect takes a batch from each queue in turn, up to max.request.size, and encodes them. A queue
// that has more to send goes to the end of the list.
func (s *sender) collect() []*producerBatch {
	// The list is taken whole: a queue that is enlisted again meanwhile belongs into the next
	// request, since a request may hold a partition only once.
	s.mu.Lock()
	todo := s.mu.ready
	s.mu.ready = nil
	s.mu.Unlock()
	var batches []*producerBatch
	var again, elsewhere []*queue
	room := math.MaxInt // the first batch may be of any size
	now := time.Now()
	for len(todo) > 0 {
		q := todo[0]
		if leader, known := s.p.leader(q.Topic, q.Partition); !known || leader != s.node {
			elsewhere = append(elsewhere, q)
			todo = todo[1:]
			continue
		}
		b, more := q.Take(s.node, room, now)
		if b == nil && more {
			break
		}
		todo = todo[1:]
		if more {
			again = append(again, q)
		}
		if b == nil {
			continue
		}
		if err := s.p.acc.Encode(b); err != nil {
			q.Resolve(b, accumulator.Lost(&PartitionError{partitionOf(q), err}), now)
			continue
		}
		batches = append(batches, b)
		s.p.meter.Queued(now.Sub(b.Born()))
		room = min(room, s.p.cfg.requestBytes) - len(b.Bytes())
	}
	s.mu.Lock()
	s.mu.ready = append(append(todo, s.mu.ready...), again...)
	s.mu.Unlock()
	for _, q := range elsewhere {
		s.p.route(q)
	}
	return batches
}

// launch sends the request and hands it to receive. A request that cannot be sent has failed as
// one that was sent and not answered: part of it may have arrived.
func (s *sender) launch(conn *cluster.Connection, f *flight) {
	req := s.request(f)
	limit := int16(-1)
	if s.p.txn != nil {
		limit = s.p.txn.produceLimit()
	}
	if limit < 0 && f.ids[0] == [16]byte{} {
		limit = firstProduceWithTopicIDs - 1
	}
	if s.p.cfg.acks == AcksNone {
		err := conn.Send(s.p.ctx, req, limit)
		if err == nil {
			s.answered(time.Now(), 0) // it takes them, and nobody will say more
		}
		s.settle(f, nil, err)
		<-s.slots
		return
	}
	var err error
	if f.call, err = conn.Start(s.p.ctx, req, limit); err != nil {
		s.settle(f, nil, err)
		<-s.slots
		return
	}
	s.flights <- f // as large as slots: never waits
}

// request packs batches into a Produce request.
func (s *sender) request(f *flight) *produce.Request {
	meta := s.p.c.meta.Snapshot()
	f.ids = make([][16]byte, len(f.batches))
	ids := true // topic ids in all or in none: one request has one version
	for n, b := range f.batches {
		if t := meta.Topics[b.Queue.Topic]; t != nil {
			f.ids[n] = t.ID
		}
		ids = ids && f.ids[n] != [16]byte{}
	}
	if !ids {
		clear(f.ids)
	}
	batches := make([]produce.Batch, len(f.batches))
	for n, b := range f.batches {
		batches[n] = produce.Batch{Topic: b.Queue.Topic, ID: f.ids[n], Partition: b.Queue.Partition, Records: b.Bytes()}
	}
	var transaction *string
	if s.p.txn != nil {
		transaction = &s.p.txn.id
	}
	return produce.NewRequest(int16(s.p.cfg.acks), transaction, s.p.c.cfg.RequestTimeout, batches)
}

// identity is the producer id, asked for when the first batch is to be sent. Queues that need one
// wait here, without holding up others.
type identity struct {
	p *Producer

	mu struct { // never held while asking
		sync.Mutex
		id      int64 // -1: none
		epoch   int16
		waiting []*queue
		running bool
	}
}

func newIdentity(p *Producer) *identity {
	i := &identity{p: p}
	i.mu.id = batch.NoProducerID
	return i
}

// current gives an id other than notThis, which the caller has found useless (-1: any will do).
func (i *identity) current(_ *queue, notThis int64) (id int64, epoch int16, ok bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.mu.id == notThis {
		i.mu.id = batch.NoProducerID
	}
	return i.mu.id, i.mu.epoch, i.mu.id != batch.NoProducerID
}

// park keeps a queue, which stays marked as scheduled, until there is an id.
func (i *identity) park(q *queue) {
	i.mu.Lock()
	ready := i.mu.id != batch.NoProducerID
	start := false
	if !ready {
		i.mu.waiting = append(i.mu.waiting, q)
		start = !i.mu.running
		i.mu.running = true
	}
	i.mu.Unlock()
	switch {
	case ready:
		i.p.route(q)
	case start:
		i.p.goRun(i.obtain)
	}
}

// obtain asks brokers until one gives an id. An error that trying again does not mend fails what
// is waiting.
func (i *identity) obtain() {
	p := i.p
	for failures := 1; ; failures++ {
		id, epoch, err := i.ask(p.ctx)
		if p.ctx.Err() != nil {
			return
		}
		fatal := err != nil && !retriable(err) && !errors.Is(err, ErrNoBrokers)
		if err == nil || fatal {
			i.mu.Lock()
			if err == nil {
				i.mu.id, i.mu.epoch = id, epoch
			}
			waiting := i.mu.waiting
			i.mu.waiting, i.mu.running = nil, false
			i.mu.Unlock()
			for _, q := range waiting {
				if fatal {
					q.Abandon(fmt.Errorf("no producer id: %w", err))
				}
				p.route(q)
			}
			return
		}
		if failures&(failures-1) == 0 { // ever more rarely
			p.c.log.Warn("no producer id", "attempt", failures, "error", err)
		}
		if cluster.Sleep(p.ctx, p.c.cfg.RetryBackoff.After(failures, p.c.random)) != nil {
			return
		}
	}
}

func (i *identity) ask(ctx context.Context) (int64, int16, error) {
	req := kmsg.NewPtrInitProducerIDRequest()
	req.TransactionTimeoutMillis = math.MaxInt32 // not a transaction
	req.ProducerID, req.ProducerEpoch = batch.NoProducerID, batch.NoProducerEpoch
	resp, err := i.p.c.cluster.RequestAny(ctx, req)
	if err != nil {
		return 0, 0, err
	}
	answer := resp.(*kmsg.InitProducerIDResponse)
	if err := CodeError(answer.ErrorCode, nil); err != nil {
		return 0, 0, err
	}
	return answer.ProducerID, answer.ProducerEpoch, nil
}
