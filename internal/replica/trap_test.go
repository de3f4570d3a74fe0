package replica

import (
	"context"
	"errors"
	"math"
	"slices"
	"testing"
	"time"

	"barnabas/internal/batch"
	"barnabas/internal/commitlog"
	"barnabas/internal/disk"
	"barnabas/internal/metadata"
)

// on is a node's replica of the only partition of topic.
func (w *world) on(id int32, topic string) *Partition {
	w.t.Helper()
	p, err := w.nodes[id-1].manager().Partition(topic, 0)
	if err != nil {
		w.t.Fatal(err)
	}
	return p
}

// awaitLeader waits until the controller has the partition led by one of ids, and that broker knows.
func (w *world) awaitLeader(topic string, ids ...int32) *Partition {
	w.t.Helper()
	var found *Partition
	w.await("a leader", func() bool {
		p, _ := w.image().Partition(topic, 0)
		if !slices.Contains(ids, p.Leader) {
			return false
		}
		m := w.nodes[p.Leader-1].manager()
		if m == nil {
			return false
		}
		r, err := m.Partition(topic, 0)
		if err != nil {
			return false
		}
		epoch, err := r.LeaderEpoch(-1)
		found = r
		return err == nil && epoch == p.LeaderEpoch
	})
	return found
}

// write appends n records one by one without waiting for anybody.
func write(t testing.TB, p *Partition, n int) (end int64) {
	t.Helper()
	for range n {
		a, err := p.Append(records(1), false, time.Now().UnixMilli())
		if err != nil {
			t.Fatal(err)
		}
		end = a.Next
	}
	return end
}

func (w *world) isolate(id int32, cut bool) {
	for other := int32(0); other <= brokers; other++ {
		w.setCut(cut, [2]int32{id, other}, [2]int32{other, id})
	}
}

// equal waits until all replicas are in sync and have equal logs.
func (w *world) equal(topic string) {
	w.t.Helper()
	w.await("all replicas in sync", w.whole)
	w.await("equal logs", func() bool {
		img, _ := w.image().Partition(topic, 0)
		var first []byte
		for i, id := range img.Replicas {
			p := w.on(id, topic)
			at := p.Progress()
			var all []byte
			for from := at.Start; from < at.End; {
				r, err := p.log.Read(from, math.MaxInt32, at.End, true)
				if err != nil {
					w.t.Fatal(err)
				}
				all, err = r.AppendTo(all)
				if err = errors.Join(err, r.Close()); err != nil {
					w.t.Fatal(err)
				}
				from = r.Next
			}
			if i == 0 {
				first = all
			} else if !slices.Equal(first, all) {
				return false
			}
		}
		return true
	})
}

// TestTrap01TruncatesByEpochNotByWatermark: a follower that restarts, and knows of a watermark far below what is
// committed, keeps what it has; were it to cut its log there and then lead, committed records would be gone.
func TestTrap01TruncatesByEpochNotByWatermark(t *testing.T) {
	topics := []worldTopic{{name: "orders", id: 1, numbers: 1, on: []int32{1, 2}, configs: map[string]string{"min.insync.replicas": "2"}}}
	inWorld(t, 1, topics, func(t *testing.T, w *world) {
		w.awaitLeader("orders", 1).append(t, 100)
		kill := func(d *disk.Mem) *disk.Mem { return d.Kill() }
		w.nodes[1].end(kill)
		w.await("fencing", func() bool { return w.unfenced() == 2 })
		// It comes back and follows, and is kept from fetching until it leads.
		w.setCut(true, [2]int32{1, 2}, [2]int32{2, 1})
		w.nodes[1].start()
		w.await("its return", func() bool { return w.unfenced() == 3 })
		<-time.After(time.Second)
		w.nodes[0].end(kill)
		p := w.awaitLeader("orders", 2)
		if at := p.Progress(); at.End != 100 {
			t.Fatalf("the second replica leads with %+v", at)
		}
		w.setCut(false, [2]int32{1, 2}, [2]int32{2, 1})
		w.nodes[0].start()
		w.equal("orders")
		if at := p.Progress(); at.End != 100 || at.HighWatermark != 100 {
			t.Fatalf("%+v", at)
		}
	})
}

