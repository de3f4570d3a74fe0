package cluster

import (
	"context"
	crand "crypto/rand"
	"math/rand/v2"
	"sync"
	"time"
)

// Random is where a client draws from: one source per client, seeded once, so that a simulation
// that seeds crypto/rand replays every choice.
type Random struct {
	mu  sync.Mutex
	rng *rand.Rand
}

// NewRandom seeds a source.
func NewRandom() *Random {
	var seed [32]byte
	crand.Read(seed[:])
	return &Random{rng: rand.New(rand.NewChaCha8(seed))}
}

// Float gives a number in [0, 1).
func (r *Random) Float() float64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.rng.Float64()
}

// Uint32 gives any number.
func (r *Random) Uint32() uint32 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.rng.Uint32()
}

func (r *Random) perm(n int) []int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.rng.Perm(n)
}

// Backoff is a wait that doubles with every failure in a row.
type Backoff struct{ First, Most time.Duration }

// jitter spreads waits by a fifth either way, so that clients that failed together do not come
// back together.
const jitter = 0.2

// After gives the wait after the given number of failures in a row (1 is the first).
func (b Backoff) After(failures int, r *Random) time.Duration {
	d := b.Most
	if shift := failures - 1; shift < 20 && b.First<<max(shift, 0) < b.Most {
		d = b.First << max(shift, 0)
	}
	return time.Duration(float64(d) * (1 - jitter + 2*jitter*r.Float()))
}

// Sleep waits for d or for the end of ctx, whose error it returns then.
func Sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
