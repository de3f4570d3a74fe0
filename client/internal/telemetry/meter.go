// Package telemetry decides what a client tells brokers of itself (KIP-714): what is counted (Meters), which metrics that
// makes and how those that were asked for are written down (Snapshot), and when a broker is asked for its subscription
// and when it is pushed to (Machine). It is for package client, which counts, and for telemetry/push, which carries out what
// is decided. It refuses to know clocks and connections: times and answers come as arguments.
package telemetry

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Kind is what a part of a client is; each has metrics of its own.
type Kind int8

// The kinds. Admin stands for what a client has beside producers and consumers: the connections over which metadata
// and all that client/admin wants are asked for.
const (
	Producer Kind = iota
	Consumer
	Admin
)

// Labels tell parts of a client apart in what is pushed; those that are empty are left out.
type Labels struct {
	Kind            Kind
	TransactionalID string // transactional_id
	Group           string // group_id
	GroupInstance   string // group_instance_id
	Rack            string // client_rack
}

// Meters are what one client counts. They are safe for concurrent use, and nil ones count nothing.
type Meters struct {
	timing atomic.Bool // somebody wants to know how long things take

	mu     sync.Mutex // may be held when a scope's is taken, not the reverse
	scopes []*scope   // in the order in which they were made
}

// maxEndedScopes bounds what is kept of parts that are closed and whose last counts no broker has taken yet. Past it the
// oldest of them are forgotten.
const maxEndedScopes = 100

// scope is what parts with the same labels count together.
type scope struct {
	labels Labels
	began  time.Time

	mu     sync.Mutex // never held while waiting
	counts counts
	nodes  map[int32]*timing // request latency, by broker
	meters []*Meter          // that are open

	taken   counts // counts as of the last push that a broker took
	takenAt time.Time
}

// counts only ever go up, but for the largest value in a timing and the lag.
type counts struct {
	connections           int64
	sent, failed, resent  int64 // records of a producer
	read, readBytes       int64 // by a consumer
	throttle, queue       timing
	commit, rebalance     timing
	fetch                 timing
	polling, betweenPolls time.Duration
	lag                   peak
}

// timing is how long something took.
type timing struct {
	count   int64
	sum     time.Duration
	longest peak // in nanoseconds
}

// peak is the largest value since the last push that a broker took.
type peak struct {
	known, heldKnown bool
	now, held        int64 // held: as of the push that is under way
}

func (p *peak) add(v int64) {
	if !p.known || v > p.now {
		p.known, p.now = true, v
	}
}

// hold puts aside what a push is about to tell.
func (p *peak) hold() {
	if p.known && (!p.heldKnown || p.now > p.held) {
		p.heldKnown, p.held = true, p.now
	}
	p.known, p.now = false, 0
}

// drop forgets what a broker has been told.
func (p *peak) drop() { p.heldKnown, p.held = false, 0 }

func (t *timing) add(d time.Duration) {
	t.count++
	t.sum += d
	t.longest.add(int64(d))
}

// NewMeters counts nothing yet.
func NewMeters() *Meters { return &Meters{} }

// Time says whether how long things take is to be measured: that somebody has asked for it.
func (m *Meters) Time(wanted bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if was := m.timing.Swap(wanted); wanted || !was {
		return
	}
	m.forgetLocked(anyScope, 0)
	for _, s := range m.scopes {
		s.pause()
	}
}

// pause forgets what had begun: when it ends nobody measures.
func (s *scope) pause() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range s.meters {
		t.pollBegan, t.pollEnded, t.rebalancing = time.Time{}, time.Time{}, time.Time{}
	}
}

// Meter is what one producer, consumer or client counts with. A nil one counts nothing. Close it.
type Meter struct {
	meters *Meters
	scope  *scope

	// Guarded by the scope's lock; zero while not known.
	member               memberState
	pollBegan, pollEnded time.Time
	rebalancing          time.Time
}

// Open makes a meter for a part of the client. Parts with the same labels are counted together.
func (m *Meters) Open(labels Labels, now time.Time) *Meter {
	if m == nil {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	at := slices.IndexFunc(m.scopes, func(s *scope) bool { return s.labels == labels })
	if at < 0 {
		at = len(m.scopes)
		m.scopes = append(m.scopes, &scope{labels: labels, began: now, takenAt: now, nodes: map[int32]*timing{}})
	}
	meter := &Meter{meters: m, scope: m.scopes[at]}
	s := meter.scope
	s.mu.Lock()
	s.meters = append(s.meters, meter)
	s.mu.Unlock()
	return meter
}

// memberState tells what a member of a group is now: its id, "" while it is none, and how many partitions it has.
type memberState = func() (id string, assigned int)

// Member says that the meter is one of a member of a group, and how to ask what the member is. It is asked without locks
// held.
func (t *Meter) Member(state func() (id string, assigned int)) {
	t.count(func(*counts) { t.member = state })
}

// Close ends the meter. What it has counted stays until a broker has taken it, where one wants to.
func (t *Meter) Close() {
	if t == nil {
		return
	}
	m := t.meters
	m.mu.Lock()
	defer m.mu.Unlock()
	t.scope.mu.Lock()
	t.scope.meters = slices.DeleteFunc(t.scope.meters, func(other *Meter) bool { return other == t })
	t.scope.mu.Unlock()
	most := 0
	if m.timing.Load() {
		most = maxEndedScopes
	}
	m.forgetLocked(anyScope, most)
}

// forgetLocked forgets scopes that nobody counts in any more, all but the youngest so many.
func (m *Meters) forgetLocked(which func(*scope) bool, keep int) {
	gone := 0
	for _, s := range m.scopes {
		if s.ended() && which(s) {
			gone++
		}
	}
	m.scopes = slices.DeleteFunc(m.scopes, func(s *scope) bool {
		forget := gone > keep && s.ended() && which(s)
		if forget {
			gone--
		}
		return forget
	})
}

func anyScope(*scope) bool { return true }

func (s *scope) ended() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.meters) == 0
}

