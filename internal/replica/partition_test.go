package replica

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"barnabas/internal/commitlog"
	"barnabas/internal/disk"
	"barnabas/internal/faketime"
	"barnabas/internal/metadata"
)

func setting(kind metadata.ResourceKind, name, key, value string) *metadata.ConfigRecord {
	return &metadata.ConfigRecord{Kind: int32(kind), Name: name, Key: key, Value: &value}
}

// TestDurableTopicCommitsWithTheDisk: in a durable topic nothing is committed before it is on disk;
// in others at once; a topic that stops being durable commits what waited.
func TestDurableTopicCommitsWithTheDisk(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		b := newBroker(t, disk.NewMem(), "/data")
		b.register(incarnation)
		b.create("durable", 1)
		b.commit(topicRecord("cached", 2), partitionRecord(2, 0, metadata.UnassignedDirectory), setting(metadata.TopicResource, "cached", "flush.before.ack", "false"))
		durable, cached := b.partition("durable"), b.partition("cached")
		durable.append(t, 1)
		cached.append(t, 1)
		stall := make(chan struct{})
		b.disk.SetFault(stallFlushes(stall))
		now := time.Now().UnixMilli()
		one, err1 := durable.Append(records(2), true, now)
		two, err2 := cached.Append(records(2), true, now)
		if err1 != nil || err2 != nil {
			t.Fatal(err1, err2)
		}
		synctest.Wait()
		if durable.Committed(one.Next, one.LeaderEpoch) || !durable.Committed(one.First, one.LeaderEpoch) || !cached.Committed(two.Next, two.LeaderEpoch) {
			t.Fatalf("durable %+v, cached %+v", durable.Progress(), cached.Progress())
		}
		limited, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := durable.AwaitCommitted(limited, one.Next, one.LeaderEpoch); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		if n := len(durable.mu.waiters); n != 0 {
			t.Fatalf("%d waiters are left behind", n)
		}
		done := make(chan error, 1)
		go func() { done <- durable.AwaitCommitted(t.Context(), one.Next, one.LeaderEpoch) }()
		synctest.Wait()
		b.commit(setting(metadata.TopicResource, "durable", "flush.before.ack", "false"))
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		b.disk.SetFault(nil)
		close(stall)
	})
}

// TestWaitersAreLetGo: by the deletion of the topic, by an election, by the failure of the directory.
func TestWaitersAreLetGo(t *testing.T) {
	for name, c := range map[string]struct {
		event func(b *broker, stall chan struct{})
		want  error
	}{
		"deleted": {func(b *broker, _ chan struct{}) { b.commit(&metadata.TopicRemovalRecord{TopicId: topicID(1).Bytes()}) }, ErrNotLeader},
		"elected": {func(b *broker, _ chan struct{}) {
			b.commit(&metadata.PartitionChangeRecord{TopicId: topicID(1).Bytes(), Leader: new(int32(1))})
		}, ErrNotLeader},
		"lost": {func(b *broker, _ chan struct{}) {
			b.commit(&metadata.PartitionChangeRecord{TopicId: topicID(1).Bytes(), Leader: new(int32(-1))})
		}, ErrNotLeader},
		"failed": {func(b *broker, stall chan struct{}) { b.disk.SetFault(failFlushes); close(stall) }, commitlog.ErrOffline},
	} {
		t.Run(name, func(t *testing.T) {
			faketime.Test(t, func(t *testing.T) {
				b := newBroker(t, disk.NewMem(), "/data")
				b.register(incarnation)
				b.create("orders", 1)
				p := b.partition("orders")
				p.append(t, 1)
				stall := make(chan struct{})
				b.disk.SetFault(func(op disk.Op) error {
					if err := stallFlushes(stall)(op); err != nil || name != "failed" {
						return err
					}
					return failFlushes(op)
				})
				done := p.send(t, 3)
				w := NewWatch()
				p.Watch(w, 5)
				synctest.Wait()
				if n := len(p.mu.waiters); n != 3 {
					t.Fatalf("%d waiters", n)
				}
				if name == "deleted" {
					go func() { time.Sleep(time.Second); close(stall) }() // removing files waits for the flush under way
				}
				c.event(b, stall)
				for range 3 {
					if err := <-done; !errors.Is(err, c.want) {
						t.Fatalf("%v, want %v", err, c.want)
					}
				}
				if keys := w.Take(); !slices.Equal(keys, []int{5}) {
					t.Fatalf("readers were told of %v", keys)
				}
				p.Unwatch(w)
				if n := len(p.mu.waiters) + p.Watches(); n != 0 {
					t.Fatalf("%d are left behind", n)
				}
				if name == "elected" || name == "lost" {
					b.disk.SetFault(nil)
					close(stall)
				}
			})
		})
	}
}

