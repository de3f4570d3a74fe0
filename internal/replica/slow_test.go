package replica

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"barnabas/internal/batch"
	"barnabas/internal/disk"
	"barnabas/internal/faketime"
)

// TestLargeAnswerIsWaitedFor: over a line on which it takes longer than a leader's silence is borne, a batch as large as may be
// arrives, and is not asked for again.
func TestLargeAnswerIsWaitedFor(t *testing.T) {
	topics := []worldTopic{{name: "orders", id: 1, numbers: 1, on: []int32{1, 3}, configs: map[string]string{"max.message.bytes": "20000000"}}}
	inWorld(t, 90, topics, func(t *testing.T, w *world) {
		const size, rate = 8_000_000, 200_000
		p := w.awaitLeader("orders", 1)
		w.isolate(3, true)
		w.await("it to leave", func() bool { return len(p.InSync()) == 1 })
		writeLarge(t, p, 1, size)
		w.rate.Store(rate)
		before := w.carried.Load()
		w.isolate(3, false)
		w.await("its return", func() bool { return w.on(3, "orders").Progress().End == p.Progress().End })
		if got := w.carried.Load() - before; got > size+size/10 {
			t.Errorf("%d bytes have been sent", got)
		}
		w.equal("orders")
	})
}

// TestThinLineIsShared: while a replica copies over a thin line what it lacks, the records of partitions in which it is in sync are
// acknowledged within the time that an answer should take, and what was on its way before.
func TestThinLineIsShared(t *testing.T) {
	topics := []worldTopic{
		{name: "moved", id: 1, numbers: 1, on: []int32{1, 3}, configs: map[string]string{"min.insync.replicas": "1"}},
		{name: "other", id: 2, numbers: 1, on: []int32{1, 3}, configs: map[string]string{"min.insync.replicas": "2"}},
	}
	inWorldWith(t, 98, topics, []string{"replica.lag.time.max.ms=10000", "replica.fetch.max.bytes=10485760"}, func(t *testing.T, w *world) {
		const size, rate = 8_000_000, 200_000
		moved, other := w.awaitLeader("moved", 1), w.awaitLeader("other", 1)
		w.isolate(3, true)
		w.await("it to leave", func() bool { return len(moved.InSync()) == 1 && len(other.InSync()) == 1 })
		w.isolate(3, false)
		w.await("it to be back", w.whole)
		w.rate.Store(rate)
		writeLarge(t, moved, size/100_000, 100_000)
		<-time.After(10 * time.Second)
		for range 5 {
			at := time.Now()
			other.append(t, 1)
			if took := time.Since(at); took > 2*answerSpan+time.Second {
				t.Errorf("a record was acknowledged after %v", took)
			}
		}
		if end := w.on(3, "moved").Progress().End; end == moved.Progress().End {
			t.Error("all has been copied already")
		}
		w.await("the rest", w.whole)
	})
}

// TestPace: an answer is as large as what comes in the time that it should take, whatever the line, and as settings allow where
// that is quick.
func TestPace(t *testing.T) {
	const most = 10 << 20
	for _, rate := range []float64{20 << 10, 200_000, 1 << 20, 100 << 20} {
		var p pace
		for range 20 {
			n := p.bound(most)
			p.took(int(n), time.Duration(float64(n)/rate*float64(time.Second)))
		}
		got := float64(p.bound(most))
		if want := min(max(rate*answerSpan.Seconds(), leastAnswer), most); got > want*1.01 || got < min(want/4.1, most) {
			t.Errorf("at %.0f bytes a second: %.0f are asked for, %.0f come in time", rate, got, want)
		}
		for range 20 { // another line
			n := p.bound(most)
			p.took(int(n), time.Duration(n))
		}
		if got := p.bound(most); got != most {
			t.Errorf("%d are asked for of a line that is quick again", got)
		}
	}
}