// TestTrap02FastDoubleFailover: two leaders in a row leave records behind that nobody acknowledged. Both come back to
// the third one's history, in either order, whoever leads then.
func TestTrap02FastDoubleFailover(t *testing.T) {
	for seed := range uint64(20) {
		topics := []worldTopic{{name: "orders", id: 1, numbers: 1, configs: map[string]string{"min.insync.replicas": "1"}}}
		inWorld(t, seed, topics, func(t *testing.T, w *world) {
			first := w.awaitLeader("orders", 1)
			first.append(t, 10)
			w.isolate(1, true)
			write(t, first, 1+w.dice.IntN(5))
			second := w.awaitLeader("orders", 2)
			w.isolate(2, true)
			write(t, second, 1+w.dice.IntN(5))
			third := w.awaitLeader("orders", 3)
			w.await("the third to be alone", func() bool { return len(third.InSync()) == 1 })
			a := third.append(t, 1+w.dice.IntN(5))
			if w.dice.IntN(2) == 0 {
				w.isolate(2, false)
				w.isolate(1, false)
			} else {
				w.isolate(1, false)
				w.isolate(2, false)
			}
			w.equal("orders")
			if at := third.Progress(); at.End < a.Next || third.log.EpochAt(a.First) != 2 {
				t.Fatalf("seed %d: %+v, offset %d is of epoch %d", seed, at, a.First, third.log.EpochAt(a.First))
			}
		})
	}
}

// TestTrap02UnknownEpochsAreRejected: a leader does not answer a follower of another epoch, nor one whose last record
// is of an epoch that it has never heard of, as if it knew.
func TestTrap02UnknownEpochsAreRejected(t *testing.T) {
	inWorld(t, 3, []worldTopic{{name: "orders", id: 1, numbers: 1}}, func(t *testing.T, w *world) {
		p := w.awaitLeader("orders", 1)
		p.append(t, 10)
		life, _ := p.m.registered(2)
		for _, c := range []struct {
			a    ask
			code answerCode
		}{
			{ask{epoch: 1, lastEpoch: 0, end: 10}, answerUnknown},
			{ask{epoch: 0, lastEpoch: 0, end: 10}, answerOK},
		} {
			if got := p.fetched(2, life, &c.a); got.code != c.code || got.flags != 0 {
				t.Errorf("%+v: %+v", c.a, got)
			}
		}
		for _, c := range []ask{{lastEpoch: 0, end: 11}, {lastEpoch: 5, end: 10}} {
			before := *p.mu.role.(*leading).follower(2)
			if got := p.fetched(2, life, &c); got.flags != partDiverged {
				t.Errorf("%+v: %+v", c, got)
			}
			if after := *p.mu.role.(*leading).follower(2); after != before {
				t.Errorf("%+v counts: %+v", c, after)
			}
		}
		if got := p.fetched(7, 1, &ask{lastEpoch: 0, end: 10}); got.code != answerUnknown {
			t.Errorf("somebody who has no replica: %+v", got)
		}
	})
}