// TestTrap06MinISRIsLoweredToTheReplicas: asking for two in-sync replicas of one is asking for one,
// as in Kafka; with two replicas of which one is in sync it refuses acks=all and writes nothing.
func TestTrap06MinISRIsLoweredToTheReplicas(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		b := newBroker(t, disk.NewMem(), "/data")
		b.register(incarnation)
		b.create("orders", 1)
		b.commit(setting(metadata.TopicResource, "orders", "min.insync.replicas", "2"))
		p := b.partition("orders")
		p.append(t, 1)
		b.commit(topicRecord("two", 2), setting(metadata.TopicResource, "two", "min.insync.replicas", "2"), &metadata.PartitionRecord{
			TopicId: topicID(2).Bytes(), Replicas: []int32{1, 2}, Isr: []int32{1}, Leader: 1,
			Directories: [][]byte{metadata.UnassignedDirectory.Bytes(), metadata.UnassignedDirectory.Bytes()},
		})
		two := b.partition("two")
		if _, err := two.Append(records(1), true, 0); !errors.Is(err, ErrNotEnoughReplicas) {
			t.Fatal(err)
		}
		if end := two.Progress().End; end != 0 {
			t.Fatalf("a refused append wrote up to %d", end)
		}
		if _, err := two.Append(records(1), false, time.Now().UnixMilli()); err != nil {
			t.Fatalf("acks=1: %v", err)
		}
	})
}

// TestEpochs: a caller with another epoch than the leader's is refused by name, and the end of an
// epoch is where the next began, also before anything was written in it.
func TestEpochs(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		b := newBroker(t, disk.NewMem(), "/data")
		b.register(incarnation)
		b.create("orders", 1)
		p := b.partition("orders")
		p.append(t, 3)
		b.commit(&metadata.PartitionChangeRecord{TopicId: topicID(1).Bytes(), Leader: new(int32(1))})
		for caller, want := range map[int32]error{-1: nil, 0: ErrFencedEpoch, 1: nil, 2: ErrUnknownEpoch} {
			if _, err := p.LeaderEpoch(caller); !errors.Is(err, want) {
				t.Errorf("epoch %d: %v", caller, err)
			}
			if _, err := p.Read(0, caller, 1000, true, ReadUncommitted); !errors.Is(err, want) {
				t.Errorf("read in epoch %d: %v", caller, err)
			}
		}
		p.append(t, 1)
		if found, end, err := p.EpochEnd(0, 1); found != 0 || end != 3 || err != nil {
			t.Errorf("epoch 0 ended at %d of %d: %v", end, found, err)
		}
		if found, end, err := p.EpochEnd(1, -1); found != 1 || end != 4 || err != nil {
			t.Errorf("epoch 1 ends at %d of %d: %v", end, found, err)
		}
		if latest := p.Log().LatestEpoch(); latest != 1 {
			t.Errorf("the log's latest epoch is %d", latest)
		}
	})
}

// TestReadBounds: nothing outside of the log, nothing that is not committed.
func TestReadBounds(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		b := newBroker(t, disk.NewMem(), "/data")
		b.register(incarnation)
		b.create("orders", 1)
		p := b.partition("orders")
		p.append(t, 5)
		p.append(t, 5)
		stall := make(chan struct{})
		b.disk.SetFault(stallFlushes(stall))
		if _, err := p.Append(records(5), false, time.Now().UnixMilli()); err != nil {
			t.Fatal(err)
		}
		if _, err := p.DeleteRecords(t.Context(), 5); err != nil {
			t.Fatal(err)
		}
		for from := int64(-2); from < 18; from++ {
			r, err := p.Read(from, -1, 1<<20, true, ReadUncommitted)
			switch {
			case from < 5 || from > 15:
				if !errors.Is(err, ErrOffsetOutOfRange) || r.Progress.HighWatermark != 10 {
					t.Errorf("read at %d: %v %+v", from, err, r.Progress)
				}
			case err != nil || (r.Records.Len() > 0) != (from < 10) || r.Progress.Start != 5:
				t.Errorf("read at %d: %d bytes, %v, %+v", from, r.Records.Len(), err, r.Progress)
			}
			if err := r.Records.Close(); err != nil {
				t.Error(err)
			}
			if p.HasBeyond(from, ReadUncommitted) != (from < 10 || from > 15) {
				t.Errorf("beyond %d: %v", from, p.HasBeyond(from, ReadUncommitted))
			}
		}
		if _, err := p.DeleteRecords(t.Context(), 11); !errors.Is(err, ErrOffsetOutOfRange) {
			t.Errorf("deleted what is not committed: %v", err)
		}
		b.disk.SetFault(nil)
		close(stall)
	})
}

