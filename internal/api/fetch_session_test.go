package api

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/internal/faketime"
	"barnabas/internal/metadata"
)

// reader is a client with a fetch session.
type reader struct {
	s       *stack
	version int16
	topic   string
	topicID metadata.UUID
	id      int32
	epoch   int32
}

func (r *reader) request() *kmsg.FetchRequest {
	q := fetchOf(r.version)
	q.SessionID, q.SessionEpoch = r.id, r.epoch
	return q
}

func (r *reader) want(q *kmsg.FetchRequest, number int32, offset int64) {
	want(q, r.topic, r.topicID, number, offset)
}

// ask sends a request of the session and returns what was told, by partition.
func (r *reader) ask(q *kmsg.FetchRequest) map[int32]kmsg.FetchResponseTopicPartition {
	r.s.t.Helper()
	res := ask[*kmsg.FetchResponse](r.s, q)
	if res.ErrorCode != 0 {
		r.s.t.Fatalf("session %d at epoch %d: %v", q.SessionID, q.SessionEpoch, kerr.ErrorForCode(res.ErrorCode))
	}
	r.id = res.SessionID
	r.epoch++
	told := map[int32]kmsg.FetchResponseTopicPartition{}
	for _, t := range res.Topics {
		for _, p := range t.Partitions {
			told[p.Partition] = p
		}
	}
	return told
}

func (r *reader) forget(q *kmsg.FetchRequest, numbers ...int32) {
	t := kmsg.NewFetchRequestForgottenTopic()
	if r.version >= 13 {
		t.TopicID = r.topicID
	} else {
		t.Topic = r.topic
	}
	t.Partitions = numbers
	q.ForgottenTopics = append(q.ForgottenTopics, t)
}

// TestFetchSession tells a session's story (KIP-227): created, asked again without a word, moved,
// changed, partly forgotten.
func TestFetchSession(t *testing.T) {
	for _, version := range []int16{7, 11, 12, 13, 18} {
		t.Run(fmt.Sprint("version ", version), func(t *testing.T) {
			faketime.Test(t, func(t *testing.T) {
				s := newStack(t)
				r := &reader{s: s, version: version, topic: "orders", topicID: s.createTopic("orders", 4)}
				s.append("orders", 0, records(3, 10))
				q := r.request()
				for number := range int32(4) {
					r.want(q, number, 0)
				}
				told := r.ask(q)
				if len(told) != 4 || len(offsets(t, told[0].RecordBatches)) != 1 || told[0].HighWatermark != 3 || r.id == 0 {
					t.Fatalf("created: %+v", told)
				}
				// Not consumed: the same records again, and nothing else.
				if told = r.ask(r.request()); len(told) != 1 || len(offsets(t, told[0].RecordBatches)) != 1 {
					t.Fatalf("asked again: %+v", told)
				}
				q = r.request()
				r.want(q, 0, 3)
				if told = r.ask(q); len(told) != 0 {
					t.Fatalf("consumed, and nothing has moved: %+v", told)
				}
				s.append("orders", 2, records(1, 10))
				s.append("orders", 3, records(1, 10))
				if told = r.ask(r.request()); len(told) != 2 || told[2].HighWatermark != 1 || told[3].HighWatermark != 1 {
					t.Fatalf("two moved: %+v", told)
				}
				q = r.request()
				r.want(q, 2, 1)
				r.forget(q, 3)
				if told = r.ask(q); len(told) != 0 {
					t.Fatalf("one consumed, one forgotten: %+v", told)
				}
				s.wantWatches(3)
				s.append("orders", 3, records(1, 10))
				if told = r.ask(r.request()); len(told) != 0 {
					t.Fatalf("a forgotten one moved: %+v", told)
				}
				// An offset past the end is told every time, until it is mended.
				q = r.request()
				r.want(q, 1, 99)
				for range 2 {
					if told = r.ask(q); len(told) != 1 || told[1].ErrorCode != kerr.OffsetOutOfRange.Code {
						t.Fatalf("out of range: %+v", told)
					}
					q = r.request()
				}
				q = r.request()
				r.want(q, 1, 0)
				if told = r.ask(q); len(told) != 1 || told[1].ErrorCode != 0 || told[1].HighWatermark != 0 {
					t.Fatalf("mended: %+v", told)
				}
				// A new start of the log is told although there are no records.
				if _, err := s.partition("orders", 0).DeleteRecords(s.ctx, 2); err != nil {
					t.Fatal(err)
				}
				if told = r.ask(r.request()); len(told) != 1 || told[0].LogStartOffset != 2 {
					t.Fatalf("start moved: %+v", told)
				}
				q = r.request()
				r.forget(q, 0, 1, 2)
				if told = r.ask(q); len(told) != 0 || r.id != 0 || s.handler.sessions.count() != 0 {
					t.Fatalf("all forgotten: %+v, session %d of %d", told, r.id, s.handler.sessions.count())
				}
				s.wantWatches(0)
			})
		})
	}
}