// TestTrap05RebootedFollowerDoesNotJoin: what a follower said before it lost its disk does not put it back into the
// in-sync replicas, and the leader counts it for nothing until it has everything again.
func TestTrap05RebootedFollowerDoesNotJoin(t *testing.T) {
	topics := []worldTopic{{name: "orders", id: 1, numbers: 1, configs: map[string]string{"min.insync.replicas": "2"}}}
	inWorld(t, 5, topics, func(t *testing.T, w *world) {
		p := w.awaitLeader("orders", 1)
		p.append(t, 50)
		old, _ := p.m.registered(3)
		w.nodes[2].end(func(d *disk.Mem) *disk.Mem {
			d.Kill()
			fresh := disk.NewMem()
			fresh.SetFault(w.nodes[2].fault)
			return fresh
		})
		w.setCut(true, [2]int32{3, 1}) // it comes back, and cannot copy yet
		w.nodes[2].start()
		w.await("its registration", func() bool { life, _ := p.m.registered(3); return life > old })
		w.await("its fence to fall", func() bool { return w.unfenced() == brokers })
		late := ask{epoch: 0, lastEpoch: 0, end: 50, flushed: 50}
		p.fetched(3, old, &late) // said before, by the process that is gone
		<-time.After(time.Second)
		if isr := p.InSync(); slices.Contains(isr, 3) {
			t.Fatalf("in-sync replicas %v", isr)
		}
		w.setCut(false, [2]int32{3, 1})
		w.equal("orders")
	})
}

// TestTrap09DamagedReplicas: a replica in which a bit has flipped serves nothing past it, is not counted on, and is
// made whole from its peers: a follower fetches the records again, a leader hands over first.
func TestTrap09DamagedReplicas(t *testing.T) {
	for name, victim := range map[string]int32{"leader": 1, "follower": 2} {
		t.Run(name, func(t *testing.T) {
			topics := []worldTopic{{name: "orders", id: 1, numbers: 1, configs: map[string]string{"min.insync.replicas": "2"}}}
			inWorld(t, 9, topics, func(t *testing.T, w *world) {
				p := w.awaitLeader("orders", 1)
				for range 20 {
					p.append(t, 1)
				}
				w.await("copies", func() bool {
					return w.on(2, "orders").Progress().HighWatermark == 20 && w.on(3, "orders").Progress().HighWatermark == 20
				})
				before := whatIs(t, p)
				if err := w.nodes[victim-1].disk.FlipBit("/data/orders-0/00000000000000000000.log", 500, 2); err != nil {
					t.Fatal(err)
				}
				r := w.on(victim, "orders")
				res, err := r.ReadHere(0, -1, 1<<20, true, ReadUncommitted)
				if err != nil {
					t.Fatal(err)
				}
				if _, err = res.Records.AppendTo(nil); !errors.Is(err, commitlog.ErrCorrupt) {
					t.Fatalf("the flipped bit was read as %v", err)
				}
				_ = res.Records.Close()
				if victim == 1 {
					w.awaitLeader("orders", 2, 3)
				}
				w.await("a whole log", func() bool { _, damaged := r.log.Damaged(); return !damaged })
				w.equal("orders")
				if after := whatIs(t, w.on(victim, "orders")); !slices.Equal(before, after) {
					t.Fatal("the records are others now")
				}
			})
		})
	}
}

// whatIs reads all that is committed.
func whatIs(t testing.TB, p *Partition) []byte {
	t.Helper()
	at := p.Progress()
	r, err := p.log.Read(at.Start, math.MaxInt32, at.HighWatermark, true)
	if err != nil {
		t.Fatal(err)
	}
	data, err := r.AppendTo(nil)
	if err = errors.Join(err, r.Close()); err != nil {
		t.Fatal(err)
	}
	return data
}

// TestTrap09CorruptBatchIsRefused: what arrives broken is not written, and fetched again.
func TestTrap09CorruptBatchIsRefused(t *testing.T) {
	inWorld(t, 10, []worldTopic{{name: "orders", id: 1, numbers: 1}}, func(t *testing.T, w *world) {
		p := w.awaitLeader("orders", 1)
		w.garble.Store(5)
		p.append(t, 10)
		p.append(t, 10)
		if left := w.garble.Load(); left > 0 {
			t.Fatalf("%d answers have not been garbled", left)
		}
		w.equal("orders")
		for id := int32(2); id <= brokers; id++ {
			if _, damaged := w.on(id, "orders").log.Damaged(); damaged || w.on(id, "orders").Progress().End != 20 {
				t.Errorf("node %d: damaged %v, %+v", id, damaged, w.on(id, "orders").Progress())
			}
		}
	})
}

