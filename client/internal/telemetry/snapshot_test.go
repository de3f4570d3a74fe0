package telemetry

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"barnabas/internal/batch"
)

var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func after(d time.Duration) time.Time { return epoch.Add(d) }

var all = Subscription{Metrics: Wanted{""}, MaxBytes: 1 << 20, Delta: true}

// told gives what a broker would read of a snapshot.
func told(t testing.TB, s *Snapshot, sub Subscription) []string {
	t.Helper()
	p := s.Payload(&sub, Compress)
	points := decode(t, unpack(t, p.Codec, p.Bytes))
	if len(points) != p.Points {
		t.Errorf("%d points were to be in it, it has %d", p.Points, len(points))
	}
	out := make([]string, len(points))
	for i, p := range points {
		out[i] = p.String()
	}
	return out
}

func expect(t testing.TB, what string, got, want []string) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

// busy makes meters of a producer, a member of a group and a client, each of which has done something.
func busy() (*Meters, *Meter, *Meter, *Meter) {
	m := NewMeters()
	m.Time(true)
	p := m.Open(Labels{Kind: Producer, TransactionalID: "tx"}, epoch)
	c := m.Open(Labels{Kind: Consumer, Group: "g", GroupInstance: "i", Rack: "r"}, epoch)
	c.Member(func() (string, int) { return "m1", 3 })
	a := m.Open(Labels{Kind: Admin}, epoch)

	p.Connected()
	p.Connected()
	p.Answered(1, 0, 10*time.Millisecond, 2*time.Millisecond)
	p.Answered(1, 0, 30*time.Millisecond, 0)
	p.Answered(-1, 18, 5*time.Millisecond, 0)
	p.Queued(4 * time.Millisecond)
	p.Queued(8 * time.Millisecond)
	p.Written(70, 1, nil)
	p.Written(30, 3, nil)
	p.Written(5, 1, errors.New("lost"))

	c.Connected()
	c.PollBegan(after(time.Second))
	c.PollEnded(after(4 * time.Second)) // 3 s in it, then 1 s away, then 4 s in it until the snapshot at 9 s
	c.PollBegan(after(5 * time.Second))
	c.Answered(2, 1, 100*time.Millisecond, 0)
	c.Read(50, 5000, 7)
	c.Read(50, 4000, 2)
	c.Committed(6 * time.Millisecond)
	c.Rebalancing(after(time.Second))
	c.Rebalanced(after(1200*time.Millisecond), after(1300*time.Millisecond), false)
	c.Rebalanced(after(1400*time.Millisecond), after(1500*time.Millisecond), true)
	a.Connected()
	return m, p, c, a
}

const (
	ofTx     = "{transactional_id=tx} producer."
	ofMember = "{group_id=g group_instance_id=i group_member_id=m1 client_rack=r} consumer."
	ofAdmin  = "{} admin.client."
)

