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
			if k.cfg.reset.report() {
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

// Records of an old leader that wait to be decoded come before those of the new one: its fetcher may
// be waiting for a connection while the new leader's would already get an answer.
func TestRecordsOfTheOldLeaderComeFirst(t *testing.T) {
	tp := TopicPartition{"t", 0}
	bubble(t, 1, func(t *testing.T, f *fakeCluster) {
		c, k := newTestConsumer(t, f)
		defer c.Close()
		defer k.Close()
		before, after := newFetcher(k, 7), newFetcher(k, 8)
		b := batch.NewBuilder(batch.BuilderOptions{})
		b.Append(0, nil, []byte("v"), nil)
		built, err := b.Build()
		if err != nil {
			t.Fatal(err)
		}
		part := kmsg.NewFetchResponseTopicPartition()
		part.RecordBatches = built
		cur := newCursor(tp, AtOffset(0))
		k.mu.Lock()
		k.mu.cursors[tp], k.mu.fetchers[8] = cur, after
		cur.leader = 7
		got, _ := before.advanceLocked(cur, 0, &part)
		cur.leader = 8
		k.mu.Unlock()
		if w := after.claim(time.Now()); len(w.fetch) > 0 {
			t.Error("the new leader is asked for what follows records that are not decoded yet")
		}
		before.decode([]fetched{got})
		select {
		case <-after.wake:
		default:
			t.Error("nobody told the new leader's fetcher")
		}
		if w := after.claim(time.Now()); len(w.fetch) != 1 || w.offsets[0] != 1 {
			t.Errorf("claimed %+v", w)
		}
	})
}