// TestStartThatCouldNotBeMovedIsToldAgain: a follower that could not move its log's start when it was told to does so later, and
// who waits for records to be deleted everywhere hears of it.
func TestStartThatCouldNotBeMovedIsToldAgain(t *testing.T) {
	topics := []worldTopic{{name: "orders", id: 1, numbers: 1, on: []int32{1, 3}, configs: map[string]string{"segment.bytes": "1048576"}}}
	inWorld(t, 91, topics, func(t *testing.T, w *world) {
		p := w.awaitLeader("orders", 1)
		b := batch.NewBuilder(batch.BuilderOptions{})
		for sequence := range int32(30) {
			b.Reset()
			b.SetProducer(77, 0, sequence, false)
			b.Append(time.Now().UnixMilli(), nil, make([]byte, 100_000), nil)
			built, err := b.Build()
			if err != nil {
				t.Fatal(err)
			}
			a, err := p.Append(built, true, time.Now().UnixMilli())
			if err == nil {
				err = p.AwaitCommitted(t.Context(), a.Next, a.LeaderEpoch)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		w.equal("orders")
		n := w.nodes[2]
		failing := true
		n.disk.SetFault(func(op disk.Op) error {
			n.mu.Lock()
			slow := failing && (op.Kind == disk.OpSync || op.Kind == disk.OpSyncFS)
			n.mu.Unlock()
			if slow {
				<-time.After(45 * time.Second)
			}
			return n.fault(op)
		})
		write(t, p, 1) // whose flush takes longer than what has to be flushed before segments go may wait
		<-time.After(100 * time.Millisecond)
		if _, err := p.DeleteRecords(t.Context(), 25); err != nil {
			t.Fatal(err)
		}
		<-time.After(40 * time.Second)
		if at := w.on(3, "orders").Progress(); at.Start != 0 {
			t.Fatalf("%+v: the start has been moved", at)
		}
		n.mu.Lock()
		failing = false
		n.mu.Unlock()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if lowest, err := p.AwaitDeleted(ctx, 25); err != nil || lowest != 25 {
			t.Errorf("lowest %d, %v", lowest, err)
		}
		if at := w.on(3, "orders").Progress(); at.Start != 25 {
			t.Errorf("%+v", at)
		}
	})
}

// lines is a log that keeps what it was told.
type lines struct {
	slog.Handler
	mu   sync.Mutex
	said []string
}

func (l *lines) Enabled(context.Context, slog.Level) bool { return true }
func (l *lines) WithAttrs([]slog.Attr) slog.Handler       { return l }
func (l *lines) Handle(_ context.Context, r slog.Record) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.said = append(l.said, r.Message)
	return nil
}

func (l *lines) count(part string) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, line := range l.said {
		if strings.Contains(line, part) {
			n++
		}
	}
	return n
}

// TestDiskThatHangsHoldsUpNoOther: what has to be done to logs beside the fetches is done on one disk whatever another one does.
func TestDiskThatHangsHoldsUpNoOther(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		b := newBroker(t, disk.NewMem(), "/a", "/b")
		l := newLinks(b.manager, &Cluster{Jitter: func(time.Duration) time.Duration { return 0 }})
		hang := make(chan struct{})
		began, done := 0, 0
		var mu sync.Mutex
		for range 3 * mostAside {
			l.beside(b.dirs[0], func() {
				mu.Lock()
				began++
				mu.Unlock()
				<-hang
			})
			l.beside(b.dirs[1], func() {
				mu.Lock()
				done++
				mu.Unlock()
			})
		}
		synctest.Wait()
		mu.Lock()
		if began != mostAside || done != 3*mostAside {
			t.Errorf("%d jobs at work on the disk that hangs, %d done on the other", began, done)
		}
		mu.Unlock()
		close(hang)
		synctest.Wait()
		if began != 3*mostAside {
			t.Errorf("%d jobs have been done on the disk that hung", began)
		}
		l.close()
	})
}

// TestCauseIsToldOnce: a partition that cannot be followed for the same reason again and again is one line, not one for each
// attempt, though something succeeds between them.
func TestCauseIsToldOnce(t *testing.T) {
	topics := []worldTopic{{name: "orders", id: 1, numbers: 1, on: []int32{1, 3}}}
	inWorld(t, 92, topics, func(t *testing.T, w *world) {
		w.awaitLeader("orders", 1).append(t, 1)
		told := &lines{}
		m := NewManager(Options{NodeID: 3, Config: w.settings, Logger: slog.New(told)})
		l := newLinks(m, &Cluster{})
		defer l.close()
		f := newFetcher(l, 1) // one that does not run
		n := &pull{p: w.on(3, "orders"), slot: 1}
		f.bySlot[1] = n
		now := time.Now()
		try := func(cause string) {
			f.aside(n, func() error { return errors.New(cause) }, func() {})
			synctest.Wait()
			f.collect(now)
			f.apply(n, &part{slot: 1}, now) // all is well, as far as the leader goes
			now = now.Add(time.Second)
		}
		for range 100 {
			try("the disk is tired")
		}
		if got := told.count("cannot be followed"); got != 1 {
			t.Errorf("told %d times", got)
		}
		try("it has fallen asleep")
		if got := told.count("cannot be followed"); got != 2 {
			t.Errorf("another cause was told %d times", got-1)
		}
		now = now.Add(sayAgain)
		try("it has fallen asleep")
		if got := told.count("cannot be followed"); got != 3 {
			t.Errorf("what is back after a long time was told %d times", got-2)
		}
	})
}
