package server

import (
	"context"
	"slices"
	"sync"
)

// budget is an amount that many share: bytes of memory, or connections. Who asks for more than is
// left waits in line, so that a large demand is met although small ones keep coming.
type budget struct {
	mu struct { // never held while waiting
		sync.Mutex
		total   int64
		used    int64
		waiting []*claim
	}
}

type claim struct {
	n       int64
	granted chan struct{}
}

func newBudget(total int64) *budget {
	b := &budget{}
	b.mu.total = total
	return b
}

// resize changes the total; what is taken stays taken. Only for budgets of which one is taken at a
// time: a larger claim is cut to the total of its own moment.
func (b *budget) resize(total int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.mu.total = total
	b.grant()
}

// share is what a claim of n counts for. With a total of 0 nothing is granted. The caller holds mu.
func (b *budget) share(n int64) int64 { return min(n, max(b.mu.total, 1)) }

// try takes n at once, or tells that it cannot. More than the total counts as the total: whoever
// needs it is alone.
func (b *budget) try(n int64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	n = b.share(n)
	if len(b.mu.waiting) > 0 || b.mu.used+n > b.mu.total {
		return false
	}
	b.mu.used += n
	return true
}

// take waits for n until ctx ends or stop is closed, and tells whether it was granted.
func (b *budget) take(ctx context.Context, stop <-chan struct{}, n int64) bool {
	if b.try(n) {
		return true
	}
	c := &claim{granted: make(chan struct{})}
	b.mu.Lock()
	c.n = b.share(n)
	b.mu.waiting = append(b.mu.waiting, c)
	b.grant()
	b.mu.Unlock()
	select {
	case <-c.granted:
		return true
	case <-ctx.Done():
	case <-stop:
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if i := slices.Index(b.mu.waiting, c); i >= 0 {
		b.mu.waiting = slices.Delete(b.mu.waiting, i, i+1)
	} else { // granted meanwhile
		b.mu.used -= c.n
	}
	// The next in line may have waited for this one only.
	b.grant()
	return false
}

// give returns n that was taken.
func (b *budget) give(n int64) {
	b.mu.Lock()
	b.mu.used -= b.share(n)
	b.grant()
	b.mu.Unlock()
}

// inUse is what is taken now.
func (b *budget) inUse() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.mu.used
}

// grant serves the line from its head. The caller holds mu.
func (b *budget) grant() {
	for len(b.mu.waiting) > 0 && b.mu.used+b.mu.waiting[0].n <= b.mu.total {
		b.mu.used += b.mu.waiting[0].n
		close(b.mu.waiting[0].granted)
		b.mu.waiting = slices.Delete(b.mu.waiting, 0, 1)
	}
}
