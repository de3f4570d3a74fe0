package quorum

import "testing"

// A leader that has stopped leaves another behind that leads and has committed all there is; also one that was a follower before.
func TestClosingLeaderWaitsForTheNext(t *testing.T) {
	for seed := range uint64(20) {
		inWorld(t, seed, 3, func(w *world) {
			w.startAll()
			for range 3 {
				w.mustPropose(1)
				w.settle()
				old := w.leader()
				_, m := old.running.quorum()
				before := m.lastOffset()
				old.stop()
				next := w.leader()
				if next == nil || next == old {
					w.fatalf("node %d has stopped, and no other leads", old.id)
				}
				if _, leads := next.running.quorum(); leads.lastOffset() <= before {
					w.fatalf("node %d leads and has applied nothing of its own, %d after %d", next.id, leads.lastOffset(), before)
				}
				old.start()
			}
		})
	}
}
