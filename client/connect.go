package client

import (
	"cmp"
	"maps"
	"slices"
	"sync"
	"time"

	"barnabas/client/internal/cluster"
)

// sender is step (a), connect: what carries records to one broker. It has a connection that stays open, and
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
		since    time.Time // of the last answer, or of the end of the last idleness
		notUntil time.Time // the broker throttles us (KIP-219)
		failed   error     // why there is no connection; nil while there is one
	}
}

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
	if len(s.mu.ready) == 0 && len(s.slots) == 0 {
		s.mu.since = time.Now()
	}
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
		if leader, known := s.p.leader(q.Topic, q.Partition); known && leader == s.node {
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
	var conn *cluster.Connection
	l, err := s.p.links.Node(s.node)
	if err == nil {
		conn, err = l.Connect(s.p.ctx)
	}
	s.mu.Lock()
	s.mu.failed = err
	s.mu.Unlock()
	if err == nil {
		return conn, nil
	}
	if cluster.Refused(err) {
		s.giveUp(err)
		return nil, err
	}
	s.p.c.meta.Update()
	for _, q := range s.misplaced() {
		s.p.route(q)
	}
	return nil, err
}

// giveUp fails what waits for a broker that does not believe us, or we not it: trying again does not mend
// that, and a program is to hear of it before delivery.timeout.ms.
func (s *sender) giveUp(err error) {
	s.mu.Lock()
	todo := s.mu.ready
	s.mu.ready = nil
	s.mu.Unlock()
	for _, q := range abandon(todo, s.node, err) {
		s.enlist(q)
	}
}

// metadataRefused does the same with the queues for which there is no leader to go to.
func (p *Producer) metadataRefused(err error) {
	p.mu.Lock()
	todo := slices.Collect(maps.Keys(p.mu.homeless))
	clear(p.mu.homeless)
	p.mu.Unlock()
	for _, q := range abandon(todo, -1, err) {
		p.route(q)
	}
}

// abandon fails everything in queues that are marked as scheduled, and gives those that have had something new
// meanwhile: they are still.
func abandon(queues []*queue, node int32, err error) (again []*queue) {
	now := time.Now()
	for _, q := range queues {
		q.Abandon(err)
		if _, more := q.Take(node, 0, now); more {
			again = append(again, q)
		}
	}
	return again
}

// metadataChanged finds a sender for those that had none, and moves those whose leader is another.
func (p *Producer) metadataChanged(*cluster.Snapshot) {
	p.mu.Lock()
	moved := slices.Collect(maps.Keys(p.mu.homeless))
	clear(p.mu.homeless)
	senders := slices.Collect(maps.Values(p.mu.senders))
	p.mu.Unlock()
	for _, s := range senders {
		moved = append(moved, s.misplaced()...)
	}
	for _, q := range moved {
		p.route(q)
	}
}

// route puts a queue that has something to send on the list of its leader's sender. The queue
// must be marked as scheduled, so that it is in one place only.
func (p *Producer) route(q *queue) {
	leader, known := p.leader(q.Topic, q.Partition)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mu.closed {
		return
	}
	if !known {
		p.mu.homeless[q] = true
		p.c.meta.Update()
		return
	}
	s := p.mu.senders[leader]
	if s == nil {
		s = newSender(p, leader)
		p.mu.senders[leader] = s
		p.wg.Go(s.run)
		p.wg.Go(s.receive)
	}
	s.enlist(q)
}

// stalled tells whether a broker has neither taken nor answered anything for longer than
// partitioner.availability.timeout.ms, although there was something.
func (p *Producer) stalled(node int32, now time.Time) bool {
	limit := p.cfg.availability
	if limit == 0 {
		return false
	}
	p.mu.Lock()
	s := p.mu.senders[node]
	p.mu.Unlock()
	if s == nil {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.mu.ready)+len(s.slots) > 0 && now.Sub(s.mu.since) > limit
}

func (p *Producer) leader(topic string, partition int32) (node int32, known bool) {
	s := p.c.meta.Snapshot()
	_, part := s.Partition(topic, partition)
	if part == nil || part.Leader < 0 {
		return -1, false
	}
	_, reachable := s.Brokers[part.Leader]
	return part.Leader, reachable
}

// unsent is why batches of a partition have not been sent, nil where it is not known. Its queue's lock is held.
func (p *Producer) unsent(q *queue) error {
	node, known := p.leader(q.Topic, q.Partition)
	p.mu.Lock()
	s := p.mu.senders[node]
	p.mu.Unlock()
	switch {
	case !known:
		return cmp.Or(p.c.meta.Err(), error(ErrLeaderNotAvailable))
	case s == nil:
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.failed
}

// goRun starts a goroutine that Close waits for; false where closing has begun.
func (p *Producer) goRun(f func()) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mu.closed {
		return false
	}
	p.wg.Go(f)
	return true
}