// TestTrap12NearestReplicaIsCaughtUp: a consumer is sent to a follower in its rack only if that is in sync and has the
// offset; and a follower serves no more than it knows to be committed.
func TestTrap12NearestReplicaIsCaughtUp(t *testing.T) {
	racks := map[int32]string{1: "a", 2: "b", 3: "b"}
	rackOf := func(id int32) (string, bool) { r, ok := racks[id]; return r, ok }
	at := commitlog.Progress{HighWatermark: 100, Flushed: 120, End: 120}
	two := follower{id: 2, inSync: true, end: 110, flushed: 105}
	three := follower{id: 3, inSync: true, end: 115, flushed: 100}
	for name, c := range map[string]struct {
		change func(two, three *follower)
		rack   string
		offset int64
		want   int32
	}{
		"the one that has most":    {func(_, _ *follower) {}, "b", 50, 3},
		"one has it on disk":       {func(_, _ *follower) {}, "b", 104, 2},
		"nobody has it yet":        {func(_, _ *follower) {}, "b", 110, 1},
		"the leader is as near":    {func(_, _ *follower) {}, "a", 50, 1},
		"no rack":                  {func(_, _ *follower) {}, "", 50, 1},
		"another rack":             {func(_, _ *follower) {}, "c", 50, 1},
		"one is out of sync":       {func(_, three *follower) { three.inSync = false }, "b", 50, 2},
		"one lags":                 {func(_, three *follower) { three.flushed = 99 }, "b", 50, 2},
		"one has not reported yet": {func(two, three *follower) { two.flushed = -1; three.flushed = -1 }, "b", 0, 1},
	} {
		l := &leading{followers: []follower{two, three}}
		c.change(&l.followers[0], &l.followers[1])
		if got := l.nearest(1, c.rack, c.offset, at, true, rackOf); got != c.want {
			t.Errorf("%s: broker %d, want %d", name, got, c.want)
		}
	}
	inWorld(t, 12, []worldTopic{{name: "orders", id: 1, numbers: 1}}, func(t *testing.T, w *world) {
		p := w.awaitLeader("orders", 1)
		a := p.append(t, 10)
		near := w.on(2, "orders")
		w.await("the watermark", func() bool { return near.Progress().HighWatermark == a.Next })
		r, err := near.ReadHere(0, 0, 1<<20, true, ReadUncommitted)
		if err != nil || r.Records.Next != 10 {
			t.Fatal(r, err)
		}
		_ = r.Records.Close()
		if _, err := near.ReadHere(11, 0, 1<<20, true, ReadUncommitted); !errors.Is(err, ErrOffsetNotAvailable) {
			t.Fatal(err)
		}
		if _, err := near.ReadHere(0, 1, 1<<20, true, ReadUncommitted); !errors.Is(err, ErrUnknownEpoch) {
			t.Fatal(err)
		}
		if _, err := near.Read(0, -1, 1<<20, true, ReadUncommitted); !errors.Is(err, ErrNotLeader) {
			t.Fatal(err)
		}
	})
}