// TestFetchSessionErrors: an unknown id, an epoch that is not the next, and names in a session of ids.
func TestFetchSessionErrors(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		s := newStack(t)
		r := &reader{s: s, version: 13, topic: "orders", topicID: s.createTopic("orders", 1)}
		q := r.request()
		r.want(q, 0, 0)
		r.ask(q)
		for _, c := range []struct {
			version   int16
			id, epoch int32
			want      *kerr.Error
		}{
			{13, r.id + 1, 1, kerr.FetchSessionIDNotFound},
			{13, 0, 1, kerr.FetchSessionIDNotFound},
			{13, r.id, 2, kerr.InvalidFetchSessionEpoch},
			{12, r.id, 1, kerr.FetchSessionTopicIDError},
		} {
			q := fetchOf(c.version)
			q.SessionID, q.SessionEpoch = c.id, c.epoch
			if res := ask[*kmsg.FetchResponse](s, q); res.ErrorCode != c.want.Code || len(res.Topics) != 0 {
				t.Errorf("session %d epoch %d version %d: %d, want %v", c.id, c.epoch, c.version, res.ErrorCode, c.want)
			}
		}
		r.ask(r.request()) // none of this has harmed the session
		q = r.request()
		q.SessionEpoch = -1
		r.want(q, 0, 0)
		if r.ask(q); r.id != 0 || s.handler.sessions.count() != 0 {
			t.Errorf("ended: session %d, %d in all", r.id, s.handler.sessions.count())
		}
		s.wantWatches(0)
	})
}

// TestFetchSessionEpochWraps: after the highest epoch comes 1, for 0 begins a session.
func TestFetchSessionEpochWraps(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		s := newStack(t)
		r := &reader{s: s, version: 12, topic: "orders", topicID: s.createTopic("orders", 1)}
		q := r.request()
		r.want(q, 0, 0)
		r.ask(q)
		s.handler.sessions.byID[r.id].epoch = 1<<31 - 1
		r.epoch = 1<<31 - 1
		r.ask(r.request())
		r.epoch = 1
		r.ask(r.request())
	})
}

// TestFetchSessionSlots: max.incremental.fetch.session.cache.slots bounds the sessions; a newcomer
// gets the slot of one that was not used for two minutes, and goes without if there is none.
func TestFetchSessionSlots(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		s := newStack(t, "max.incremental.fetch.session.cache.slots=2")
		id := s.createTopic("orders", 1)
		open := func() *reader {
			r := &reader{s: s, version: 17, topic: "orders", topicID: id}
			q := r.request()
			r.want(q, 0, 0)
			r.ask(q)
			return r
		}
		a, b := open(), open()
		if c := open(); c.id != 0 {
			t.Fatalf("a third session %d in two slots", c.id)
		}
		s.wantWatches(2)
		time.Sleep(sessionIdle)
		b.ask(b.request())
		c := open()
		if c.id == 0 || s.handler.sessions.count() != 2 {
			t.Fatalf("the slot of one that nobody used was not given on: %d sessions", s.handler.sessions.count())
		}
		b.ask(b.request())
		q := a.request()
		if res := ask[*kmsg.FetchResponse](s, q); res.ErrorCode != kerr.FetchSessionIDNotFound.Code {
			t.Fatalf("the evicted session answers %d", res.ErrorCode)
		}
		s.wantWatches(2)
	})
}

