package compact

import (
	"context"
	"sync"
	"time"
)

// Throttle lets bytes pass at a rate. Any number may share one.
type Throttle struct {
	mu   sync.Mutex // short
	rate float64    // bytes a second
	free time.Time  // when all that was let pass is over at that rate
}

// unlimited is a rate that no disk reaches: a terabyte a second.
const unlimited = 1e12

// SetRate changes the rate (bytes a second).
func (t *Throttle) SetRate(rate float64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.rate = rate
}

// Wait lets n bytes pass: it returns when those before are over. It ends early with ctx.
func (t *Throttle) Wait(ctx context.Context, n int) error {
	pause := t.pause(n)
	if pause <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (t *Throttle) pause(n int) time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.rate >= unlimited {
		return 0
	}
	now := time.Now()
	if t.free.Before(now) {
		t.free = now
	}
	pause := t.free.Sub(now)
	// At the lowest rates a single buffer would take longer than a Duration can say.
	t.free = t.free.Add(time.Duration(min(float64(n)/t.rate, maxPauseSeconds) * float64(time.Second)))
	return pause
}

// maxPauseSeconds is the longest that one buffer holds up the next.
const maxPauseSeconds = 3600
