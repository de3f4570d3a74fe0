package client

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
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

// Whoever leaves the queue, and when: one has its turn, in the order of entering, and nobody waits for ever.
func TestCommitQueueServesInOrder(t *testing.T) {
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 1))
		var q commitQueue
		var model []*place
		for range 100 {
			if i := rng.IntN(8); i < len(model) {
				q.leave(model[i])
				model = slices.Delete(model, i, i+1)
			} else {
				p, err := q.enter(8)
				if err != nil {
					t.Fatalf("seed %d: %d places: %v", seed, len(model), err)
				}
				model = append(model, p)
			}
			for i, p := range model {
				turn := false
				select {
				case <-p.turn:
					turn = true
				default:
				}
				if turn != (i == 0) {
					t.Fatalf("seed %d: place %d of %d has its turn: %v", seed, i, len(model), turn)
				}
			}
		}
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
		a.g.k.own([]TopicPartition{tp})
		a.g.resolveCommitted()
		time.Sleep(time.Second)
		a.g.k.disown([]TopicPartition{tp})
		commit(5)
		a.g.k.own([]TopicPartition{tp})
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