// TestTrap14RetriesAcrossLeaders: a batch that was committed, but whose producer never heard of it, is known to the next
// leader: sent again it is answered with its place, and not written twice.
func TestTrap14RetriesAcrossLeaders(t *testing.T) {
	topics := []worldTopic{{name: "orders", id: 1, numbers: 1, configs: map[string]string{"min.insync.replicas": "2"}}}
	inWorld(t, 14, topics, func(t *testing.T, w *world) {
		p := w.awaitLeader("orders", 1)
		b := batch.NewBuilder(batch.BuilderOptions{})
		send := func(p *Partition, sequence int32) commitlog.Appended {
			b.Reset()
			b.SetProducer(77, 0, sequence, false)
			b.Append(time.Now().UnixMilli(), nil, []byte("value"), nil)
			built, err := b.Build()
			if err != nil {
				t.Fatal(err)
			}
			a, err := p.Append(built, true, time.Now().UnixMilli())
			if err == nil {
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
				defer cancel()
				err = p.AwaitCommitted(ctx, a.Next, a.LeaderEpoch)
			}
			if err != nil {
				t.Fatal(err)
			}
			return a
		}
		for sequence := range int32(8) {
			first := send(p, sequence)
			id := p.m.o.NodeID
			w.nodes[id-1].end(func(d *disk.Mem) *disk.Mem { return d.Kill() })
			others := slices.DeleteFunc([]int32{1, 2, 3}, func(o int32) bool { return o == id })
			p = w.awaitLeader("orders", others...)
			if again := send(p, sequence); !again.Duplicate || again.First != first.First {
				t.Fatalf("sequence %d was at %d, sent again %+v", sequence, first.First, again)
			}
			w.nodes[id-1].start()
			w.equal("orders")
		}
		if end := p.Progress().End; end != 8 {
			t.Fatalf("the log has %d records", end)
		}
	})
}

// TestTrap21TombstonesWaitForEveryReplica: compaction may drop a tombstone only when it is on the disk of every replica
// that the partition has, on whichever broker it runs; one that is away holds it back, in sync or not.
func TestTrap21TombstonesWaitForEveryReplica(t *testing.T) {
	topics := []worldTopic{{name: "orders", id: 1, numbers: 1, configs: map[string]string{"cleanup.policy": "compact"}}}
	inWorld(t, 21, topics, func(t *testing.T, w *world) {
		p := w.awaitLeader("orders", 1)
		p.append(t, 10)
		w.await("everybody to have it", func() bool {
			for id := int32(1); id <= brokers; id++ {
				if w.on(id, "orders").log.TombstonesRetainedFrom() < 10 {
					p.append(t, 1) // what is everywhere comes with the next answer
					return false
				}
			}
			return true
		})
	})
	inWorld(t, 22, topics, func(t *testing.T, w *world) {
		p := w.awaitLeader("orders", 1)
		p.append(t, 10)
		w.equal("orders")
		w.isolate(3, true)
		w.await("it to be out", func() bool { return len(p.InSync()) == 2 })
		for range 30 {
			p.append(t, 10)
			<-time.After(100 * time.Millisecond)
			for id := int32(1); id <= 2; id++ {
				if from := w.on(id, "orders").log.TombstonesRetainedFrom(); from > 10 {
					t.Fatalf("node %d would drop tombstones up to %d, node 3 has 10 records", id, from)
				}
			}
		}
		w.isolate(3, false)
		w.equal("orders")
		w.await("all to be passed", func() bool { return p.log.TombstonesRetainedFrom() == p.Progress().End })
	})
	inWorld(t, 23, []worldTopic{{name: "alone", id: 1, numbers: 1, on: []int32{2}}}, func(t *testing.T, w *world) {
		p := w.awaitLeader("alone", 2)
		p.append(t, 1)
		if from := p.log.TombstonesRetainedFrom(); from != math.MaxInt64 {
			t.Fatalf("a replica without others holds tombstones from %d on", from)
		}
	})
}

