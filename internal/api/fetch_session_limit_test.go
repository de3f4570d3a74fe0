package api

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/internal/faketime"
	"barnabas/internal/metadata"
	"barnabas/internal/wire"
)

// heapBytes is what is in use once garbage is gone.
func heapBytes() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC() // what pools hold outlives one
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// openingFetch opens a session for partitions 0 to n-1 of a topic.
func openingFetch(topic string, n int) *kmsg.FetchRequest {
	q := fetchOf(12)
	q.SessionEpoch = 0
	t := kmsg.NewFetchRequestTopic()
	t.Topic = topic
	for number := range int32(n) {
		p := kmsg.NewFetchRequestTopicPartition()
		p.Partition, p.PartitionMaxBytes = number, 1<<20
		t.Partitions = append(t.Partitions, p)
	}
	q.Topics = []kmsg.FetchRequestTopic{t}
	return q
}

// TestFetchSessionPartitionBytes: a partition takes no more than its session is charged with, however
// many there are (maps and slices grow in steps) and whatever its topic is called.
func TestFetchSessionPartitionBytes(t *testing.T) {
	for _, n := range []int{1500, 7500, 15_000, 20_000} {
		for _, name := range []string{"o", strings.Repeat("o", 249), strings.Repeat("o", 9480)} {
			if n*len(name) > 20<<20 {
				continue // more than a frame may have by far
			}
			q := fetchOf(12)
			for number := range n { // the worst case: a topic each
				want(q, fmt.Sprintf("%s-%07d", name, number), metadata.UUID{}, 0, 0)
			}
			body := q.AppendTo(nil)
			before := heapBytes()
			s := newSession()
			func() {
				var decoded kmsg.FetchRequest
				decoded.Version = 12
				if err := decoded.ReadFrom(body); err != nil {
					t.Fatal(err)
				}
				s.update(&decoded)
			}()
			taken := heapBytes() - before
			t.Logf("%d partitions, names of %d: %d bytes each besides", n, len(name)+8, taken/int64(n)-int64(len(name)+8))
			if taken > s.bytes {
				t.Errorf("%d partitions take %d bytes, %d each, and are charged with %d", n, taken, taken/int64(n), s.bytes)
			}
			runtime.KeepAlive(body)
			runtime.KeepAlive(s)
		}
	}
}

// TestFetchSessionPartitionBytesOfTheExisting: so with partitions that exist, and are watched.
func TestFetchSessionPartitionBytesOfTheExisting(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		const n = 1000
		s := newStack(t)
		r := &reader{s: s, version: 17, topic: "orders", topicID: s.createTopic("orders", n)}
		open := func() {
			r.id, r.epoch = 0, 0
			q := r.request()
			for number := range int32(n) {
				r.want(q, number, 0)
			}
			r.ask(q)
		}
		open()
		first := s.handler.sessions.bytes
		before := heapBytes()
		open()
		taken := heapBytes() - before
		t.Logf("%d bytes each", taken/n)
		if charged := s.handler.sessions.bytes - first; taken > charged {
			t.Errorf("%d partitions take %d bytes and are charged with %d", n, taken, charged)
		}
	})
}

// TestFetchSessionsOfTheUnknownAreBounded: partitions that do not exist cost nothing to name, so
// a few requests could otherwise fill the memory for good.
func TestFetchSessionsOfTheUnknownAreBounded(t *testing.T) {
	s := newStack(t)
	s.handler.sessions.maxBytes = LeastFetchSessionBytes / 16 // a sixteenth of everything
	before := heapBytes()
	kept := 0
	for range 12 {
		if res := ask[*kmsg.FetchResponse](s, openingFetch("nowhere", 140_000/16)); res.SessionID != 0 {
			kept++
		}
	}
	if kept == 0 || kept == 12 {
		t.Errorf("%d sessions of 12 are kept", kept)
	}
	if taken := heapBytes() - before; taken > s.handler.sessions.maxBytes {
		t.Errorf("%d sessions hold %d KiB", kept, taken>>10)
	}
	runtime.KeepAlive(s)
}

// wantCharged checks that the cache's account is that of its sessions.
func (s *stack) wantCharged(partitions, name int) {
	s.t.Helper()
	sum := int64(0)
	for _, other := range s.handler.sessions.byID {
		sum += other.charged
	}
	expected := int64(partitions * (sessionPartitionBytes + name))
	if got := s.handler.sessions.bytes; got != expected || sum != expected {
		s.t.Fatalf("charged %d, the sessions with %d, want %d for %d partitions", got, sum, expected, partitions)
	}
}

