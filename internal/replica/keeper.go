package replica

import (
	"context"
	"slices"
	"sync"
	"time"

	"barnabas/internal/metadata"
)

const (
	// keeperRest is how long a proposal that was refused, or had no answer, waits before it is made again.
	keeperRest = 100 * time.Millisecond
	// alterPatience is how long the controller's answer may take.
	alterPatience = 2 * time.Second
	// maxProposals bounds what the controller is asked at a time; the rest is asked after the answer.
	maxProposals = 2000
	// standstill is how late a timer may be before the process counts as having stood still.
	standstill = 200 * time.Millisecond
)

// keeper keeps the in-sync replicas of the partitions that this broker leads true: one goroutine that collects what
// they propose and puts it to the controller, one request at a time.
type keeper struct {
	m       *Manager
	isrs    ISRs
	jitter  func(time.Duration) time.Duration
	ctx     context.Context
	cancel  context.CancelFunc
	running sync.WaitGroup
	wake    chan struct{} // holds one token
	mu      struct {
		sync.Mutex
		list []*Partition
	}
}

func newKeeper(m *Manager, c *Cluster) *keeper {
	k := &keeper{m: m, isrs: c.ISRs, jitter: c.Jitter, wake: make(chan struct{}, 1)}
	k.ctx, k.cancel = context.WithCancel(context.Background())
	k.running.Go(k.run)
	return k
}

func (k *keeper) close() {
	k.cancel()
	k.running.Wait()
}

// keep has the in-sync replicas of a partition looked at.
func (m *Manager) keep(p *Partition) {
	k := m.keeper
	if k == nil || p.listed.Swap(true) {
		return
	}
	k.mu.Lock()
	k.mu.list = append(k.mu.list, p)
	k.mu.Unlock()
	k.signal()
}

func (k *keeper) signal() {
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// run looks at who asks at once, at who was refused after a rest, and at everybody from time to time: that a
// follower has fallen behind is not told by anybody.
func (k *keeper) run() {
	next, again := time.Now().Add(k.period()), time.Time{}
	var resting []*Partition
	for {
		at := next
		if len(resting) > 0 && again.Before(at) {
			at = again
		}
		rests := time.Now()
		t := time.AfterFunc(at.Sub(rests), k.signal)
		select {
		case <-k.wake:
		case <-k.ctx.Done():
		}
		t.Stop()
		if k.ctx.Err() != nil {
			return
		}
		now := time.Now()
		k.excuse(now.Sub(at), now.Sub(rests), now)
		if !now.Before(again) {
			for _, p := range resting {
				k.m.keep(p)
			}
			resting = nil
		}
		if !now.Before(next) {
			next = now.Add(k.period())
			for _, p := range k.m.Partitions() {
				k.m.keep(p)
			}
		}
		if more := k.round(); len(more) > 0 {
			if len(resting) == 0 {
				again = time.Now().Add(keeperRest + k.jitter(keeperRest/4))
			}
			resting = append(resting, more...)
		}
	}
}

// excuse notices that nothing has run here for a time (a suspended process, a machine without a turn): a timer is late by
// it, and no later than the wait for it began. What followers said meanwhile has not been looked at yet, and they are not to
// be thrown out for that, all at once.
func (k *keeper) excuse(late, since time.Duration, now time.Time) {
	stood := min(late, since)
	if stood < standstill {
		return
	}
	k.m.log.Warn("this process stood still; its followers are not taken to be behind for that", "for", stood)
	for _, p := range k.m.Partitions() {
		p.excuse(stood, now)
	}
}

// period is how often everybody is looked at: as often as Kafka does, and not less than every ten seconds.
func (k *keeper) period() time.Duration {
	lag := k.m.Settings().Millis("replica.lag.time.max.ms")
	d := min(max(lag/2, 10*time.Millisecond), 10*time.Second)
	return d - k.jitter(d/8+1)
}

// round asks the controller for all that is listed, and returns whose turn has to come again soon.
func (k *keeper) round() (again []*Partition) {
	k.mu.Lock()
	list := k.mu.list
	k.mu.list = nil
	k.mu.Unlock()
	for chunk := range slices.Chunk(list, maxProposals) {
		again = append(again, k.ask(chunk)...)
	}
	return again
}

func (k *keeper) ask(list []*Partition) (again []*Partition) {
	now := time.Now()
	var asking []*Partition
	var proposals []metadata.ISRProposal
	for _, p := range list {
		p.listed.Store(false) // before it is looked at, so that what comes after is listed again
		asked, later := p.proposal(now)
		switch {
		case asked != nil:
			asking, proposals = append(asking, p), append(proposals, *asked)
		case later:
			again = append(again, p)
		}
	}
	if len(proposals) == 0 {
		return again
	}
	ctx, cancel := context.WithTimeout(k.ctx, alterPatience)
	outcomes, err := k.isrs.Alter(ctx, k.m.brokerEpoch(), proposals)
	cancel()
	if waited := time.Since(now); waited > alterPatience {
		k.excuse(waited-alterPatience, waited, time.Now())
	}
	if err != nil || len(outcomes) != len(proposals) {
		k.m.log.Debug("the controller has not answered a change of in-sync replicas", "partitions", len(proposals), "err", err)
		outcomes = make([]metadata.ISROutcome, len(proposals))
	}
	now = time.Now()
	for i, p := range asking {
		if p.settle(&proposals[i], outcomes[i], now) {
			again = append(again, p)
		}
	}
	return again
}