// TestNotEnoughReplicas: before the append, and after it when replicas leave while the producer waits; what was written
// is committed once they are back.
func TestNotEnoughReplicas(t *testing.T) {
	topics := []worldTopic{{name: "orders", id: 1, numbers: 1, configs: map[string]string{"min.insync.replicas": "2"}}}
	inWorld(t, 2, topics, func(t *testing.T, w *world) {
		p := w.awaitLeader("orders", 1)
		p.append(t, 1)
		w.isolate(2, true)
		w.isolate(3, true)
		a, err := p.Append(records(1), true, time.Now().UnixMilli())
		if err != nil {
			t.Fatal(err)
		}
		if err := p.AwaitCommitted(t.Context(), a.Next, a.LeaderEpoch); !errors.Is(err, ErrNotEnoughReplicasAfterAppend) || !errors.Is(err, ErrNotEnoughReplicas) {
			t.Fatal(err)
		}
		if _, err := p.Append(records(1), true, time.Now().UnixMilli()); !errors.Is(err, ErrNotEnoughReplicas) || errors.Is(err, ErrNotEnoughReplicasAfterAppend) {
			t.Fatal(err)
		}
		if p.Committed(a.Next, a.LeaderEpoch) {
			t.Fatal("committed below min.insync.replicas")
		}
		w.isolate(2, false)
		w.isolate(3, false)
		w.await("the commit", func() bool { return p.Committed(a.Next, a.LeaderEpoch) })
	})
}

// TestWipedReplicaOfALogThatBeginsInsideABatch: where records were deleted by offset the leader's log begins inside a batch,
// and so do those that are copied anew.
func TestWipedReplicaOfALogThatBeginsInsideABatch(t *testing.T) {
	inWorld(t, 4, []worldTopic{{name: "orders", id: 1, numbers: 1}}, func(t *testing.T, w *world) {
		p := w.awaitLeader("orders", 1)
		p.append(t, 10)
		p.append(t, 10)
		if _, err := p.DeleteRecords(t.Context(), 15); err != nil {
			t.Fatal(err)
		}
		w.nodes[2].end(func(d *disk.Mem) *disk.Mem {
			d.Kill()
			fresh := disk.NewMem()
			fresh.SetFault(w.nodes[2].fault)
			return fresh
		})
		w.nodes[2].start()
		w.equal("orders")
		w.await("the start", func() bool {
			return w.on(2, "orders").Progress().Start == 15 && w.on(3, "orders").Progress().Start == 15
		})
	})
}

var _ metadata.Publisher = (*Manager)(nil)

// TestTrap14AnotherRecordAtTheOffsetIsNoAcknowledgement: a producer's request that was held up between its append and its
// answer, while another leader wrote its own records at these offsets, is not told that its records are committed: neither
// while this broker follows nor when it leads again. One whose records did survive is.
func TestTrap14AnotherRecordAtTheOffsetIsNoAcknowledgement(t *testing.T) {
	topics := []worldTopic{{name: "orders", id: 1, numbers: 1, configs: map[string]string{"min.insync.replicas": "2"}}}
	inWorld(t, 15, topics, func(t *testing.T, w *world) {
		first := w.awaitLeader("orders", 1)
		kept := first.append(t, 10)
		w.isolate(1, true)
		lost, err := first.Append(records(1), true, time.Now().UnixMilli())
		if err != nil {
			t.Fatal(err)
		}
		second := w.awaitLeader("orders", 2, 3)
		second.append(t, 20)
		w.isolate(1, false)
		w.equal("orders")
		w.await("the watermark", func() bool { return first.Progress().HighWatermark >= lost.Next })
		check := func(when string) {
			t.Helper()
			if first.Committed(lost.Next, lost.LeaderEpoch) {
				t.Errorf("%s what was cut counts as committed", when)
			}
			if err := first.AwaitCommitted(t.Context(), lost.Next, lost.LeaderEpoch); !errors.Is(err, ErrNotLeader) {
				t.Errorf("%s the wait for what was cut ends with %v", when, err)
			}
			if err := first.AwaitCommitted(t.Context(), kept.Next, kept.LeaderEpoch); err != nil {
				t.Errorf("%s the wait for what was committed ends with %v", when, err)
			}
		}
		check("while it follows")
		for id := int32(2); id <= brokers; id++ {
			w.isolate(id, true)
		}
		w.await("the others to be fenced", func() bool { return w.unfenced() == 1 })
		for id := int32(2); id <= brokers; id++ {
			w.isolate(id, false)
		}
		if first = w.awaitLeader("orders", 1, 2, 3); first.m.o.NodeID != 1 {
			t.Fatalf("broker %d leads", first.m.o.NodeID)
		}
		check("while it leads again")
	})
}

