package client

import (
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/client/internal/cluster"
	"barnabas/internal/batch"
)

// sender is step (a): what carries records to one broker. It has a connection that stays open, and
// two goroutines: one takes batches from the queues that have something to send and packs them
// into requests, at most max.in.flight.requests.per.connection unanswered; the other takes in the
// answers, in the order of the requests.
type sender struct {
	p       *Producer
	node    int32
	wake    chan struct{} // one slot
	slots   chan struct{} // one for each unanswered request
	flights chan *flight  // to receive; as many as slots

	mu struct { // never held while waiting
		sync.Mutex
		ready    []*queue  // marked as scheduled
		notUntil time.Time // the broker throttles us (KIP-219)
	}
}

// flight is a Produce request on its way.
type flight struct {
	call    *cluster.Call
	batches []*producerBatch
	ids     [][16]byte // the topic of each batch, as it went out; zero where by name
}

// firstProduceWithTopicIDs is the version of Produce from which topics have ids and no names.
const firstProduceWithTopicIDs = 13

func newSender(p *Producer, node int32) *sender {
	return &sender{
		p: p, node: node,
		wake:    make(chan struct{}, 1),
		slots:   make(chan struct{}, p.cfg.inFlight),
		flights: make(chan *flight, p.cfg.inFlight),
	}
}

// enlist takes in a queue that has something to send.
func (s *sender) enlist(q *queue) {
	s.mu.Lock()
	s.mu.ready = append(s.mu.ready, q)
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// misplaced gives up the queues whose partition this broker does not lead any more.
func (s *sender) misplaced() []*queue {
	s.mu.Lock()
	defer s.mu.Unlock()
	var gone []*queue
	stay := s.mu.ready[:0]
	for _, q := range s.mu.ready {
		if leader, known := s.p.leader(q); known && leader == s.node {
			stay = append(stay, q)
		} else {
			gone = append(gone, q)
		}
	}
	clear(s.mu.ready[len(stay):])
	s.mu.ready = stay
	return gone
}

// run sends until the producer ends.
func (s *sender) run() {
	defer close(s.flights)
	for {
		select {
		case <-s.wake:
		case <-s.p.ctx.Done():
			return
		}
		for s.waiting() {
			if !s.sendOne() {
				return
			}
		}
	}
}

func (s *sender) waiting() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.mu.ready) > 0
}

// sendOne sends one request, once there is a connection and room for it; false when the producer
// has ended.
func (s *sender) sendOne() bool {
	select {
	case s.slots <- struct{}{}:
	case <-s.p.ctx.Done():
		return false
	}
	conn, err := s.connect()
	if err != nil {
		<-s.slots
		return s.p.ctx.Err() == nil
	}
	f := &flight{batches: s.collect()}
	if len(f.batches) == 0 {
		<-s.slots
		return true
	}
	s.launch(conn, f)
	return true
}

// connect gives the connection. While the broker cannot be reached its queues stay here, until
// metadata names another leader; the link sees to it that attempts are not too many.
func (s *sender) connect() (*cluster.Connection, error) {
	s.mu.Lock()
	wait := time.Until(s.mu.notUntil)
	s.mu.Unlock()
	if wait > 0 {
		if err := cluster.Sleep(s.p.ctx, wait); err != nil {
			return nil, err
		}
	}
	l, err := s.p.links.Node(s.node)
	if err == nil {
		var conn *cluster.Connection
		if conn, err = l.Connect(s.p.ctx); err == nil {
			return conn, nil
		}
	}
	s.p.c.meta.Update()
	for _, q := range s.misplaced() {
		s.p.route(q)
	}
	return nil, err
}

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
		if leader, known := s.p.leader(q); !known || leader != s.node {
			elsewhere = append(elsewhere, q)
			todo = todo[1:]
			continue
		}
		b, more := q.take(s.node, room, now)
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
		if err := s.p.encode(b); err != nil {
			q.resolve(b, outcome{baseOffset: -1, appendTimeMs: -1, err: &PartitionError{q.tp(), err}}, now)
			continue
		}
		batches = append(batches, b)
		room = min(room, s.p.cfg.requestBytes) - len(b.built)
	}
	s.mu.Lock()
	s.mu.ready = append(append(todo, s.mu.ready...), again...)
	s.mu.Unlock()
	for _, q := range elsewhere {
		s.p.route(q)
	}
	return batches
}

