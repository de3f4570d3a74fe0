package quorum

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"
)

// Who is told that a node leads was told so by a majority after asking: a leader that is cut off does not learn it from itself, in
// the time either in which others elect and commit without it.
func TestConfirmNeedsAMajority(t *testing.T) {
	for seed := range uint64(20) {
		inWorld(t, seed, 3, func(w *world) {
			w.startAll()
			w.eventually("a leader", 10*time.Second, func() bool { return w.leader() != nil })
			w.mustPropose(1)
			old := w.leader()
			q, _ := old.running.quorum()
			epoch := q.Status().Epoch
			for range 3 {
				if err := q.Confirm(w.t.Context(), epoch); err != nil {
					w.fatalf("of a leader: %v", err)
				}
			}
			if err := q.Confirm(w.t.Context(), epoch-1); !errors.Is(err, ErrNotLeader) {
				w.fatalf("of an epoch that is over: %v", err)
			}
			for _, id := range w.ids {
				if id != old.id {
					other, _ := w.nodes[id].running.quorum()
					if err := other.Confirm(w.t.Context(), epoch); !errors.Is(err, ErrNotLeader) {
						w.fatalf("of a follower: %v", err)
					}
				}
			}

			w.net.Isolate(old.host)
			var asking sync.WaitGroup
			for range 5 { // some share a question
				asking.Go(func() {
					if err := q.Confirm(w.t.Context(), epoch); !errors.Is(err, ErrNotLeader) {
						w.t.Errorf("seed %d: of a leader that is cut off: %v", seed, err)
					}
				})
				<-time.After(time.Duration(w.dice.Int64N(int64(200 * time.Millisecond)))) // fake time
			}
			brief, cancel := context.WithTimeout(w.t.Context(), time.Millisecond)
			defer cancel()
			if err := q.Confirm(brief, epoch); !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, ErrNotLeader) {
				w.fatalf("without patience: %v", err)
			}
			asking.Wait()
			w.eventually("another leader", 10*time.Second, func() bool {
				next := w.leader()
				if next == nil || next == old {
					return false
				}
				q, _ := next.running.quorum()
				return q.Confirm(w.t.Context(), q.Status().Epoch) == nil
			})
			w.net.Rejoin(old.host)
			w.settle()
		})
	}
}