// TestTrap09DamageOnAStandbyIsNotCutWhileItMayBeElected: a replica that may be elected although it is not in sync, with
// a watermark of long ago, finds itself damaged. It keeps what it has until the controller knows: were it to
// cut its log and then be elected, the leader that was fenced meanwhile would cut what is committed.
func TestTrap09DamageOnAStandbyIsNotCutWhileItMayBeElected(t *testing.T) {
	topics := []worldTopic{{name: "orders", id: 1, numbers: 1, configs: map[string]string{"min.insync.replicas": "2"}}}
	inWorld(t, 19, topics, func(t *testing.T, w *world) {
		p := w.awaitLeader("orders", 1)
		for range 20 {
			p.append(t, 1)
		}
		w.equal("orders")
		before := whatIs(t, p)
		for id := 3; id >= 2; id-- {
			w.nodes[id-1].end(func(d *disk.Mem) *disk.Mem { return d.Kill() })
			w.await("its fence", func() bool { return w.unfenced() == id-1 })
		}
		if img, _ := w.image().Partition("orders", 0); !slices.Equal(img.ISR, []int32{1}) || !slices.Equal(img.ELR, []int32{2}) {
			t.Fatalf("%+v", img)
		}
		links := [][2]int32{{1, 2}, {2, 1}}
		w.setCut(true, links...)
		w.nodes[1].start()
		w.await("its return", func() bool { return w.unfenced() == 2 })
		<-time.After(time.Second)
		if err := w.nodes[1].disk.FlipBit("/data/orders-0/00000000000000000000.log", 500, 2); err != nil {
			t.Fatal(err)
		}
		standby := w.on(2, "orders")
		r, err := standby.log.Read(0, 1<<20, standby.Progress().End, true)
		if err != nil {
			t.Fatal(err)
		}
		if _, err = r.AppendTo(nil); !errors.Is(err, commitlog.ErrCorrupt) {
			t.Fatalf("the flipped bit was read as %v", err)
		}
		_ = r.Close()
		<-time.After(2 * time.Second)
		w.setCut(true, [2]int32{1, controllerID}, [2]int32{controllerID, 1})
		w.awaitLeader("orders", 2)
		<-time.After(2 * time.Second)
		w.isolate(1, false)
		w.nodes[2].start()
		w.equal("orders")
		for id := int32(1); id <= brokers; id++ {
			if after := whatIs(t, w.on(id, "orders")); !slices.Equal(before, after) {
				t.Errorf("node %d has %d bytes of records, %d were acknowledged", id, len(after), len(before))
			}
		}
	})
}

// TestFailedDirectoryAsksForNothing: a follower whose directory is offline does not have its leader send, again and
// again, what it cannot take.
func TestFailedDirectoryAsksForNothing(t *testing.T) {
	topics := []worldTopic{{name: "orders", id: 1, numbers: 1, configs: map[string]string{"min.insync.replicas": "2"}}}
	inWorld(t, 8, topics, func(t *testing.T, w *world) {
		p := w.awaitLeader("orders", 1)
		p.append(t, 1)
		w.equal("orders")
		w.nodes[2].disk.SetFault(failFlushes)
		p.append(t, 1)
		w.await("the directory to fail", func() bool { return w.on(3, "orders").log.Dir().Offline() != nil })
		w.await("it to leave", func() bool { return len(p.InSync()) == 2 })
		before := w.carried.Load()
		const batches = 20
		for range batches {
			p.append(t, 100)
		}
		<-time.After(time.Minute)
		size := p.log.Size()
		if got := w.carried.Load() - before; got > 2*size {
			t.Errorf("%d bytes have been sent for a log of %d that one follower can take", got, size)
		}
	})
}

