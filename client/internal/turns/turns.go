// Package turns lets things be done one after another, in the order in which they were asked for. Whoever gives up
// while it waits only steps out of the queue: those behind it still wait for those that were before it. A group's
// commits go out so, since an older one must never overwrite a newer one. It is for package client, and knows
// nothing of what is done.
package turns

import (
	"context"
	"slices"
	"sync"
)

// Queue is who waits, in order. The zero value is empty. It is safe for concurrent use.
type Queue struct {
	mu     sync.Mutex
	places []*Place // the first one's turn it is
}

// Place is somebody's in a Queue.
type Place struct {
	turn chan struct{} // closed when it is the first
}

// Enter takes a place in the queue: Await its turn, do what there is to do, then Leave. It is false, and there is no
// place, where limit places are taken.
func (q *Queue) Enter(limit int) (*Place, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.places) >= limit {
		return nil, false
	}
	p := &Place{turn: make(chan struct{})}
	q.places = append(q.places, p)
	if len(q.places) == 1 {
		close(p.turn)
	}
	return p, true
}

// Leave gives a place up, after its turn or instead of it.
func (q *Queue) Leave(p *Place) {
	q.mu.Lock()
	defer q.mu.Unlock()
	at := slices.Index(q.places, p)
	q.places = slices.Delete(q.places, at, at+1)
	if at == 0 && len(q.places) > 0 {
		close(q.places[0].turn)
	}
}

// Await waits for the place's turn, or for the end of ctx, whose error it returns then.
func (p *Place) Await(ctx context.Context) error {
	select {
	case <-p.turn:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
