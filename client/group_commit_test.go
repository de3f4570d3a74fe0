package client

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/internal/batch"
)

// A commit that is given up while it waits lets nobody pass the one that is being tried again: an older offset never
// overwrites a newer one.
func TestCommitThatIsGivenUpKeepsTheOrder(t *testing.T) {
	tp := TopicPartition{"t", 0}
	bubble(t, 1, func(t *testing.T, f *fakeCluster) {
		f.topic("t", 1)
		f.groups(quickGroups())
		f.script(func(_ int32, req kmsg.Request) interference {
			if q, ok := req.(*kmsg.OffsetCommitRequest); ok && q.Topics[0].Partitions[0].Offset == 1 && len(f.requests(8)) < 20 {
				return interference{code: int16(ErrCoordinatorLoadInProgress)}
			}
			return interference{}
		})
		a := f.member(t, NoAutoCommit())
		commit := func(ctx context.Context, offset int64) error {
			return a.g.CommitOffsets(ctx, map[TopicPartition]OffsetAndMetadata{tp: {Offset: offset}})
		}
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := commit(t.Context(), 1); err != nil {
				t.Errorf("the one that is tried again: %v", err)
			}
		})
		synctest.Wait()
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		wg.Go(func() {
			if err := commit(short, 2); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("the one that does not wait: %v", err)
			}
		})
		synctest.Wait()
		if err := commit(t.Context(), 3); err != nil {
			t.Errorf("the last: %v", err)
		}
		wg.Wait()
		if got, err := a.g.Committed(t.Context(), tp); err != nil || got[tp].Offset != 3 {
			t.Errorf("committed is %+v, %v", got, err)
		}
		leave(t, a)
	})
}

// leave ends members whose programs do not poll.
func leave(t *testing.T, members ...*testMember) {
	t.Helper()
	for _, m := range members {
		if err := m.g.Close(t.Context()); err != nil {
			t.Errorf("close: %v", err)
		}
		_ = m.c.Close()
	}
}

// What a partition's owner asked about the offset before it gave the partition up says nothing of where it goes on after it
// got it back: others may have read and committed in between.
func TestOffsetAskedForBeforeARebalanceIsNotTaken(t *testing.T) {
	tp := TopicPartition{"t", 0}
	bubble(t, 1, func(t *testing.T, f *fakeCluster) {
		f.topic("t", 1)
		f.groups(quickGroups())
		f.write(tp, batch.BuilderOptions{}, values(0, 9)...)
		a, other := f.member(t, NoAutoCommit()), f.member(t, NoAutoCommit())
		commit := func(offset int64) {
			if err := other.g.CommitOffsets(t.Context(), map[TopicPartition]OffsetAndMetadata{tp: {Offset: offset}}); err != nil {
				t.Fatal(err)
			}
		}
		commit(1)
		f.script(func(_ int32, req kmsg.Request) interference {
			if req.Key() == 9 && len(f.requests(9)) == 1 {
				return interference{edit: func(kmsg.Response) { time.Sleep(2 * time.Second) }} // what it says is old by then
			}
			return interference{}
		})
		a.g.k.own([]TopicPartition{tp}, nil)
		a.g.resolveCommitted()
		time.Sleep(time.Second)
		a.g.k.disown([]TopicPartition{tp})
		commit(5)
		a.g.k.own([]TopicPartition{tp}, nil)
		a.g.resolveCommitted()
		time.Sleep(5 * time.Second)
		if at, known := a.g.Position(tp); !known || at != 5 {
			t.Errorf("it goes on at %d (%v)", at, known)
		}
		leave(t, a, other)
	})
}

// A member that waits for a topic to be made does so no longer than it is there.
func TestClosedMemberLooksOutForNothing(t *testing.T) {
	bubble(t, 1, func(t *testing.T, f *fakeCluster) {
		f.groups(quickGroups())
		a := f.member(t, NoAutoCommit())
		if err := a.g.Subscribe("t"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		before := len(f.requests(3))
		if before < 3 {
			t.Errorf("%d requests for metadata while the topic does not exist", before)
		}
		if err := a.g.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second) // less than until the metadata is old
		if after := len(f.requests(3)); after != before {
			t.Errorf("%d more after it was closed", after-before)
		}
		_ = a.c.Close()
	})
}

// A caller who gives up says nothing about the coordinator: heartbeats go on to it.
func TestImpatientCallersKeepTheCoordinator(t *testing.T) {
	tp := TopicPartition{"t", 0}
	bubble(t, 1, func(t *testing.T, f *fakeCluster) {
		f.topic("t", 1)
		f.groups(quickGroups())
		a := f.join(t, NoAutoCommit())
		defer a.end()
		settle(t, a, 1)
		f.script(func(_ int32, req kmsg.Request) interference {
			if key := req.Key(); key == 8 || key == 9 {
				return interference{delay: 500 * time.Millisecond}
			}
			return interference{}
		})
		before := len(f.requests(10))
		for range 10 {
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			err := a.g.CommitOffsets(ctx, map[TopicPartition]OffsetAndMetadata{tp: {Offset: 1}})
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("commit: %v", err)
			}
			if _, err = a.g.Committed(ctx, tp); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("committed: %v", err)
			}
			cancel()
		}
		if asked := len(f.requests(10)) - before; asked > 0 {
			t.Errorf("the coordinator, which is well, was looked for %d times", asked)
		}
		f.script(nil)
	})
}

// Those who wait for a coordinator that cannot be found leave each other in peace: that one asks for it wakes no other. With
// one processor they otherwise took turns for ever.
func TestWhoWaitsForACoordinatorWakesNobody(t *testing.T) {
	bubble(t, 1, func(t *testing.T, f *fakeCluster) {
		c := f.client(Brokers("nowhere:9092"))
		g, err := c.NewGroupConsumer("g")
		if err != nil {
			t.Fatal(err)
		}
		g.mu.Lock()
		woken := g.mu.changed
		g.mu.Unlock()
		hasty, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := g.awaitCoordinator(hasty); !errors.Is(err, context.Canceled) {
			t.Errorf("error %v", err)
		}
		select {
		case <-woken:
			t.Error("whoever waits was woken")
		default:
		}
		leave(t, &testMember{c: c, g: g})
	})
}