// TestSessionThatIsOverLeavesNoTaps: a fetch that is taken while the follower begins another session leaves nothing behind
// at the partitions.
func TestSessionThatIsOverLeavesNoTaps(t *testing.T) {
	inWorld(t, 16, []worldTopic{{name: "orders", id: 1, numbers: 1, on: []int32{1, 2}}}, func(t *testing.T, w *world) {
		p := w.awaitLeader("orders", 1)
		p.append(t, 1)
		w.equal("orders")
		taps := len(*p.taps.Load())
		life, _ := p.m.registered(3)
		over := p.m.newFeed(3, life, 1)
		_ = p.m.newFeed(3, life, 2)
		over.request = fetchRequest{asks: []ask{{slot: 1, flags: askNamed, topic: p.topicID, lastEpoch: -1}}}
		over.take()
		if now := len(*p.taps.Load()); now != taps {
			t.Fatalf("%d taps, %d before", now, taps)
		}
	})
}

// TestTrap05WordOfTheDiskHoldsForItsSession: what a follower said of its disk in a session that is over, in another life, or
// under a slot that it has given up, arrives late and counts for nothing.
func TestTrap05WordOfTheDiskHoldsForItsSession(t *testing.T) {
	topics := []worldTopic{{name: "orders", id: 1, numbers: 1, on: []int32{1, 2}, configs: map[string]string{"min.insync.replicas": "1"}}}
	inWorld(t, 25, topics, func(t *testing.T, w *world) {
		p := w.awaitLeader("orders", 1)
		p.append(t, 10)
		w.equal("orders")
		w.setCut(true, [2]int32{2, 1}) // from here on the test speaks for it
		<-time.After(time.Second)
		write(t, p, 10)
		life, _ := p.m.registered(2)
		begin := func(slot uint32) *feed {
			f := p.m.newFeed(2, life, p.m.feed(2).latest.Load()+1)
			f.request = fetchRequest{asks: []ask{{slot: slot, flags: askNamed, topic: p.topicID, end: 10, flushed: 10, lastEpoch: 0}}}
			f.take()
			return f
		}
		before := begin(1)
		now := begin(1)
		says := func(session uint64, life int64, slot uint32) int64 {
			msg := flushedMessage{session: session, brokerEpoch: life, places: []flushedPlace{{slot: slot, flushed: 15}}}
			if _, _, err := p.m.Serve(2, KindFlushed, msg.append(nil)); err != nil {
				t.Fatal(err)
			}
			p.mu.Lock()
			defer p.mu.Unlock()
			return p.mu.role.(*leading).follower(2).flushed
		}
		for what, got := range map[string]int64{
			"an older session": says(before.session, life, 1), "another life": says(now.session, life-1, 1), "another slot": says(now.session, life, 2),
		} {
			if got != 10 {
				t.Errorf("%s has %d on disk", what, got)
			}
		}
		now.request = fetchRequest{gone: []uint32{1}}
		now.take()
		if got := says(now.session, life, 1); got != 10 {
			t.Errorf("a slot that was given up has %d on disk", got)
		}
		if f := begin(1); says(f.session, life, 1) != 15 {
			t.Error("the session that is open is not believed")
		}
		w.setCut(false, [2]int32{2, 1})
	})
}

// TestRefusedLogsSayNothingOfTheirDisk: until the leader has found a log to be a part of its own, what the disk has of it
// is not told: it may be of another history, or damaged.
func TestRefusedLogsSayNothingOfTheirDisk(t *testing.T) {
	for name, n := range map[string]*pull{"refused": {slot: 1}, "damaged": {slot: 2, damaged: true}, "over": {slot: 2, ended: true}} {
		f := newFetcher(nil, 1)
		n.valid = true // as it was before
		f.asked = []*pull{n}
		if f.validate(map[uint32]bool{1: true}); n.valid {
			t.Errorf("%s: believed", name)
		}
	}
}