// TestFetchSessionsShareALimit: past it a newcomer and one that grows go without a session, what ends
// is given back, what is forgotten is not, and who was idle for two minutes makes room.
func TestFetchSessionsShareALimit(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		s := newStack(t)
		const name = "orders"
		id := s.createTopic(name, 100)
		s.handler.sessions.maxBytes = 100 * int64(sessionPartitionBytes+len(name))
		open := func(n int) *reader {
			r := &reader{s: s, version: 12, topic: name, topicID: id}
			if told := r.ask(openingFetch(name, n)); len(told) != n {
				t.Fatalf("%d of %d told", len(told), n)
			}
			return r
		}
		grow := func(r *reader, from, to int32) {
			q := r.request()
			for number := from; number < to; number++ {
				r.want(q, number, 0)
			}
			if told := r.ask(q); len(told) != int(to-from) {
				t.Fatalf("%d of %d told", len(told), to-from)
			}
		}
		a, b := open(40), open(50)
		s.wantCharged(90, len(name))
		if c := open(11); c.id != 0 {
			t.Fatal("a session past the limit")
		}
		s.wantCharged(90, len(name))
		grow(a, 40, 50)
		s.wantCharged(100, len(name))
		// What was forgotten comes back at no charge, for its place was kept.
		q := a.request()
		a.forget(q, 1, 2, 3)
		a.ask(q)
		s.wantCharged(100, len(name))
		grow(a, 1, 4)
		s.wantCharged(100, len(name))
		// One more is too many: it is told, and the session is over.
		grow(b, 50, 51)
		if b.id != 0 || s.handler.sessions.count() != 1 {
			t.Fatalf("session %d of %d has grown past the limit", b.id, s.handler.sessions.count())
		}
		s.wantCharged(50, len(name))
		s.wantWatches(50)
		b = open(30)
		c := open(20)
		s.wantCharged(100, len(name))
		time.Sleep(sessionIdle / 2)
		b.ask(b.request())
		time.Sleep(sessionIdle / 2)
		a.ask(a.request())
		if d := open(51); d.id != 0 { // c is not enough
			t.Fatal("a session past the limit")
		}
		s.wantCharged(80, len(name))
		if res := ask[*kmsg.FetchResponse](s, c.request()); res.ErrorCode != kerr.FetchSessionIDNotFound.Code {
			t.Fatalf("the evicted session answers %d", res.ErrorCode)
		}
		time.Sleep(sessionIdle)
		a.ask(a.request())
		grow(a, 50, 75) // in b's place
		s.wantCharged(75, len(name))
		if d := open(101); d.id != 0 {
			t.Fatal("a session larger than all together may be")
		}
		q = a.request()
		q.SessionEpoch = -1
		a.ask(q)
		s.wantCharged(0, len(name))
		s.wantWatches(0)
	})
}

// TestPipelinedFetchGrowsPastTheLimit: a request that is told to its session only when the one before
// is answered is counted then.
func TestPipelinedFetchGrowsPastTheLimit(t *testing.T) {
	for _, room := range []int{2, 3} {
		faketime.Test(t, func(t *testing.T) {
			s := newStack(t)
			r := &reader{s: s, version: 12, topic: "orders", topicID: s.createTopic("orders", 3)}
			s.handler.sessions.maxBytes = int64(room) * int64(sessionPartitionBytes+len(r.topic))
			r.ask(openingFetch(r.topic, 1))
			first, second := r.request(), r.request()
			r.want(first, 1, 0)
			second.SessionEpoch = 2
			r.want(second, 2, 0)
			replyA, _, errA := s.begin(s.peer(), first)
			replyB, _, errB := s.begin(s.peer(), second)
			if errA != nil || errB != nil {
				t.Fatal(errA, errB)
			}
			s.wantCharged(2, len(r.topic))
			resA, errA := s.finish(s.ctx, first, replyA)
			resB, errB := s.finish(s.ctx, second, replyB)
			if errA != nil || errB != nil {
				t.Fatal(errA, errB)
			}
			idA, idB := resA.(*kmsg.FetchResponse).SessionID, resB.(*kmsg.FetchResponse).SessionID
			if part := onePart(t, resB.(*kmsg.FetchResponse)); part.Partition != 2 || part.ErrorCode != 0 {
				t.Fatalf("told %+v", part)
			}
			if room == 3 {
				if s.wantCharged(3, len(r.topic)); idA != r.id || idB != r.id {
					t.Fatalf("sessions %d and %d", idA, idB)
				}
				return
			}
			if s.wantCharged(0, 0); idA != r.id || idB != 0 {
				t.Fatalf("sessions %d and %d", idA, idB)
			}
			s.wantWatches(0)
		})
	}
}

// TestFetchSessionOutlivesItsConnectionWhileThereIsRoom: a session whose connection has ended goes on where its client
// comes back, and gives way to a newcomer where it does not.
func TestFetchSessionOutlivesItsConnectionWhileThereIsRoom(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		s := newStack(t)
		s.handler.sessions.slots = 1
		const name = "orders"
		id := s.createTopic(name, 1)
		open := func() *reader {
			r := &reader{s: s, version: 12, topic: name, topicID: id}
			r.ask(openingFetch(name, 1))
			return r
		}
		a := open()
		s.handler.Disconnected(s.peer())
		a.ask(a.request()) // on its new connection
		if b := open(); a.id == 0 || b.id != 0 {
			t.Fatalf("sessions %d and %d share one slot", a.id, b.id)
		}
		s.handler.Disconnected(&wire.Peer{ID: s.peer().ID + 1})
		if b := open(); b.id != 0 {
			t.Fatal("another connection's end has ended the session")
		}
		s.handler.Disconnected(s.peer())
		if b := open(); b.id == 0 {
			t.Fatal("the session of an ended connection stands in the way")
		}
		if res := ask[*kmsg.FetchResponse](s, a.request()); res.ErrorCode != kerr.FetchSessionIDNotFound.Code {
			t.Fatalf("the ended session answers %d", res.ErrorCode)
		}
		s.wantWatches(1)
	})
}