var toldFirst = []string{
	ofTx + "connection.creation.rate{} gauge 0.2222222222222222",
	ofTx + "connection.creation.total{} delta 2",
	ofTx + "node.request.latency.avg{node_id=node--1} gauge 5",
	ofTx + "node.request.latency.avg{node_id=node-1} gauge 20",
	ofTx + "node.request.latency.max{node_id=node--1} gauge 5",
	ofTx + "node.request.latency.max{node_id=node-1} gauge 30",
	ofTx + "produce.throttle.time.avg{} gauge 1",
	ofTx + "produce.throttle.time.max{} gauge 2",
	ofTx + "record.queue.time.avg{} gauge 6",
	ofTx + "record.queue.time.max{} gauge 8",
	ofTx + "record.send.total{} delta 100",
	ofTx + "record.error.total{} delta 5",
	ofTx + "record.retry.total{} delta 60",
	ofMember + "connection.creation.rate{} gauge 0.1111111111111111",
	ofMember + "connection.creation.total{} delta 1",
	ofMember + "node.request.latency.avg{node_id=node-2} gauge 100",
	ofMember + "node.request.latency.max{node_id=node-2} gauge 100",
	ofMember + "poll.idle.ratio.avg{} gauge 0.875",
	ofMember + "coordinator.commit.latency.avg{} gauge 6",
	ofMember + "coordinator.commit.latency.max{} gauge 6",
	ofMember + "coordinator.assigned.partitions{} gauge 3",
	ofMember + "coordinator.rebalance.latency.avg{} gauge 500",
	ofMember + "coordinator.rebalance.latency.max{} gauge 500",
	ofMember + "coordinator.rebalance.latency.total{} delta 500",
	ofMember + "fetch.manager.fetch.latency.avg{} gauge 100",
	ofMember + "fetch.manager.fetch.latency.max{} gauge 100",
	ofMember + "fetch.manager.records.consumed.total{} delta 100",
	ofMember + "fetch.manager.bytes.consumed.total{} delta 9000",
	ofMember + "fetch.manager.records.lag.max{} gauge 7",
	ofAdmin + "connection.creation.rate{} gauge 0.1111111111111111",
	ofAdmin + "connection.creation.total{} delta 1",
}

// What is pushed is what was counted, with the names that the KIP requires.
func TestSnapshotTellsWhatWasCounted(t *testing.T) {
	m, _, _, _ := busy()
	s := m.Collect(after(9 * time.Second))
	expect(t, "told", told(t, s, all), toldFirst)
	for _, p := range decode(t, s.Payload(&all, Compress).Bytes) {
		if !p.at.Equal(after(9*time.Second)) || p.form == "gauge" && !p.start.IsZero() || p.form == "delta" && !p.start.Equal(epoch) {
			t.Errorf("%v is of %v, from %v on", p, p.at, p.start)
		}
	}
}

// A push tells what came since the last one that a broker took; what it did not take is told again.
func TestWhatABrokerDidNotTakeIsToldAgain(t *testing.T) {
	m, p, c, _ := busy()
	lost := m.Collect(after(9 * time.Second))
	p.Written(1, 1, nil)
	p.Queued(time.Millisecond)
	p.Answered(1, 0, 50*time.Millisecond, 0)
	c.Read(1, 10, 0)
	sub := Subscription{Metrics: Wanted{
		"org.apache.kafka.producer.record.", "org.apache.kafka.producer.node", "org.apache.kafka.consumer.fetch.manager.records",
	}, MaxBytes: 1 << 20, Delta: true}
	_ = told(t, lost, sub)
	taken := m.Collect(after(10 * time.Second))
	expect(t, "told again", told(t, taken, sub), []string{
		ofTx + "node.request.latency.avg{node_id=node--1} gauge 5",
		ofTx + "node.request.latency.avg{node_id=node-1} gauge 30",
		ofTx + "node.request.latency.max{node_id=node--1} gauge 5",
		ofTx + "node.request.latency.max{node_id=node-1} gauge 50",
		ofTx + "record.queue.time.avg{} gauge 4.333333333333333",
		ofTx + "record.queue.time.max{} gauge 8",
		ofTx + "record.send.total{} delta 101",
		ofTx + "record.error.total{} delta 5",
		ofTx + "record.retry.total{} delta 60",
		ofMember + "fetch.manager.records.consumed.total{} delta 101",
		ofMember + "fetch.manager.records.lag.max{} gauge 7",
	})
	p.Queued(3 * time.Millisecond) // after the snapshot, before its answer
	m.Taken(taken)
	p.Written(7, 1, nil)
	p.Answered(1, 0, time.Millisecond, 0)
	c.Read(2, 10, 1)
	third := m.Collect(after(11 * time.Second))
	expect(t, "told next", told(t, third, sub), []string{
		ofTx + "node.request.latency.avg{node_id=node-1} gauge 1",
		ofTx + "node.request.latency.max{node_id=node-1} gauge 1",
		ofTx + "record.queue.time.avg{} gauge 3",
		ofTx + "record.queue.time.max{} gauge 3",
		ofTx + "record.send.total{} delta 7",
		ofMember + "fetch.manager.records.consumed.total{} delta 2",
		ofMember + "fetch.manager.records.lag.max{} gauge 1",
	})
	sub.Delta = false
	sub.Metrics = Wanted{"org.apache.kafka.producer.record.send"}
	points := decode(t, third.Payload(&sub, Compress).Bytes)
	expect(t, "since the beginning", []string{points[0].String()}, []string{ofTx + "record.send.total{} cumulative 108"})
	if !points[0].start.Equal(epoch) {
		t.Errorf("cumulative from %v on", points[0].start)
	}
	sub.Delta = true
	if points := decode(t, third.Payload(&sub, Compress).Bytes); !points[0].start.Equal(after(10 * time.Second)) {
		t.Errorf("delta from %v on", points[0].start)
	}
}

