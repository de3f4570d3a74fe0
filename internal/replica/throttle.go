package replica

import (
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"barnabas/internal/config"
)

// Copying that others should not suffer from (a reassignment, a broker that comes back empty) can be bounded, as in Kafka
// (KIP-73): a leader bounds what it sends of the partitions in leader.replication.throttled.replicas by
// leader.replication.throttled.rate, a follower what it asks for by the settings of its side. Replicas in sync are
// never held back, for producers wait for them; what they copy counts all the same.

// throttle is one broker's bound in one direction. The rate is that of Kafka's meter: the bytes of the last
// replication.quota.window.num samples over the time since the oldest began. What a broker has left unused counts for
// as long.
type throttle struct {
	total     atomic.Int64 // bytes of throttled partitions since the start
	unlimited atomic.Bool

	mu struct { // short
		sync.Mutex
		limit   throttleLimit
		samples []throttled // oldest first
	}
}

type throttleLimit struct {
	rate   int64         // bytes per second
	window time.Duration // of one sample
	number int           // of samples
}

// throttled is what was copied from some time on. In late is what a replica copied that is not in sync: bytes that could
// have been held back.
type throttled struct {
	at          time.Time
	bytes, late float64
}

const (
	// throttleTicks is how many times a second, at most, somebody who was held back gets another part: each comes with
	// a fetch, and with a rate that is low next to a batch that would be all there is.
	throttleTicks = 10
	// leastSamples: with one only, what it holds would be forgotten as soon as it is over.
	leastSamples = 2
	// longestHold bounds a wait whose end is not in sight, at a rate of zero.
	longestHold = maxFetchWait
)

// set changes the limit, and reports whether it is another one. A new rate begins with a clean slate: what was copied
// under a higher one is not to be paid for.
func (t *throttle) set(limit throttleLimit) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.mu.limit == limit {
		return false
	}
	t.mu.limit, t.mu.samples = limit, nil
	t.unlimited.Store(limit.rate == math.MaxInt64)
	return true
}

// room is how many bytes may be copied now. Where it is none, wait says how soon it is worth to ask again.
func (t *throttle) room(now time.Time) (bytes int64, wait time.Duration) {
	if t.unlimited.Load() {
		return math.MaxInt64, 0
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	l := &t.mu.limit
	if l.rate == 0 {
		return 0, longestHold
	}
	t.forget(now)
	rate := float64(l.rate)
	free := rate * l.window.Seconds()
	if len(t.mu.samples) > 0 {
		free = rate * now.Sub(t.mu.samples[0].at).Seconds()
		for _, s := range t.mu.samples {
			free -= s.bytes
		}
	}
	if least := max(rate/throttleTicks, 1); free < least {
		wait = longestHold
		if s := (least - free) / rate; s < longestHold.Seconds() {
			wait = max(time.Duration(s*float64(time.Second)), time.Millisecond)
		}
		return 0, wait
	}
	return int64(min(free, math.MaxInt64/2)), 0
}

// spend counts what was copied; late says that it went to a replica that is not in sync.
func (t *throttle) spend(now time.Time, bytes int, late bool) {
	t.total.Add(int64(bytes))
	if t.unlimited.Load() {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.mu.limit.rate == 0 { // what members copy cannot make the room any less
		return
	}
	t.forget(now)
	n := len(t.mu.samples)
	switch {
	case n == 0: // the first may be what one sample holds
		t.mu.samples = append(t.mu.samples, throttled{at: now.Add(-t.mu.limit.window)})
	case now.Sub(t.mu.samples[n-1].at) >= t.mu.limit.window:
		t.mu.samples = append(t.mu.samples, throttled{at: now})
	}
	s := &t.mu.samples[len(t.mu.samples)-1]
	s.bytes += float64(bytes)
	if late {
		s.late += float64(bytes)
	}
}

// forget drops samples that are too old. Where a batch was larger than all of them may hold, the rest of it
// stays to be paid for: else the rate would be what batches make of it. What replicas in sync have copied is
// forgotten whole. The rate is not zero.
func (t *throttle) forget(now time.Time) {
	l := &t.mu.limit
	kept := float64(max(l.number, leastSamples)) * l.window.Seconds() // no Duration holds the longest that can be set
	for len(t.mu.samples) > 0 && now.Sub(t.mu.samples[0].at).Seconds() > kept {
		old := t.mu.samples[0]
		t.mu.samples = slices.Delete(t.mu.samples, 0, 1)
		until := now
		if len(t.mu.samples) > 0 {
			until = t.mu.samples[0].at
		}
		over := old.late - float64(l.rate)*until.Sub(old.at).Seconds()
		if len(t.mu.samples) == 0 { // what was left unused goes on counting, up to what one sample holds
			unused := min(max(-over/float64(l.rate), 0), l.window.Seconds())
			t.mu.samples = append(t.mu.samples, throttled{at: now.Add(-time.Duration(unused * float64(time.Second)))})
		}
		over = max(over, 0)
		t.mu.samples[0].bytes += over
		t.mu.samples[0].late += over
	}
}

// ThrottledBytes is how much of throttled partitions was copied since the start: sent as their leader, and taken as a
// follower.
func (m *Manager) ThrottledBytes() (leading, following int64) {
	return m.sending.total.Load(), m.taking.total.Load()
}

// applyThrottles takes over the limits, and lets those look again who were held back by others.
func (m *Manager) applyThrottles(s *config.Set) {
	limit := func(rate string) throttleLimit {
		return throttleLimit{
			rate:   s.Int64(rate),
			window: time.Duration(s.Int64("replication.quota.window.size.seconds")) * time.Second,
			number: s.Int("replication.quota.window.num"),
		}
	}
	if m.sending.set(limit("leader.replication.throttled.rate")) {
		m.mu.RLock()
		for _, f := range m.mu.feeds {
			f.look()
		}
		m.mu.RUnlock()
	}
	if m.taking.set(limit("follower.replication.throttled.rate")) && m.links != nil {
		m.links.look()
	}
}

// throttle takes over which sides of this replica are throttled.
func (p *Partition) throttle(l *throttledReplicas) {
	asLeader, asFollower := l.leading.has(p.id.Partition), l.following.has(p.id.Partition)
	if p.throttledLeader.Swap(asLeader) != asLeader {
		p.notifyWatches()
	}
	if p.throttledFollower.Swap(asFollower) != asFollower {
		p.mu.Lock()
		f, follows := p.mu.role.(*following)
		p.mu.Unlock()
		if follows && f.from != nil {
			f.from.askAgain(p)
		}
	}
}

// throttledReplicas are those of one topic on this broker, by partition.
type throttledReplicas struct{ leading, following partitions }

type partitions struct {
	all     bool
	numbers map[int32]struct{}
}

func (p partitions) has(number int32) bool {
	_, listed := p.numbers[number]
	return p.all || listed
}

func throttledOn(broker int32, t *config.Topic) throttledReplicas {
	return throttledReplicas{
		leading:   parseThrottled(t.List("leader.replication.throttled.replicas"), broker),
		following: parseThrottled(t.List("follower.replication.throttled.replicas"), broker),
	}
}

// parseThrottled reads a list of PARTITION:BROKER, or of *. config has refused every other form.
func parseThrottled(list []string, broker int32) (p partitions) {
	for _, element := range list {
		if element == "*" {
			return partitions{all: true}
		}
		number, id, _ := strings.Cut(element, ":")
		if b, err := strconv.ParseInt(id, 10, 32); err != nil || int32(b) != broker {
			continue
		}
		if n, err := strconv.ParseInt(number, 10, 32); err == nil {
			if p.numbers == nil {
				p.numbers = map[int32]struct{}{}
			}
			p.numbers[int32(n)] = struct{}{}
		}
	}
	return p
}

// mayHold: this leader may hold back what it sends to a follower, which is not in sync, nor about to be.
func (p *Partition) mayHold(broker int32) bool {
	if !p.throttledLeader.Load() || p.m.sending.unlimited.Load() {
		return false
	}
	return p.outOfSync(broker)
}

func (p *Partition) outOfSync(broker int32) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	r, leads := p.mu.role.(*leading)
	if !leads {
		return false
	}
	f := r.follower(broker)
	return f != nil && !f.inSync && !f.joining
}

// mayHoldItself: this follower may put off asking for more.
func (p *Partition) mayHoldItself() bool {
	return p.throttledFollower.Load() && !p.m.taking.unlimited.Load() && !p.inSyncHere()
}

func (p *Partition) inSyncHere() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	f, follows := p.mu.role.(*following)
	return follows && f.inSync
}