// TestEvictedSessionEndsItsWatches: also where a request is waiting in it.
func TestEvictedSessionEndsItsWatches(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		s := newStack(t)
		r := &reader{s: s, version: 17, topic: "orders", topicID: s.createTopic("orders", 2)}
		q := r.request()
		r.want(q, 0, 0)
		r.want(q, 1, 0)
		r.ask(q)
		q = r.request()
		q.MaxWaitMillis = 1000
		s.waited(q, func() {
			synctest.Wait()
			s.wantWatches(2)
			s.handler.sessions.remove(r.id)
		})
		s.wantWatches(0)
	})
}

// TestPipelinedFetchesOfASession: the second is read before the first is answered, and each gets what
// it asked for.
func TestPipelinedFetchesOfASession(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		s := newStack(t)
		r := &reader{s: s, version: 17, topic: "orders", topicID: s.createTopic("orders", 1)}
		q := r.request()
		r.want(q, 0, 0)
		r.ask(q)
		s.append("orders", 0, records(1, 10))
		s.append("orders", 0, records(1, 10))
		first, second := r.request(), r.request()
		r.want(first, 0, 0)
		second.SessionEpoch = 2
		r.want(second, 0, 1)
		replyA, _, errA := s.begin(s.peer(), first)
		replyB, readyB, errB := s.begin(s.peer(), second)
		if errA != nil || errB != nil || readyB {
			t.Fatal(errA, errB, readyB)
		}
		resA, errA := s.finish(s.ctx, first, replyA)
		resB, errB := s.finish(s.ctx, second, replyB)
		if errA != nil || errB != nil {
			t.Fatal(errA, errB)
		}
		gotA := offsets(t, onePart(t, resA.(*kmsg.FetchResponse)).RecordBatches)
		gotB := offsets(t, onePart(t, resB.(*kmsg.FetchResponse)).RecordBatches)
		if len(gotA) != 2 || len(gotB) != 1 || gotB[0][0] != 1 {
			t.Fatalf("first %v, second %v", gotA, gotB)
		}
	})
}

// TestIncrementalFetchCostsWhatMoved: of a thousand partitions one moved, and one is read.
func TestIncrementalFetchCostsWhatMoved(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		s := newStack(t)
		r := &reader{s: s, version: 17, topic: "orders", topicID: s.createTopic("orders", 1000)}
		q := r.request()
		for number := range int32(1000) {
			r.want(q, number, 0)
		}
		if told := r.ask(q); len(told) != 1000 {
			t.Fatalf("%d partitions told", len(told))
		}
		s.append("orders", 777, records(1, 10))
		session := s.handler.sessions.byID[r.id]
		session.collectMoves()
		if n := len(session.newsOrder); n != 1 || session.newsOrder[0].number != 777 {
			t.Fatalf("%d partitions to be read", n)
		}
		if told := r.ask(r.request()); len(told) != 1 || len(told[777].RecordBatches) == 0 {
			t.Fatalf("told: %v", told)
		}
		q = r.request()
		r.want(q, 777, 1)
		r.ask(q)
		one := testing.AllocsPerRun(20, func() { r.ask(r.request()) })
		if one > 100 {
			t.Fatalf("%v allocations for a request about nothing in a session of a thousand partitions", one)
		}
	})
}

// TestNobodyStarvesInASession: with more to read than a response holds, everyone has a turn, and a
// partition whose batch found no room is read in a later one.
func TestNobodyStarvesInASession(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		s := newStack(t)
		r := &reader{s: s, version: 17, topic: "orders", topicID: s.createTopic("orders", 5)}
		next := map[int32]int64{}
		for number := range int32(5) {
			for range 4 {
				s.append("orders", number, records(1, 1000*int(number+1)))
			}
			next[number] = 0
		}
		q := r.request()
		for number := range int32(5) {
			r.want(q, number, 0)
		}
		for round := range 20 {
			q.MaxBytes = 3500
			told := r.ask(q)
			q = r.request()
			progress := false
			for number, p := range told {
				for _, o := range offsets(t, p.RecordBatches) {
					if o[0] != next[number] {
						t.Fatalf("round %d: partition %d continues at %d, want %d", round, number, o[0], next[number])
					}
					next[number], progress = o[1]+1, true
				}
				r.want(q, number, next[number])
			}
			if !progress {
				break
			}
		}
		for number := range int32(5) {
			if next[number] != 4 {
				t.Fatalf("partition %d was read up to %d of 4: %v", number, next[number], next)
			}
		}
	})
}