// Over any order of counting, snapshots, losses and answers the deltas that brokers took come to what was counted, and no
// largest value is lost.
func TestDeltasAddUp(t *testing.T) {
	for seed := range uint64(100) {
		rng := rand.New(rand.NewPCG(seed, 1))
		m := NewMeters()
		m.Time(true)
		p := m.Open(Labels{Kind: Producer}, epoch)
		now := epoch
		counted, summed, largest, largestTold := 0.0, 0.0, 0.0, 0.0
		take := func() {
			s := m.Collect(now)
			if rng.IntN(2) == 0 {
				return // no answer
			}
			for _, point := range decode(t, s.Payload(&all, Compress).Bytes) {
				switch point.name {
				case "org.apache.kafka.producer.record.send.total":
					summed += point.value
				case "org.apache.kafka.producer.record.queue.time.max":
					largestTold = max(largestTold, point.value)
				}
			}
			m.Taken(s)
		}
		for range 60 {
			now = now.Add(time.Duration(rng.Int64N(1e9)))
			if rng.IntN(3) == 0 {
				take()
				continue
			}
			n, ms := rng.IntN(100), rng.IntN(1000)
			p.Written(n, 1, nil)
			p.Queued(time.Duration(ms) * time.Millisecond)
			counted, largest = counted+float64(n), max(largest, float64(ms))
		}
		for range 20 {
			take()
		}
		if summed != counted || largest != largestTold {
			t.Fatalf("seed %d: %v records counted, %v told of; the largest is %v, told %v", seed, counted, summed, largest, largestTold)
		}
	}
}

func TestWantedIsPrefixes(t *testing.T) {
	m, _, _, _ := busy()
	s := m.Collect(after(9 * time.Second))
	for _, c := range []struct {
		wanted Wanted
		points int
	}{
		{nil, 0},
		{Wanted{""}, len(toldFirst)},
		{Wanted{"*"}, len(toldFirst)},
		{Wanted{"nothing", "*"}, len(toldFirst)},
		{Wanted{"org.apache.kafka."}, len(toldFirst)},
		{Wanted{"org.apache.kafka.producer."}, 13},
		{Wanted{"org.apache.kafka.producer.record.send.total"}, 1},
		{Wanted{"org.apache.kafka.producer.record.send.total", "org.apache.kafka.producer.record.send"}, 1},
		{Wanted{"org.apache.kafka.producer.record.send.totals"}, 0},
		{Wanted{"producer."}, 0},
		{Wanted{"org.apache.kafka.consumer.coordinator", "org.apache.kafka.admin"}, 8},
	} {
		sub := Subscription{Metrics: c.wanted, MaxBytes: 1 << 20, Delta: true}
		if got := told(t, s, sub); len(got) != c.points {
			t.Errorf("%q: %d points, expected %d: %q", c.wanted, len(got), c.points, got)
		}
	}
}