// look has a feed look again at those it holds back.
func (f *feed) look() {
	f.changed.Store(true)
	select {
	case f.watch.Moved <- struct{}{}:
	default:
	}
}

// holds reports whether the records that a follower waits for have to wait too, and notes it down.
func (f *feed) holds(d *fed, now time.Time) bool {
	if !d.p.mayHold(f.broker) {
		return false
	}
	if !d.held {
		room, wait := f.m.sending.room(now)
		if room > 0 {
			return false
		}
		d.held = true
		f.held, f.heldUntil = append(f.held, d), now.Add(wait)
	}
	return true
}

// release looks again at those that were held back, first come first served, before others.
func (f *feed) release(now time.Time) {
	if len(f.held) == 0 || now.Before(f.heldUntil) && !f.changed.Load() {
		return
	}
	f.changed.Store(false)
	queue := make([]*fed, 0, len(f.held)+len(f.queue))
	for _, d := range f.held {
		d.held = false
		if !d.queued {
			d.queued = true
			queue = append(queue, d)
		}
	}
	f.queue = append(queue, f.queue...)
	f.held = f.held[:0]
}

// putOff takes what is throttled from what is due, for as long as there is no room, and adds to the request what
// has waited longest as far as there is. It returns how long to wait for more room.
func (f *fetcher) putOff(now time.Time) (wait time.Duration) {
	// A follower does not know how much it will get; it reckons with the most.
	part := max(int64(f.request.partBytes), 1)
	room, wait := f.links.m.taking.room(now)
	kept := f.held[:0]
	for _, n := range f.held {
		switch free := !n.p.mayHoldItself(); {
		case len(f.request.asks) < maxAsks && (free || room > 0):
			n.held = false
			if !free {
				room -= part
			}
			f.askFor(n, now)
		default:
			kept = append(kept, n)
		}
	}
	clear(f.held[len(kept):])
	f.held = kept
	if len(kept) == 0 {
		return math.MaxInt64
	}
	if wait == 0 {
		_, wait = f.links.m.taking.room(now)
	}
	return max(wait, time.Second/throttleTicks)
}

// look has a fetcher look again at what it has put off.
func (f *fetcher) look() {
	f.mu.Lock()
	f.mu.nudge = f.mu.nudge || f.mu.waiting
	f.mu.Unlock()
}

func (l *links) look() {
	l.mu.Lock()
	order := l.mu.order
	l.mu.Unlock()
	for _, f := range order {
		f.look()
	}
	l.signal()
}
