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

// Whoever asks while the voters become fewer is answered, down to the one that has nobody left to ask.
func TestConfirmOutlivesAChangeOfVoters(t *testing.T) {
	for seed := range uint64(20) {
		inWorld(t, seed, 2, func(w *world) {
			w.net.SetLatency("", "", 2*time.Millisecond, 3*time.Millisecond)
			w.startAll()
			w.settle()
			leads := w.leader()
			q, _ := leads.running.quorum()
			epoch := q.Status().Epoch
			other := w.nodes[3-leads.id]
			otherQ, _ := other.running.quorum()
			stop := make(chan struct{})
			var asking sync.WaitGroup
			for range 4 {
				asking.Go(func() {
					for {
						select {
						case <-stop:
							return
						case <-time.After(100*time.Microsecond + time.Duration(seed%4)*time.Millisecond):
						}
						ctx, cancel := context.WithTimeout(w.t.Context(), 10*time.Second)
						err := q.Confirm(ctx, epoch)
						cancel()
						if err != nil {
							w.t.Errorf("seed %d: %v", seed, err)
							return
						}
					}
				})
			}
			if err := w.change(leads, RemoveVoter, other, otherQ.o.Dir.ID(), 10*time.Second); err != nil {
				w.fatalf("remove a voter: %v", err)
			}
			other.kill()
			<-time.After(20 * time.Millisecond) // fake time
			close(stop)
			asking.Wait()
			ctx, cancel := context.WithTimeout(w.t.Context(), 10*time.Second)
			defer cancel()
			if err := q.Confirm(ctx, epoch); err != nil {
				w.fatalf("of the only voter: %v", err)
			}
		})
	}
}
