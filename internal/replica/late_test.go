package replica

import (
	"context"
	"testing"
	"time"

	"barnabas/internal/commitlog"
	"barnabas/internal/wire"
)

// told is what a feed answers to what is in its queue.
func (f *feed) say(t *testing.T) (parts []part) {
	t.Helper()
	var out wire.Out
	if err := f.write(&out); err != nil {
		t.Fatal(err)
	}
	body, err := out.Take(nil)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := parseAnswer(body)
	for err == nil {
		var p part
		var more bool
		if p, more, err = answer.next(); !more {
			return parts
		}
		parts = append(parts, p)
	}
	t.Fatal(err)
	return nil
}

// TestTrap02DeposedLeaderTellsNothing: a leader that is about to answer a follower, and is deposed, and takes over what the next
// leader has, tells the follower nothing of that: neither a watermark that counts for other records, nor a start.
func TestTrap02DeposedLeaderTellsNothing(t *testing.T) {
	topics := []worldTopic{{name: "orders", id: 1, numbers: 1, on: []int32{1, 2, 3}, configs: map[string]string{"min.insync.replicas": "1"}}}
	inWorld(t, 93, topics, func(t *testing.T, w *world) {
		p := w.awaitLeader("orders", 1)
		p.append(t, 10)
		w.await("all in sync", w.whole)
		w.setCut(true, [2]int32{3, 1}) // from here on the test speaks for it
		<-time.After(time.Second)
		life, _ := p.m.registered(3)
		f := p.m.newFeed(3, life, p.m.feed(3).latest.Load()+1)
		f.request = fetchRequest{maxBytes: 1 << 20, partBytes: 1 << 20, asks: []ask{{slot: 1, flags: askNamed, topic: p.topicID, end: 10, flushed: 10, lastEpoch: 0}}}
		f.take()
		if !f.hasNews() {
			t.Fatal("the follower is not welcome")
		}
		w.isolate(1, true)
		next := w.awaitLeader("orders", 2, 3)
		next.append(t, 10)
		w.isolate(1, false)
		w.setCut(true, [2]int32{3, 1})
		w.await("it to follow", func() bool { return p.Progress().HighWatermark == 20 })
		said := f.say(t)
		if len(said) != 1 {
			t.Errorf("%d parts", len(said))
		}
		for _, d := range said {
			if d.code != answerNotLeader || d.highWatermark != 0 || len(d.records) > 0 {
				t.Errorf("a follower of the epoch before is told %+v", d)
			}
		}
		w.setCut(false, [2]int32{3, 1})
		w.equal("orders")
	})
}

// TestTrap01LogWithRecordsIsNotEmptiedAtAWord: a follower that is told that its end is out of its leader's range keeps what it
// has, unless all of it lies below the leader's start.
func TestTrap01LogWithRecordsIsNotEmptiedAtAWord(t *testing.T) {
	topics := []worldTopic{{name: "orders", id: 1, numbers: 1, on: []int32{1, 3}}}
	inWorld(t, 94, topics, func(t *testing.T, w *world) {
		w.awaitLeader("orders", 1).append(t, 10)
		w.await("all in sync", w.whole)
		p := w.on(3, "orders")
		f := newFetcher(w.nodes[2].manager().links, 1) // one that does not run
		n := &pull{p: p, slot: 1}
		f.bySlot[1] = n
		for _, start := range []int64{0, 5, 10} {
			f.apply(n, &part{slot: 1, code: answerOutOfRange, start: start}, time.Now())
			<-time.After(time.Second)
			if at := p.Progress(); at.Start != 0 || at.End != 10 {
				t.Fatalf("told of a start at %d: %+v", start, at)
			}
			if !n.rests {
				t.Errorf("%+v is not asked for again after a while", n)
			}
		}
	})
}

// TestReadThatFailsIsNotOutOfRange: a leader that cannot read where a follower goes on says so; only if its start has passed that
// place does it say that the follower has to begin anew, and then with the start as it is.
func TestReadThatFailsIsNotOutOfRange(t *testing.T) {
	inWorld(t, 95, []worldTopic{{name: "orders", id: 1, numbers: 1, on: []int32{1, 3}}}, func(t *testing.T, w *world) {
		p := w.awaitLeader("orders", 1)
		p.append(t, 10)
		w.await("all in sync", w.whole)
		f := &feed{m: p.m, broker: 3}
		before := p.Progress()
		d := &fed{p: p, end: 11, asked: true} // beyond the end: a read fails as it does where segments go all the time
		var told part
		if f.read(d, commitlog.Progress{End: 20}, 100, true, &told); told.code != answerFailed {
			t.Errorf("%+v", told)
		}
		if _, err := p.DeleteRecords(t.Context(), 8); err != nil {
			t.Fatal(err)
		}
		d = &fed{p: p, end: 5, asked: true}
		told = part{start: before.Start}
		if f.read(d, before, 100, true, &told); told.code != answerOutOfRange || told.start != 8 {
			t.Errorf("%+v", told)
		}
	})
}

