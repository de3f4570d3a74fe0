package client

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/internal/batch"
)

// A session's requests name what has changed: an idle partition is named once (KIP-227).
func TestIdlePartitionsAreNamedOnce(t *testing.T) {
	bubble(t, 1, func(t *testing.T, f *fakeCluster) {
		f.topic("t", 100)
		c, k := newTestConsumer(t, f)
		defer c.Close()
		defer k.Close()
		if err := k.AssignTopic(t.Context(), "t", Earliest); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		f.write(TopicPartition{"t", 7}, batch.BuilderOptions{}, "v")
		poll(t, k, 1)
		k.Pause(TopicPartition{"t", 8})
		time.Sleep(time.Second)
		synctest.Wait()
		named, forgotten, whole := 0, 0, 0
		for _, s := range f.requests(1) {
			r := s.req.(*kmsg.FetchRequest)
			for _, topic := range r.Topics {
				named += len(topic.Partitions)
			}
			for _, topic := range r.ForgottenTopics {
				forgotten += len(topic.Partitions)
			}
			if r.SessionEpoch <= 0 {
				whole++
			}
		}
		if n := len(f.requests(1)); n < 100 || named != 101 || forgotten != 1 || whole != 1 {
			t.Errorf("%d requests, %d of them whole, named %d partitions and forgot %d", n, whole, named, forgotten)
		}
	})
}

// A broker that forgets sessions, or has no room for any, costs no records.
func TestSessionsThatBrokersForget(t *testing.T) {
	for _, none := range []bool{false, true} {
		bubble(t, 1, func(t *testing.T, f *fakeCluster) {
			f.topic("t", 3)
			f.mu.noSessions = none
			c, k := newTestConsumer(t, f)
			defer c.Close()
			defer k.Close()
			if err := k.AssignTopic(t.Context(), "t", Earliest); err != nil {
				t.Fatal(err)
			}
			for i := range 20 {
				f.mu.Lock()
				clear(f.mu.sessions)
				f.mu.Unlock()
				for n := range int32(3) {
					f.write(TopicPartition{"t", n}, batch.BuilderOptions{}, values(i, i+1)...)
				}
				start := time.Now()
				poll(t, k, 3)
				if d := time.Since(start); d > time.Second {
					t.Errorf("no sessions: %v: three records took %v", none, d)
				}
			}
		})
	}
}

// truncate is an unclean election: another node leads, and has only the first offsets.
func (f *fakeCluster) truncate(tp TopicPartition, to int64, node int32) {
	f.mu.Lock()
	defer f.mu.Unlock()
	p := f.mu.topics[tp.Topic].partitions[tp.Partition]
	p.batches = slices.DeleteFunc(p.batches, func(b batch.Batch) bool { return b.NextOffset() > to })
	p.next = to
	p.leader = node
	p.epoch++
}

// What was read and is no longer in the log is noticed, although the log has grown past it again.
func TestTrap03TruncationIsFound(t *testing.T) {
	tp := TopicPartition{"t", 0}
	for _, reset := range []ConsumerOption{AutoOffsetReset(Latest), NoAutoOffsetReset()} {
		bubble(t, 2, func(t *testing.T, f *fakeCluster) {
			f.topic("t", 1)
			c, k := newTestConsumer(t, f, reset)
			defer c.Close()
			defer k.Close()
			if err := k.Assign(map[TopicPartition]Position{tp: Earliest}); err != nil {
				t.Fatal(err)
			}
			for i := range 10 {
				f.write(tp, batch.BuilderOptions{}, fmt.Sprint("old ", i))
			}
			poll(t, k, 10)
			f.truncate(tp, 5, 2)
			for i := range 10 {
				f.write(tp, batch.BuilderOptions{}, fmt.Sprint("new ", i))
			}
			if k.cfg.reset.Reports() {
				if records, err := k.Poll(t.Context()); !errors.Is(err, ErrLogTruncated) {
					t.Errorf("%v, %v", records, err)
				}
				return
			}
			if got := poll(t, k, 10)[tp]; got[0] != "new 0" || got[9] != "new 9" {
				t.Errorf("read %v", got)
			}
		})
	}
}