// A broker that takes few bytes gets what matters most, and never more bytes than it takes.
func TestLessIsToldWhereABrokerTakesFewBytes(t *testing.T) {
	m, p, _, _ := busy()
	for node := range int32(200) {
		p.Answered(node, 3, time.Millisecond, 0)
	}
	s := m.Collect(after(9 * time.Second))
	whole := s.Payload(&all, Compress)
	seen := map[int]bool{}
	for bytes := len(whole.Bytes) + 10; bytes >= 0; bytes -= 97 {
		sub := all
		sub.MaxBytes = bytes
		got := s.Payload(&sub, Compress)
		if len(got.Bytes) > bytes || got.Less != (got.Points < whole.Points) {
			t.Fatalf("%d bytes of at most %d, less: %v", len(got.Bytes), bytes, got.Less)
		}
		seen[got.Points] = true
		for _, point := range decode(t, got.Bytes) {
			if got.Less && strings.Contains(point.name, "record.send") {
				t.Fatalf("%v is told of, which is not required, and %d points are not", point, whole.Points-got.Points)
			}
		}
	}
	if len(seen) != 4 || !seen[0] {
		t.Errorf("numbers of points that were told: %v", seen)
	}
}

// Every codec is understood, and one that fails gives way to the next and at last to none.
func TestPayloadIsCompressed(t *testing.T) {
	m, _, _, _ := busy()
	s := m.Collect(after(9 * time.Second))
	for _, codec := range []batch.Codec{batch.None, batch.Gzip, batch.Snappy, batch.Lz4, batch.Zstd} {
		sub := all
		sub.Codecs = []batch.Codec{codec}
		if p := s.Payload(&sub, Compress); p.Codec != codec {
			t.Errorf("%v: compressed with %v", codec, p.Codec)
		}
		expect(t, codec.String(), told(t, s, sub), toldFirst)
	}
	if _, err := Compress(9, nil); !errors.Is(err, batch.ErrUnsupportedCodec) {
		t.Errorf("codec 9: %v", err)
	}
	sub := all
	sub.Codecs = []batch.Codec{batch.Zstd, batch.Lz4, batch.Gzip}
	works := func(working ...batch.Codec) func(batch.Codec, []byte) ([]byte, error) {
		return func(c batch.Codec, plain []byte) ([]byte, error) {
			if !slices.Contains(working, c) {
				return nil, errors.New("no such library")
			}
			return Compress(c, plain)
		}
	}
	for _, c := range []struct {
		working []batch.Codec
		used    batch.Codec
		failed  int
	}{
		{[]batch.Codec{batch.Zstd, batch.Lz4}, batch.Zstd, 0},
		{[]batch.Codec{batch.Gzip, batch.Lz4}, batch.Lz4, 1},
		{[]batch.Codec{batch.Snappy}, batch.None, 3},
	} {
		p := s.Payload(&sub, works(c.working...))
		if p.Codec != c.used || len(p.Failed) != c.failed {
			t.Errorf("%v work: %v is used, %v have failed", c.working, p.Codec, p.Failed)
		}
		if got := decode(t, unpack(t, p.Codec, p.Bytes)); len(got) != len(toldFirst) {
			t.Errorf("%v work: %d points", c.working, len(got))
		}
	}
}