// TestWordOfTheDiskMayOvertakeTheFetch: what a follower says of its disk beside the fetch arrives before a fetch that was made
// before it, and is not taken back by that.
func TestWordOfTheDiskMayOvertakeTheFetch(t *testing.T) {
	l := lead(1, ledBy1(0, 1, 2, 3), 0, noon)
	at := ends(150)
	l.report(2, 20, 100, 100, at, true, noon)
	l.advance(2, 20, 150, at, true, noon)
	l.report(2, 20, 150, 100, at, true, noon)
	if got := l.follower(2).flushed; got != 150 {
		t.Errorf("flushed up to %d", got)
	}
	l.report(2, 20, 120, 110, at, true, noon) // its log was cut, which only it knows
	if got := l.follower(2).flushed; got != 110 {
		t.Errorf("flushed up to %d of a log that ends at 120", got)
	}
	l.report(2, 21, 150, 90, at, true, noon)
	if got := l.follower(2).flushed; got != 90 {
		t.Errorf("flushed up to %d in another life", got)
	}
}

// TestTrap05LateSessionIsRefused: a fetch that begins a session on a connection that the follower has given up, and arrives after
// the one that it sent on the next, counts for nothing: it may tell of more than there is.
func TestTrap05LateSessionIsRefused(t *testing.T) {
	topics := []worldTopic{{name: "orders", id: 1, numbers: 1, on: []int32{1, 2}, configs: map[string]string{"min.insync.replicas": "1"}}}
	inWorld(t, 96, topics, func(t *testing.T, w *world) {
		p := w.awaitLeader("orders", 1)
		p.append(t, 10)
		w.equal("orders")
		w.setCut(true, [2]int32{2, 1}) // from here on the test speaks for it
		<-time.After(time.Second)
		write(t, p, 10)
		life, _ := p.m.registered(2)
		latest := p.m.feed(2).latest.Load()
		serve := func(sequence uint32, end int64) answerCode {
			msg := fetchRequest{
				sequence: sequence, brokerEpoch: life,
				asks: []ask{{slot: sequence, flags: askNamed, topic: p.topicID, end: end, flushed: end, lastEpoch: 0}},
			}
			reply, _, err := p.m.Serve(2, KindFetch, msg.append(nil))
			if err != nil {
				t.Fatal(err)
			}
			var out wire.Out
			if err := reply(context.Background(), &out); err != nil {
				t.Fatal(err)
			}
			body, err := out.Take(nil)
			if err != nil {
				t.Fatal(err)
			}
			answer, err := parseAnswer(body)
			if err != nil {
				t.Fatal(err)
			}
			return answer.code
		}
		flushed := func() int64 {
			p.mu.Lock()
			defer p.mu.Unlock()
			return p.mu.role.(*leading).follower(2).flushed
		}
		if code := serve(latest+2, 12); code != answerOK || flushed() != 12 {
			t.Fatalf("code %d, %d on its disk", code, flushed())
		}
		for _, late := range []uint32{latest + 1, latest + 2} {
			if code := serve(late, 20); code != answerNoSession || flushed() != 12 {
				t.Errorf("a fetch that was sent before: code %d, %d on its disk", code, flushed())
			}
		}
		if code := serve(latest+3, 20); code != answerOK || flushed() != 20 {
			t.Errorf("code %d, %d on its disk", code, flushed())
		}
	})
}

// TestReplicaThatCameBackIsFoundByItsFollowers: a follower that asked while this broker's replica was another one is answered by
// the one that there is now.
func TestReplicaThatCameBackIsFoundByItsFollowers(t *testing.T) {
	topics := []worldTopic{{name: "orders", id: 1, numbers: 1, on: []int32{1, 2}, configs: map[string]string{"min.insync.replicas": "1"}}}
	inWorld(t, 97, topics, func(t *testing.T, w *world) {
		p := w.awaitLeader("orders", 1)
		p.append(t, 10)
		w.equal("orders")
		life, _ := p.m.registered(3)
		before, _ := w.image().Partition("orders", 0)
		w.setCut(true, [2]int32{3, 1}) // the test speaks for it
		f := p.m.newFeed(3, life, 1)
		f.request = fetchRequest{asks: []ask{{slot: 1, flags: askNamed, topic: p.topicID, lastEpoch: -1, epoch: before.LeaderEpoch}}}
		f.take()
		// It goes and comes back.
		id := topicID(1)
		change := func(replicas []int32, leader int32) {
			now, _ := w.image().Partition("orders", 0)
			next := *now
			next.Replicas, next.ISR, next.Leader = replicas, replicas, leader
			next.Directories = nil
			for _, b := range replicas {
				next.Directories = append(next.Directories, w.nodes[b-1].mu.dir.ID())
			}
			next.LeaderEpoch++
			next.PartitionEpoch++
			w.commit(next.Record(id, 0))
			<-time.After(2 * time.Second)
		}
		change([]int32{2}, 2)
		change([]int32{2, 1, 3}, 2)
		change([]int32{1, 2, 3}, 1)
		now := w.awaitLeader("orders", 1)
		if now == p {
			t.Fatal("it is the same replica")
		}
		epoch, _ := now.LeaderEpoch(-1)
		for range 2 {
			f.request.asks = []ask{{slot: 1, topic: p.topicID, lastEpoch: -1, epoch: epoch}}
			f.take()
		}
		if d := f.mu.slots[1]; d.verdict.code != answerOK {
			t.Errorf("%+v", d.verdict)
		}
	})
}