// TestWaitersWakeInOrder: whatever order waiters come in, a move of the watermark wakes all that it
// satisfies and nobody else.
func TestWaitersWakeInOrder(t *testing.T) {
	for seed := range uint64(200) {
		dice := rand.New(rand.NewPCG(seed, 1))
		var ws waiters
		all := map[*waiter]bool{}
		for range 200 {
			switch dice.IntN(4) {
			case 0:
				reached := dice.Int64N(100)
				for _, w := range ws.take(reached) {
					if w.need > reached || !all[w] {
						t.Fatalf("seed %d: one that needs %d woke at %d", seed, w.need, reached)
					}
					delete(all, w)
				}
				for w := range all {
					if w.need <= reached {
						t.Fatalf("seed %d: one that needs %d sleeps at %d", seed, w.need, reached)
					}
				}
			case 1:
				for w := range all {
					ws.remove(w)
					delete(all, w)
					break
				}
			default:
				w := &waiter{need: dice.Int64N(100)}
				ws.add(w)
				all[w] = true
			}
			if len(ws) != len(all) || !slices.IsSortedFunc(ws, func(a, b *waiter) int { return int(a.need - b.need) }) {
				t.Fatalf("seed %d: %d waiters of %d, or not in order", seed, len(ws), len(all))
			}
		}
	}
}

// TestManyWaitersAtOnce: appends and waits side by side, under the race detector too; everyone is
// woken, and only when its records are on disk.
func TestManyWaitersAtOnce(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		b := newBroker(t, disk.NewMem(), "/data")
		b.register(incarnation)
		b.create("orders", 1)
		p := b.partition("orders")
		b.disk.SetFault(func(op disk.Op) error {
			if op.Kind == disk.OpSync {
				time.Sleep(time.Millisecond)
			}
			return nil
		})
		done := make(chan error, 8)
		for range 8 {
			go func() {
				for range 100 {
					a, err := p.Append(records(2), true, time.Now().UnixMilli())
					if err == nil {
						err = p.AwaitCommitted(t.Context(), a.Next, a.LeaderEpoch)
					}
					if at := p.Progress(); err == nil && (at.Flushed < a.Next || at.HighWatermark < a.Next) {
						err = errors.New("woken too early")
					}
					if err != nil {
						done <- err
						return
					}
				}
				done <- nil
			}()
		}
		for range 8 {
			if err := <-done; err != nil {
				t.Fatal(err)
			}
		}
		if at := p.Progress(); at.HighWatermark != 1600 || len(p.mu.waiters) != 0 {
			t.Fatalf("%+v, %d waiters", at, len(p.mu.waiters))
		}
	})
}

// TestLeadingOnKeepsWaiters: a change of the in-sync replicas in the same leader epoch makes
// nobody's wait void.
func TestLeadingOnKeepsWaiters(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		b := newBroker(t, disk.NewMem(), "/data")
		b.register(incarnation)
		b.create("orders", 1)
		p := b.partition("orders")
		stall := make(chan struct{})
		p.append(t, 1)
		b.disk.SetFault(stallFlushes(stall))
		done := p.send(t, 1)
		synctest.Wait()
		b.commit(&metadata.PartitionChangeRecord{TopicId: topicID(1).Bytes(), Isr: &metadata.Nodes{Ids: []int32{1}}})
		synctest.Wait()
		select {
		case err := <-done:
			t.Fatalf("let go before the flush: %v", err)
		default:
		}
		close(stall)
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	})
}

// Who is to join the in-sync replicas counts until the controller refuses; what waited for it alone is committed then, though nothing
// else happens in the partition.
func TestRefusedMemberHoldsNobodyUp(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		b := newBroker(t, disk.NewMem(), "/data")
		b.register(incarnation)
		b.create("orders", 1)
		p := b.partition("orders")
		p.mu.Lock()
		r := p.mu.role.(*leading)
		r.followers = append(r.followers, follower{id: 2, life: 20, joining: true})
		r.proposal = &proposal{ISRProposal: metadata.ISRProposal{LeaderEpoch: r.epoch, PartitionEpoch: r.partitionEpoch}, sending: true}
		asked := r.proposal.ISRProposal
		p.mu.Unlock()
		done := p.send(t, 1)
		synctest.Wait()
		select {
		case err := <-done:
			t.Fatalf("committed without who may have joined: %v", err)
		default:
		}
		p.settle(&asked, metadata.ISRIneligible, time.Now())
		synctest.Wait()
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
		default:
			t.Fatal("not committed, and nobody is left to wait for")
		}
	})
}
