package lifecycle

import (
	"context"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"barnabas/internal/faketime"
	"barnabas/internal/metadata"
)

// told waits for what a broker tells of its session.
func (n *node) told(want bool, within time.Duration) time.Duration {
	n.w.t.Helper()
	began := time.Now()
	select {
	case got := <-n.lapsed:
		if got != want {
			n.w.failf("broker %d told %v", n.id, got)
		}
	case <-time.After(within):
		n.w.failf("broker %d has told nothing within %v", n.id, within)
	}
	return time.Since(began)
}

func (w *world) nothingTold() {
	w.t.Helper()
	for id, n := range w.nodes {
		if len(n.lapsed) > 0 {
			w.failf("broker %d told %v", id, <-n.lapsed)
		}
	}
}

// TestSilenceEndsTheSession: a broker that no other node answers any more knows it when it is fenced, and is content when it is
// heard again and has what was decided meanwhile.
func TestSilenceEndsTheSession(t *testing.T) {
	inWorld(t, 20, func(w *world) {
		w.create("orders", 3)
		w.pass(5*time.Second + time.Duration(w.seed)*37*time.Millisecond)
		w.nothingTold()
		w.net.Isolate(host(3))
		if took := w.nodes[3].told(true, 3*time.Second); took < 1500*time.Millisecond || took > 2100*time.Millisecond {
			w.failf("told after %v", took)
		}
		w.pass(2 * time.Second)
		w.nothingTold() // neither by the others, nor again
		decided := w.nodes[1].controller.Image().Offset()
		if !fenced(3)(w.nodes[1].controller.Image()) {
			w.failf("3 is not fenced")
		}
		w.net.Rejoin(host(3))
		w.nodes[3].told(false, 3*time.Second)
		if at := w.nodes[3].controller.Image().Offset(); at < decided {
			w.failf("content at offset %d, %d had been decided", at, decided)
		}
	})
}

// TestSessionLastsWithoutAController: as long as others answer, that nobody decides is no reason to think that anybody else leads.
func TestSessionLastsWithoutAController(t *testing.T) {
	inWorld(t, 10, func(w *world) {
		w.pass(time.Duration(w.seed) * 37 * time.Millisecond)
		w.kill(1)
		w.pass(10 * time.Second)
		w.nothingTold()
		w.ledger.elect(2)
		w.pass(5 * time.Second)
		w.nothingTold()
	})
}

// slowSync is a controller whose metadata takes its time.
type slowSync struct {
	Controller
	arrived chan struct{}
}

// Sync implements Controller.
func (s slowSync) Sync(ctx context.Context) error {
	select {
	case <-s.arrived:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// TestSessionGoesOnOnceTheMetadataIsHere: that a heartbeat is answered does not say that this broker still leads.
func TestSessionGoesOnOnceTheMetadataIsHere(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		controller, lapsed := slowSync{arrived: make(chan struct{})}, make(chan bool, 10)
		b := New(Options{
			Controller: controller, Registration: func() metadata.Registration { return metadata.Registration{} }, Session: 2 * time.Second,
			Lapsed: func(is bool) { lapsed <- is }, Logger: slog.New(slog.DiscardHandler),
		})
		b.o.Heard = func() time.Time { // with the answers
			b.mu.Lock()
			defer b.mu.Unlock()
			return b.mu.answered
		}
		answer := func() {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.mu.answered = time.Now()
			b.change()
		}
		answer()
		b.running.Go(b.watchSession)
		defer b.Close()
		time.Sleep(3 * time.Second)
		if len(lapsed) != 1 || !<-lapsed {
			t.Fatal("three seconds without an answer")
		}
		for range 10 {
			answer()
			time.Sleep(400 * time.Millisecond)
			if len(lapsed) > 0 {
				t.Fatalf("told %v before the metadata was here", <-lapsed)
			}
		}
		close(controller.arrived)
		answer()
		synctest.Wait()
		if len(lapsed) != 1 || <-lapsed {
			t.Fatal("the metadata is here")
		}
	})
}