// Parts with the same labels are one; what a part that is closed has counted is told once more, and then forgotten.
func TestPartsComeAndGo(t *testing.T) {
	m := NewMeters()
	m.Open(Labels{Kind: Producer}, epoch).Close()
	if len(m.scopes) != 0 {
		t.Errorf("%d scopes are kept that nobody asks for", len(m.scopes))
	}
	m.Time(true)
	a, b := m.Open(Labels{Kind: Producer}, epoch), m.Open(Labels{Kind: Producer}, epoch)
	a.Written(1, 1, nil)
	b.Written(2, 1, nil)
	sub := Subscription{Metrics: Wanted{"org.apache.kafka.producer.record"}, MaxBytes: 1 << 20}
	expect(t, "two producers", told(t, m.Collect(after(1)), sub), []string{"{} producer.record.send.total{} cumulative 3"})
	a.Close()
	s := m.Collect(after(2))
	expect(t, "one of them closed", told(t, s, sub), []string{"{} producer.record.send.total{} cumulative 3"})
	b.Written(4, 1, nil)
	b.Close()
	m.Taken(s)
	s = m.Collect(after(3))
	expect(t, "both closed", told(t, s, sub), []string{"{} producer.record.send.total{} cumulative 7"})
	m.Taken(s)
	if len(m.scopes) != 0 {
		t.Errorf("%d scopes are kept of which all is told", len(m.scopes))
	}
	for n := range 3 * maxEndedScopes {
		m.Open(Labels{Kind: Producer, TransactionalID: fmt.Sprint(n)}, epoch).Close()
	}
	if len(m.scopes) != maxEndedScopes {
		t.Errorf("%d scopes are kept, %d is the most", len(m.scopes), maxEndedScopes)
	}
	m.Time(false)
	if len(m.scopes) != 0 {
		t.Errorf("%d scopes are kept that nobody asks for any more", len(m.scopes))
	}
	c := m.Open(Labels{Kind: Consumer, Group: "g"}, epoch)
	c.Member(func() (string, int) { return "m1", 2 })
	m.Open(Labels{Kind: Consumer, Group: "g"}, epoch).Member(func() (string, int) { return "m2", 3 })
	sub.Metrics = Wanted{"org.apache.kafka.consumer.coordinator"}
	expect(t, "two members", told(t, m.Collect(after(4)), sub), []string{"{group_id=g} consumer.coordinator.assigned.partitions{} gauge 5"})
}

// Nobody measures while nobody asks, and what began then is not measured either. Sums go on.
func TestNothingIsTimedUnlessAsked(t *testing.T) {
	m := NewMeters()
	p := m.Open(Labels{Kind: Consumer}, epoch)
	p.Answered(1, 1, time.Second, 0)
	p.Queued(time.Second)
	p.Committed(time.Second)
	p.PollBegan(epoch)
	p.Read(1, 2, -1)
	m.Time(true)
	p.PollEnded(after(time.Second)) // nobody knows when it began
	expect(t, "told", told(t, m.Collect(after(time.Second)), all), []string{
		"{} consumer.connection.creation.rate{} gauge 0",
		"{} consumer.fetch.manager.records.consumed.total{} delta 1",
		"{} consumer.fetch.manager.bytes.consumed.total{} delta 2",
	})
	p.Rebalancing(epoch)
	m.Time(false)
	m.Time(true)
	p.Rebalanced(after(time.Hour), after(time.Hour+time.Second), true)
	expect(t, "rebalances", told(t, m.Collect(after(2*time.Hour)), Subscription{Metrics: Wanted{"org.apache.kafka.consumer.coordinator.rebalance.latency.avg"}, MaxBytes: 1 << 20}),
		[]string{"{} consumer.coordinator.rebalance.latency.avg{} gauge 1000"})
	var none *Meter
	none.Connected()
	none.PollBegan(epoch)
	none.Rebalanced(epoch, epoch, true)
	none.Close()
	if none.Timing() {
		t.Error("a nil meter measures")
	}
}

// Counting makes no garbage.
func TestCountingAllocatesNothing(t *testing.T) {
	m, p, c, _ := busy()
	_ = m
	now := epoch
	if n := testing.AllocsPerRun(1000, func() {
		p.Answered(1, 0, time.Millisecond, 0)
		p.Queued(time.Millisecond)
		p.Written(10, 1, nil)
		c.Read(1, 1, 1)
		now = now.Add(1)
		c.PollBegan(now)
		c.PollEnded(now)
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}
