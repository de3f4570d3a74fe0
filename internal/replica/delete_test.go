package replica

import (
	"context"
	"errors"
	"testing"
	"time"

	"barnabas/internal/disk"
)

// awaitDeleted deletes below an offset and waits for so long.
func awaitDeleted(t testing.TB, p *Partition, before int64, patience time.Duration) (int64, error) {
	t.Helper()
	if _, err := p.DeleteRecords(t.Context(), before); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	return p.AwaitDeleted(ctx, before)
}

// TestDeletedIsDeletedEverywhere: who waits for a deletion hears when the records are gone from every replica whose
// broker takes part, of an idle partition too and from a new leader; not before, and not never.
func TestDeletedIsDeletedEverywhere(t *testing.T) {
	topics := []worldTopic{{name: "orders", id: 1, numbers: 1, configs: map[string]string{"min.insync.replicas": "2"}}}
	for seed := range uint64(5) {
		inWorld(t, 50+seed, topics, func(t *testing.T, w *world) {
			p := w.awaitLeader("orders", 1)
			p.append(t, 100)
			w.equal("orders")
			everywhere := func(before int64, ids ...int32) {
				t.Helper()
				for _, id := range ids {
					if at := w.on(id, "orders").Progress(); at.Start != before {
						t.Errorf("seed %d: the log of broker %d begins at %d, %d was deleted", w.seed, id, at.Start, before)
					}
				}
			}
			<-time.After(5 * time.Second)
			begin := time.Now()
			if low, err := awaitDeleted(t, p, 10, time.Minute); err != nil || low != 10 || time.Since(begin) > 100*time.Millisecond {
				t.Fatalf("seed %d: %d, %v after %v", w.seed, low, err, time.Since(begin))
			}
			everywhere(10, 1, 2, 3)

			// A follower that is heard of by the controller and copies nothing.
			w.setCut(true, [2]int32{3, 1}, [2]int32{1, 3})
			if low, err := awaitDeleted(t, p, 20, 800*time.Millisecond); !errors.Is(err, context.DeadlineExceeded) || low != 10 {
				t.Errorf("seed %d: without broker 3 %d, %v", w.seed, low, err)
			}
			w.setCut(false, [2]int32{3, 1}, [2]int32{1, 3})
			if low, err := awaitDeleted(t, p, 20, time.Minute); err != nil || low != 20 {
				t.Errorf("seed %d: %d, %v", w.seed, low, err)
			}
			everywhere(20, 1, 2, 3)

			// One that takes no part is not waited for, once that is known.
			w.nodes[2].end(func(d *disk.Mem) *disk.Mem { return d.Kill() })
			if low, err := awaitDeleted(t, p, 30, time.Minute); err != nil || low != 30 || w.unfenced() != 2 {
				t.Errorf("seed %d: %d, %v with %d brokers", w.seed, low, err, w.unfenced())
			}
			everywhere(30, 1, 2)
			w.nodes[2].start()
			w.equal("orders")
			if low, err := p.AwaitDeleted(t.Context(), 30); err != nil || low != 30 {
				t.Errorf("seed %d: %d, %v", w.seed, low, err)
			}
			everywhere(30, 1, 2, 3)

			// Nor one that has left the in-sync replicas before.
			w.setCut(true, [2]int32{3, 1}, [2]int32{1, 3})
			w.await("it to leave", func() bool {
				write(t, p, 1)
				return len(p.InSync()) == 2
			})
			time.AfterFunc(300*time.Millisecond, func() { w.setCut(true, [2]int32{3, controllerID}, [2]int32{controllerID, 3}) })
			begin = time.Now()
			if low, err := awaitDeleted(t, p, 35, time.Minute); err != nil || low != 35 || time.Since(begin) < 300*time.Millisecond || time.Since(begin) > 2*time.Second {
				t.Errorf("seed %d: %d, %v after %v", w.seed, low, err, time.Since(begin))
			}
			w.isolate(3, false)
			w.equal("orders")

			// Who waits when the leader goes is told so, and the next one finds out by itself.
			w.setCut(true, [2]int32{3, 1}, [2]int32{1, 3})
			if _, err := p.DeleteRecords(t.Context(), 40); err != nil {
				t.Fatal(err)
			}
			answered := make(chan error, 1)
			go func() {
				_, err := p.AwaitDeleted(t.Context(), 40)
				answered <- err
			}()
			<-time.After(100 * time.Millisecond)
			w.nodes[0].end(func(d *disk.Mem) *disk.Mem { return d.Kill() })
			w.setCut(false, [2]int32{3, 1}, [2]int32{1, 3})
			q := w.awaitLeader("orders", 2, 3)
			w.nodes[0].start()
			w.equal("orders")
			if low, err := awaitDeleted(t, q, 40, time.Minute); err != nil || low != 40 {
				t.Errorf("seed %d: the next leader: %d, %v", w.seed, low, err)
			}
			everywhere(40, 1, 2, 3)
			select {
			case err := <-answered:
				if !errors.Is(err, ErrNotLeader) {
					t.Errorf("seed %d: %v", w.seed, err)
				}
			default:
				p.become(absent{}) // that process is no more: nothing there changes roles
				t.Logf("seed %d: that process is no more; it says: %v", w.seed, <-answered)
			}
		})
	}
}

// TestDeletedBeforeByRetention: a follower whose own retention has gone beyond what is deleted says so, though there is nothing
// left to do for it.
func TestDeletedBeforeByRetention(t *testing.T) {
	topics := []worldTopic{{name: "orders", id: 1, numbers: 1}}
	inWorld(t, 58, topics, func(t *testing.T, w *world) {
		p := w.awaitLeader("orders", 1)
		p.append(t, 100)
		w.equal("orders")
		<-time.After(5 * time.Second)
		if err := w.on(3, "orders").log.AdvanceStart(60); err != nil {
			t.Fatal(err)
		}
		if low, err := awaitDeleted(t, p, 50, 10*time.Second); err != nil || low != 50 {
			t.Errorf("%d, %v", low, err)
		}
	})
}