// count changes the counts under their lock.
func (t *Meter) count(change func(c *counts)) {
	if t == nil {
		return
	}
	t.scope.mu.Lock()
	defer t.scope.mu.Unlock()
	change(&t.scope.counts)
}

// Timing tells whether anybody wants to know how long things take.
func (t *Meter) Timing() bool { return t != nil && t.meters.timing.Load() }

// Connected counts a connection that was made.
func (t *Meter) Connected() { t.count(func(c *counts) { c.connections++ }) }

// The requests whose times have metrics of their own.
const (
	produceKey = 0
	fetchKey   = 1
)

// maxNodes bounds the brokers of which a scope knows the latency. Further ones are not counted: a cluster that has more has
// other means.
const maxNodes = 10_000

// Answered counts a request that a broker has answered; throttled is for how long it wants to be left alone.
func (t *Meter) Answered(node int32, api int16, took, throttled time.Duration) {
	if !t.Timing() {
		return
	}
	t.scope.mu.Lock()
	defer t.scope.mu.Unlock()
	n := t.scope.nodes[node]
	if n == nil && len(t.scope.nodes) < maxNodes {
		n = &timing{}
		t.scope.nodes[node] = n
	}
	if n != nil {
		n.add(took)
	}
	switch api {
	case produceKey:
		t.scope.counts.throttle.add(throttled)
	case fetchKey:
		t.scope.counts.fetch.add(took)
	}
}

// Queued counts how long a batch has waited before it was sent.
func (t *Meter) Queued(d time.Duration) {
	if t.Timing() {
		t.count(func(c *counts) { c.queue.add(d) })
	}
}

// Written counts a batch that is done with, after so many attempts.
func (t *Meter) Written(records, attempts int, err error) {
	t.count(func(c *counts) {
		if err == nil {
			c.sent += int64(records)
		} else {
			c.failed += int64(records)
		}
		c.resent += int64(max(attempts-1, 0)) * int64(records)
	})
}

// Read counts what was fetched of a partition; lag is how far its end is away, -1 unknown.
func (t *Meter) Read(records, bytes int, lag int64) {
	t.count(func(c *counts) {
		c.read += int64(records)
		c.readBytes += int64(bytes)
		if lag >= 0 {
			c.lag.add(lag)
		}
	})
}

// Committed counts a commit of offsets.
func (t *Meter) Committed(took time.Duration) {
	if t.Timing() {
		t.count(func(c *counts) { c.commit.add(took) })
	}
}

// Rebalancing notes that a rebalance has begun; where one is under way it goes on.
func (t *Meter) Rebalancing(now time.Time) {
	if !t.Timing() {
		return
	}
	t.scope.mu.Lock()
	defer t.scope.mu.Unlock()
	if t.rebalancing.IsZero() {
		t.rebalancing = now
	}
}

// Rebalanced notes a change of what a member reads, which took from one time to another. Where the rebalance is over it is
// counted, from when Rebalancing said, or else from the first change that belongs to it.
func (t *Meter) Rebalanced(from, to time.Time, over bool) {
	if !t.Timing() {
		return
	}
	t.scope.mu.Lock()
	defer t.scope.mu.Unlock()
	if t.rebalancing.IsZero() {
		t.rebalancing = from
	}
	if over {
		t.scope.counts.rebalance.add(to.Sub(t.rebalancing))
		t.rebalancing = time.Time{}
	}
}

// PollBegan and PollEnded count how long a program waits in Poll, and how long it is away.
func (t *Meter) PollBegan(now time.Time) { t.poll(now, true) }

// PollEnded is the end of what began with PollBegan.
func (t *Meter) PollEnded(now time.Time) { t.poll(now, false) }

func (t *Meter) poll(now time.Time, begins bool) {
	if t == nil || !t.Timing() {
		return
	}
	t.scope.mu.Lock()
	defer t.scope.mu.Unlock()
	t.passLocked(now)
	t.pollBegan, t.pollEnded = time.Time{}, time.Time{}
	if begins {
		t.pollBegan = now
	} else {
		t.pollEnded = now
	}
}

// passLocked counts the time that has passed inside of Poll, or outside.
func (t *Meter) passLocked(now time.Time) {
	c := &t.scope.counts
	if !t.pollBegan.IsZero() {
		c.polling += now.Sub(t.pollBegan)
		t.pollBegan = now
	}
	if !t.pollEnded.IsZero() {
		c.betweenPolls += now.Sub(t.pollEnded)
		t.pollEnded = now
	}
}
