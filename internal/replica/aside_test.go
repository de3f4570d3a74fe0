package replica

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"barnabas/internal/commitlog"
	"barnabas/internal/disk"
	"barnabas/internal/metadata"
)

// TestLogThatIsCutHoldsUpNoOther: while a disk takes long to cut one log, or to empty it, what else comes from the same leader
// is copied and acknowledged.
func TestLogThatIsCutHoldsUpNoOther(t *testing.T) {
	const slow = 6 * time.Second
	topics := []worldTopic{
		{name: "cut", id: 1, numbers: 1, on: []int32{1, 3, 2}, configs: map[string]string{"min.insync.replicas": "1"}},
		{name: "emptied", id: 2, numbers: 1, on: []int32{1, 3, 2}, configs: map[string]string{"min.insync.replicas": "1"}},
		{name: "other", id: 3, numbers: 1, on: []int32{1, 3, 2}, configs: map[string]string{"min.insync.replicas": "2"}},
	}
	inWorld(t, 60, topics, func(t *testing.T, w *world) {
		for _, topic := range topics {
			w.awaitLeader(topic.name, 1).append(t, 10)
		}
		w.await("all in sync", w.whole)
		// The leader has records that the next one never sees, and the next one gives up what was.
		w.isolate(1, true)
		if _, err := w.on(1, "cut").Append(records(3), false, time.Now().UnixMilli()); err != nil {
			t.Fatal(err)
		}
		for _, topic := range topics {
			w.awaitLeader(topic.name, 2, 3).append(t, 5)
		}
		if _, err := w.awaitLeader("emptied", 2, 3).DeleteRecords(t.Context(), 15); err != nil {
			t.Fatal(err)
		}
		n := w.nodes[0]
		busy := map[string]bool{}
		n.disk.SetFault(func(op disk.Op) error {
			for _, name := range []string{"cut", "emptied"} {
				if strings.Contains(op.Path, "/"+name+"-0/") && (op.Kind == disk.OpTruncate || op.Kind == disk.OpRename || op.Kind == disk.OpRemove) {
					n.mu.Lock()
					busy[name] = true
					n.mu.Unlock()
					<-time.After(slow)
				}
			}
			return n.fault(op)
		})
		w.isolate(1, false)
		at := time.Now()
		w.await("the other in sync", func() bool { p, _ := w.image().Partition("other", 0); return len(p.ISR) == 3 })
		if took := time.Since(at); took > 4*time.Second {
			t.Errorf("it took %v", took)
		}
		for range 20 {
			at := time.Now()
			w.awaitLeader("other", 2, 3).append(t, 1)
			if took := time.Since(at); took > 50*time.Millisecond {
				t.Errorf("a record was acknowledged after %v", took)
			}
		}
		for _, name := range []string{"cut", "emptied"} {
			n.mu.Lock()
			if !busy[name] {
				t.Errorf("%s is not being cut", name)
			}
			n.mu.Unlock()
			if p, _ := w.image().Partition(name, 0); len(p.ISR) == 3 {
				t.Errorf("%s is in sync already", name)
			}
		}
		w.equal("cut")
		w.equal("emptied")
		w.equal("other")
	})
}

// TestLogGoesAwayWhileItIsCut: the topic is deleted meanwhile, or another broker leads, or the process ends.
func TestLogGoesAwayWhileItIsCut(t *testing.T) {
	topics := []worldTopic{
		{name: "orders", id: 1, numbers: 1, on: []int32{1, 3, 2}, configs: map[string]string{"min.insync.replicas": "1"}},
		{name: "gone", id: 2, numbers: 1, on: []int32{1, 3, 2}, configs: map[string]string{"min.insync.replicas": "1"}},
	}
	for seed := range uint64(6) {
		inWorld(t, 70+seed, topics, func(t *testing.T, w *world) {
			for _, topic := range topics {
				w.awaitLeader(topic.name, 1).append(t, 10)
			}
			w.await("all in sync", w.whole)
			w.isolate(1, true)
			for _, topic := range topics {
				if _, err := w.on(1, topic.name).Append(records(3), false, time.Now().UnixMilli()); err != nil {
					t.Fatal(err)
				}
				w.awaitLeader(topic.name, 2, 3).append(t, 5)
			}
			n := w.nodes[0]
			n.disk.SetFault(func(op disk.Op) error {
				if op.Kind == disk.OpTruncate {
					<-time.After(3 * time.Second)
				}
				return n.fault(op)
			})
			w.isolate(1, false)
			<-time.After(time.Second)
			kill := func(d *disk.Mem) *disk.Mem { return d.Kill() }
			switch seed % 3 {
			case 0:
				w.commit(&metadata.TopicRemovalRecord{TopicId: topicID(2).Bytes()})
			case 1:
				p, _ := w.image().Partition("orders", 0)
				w.nodes[p.Leader-1].end(kill)
				<-time.After(2 * time.Second)
				w.nodes[p.Leader-1].start()
			case 2:
				n.end(kill)
				n.disk.SetFault(n.fault)
				n.start()
			}
			w.equal("orders")
			if _, err := w.awaitLeader("orders", 1, 2, 3).Append(records(1), true, time.Now().UnixMilli()); err != nil && !errors.Is(err, ErrNotLeader) {
				t.Error(err)
			}
			w.equal("orders")
		})
	}
}