// A leader that answers with no offset knows nothing of the epoch any more. That is no loss.
func TestTrap03UndefinedEndIsNoLoss(t *testing.T) {
	tp := TopicPartition{"t", 0}
	bubble(t, 2, func(t *testing.T, f *fakeCluster) {
		f.topic("t", 1)
		c, k := newTestConsumer(t, f, NoAutoOffsetReset())
		defer c.Close()
		defer k.Close()
		if err := k.Assign(map[TopicPartition]Position{tp: Earliest}); err != nil {
			t.Fatal(err)
		}
		f.write(tp, batch.BuilderOptions{}, values(0, 3)...)
		poll(t, k, 3)
		f.script(func(_ int32, req kmsg.Request) interference {
			return interference{edit: func(resp kmsg.Response) {
				if r, ok := resp.(*kmsg.OffsetForLeaderEpochResponse); ok {
					r.Topics[0].Partitions[0].LeaderEpoch, r.Topics[0].Partitions[0].EndOffset = -1, -1
				}
			}}
		})
		f.lead(tp, 2)
		f.write(tp, batch.BuilderOptions{}, values(3, 5)...)
		if got := poll(t, k, 2)[tp]; !slices.Equal(got, values(3, 5)) {
			t.Errorf("read %v", got)
		}
		if len(f.requests(23)) == 0 {
			t.Error("the new leader was not asked")
		}
	})
}

// The leader sends a consumer in a rack with a replica to that replica (KIP-392), and is read again
// when the replica goes away or its time is over.
func TestNearestReplicaIsRead(t *testing.T) {
	tp := TopicPartition{"t", 0}
	bubble(t, 3, func(t *testing.T, f *fakeCluster) {
		f.topic("t", 1)
		f.lead(tp, 1)
		f.mu.nearest = map[string]int32{"r2": 2}
		c := f.client(MetadataMaxAge(time.Minute))
		defer c.Close()
		k, err := c.NewConsumer(Rack("r2"))
		if err != nil {
			t.Fatal(err)
		}
		defer k.Close()
		if err := k.Assign(map[TopicPartition]Position{tp: Earliest}); err != nil {
			t.Fatal(err)
		}
		fetches := func() (of map[int32]int) {
			of = map[int32]int{}
			for _, s := range f.requests(1) {
				of[s.node]++
			}
			return of
		}
		for i := range 10 {
			f.write(tp, batch.BuilderOptions{}, values(i, i+1)...)
			poll(t, k, 1)
		}
		if of := fetches(); of[1] != 1 || of[2] < 10 {
			t.Errorf("fetches by node: %v", of)
		}
		f.script(func(node int32, req kmsg.Request) interference {
			return interference{drop: node == 2 && req.Key() == 1}
		})
		f.mu.Lock()
		f.mu.nearest = nil
		f.mu.Unlock()
		f.write(tp, batch.BuilderOptions{}, values(10, 11)...)
		poll(t, k, 1)
		f.script(nil)
		f.mu.Lock()
		f.mu.nearest = map[string]int32{"r2": 3}
		f.mu.Unlock()
		for i := range 100 {
			f.write(tp, batch.BuilderOptions{}, values(11+i, 12+i)...)
			poll(t, k, 1)
			time.Sleep(time.Second)
		}
		if of := fetches(); of[3] < 100 || of[1] > 30 {
			t.Errorf("fetches by node: %v", of)
		}
		if at, _ := k.Position(tp); at != 111 {
			t.Errorf("it stands at %d", at)
		}
	})
}

// A position that a program has kept, with the epoch of what it read, is confirmed before anything is
// read on.
func TestTrap03KeptPositionsAreConfirmed(t *testing.T) {
	tp := TopicPartition{"t", 0}
	bubble(t, 2, func(t *testing.T, f *fakeCluster) {
		f.topic("t", 1)
		for i := range 10 {
			f.write(tp, batch.BuilderOptions{}, values(i, i+1)...)
		}
		c, k := newTestConsumer(t, f, NoAutoOffsetReset())
		defer c.Close()
		defer k.Close()
		if err := k.Assign(map[TopicPartition]Position{tp: Earliest}); err != nil {
			t.Fatal(err)
		}
		var last Record
		for last.Offset < 9 {
			records, err := k.Poll(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			last = records[len(records)-1]
		}
		if err := k.Assign(nil); err != nil {
			t.Fatal(err)
		}
		f.truncate(tp, 5, 2)
		f.write(tp, batch.BuilderOptions{}, values(10, 30)...)
		for kept, want := range map[OffsetAndMetadata]error{
			{Offset: 10, LeaderEpoch: InEpoch(last.LeaderEpoch)}: ErrLogTruncated,
			{Offset: 10}: nil, // then nobody can tell
		} {
			if err := k.Assign(map[TopicPartition]Position{tp: kept.Position()}); err != nil {
				t.Fatal(err)
			}
			if records, err := k.Poll(t.Context()); !errors.Is(err, want) {
				t.Errorf("%+v: %d records, %v", kept, len(records), err)
			}
		}
	})
}