// encode makes the bytes of a batch that is flying, or puts its new number into them.
func (p *Producer) encode(b *producerBatch) error {
	n := b.number
	if b.built != nil {
		b.built.SetProducer(n.producerID, n.epoch, n.sequence, false)
		return nil
	}
	b.builder.SetProducer(n.producerID, n.epoch, n.sequence, false)
	built, err := b.builder.Build()
	if err != nil {
		return fmt.Errorf("encode a batch: %w", err)
	}
	b.built = built
	p.recycle(b)
	return nil
}

// launch sends the request and hands it to receive. A request that cannot be sent has failed as
// one that was sent and not answered: part of it may have arrived.
func (s *sender) launch(conn *cluster.Connection, f *flight) {
	req := s.request(f)
	limit := int16(-1)
	if f.ids[0] == [16]byte{} {
		limit = firstProduceWithTopicIDs - 1
	}
	if s.p.cfg.acks == AcksNone {
		err := conn.Send(s.p.ctx, req, limit)
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

// request packs batches, which come grouped by nothing, into a Produce request.
func (s *sender) request(f *flight) *kmsg.ProduceRequest {
	req := kmsg.NewPtrProduceRequest()
	req.Acks = int16(s.p.cfg.acks)
	req.TimeoutMillis = int32(s.p.c.cfg.RequestTimeout.Milliseconds())
	meta := s.p.c.meta.Snapshot()
	ids := true // topic ids in all or in none: one request has one version
	for _, b := range f.batches {
		t := meta.Topics[b.queue.topic.name]
		ids = ids && t != nil && t.ID != [16]byte{}
	}
	f.ids = make([][16]byte, len(f.batches))
	at := make(map[*producerTopic]int, 1)
	for n, b := range f.batches {
		topic := b.queue.topic
		i, ok := at[topic]
		if !ok {
			i = len(req.Topics)
			at[topic] = i
			t := kmsg.ProduceRequestTopic{Topic: topic.name}
			if ids {
				t.TopicID = meta.Topics[topic.name].ID
			}
			req.Topics = append(req.Topics, t)
		}
		f.ids[n] = req.Topics[i].TopicID
		req.Topics[i].Partitions = append(req.Topics[i].Partitions,
			kmsg.ProduceRequestTopicPartition{Partition: b.queue.partition, Records: b.built})
	}
	return req
}

// receive takes in answers until run has ended.
func (s *sender) receive() {
	for f := range s.flights {
		resp, err := f.call.Wait(s.p.ctx)
		answer, _ := resp.(*kmsg.ProduceResponse)
		if answer != nil && answer.ThrottleMillis > 0 {
			s.mu.Lock()
			s.mu.notUntil = time.Now().Add(time.Duration(answer.ThrottleMillis) * time.Millisecond)
			s.mu.Unlock()
		}
		s.settle(f, answer, err)
		// Only now: with a sixth request on its way while the failure of the first has not been
		// looked at, the leader would no longer recognise the first when it comes again.
		<-s.slots
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
		o := outcome{baseOffset: -1, appendTimeMs: -1}
		var part *kmsg.ProduceResponseTopicPartition
		switch {
		case failure != nil:
			o.err = &PartitionError{b.queue.tp(), failure}
		case answer != nil:
			part = parts[f.key(answer, i)]
			o = readOutcome(b.queue.tp(), part)
		}
		if o.err != nil && staleMetadata(o.err) {
			stale = true
		}
		o.hinted = part != nil && o.err != nil && s.takeHint(b.queue.tp(), part, answer)
		b.queue.resolve(b, o, now)
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
	q := f.batches[i].queue
	if answer.Version < firstProduceWithTopicIDs {
		return partitionKey{topic: q.topic.name, partition: q.partition}
	}
	return partitionKey{id: f.ids[i], partition: q.partition}
}

// errNoAnswer is what a broker's answer lacks that names other partitions than were sent.
var errNoAnswer = errors.New("the answer leaves the partition out")

func readOutcome(tp TopicPartition, part *kmsg.ProduceResponseTopicPartition) outcome {
	o := outcome{baseOffset: -1, appendTimeMs: -1}
	if part == nil {
		o.err = &PartitionError{tp, fmt.Errorf("%w: %w", ErrUnknownServerError, errNoAnswer)}
		return o
	}
	switch code := Error(part.ErrorCode); code {
	case 0:
		o.baseOffset, o.appendTimeMs = part.BaseOffset, part.LogAppendTime
		return o
	case ErrDuplicateSequenceNumber:
		return o // it is written; where, the broker no longer remembers
	default:
		o.err = &PartitionError{tp, CodeError(part.ErrorCode, part.ErrorMessage)}
		for i := range part.ErrorRecords {
			r := &part.ErrorRecords[i]
			if o.perRecord == nil {
				o.perRecord = map[int32]error{}
			}
			o.perRecord[r.RelativeOffset] = &PartitionError{tp, CodeError(part.ErrorCode, r.ErrorMessage)}
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
		info := cluster.Broker{ID: b.NodeID, Address: cluster.JoinHostPort(b.Host, b.Port)}
		if b.Rack != nil {
			info.Rack = *b.Rack
		}
		brokers = append(brokers, info)
	}
	hint := cluster.Hint{Topic: tp.Topic, Partition: tp.Partition, Leader: part.CurrentLeader.LeaderID, LeaderEpoch: part.CurrentLeader.LeaderEpoch}
	return s.p.c.meta.Hint(hint, brokers)
}

// tooLarge tells whether a smaller batch might be taken.
func tooLarge(err error) bool {
	return errors.Is(err, ErrMessageTooLarge) || errors.Is(err, ErrRecordListTooLarge)
}

// splitLocked puts two batches of half as many records in the place of one that the broker finds
// too large. They keep its numbers.
func (q *queue) splitLocked(b *producerBatch) {
	p := q.topic.producer
	half := len(b.records) / 2
	parts := [2]*producerBatch{p.newBatch(q, b.born), p.newBatch(q, b.born)}
	i := 0
	for r, err := range p.checker.Records(b.built) {
		if err != nil {
			break // our own bytes: the count below tells
		}
		part := parts[0]
		if i >= half {
			part = parts[1]
		}
		part.builder.Append(b.built.TimestampOf(&r), r.Key, r.Value, r.Headers)
		i++
	}
	if i != len(b.records) {
		b.state = batchDone
		b.outcome = outcome{baseOffset: -1, appendTimeMs: -1, err: &PartitionError{q.tp(), batch.ErrCorrupt}}
		q.mu.sequencer.gaveUp(b)
		return
	}
	parts[0].records, parts[1].records = b.records[:half:half], b.records[half:]
	parts[0].memory = b.memory / 2
	parts[1].memory = b.memory - parts[0].memory
	for _, part := range parts {
		part.state, part.retried = batchAgain, true
		if b.number.assigned() {
			part.number = b.number
		}
	}
	if b.number.assigned() {
		parts[1].number.sequence = batch.AddSequence(b.number.sequence, int32(half))
	}
	parts[1].end = b.end // a Flush waits for the last
	for at, other := range q.mu.batches {
		if other == b {
			q.mu.batches = append(q.mu.batches[:at:at], append(parts[:], q.mu.batches[at+1:]...)...)
			return
		}
	}
}