// TestLogThatIsCutIsNotAskedFor: not even where the throttle had put it off before.
func TestLogThatIsCutIsNotAskedFor(t *testing.T) {
	topics := []worldTopic{{name: "orders", id: 1, numbers: 1, on: []int32{1, 3}}}
	inWorld(t, 61, topics, func(t *testing.T, w *world) {
		w.awaitLeader("orders", 1).append(t, 1)
		now := time.Now()
		f := newFetcher(w.nodes[2].manager().links, 1) // one that does not run
		n := &pull{p: w.on(3, "orders"), slot: 1, held: true}
		f.bySlot[1], f.held = n, []*pull{n}
		f.aside(n, func() error { return nil }, func() { f.enqueue(n) })
		f.build(now)
		if len(f.asked) > 0 {
			t.Error("it is asked for while it is being cut")
		}
		synctest.Wait()
		f.collect(now)
		if !n.queued {
			t.Errorf("%+v is not asked for again", n)
		}
	})
}

// TestWordOfAnEpochThatIsOver: what a leader said of the watermark and the start counts for nothing once another leads, however
// long it took to get to it.
func TestWordOfAnEpochThatIsOver(t *testing.T) {
	topics := []worldTopic{{name: "orders", id: 1, numbers: 1, on: []int32{1, 2, 3}, configs: map[string]string{"min.insync.replicas": "2"}}}
	inWorld(t, 62, topics, func(t *testing.T, w *world) {
		w.awaitLeader("orders", 1).append(t, 10)
		w.await("all in sync", w.whole)
		before, _ := w.image().Partition("orders", 0)
		w.isolate(1, true)
		p := w.awaitLeader("orders", 2, 3)
		w.isolate(2, true)
		w.isolate(3, true)
		end := write(t, p, 5) // nobody else has them
		was := p.Progress()
		for _, told := range []part{{highWatermark: end}, {start: end - 1, highWatermark: end}} {
			if err := p.followed(before.LeaderEpoch, &told); !errors.Is(err, commitlog.ErrEpochOver) {
				t.Errorf("%+v: %v", told, err)
			}
			if at := p.Progress(); at.HighWatermark != was.HighWatermark || at.Start != was.Start {
				t.Errorf("%+v of the leader before: %+v, was %+v", told, at, was)
			}
		}
	})
}

// TestLogThatIsCutHoldsUpNoOtherOfTheNextLeader: the leader that had a log cut is gone, and the next one is followed at once in
// all else.
func TestLogThatIsCutHoldsUpNoOtherOfTheNextLeader(t *testing.T) {
	topics := []worldTopic{
		{name: "cut", id: 1, numbers: 1, on: []int32{1, 3, 2}, configs: map[string]string{"min.insync.replicas": "1"}},
		{name: "other", id: 2, numbers: 1, on: []int32{3, 2, 1}, configs: map[string]string{"min.insync.replicas": "2"}},
	}
	inWorld(t, 63, topics, func(t *testing.T, w *world) {
		w.awaitLeader("cut", 1).append(t, 10)
		w.awaitLeader("other", 3).append(t, 10)
		w.await("all in sync", w.whole)
		w.isolate(1, true)
		if _, err := w.on(1, "cut").Append(records(3), false, time.Now().UnixMilli()); err != nil {
			t.Fatal(err)
		}
		w.awaitLeader("cut", 3).append(t, 5)
		n := w.nodes[0]
		hang, busy := make(chan struct{}), make(chan struct{}, 100)
		n.disk.SetFault(func(op disk.Op) error {
			if strings.Contains(op.Path, "/cut-0/") && op.Kind == disk.OpTruncate {
				busy <- struct{}{}
				<-hang
			}
			return n.fault(op)
		})
		w.isolate(1, false)
		<-busy
		w.await("the other in sync", func() bool { p, _ := w.image().Partition("other", 0); return len(p.ISR) == 3 })
		w.nodes[2].end(func(d *disk.Mem) *disk.Mem { return d.Kill() })
		w.awaitLeader("cut", 2)
		p := w.awaitLeader("other", 2)
		at := time.Now()
		p.append(t, 1)
		if took := time.Since(at); took > time.Second {
			t.Errorf("a record was acknowledged after %v", took)
		}
		close(hang)
		w.nodes[2].start()
		w.equal("cut")
		w.equal("other")
	})
}
