//go:build compat

package compat

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"barnabas/client"
	ours "barnabas/client/admin"
	"barnabas/client/share"
	"barnabas/test/compat/rig"
)

// Share groups (KIP-932) against Apache Kafka. Ours has them not: what a member is told then is the
// last test here.

// shareLock is how long records are held, unless a group is configured otherwise.
const shareLock = 3 * time.Second

var shareSettings = []string{
	"group.share.min.record.lock.duration.ms=1000", "group.share.record.lock.duration.ms=3000",
	"group.share.min.session.timeout.ms=1000", "group.share.session.timeout.ms=6000",
	"group.share.min.heartbeat.interval.ms=100", "group.share.heartbeat.interval.ms=500",
}

// newShareGroup gives a group that begins at the start of its topics.
func newShareGroup(t *testing.T, addr string, settings ...string) string {
	t.Helper()
	group := uniqueTopic("share")
	set := map[string]string{"share.auto.offset.reset": "earliest"}
	for _, s := range settings {
		k, v, _ := strings.Cut(s, "=")
		set[k] = v
	}
	got, err := ours.New(ourClient(t, addr)).AlterConfigs(within(t, patience), []ours.ConfigChange{{Resource: ours.Group(group), Set: set}})
	if err != nil || got[0].Err != nil {
		t.Fatal(err, got)
	}
	return group
}

func newSharer(t *testing.T, addr, group, topic string, options ...share.Option) *share.Consumer {
	t.Helper()
	q, err := share.NewConsumer(ourClient(t, addr), group, options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		leave, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := q.Close(leave); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	if err := q.Subscribe(topic); err != nil {
		t.Fatal(err)
	}
	return q
}

func pollShare(t *testing.T, q *share.Consumer) []share.Record {
	t.Helper()
	records, err := q.Poll(within(t, patience))
	if err != nil {
		t.Fatal(err)
	}
	return records
}

func acknowledge(t *testing.T, q *share.Consumer, as share.Acknowledgement, records ...*share.Record) {
	t.Helper()
	if err := q.Acknowledge(as, records...); err != nil {
		t.Fatal(err)
	}
}

func commitShare(t *testing.T, q *share.Consumer) (offsets int) {
	t.Helper()
	results, err := q.Commit(within(t, patience))
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range results {
		offsets += len(r.Offsets)
	}
	return offsets
}

func pointers(records []share.Record) []*share.Record {
	out := make([]*share.Record, len(records))
	for i := range records {
		out[i] = &records[i]
	}
	return out
}

// shareDone waits until a group is done with everything up to the ends of a topic: gaps, too, and
// what was rejected.
func shareDone(t *testing.T, addr, group, topic string) {
	t.Helper()
	ends := endOffsets(t, addr, topic)
	a := ours.New(ourClient(t, addr))
	var last []ours.ShareGroupOffsets
	defer func() {
		if t.Failed() {
			t.Logf("ends %v, the group stands at %+v", ends, last)
		}
	}()
	rig.Eventually(t, patience, "the group is done with "+topic, func() bool {
		got, err := a.ShareGroupOffsets(t.Context(), group)
		if err != nil || got[0].Err != nil {
			return false
		}
		last = got
		for partition, end := range ends {
			done := end == 0 || slices.ContainsFunc(got[0].Offsets, func(o ours.ShareOffset) bool {
				return o.TopicPartition == client.TopicPartition{Topic: topic, Partition: partition} && o.Lag == 0
			})
			if !done {
				return false
			}
		}
		return true
	})
}

func TestShareConsumer(t *testing.T) {
	t.Parallel()
	t.Log("runs on Apache Kafka 4.3.1, one node")
	addr := rig.StartKafka(t, shareSettings...).Addr
	for name, test := range map[string]func(*testing.T, string){
		"implicit":                shareImplicit,
		"accept, release, reject": shareVerdicts,
		"locks run out":           shareLocksRunOut,
		"renewal":                 shareRenewal,
		"acquire modes":           shareAcquireModes,
		"close":                   shareClose,
		"members and gaps":        shareMembersAndGaps,
		"another subscription":    shareSubscription,
		"topic made again":        shareTopicMadeAgain,
		"program":                 shareProgram,
	} {
		t.Run(name, func(t *testing.T) { test(t, addr) })
	}
}

// Whatever a Poll returned is accepted by the next, and by Commit.
func shareImplicit(t *testing.T, addr string) {
	topic, group := uniqueTopic("implicit"), newShareGroup(t, addr)
	createTopic(t, addr, topic, 2)
	produceValues(t, addr, topic, 500, 20)
	var mu sync.Mutex
	told := 0
	q := newSharer(t, addr, group, topic, share.MaxPollRecords(60), share.OnAcknowledged(func(results []share.Result) {
		mu.Lock()
		defer mu.Unlock()
		for _, r := range results {
			if r.Err != nil {
				t.Errorf("%v: %v", r.TopicPartition, r.Err)
			}
			told += len(r.Offsets)
		}
	}))
	seen := map[client.TopicPartition]map[int64]bool{}
	for n := 0; n < 500; {
		records := pollShare(t, q)
		if len(records) > 60 {
			t.Errorf("%d records of one Poll", len(records))
		}
		for _, r := range records {
			if r.DeliveryCount != 1 || r.LockedUntil.IsZero() {
				t.Errorf("%v offset %d: delivery %d, locked until %v", r.TopicPartition(), r.Offset, r.DeliveryCount, r.LockedUntil)
			}
			if seen[r.TopicPartition()] == nil {
				seen[r.TopicPartition()] = map[int64]bool{}
			}
			if seen[r.TopicPartition()][r.Offset] {
				t.Errorf("%v offset %d came twice", r.TopicPartition(), r.Offset)
			}
			seen[r.TopicPartition()][r.Offset] = true
			n++
		}
	}
	if err := q.Acknowledge(share.Accept); !errors.Is(err, share.ErrImplicit) {
		t.Errorf("acknowledge: %v", err)
	}
	commitShare(t, q)
	mu.Lock()
	defer mu.Unlock()
	if told != 500 {
		t.Errorf("told of %d acknowledgements", told)
	}
	if lock, ok := q.AcquisitionLockTimeout(); !ok || lock != shareLock {
		t.Errorf("the lock lasts %v, %v", lock, ok)
	}
	shareDone(t, addr, group, topic)
}

// What is released comes again, counted; what is accepted or rejected does not.
func shareVerdicts(t *testing.T, addr string) {
	topic, group := uniqueTopic("verdicts"), newShareGroup(t, addr)
	createTopic(t, addr, topic, 1)
	produceValues(t, addr, topic, 30, 20)
	q := newSharer(t, addr, group, topic, share.Explicit())
	deliveries := map[int64]int16{}
	verdicts := 0
	for done := 0; done < 30; {
		records := pollShare(t, q)
		if _, err := q.Poll(within(t, patience)); !errors.Is(err, share.ErrUnacknowledged) {
			t.Fatalf("poll again: %v", err)
		}
		for i := range records {
			r := &records[i]
			if r.DeliveryCount != deliveries[r.Offset]+1 {
				t.Errorf("offset %d: delivery %d after %d", r.Offset, r.DeliveryCount, deliveries[r.Offset])
			}
			deliveries[r.Offset] = r.DeliveryCount
			verdict := []share.Acknowledgement{share.Accept, share.Release, share.Reject}[r.Offset%3]
			if r.DeliveryCount > 1 {
				verdict = share.Accept
			}
			acknowledge(t, q, share.Reject, r)
			acknowledge(t, q, verdict, r) // what is said last counts
			verdicts++
			if verdict != share.Release {
				done++
			}
		}
		if done%2 == 0 {
			if n := commitShare(t, q); n != len(records) {
				t.Errorf("%d acknowledgements of %d", n, len(records))
			}
			if err := q.Acknowledge(share.Accept, &records[0]); !errors.Is(err, share.ErrAcknowledged) {
				t.Errorf("once more: %v", err)
			}
		}
	}
	commitShare(t, q)
	for offset, n := range deliveries {
		if want := map[bool]int16{true: 2, false: 1}[offset%3 == 1]; n != want {
			t.Errorf("offset %d was delivered %d times", offset, n)
		}
	}
	shareDone(t, addr, group, topic)
}

// A record that nobody acknowledges comes again, and is lost to who had it first.
func shareLocksRunOut(t *testing.T, addr string) {
	topic, group := uniqueTopic("locks"), newShareGroup(t, addr)
	createTopic(t, addr, topic, 1)
	produceValues(t, addr, topic, 1, 20)
	slow := newSharer(t, addr, group, topic, share.Explicit())
	held := pollShare(t, slow)
	other := newSharer(t, addr, group, topic, share.Explicit())
	again := pollShare(t, other)
	if again[0].Offset != held[0].Offset || again[0].DeliveryCount != 2 {
		t.Errorf("offset %d came as delivery %d", again[0].Offset, again[0].DeliveryCount)
	}
	acknowledge(t, other, share.Accept, &again[0])
	commitShare(t, other)
	if err := slow.Acknowledge(share.Accept, &held[0]); !errors.Is(err, share.ErrLost) {
		t.Errorf("too late: %v", err)
	}
	shareDone(t, addr, group, topic)
}

// A lock that is renewed in time does not run out, however long the work takes.
func shareRenewal(t *testing.T, addr string) {
	topic, group := uniqueTopic("renewal"), newShareGroup(t, addr)
	createTopic(t, addr, topic, 1)
	produceValues(t, addr, topic, 2, 20)
	q := newSharer(t, addr, group, topic, share.Explicit(), share.MaxPollRecords(1), share.RecordLimit())
	long := pollShare(t, q)
	other := newSharer(t, addr, group, topic, share.Explicit())
	short := pollShare(t, other)
	if short[0].Offset == long[0].Offset {
		t.Fatal("both have the same record")
	}
	acknowledge(t, other, share.Accept, &short[0])
	commitShare(t, other)
	waits, stop := context.WithTimeout(t.Context(), 3*shareLock)
	defer stop()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if records, err := other.Poll(waits); err == nil {
			t.Errorf("the other got %d records: offset %d, delivery %d", len(records), records[0].Offset, records[0].DeliveryCount)
		}
	}()
	tick := time.NewTicker(shareLock / 3)
	defer tick.Stop()
	for renewing := true; renewing; {
		select {
		case <-tick.C:
			acknowledge(t, q, share.Renew, &long[0])
			commitShare(t, q)
		case <-ended:
			renewing = false
		}
	}
	// Neither does a Poll in between ask for the record, nor return it.
	none, stopNone := context.WithTimeout(t.Context(), shareLock/6)
	defer stopNone()
	if records, err := q.Poll(none); err == nil {
		t.Errorf("a renewed record came again: %v", records)
	}
	acknowledge(t, q, share.Accept, &long[0])
	if n := commitShare(t, q); n != 1 {
		t.Errorf("%d acknowledgements", n)
	}
	shareDone(t, addr, group, topic)
}

// With record_limit nothing is held that Poll has not returned; by default whole batches are.
func shareAcquireModes(t *testing.T, addr string) {
	topic := uniqueTopic("modes")
	createTopic(t, addr, topic, 1)
	cl := kgoClient(t, addr, kgo.ProducerLinger(time.Second))
	batch := make([]*kgo.Record, 100)
	for i := range batch {
		batch[i] = &kgo.Record{Topic: topic, Value: fmt.Append(nil, i)}
	}
	if err := cl.ProduceSync(within(t, patience), batch...).FirstErr(); err != nil {
		t.Fatal(err)
	}
	limited := newShareGroup(t, addr, "share.record.lock.duration.ms=60000")
	next := map[int64]bool{}
	for range 3 {
		q := newSharer(t, addr, limited, topic, share.Explicit(), share.RecordLimit(), share.MaxPollRecords(7))
		records := pollShare(t, q)
		if len(records) > 7 {
			t.Errorf("%d records", len(records))
		}
		for _, r := range records {
			next[r.Offset] = true
		}
	}
	for o := range int64(len(next)) {
		if !next[o] {
			t.Errorf("the three got %v", slices.Sorted(maps.Keys(next)))
			break
		}
	}
	whole := newShareGroup(t, addr, "share.record.lock.duration.ms=60000")
	greedy := newSharer(t, addr, whole, topic, share.Explicit(), share.MaxPollRecords(7))
	first := pollShare(t, greedy)
	acknowledge(t, greedy, share.Accept, pointers(first)...)
	commitShare(t, greedy)
	second := pollShare(t, greedy)
	if len(first) != 7 || len(second) != 7 || second[0].Offset != 7 || !second[0].LockedUntil.Equal(first[0].LockedUntil) {
		t.Errorf("%d records until %v, then %d until %v", len(first), first[0].LockedUntil, len(second), second[0].LockedUntil)
	}
}

// Close releases what is held, whatever the lock, sends what was acknowledged, and leaves.
func shareClose(t *testing.T, addr string) {
	topic, group := uniqueTopic("close"), newShareGroup(t, addr, "share.record.lock.duration.ms=60000")
	createTopic(t, addr, topic, 1)
	produceValues(t, addr, topic, 10, 20)
	q, err := share.NewConsumer(ourClient(t, addr), group, share.Explicit())
	if err != nil {
		t.Fatal(err)
	}
	if err := q.Subscribe(topic); err != nil {
		t.Fatal(err)
	}
	records := pollShare(t, q)
	acknowledge(t, q, share.Accept, &records[0])
	if err := q.Close(within(t, patience)); err != nil {
		t.Fatal(err)
	}
	if _, err := q.Poll(t.Context()); !errors.Is(err, client.ErrClosed) {
		t.Errorf("poll: %v", err)
	}
	d, err := ours.New(ourClient(t, addr)).DescribeShareGroups(within(t, patience), group)
	if err != nil || d[0].Err != nil || len(d[0].Members) != 0 {
		t.Errorf("the group is %+v, %v", d, err)
	}
	next := newSharer(t, addr, group, topic)
	began := time.Now()
	for seen := 0; seen < 9; {
		for _, r := range pollShare(t, next) {
			if r.Offset == records[0].Offset {
				t.Error("what was accepted came again")
			}
			if slices.ContainsFunc(records, func(h share.Record) bool { return h.Offset == r.Offset }) && r.DeliveryCount != 2 {
				t.Errorf("offset %d: delivery %d", r.Offset, r.DeliveryCount)
			}
			seen++
		}
	}
	t.Logf("all came again after %v; the lock lasts a minute", time.Since(began))
	commitShare(t, next)
	shareDone(t, addr, group, topic)
}

// Members that come and go share a topic with transactions: every committed record is accepted once,
// and the markers between them hold up nothing.
func shareMembersAndGaps(t *testing.T, addr string) {
	topic, group := uniqueTopic("members"), newShareGroup(t, addr, "share.isolation.level=read_committed")
	createTopic(t, addr, topic, 3)
	cl := kgoClient(t, addr, kgo.TransactionalID(topic), kgo.DefaultProduceTopic(topic), kgo.RecordPartitioner(kgo.RoundRobinPartitioner()))
	ctx := within(t, patience)
	committed := 0
	for i := range 40 {
		if err := cl.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		aborts := i%4 == 3
		for n := range 25 {
			cl.Produce(ctx, &kgo.Record{Value: fmt.Appendf(nil, "%v %d %d", aborts, i, n)}, nil)
		}
		if err := cl.Flush(ctx); err != nil {
			t.Fatal(err)
		}
		if !aborts {
			committed += 25
		}
		if err := cl.EndTransaction(ctx, kgo.TransactionEndTry(!aborts)); err != nil {
			t.Fatal(err)
		}
	}
	into := newReading()
	var members sync.WaitGroup
	reading, stop := context.WithCancel(t.Context())
	defer stop()
	for m := range 4 {
		options := []share.Option{share.MaxPollRecords(10 + m)}
		if m%2 == 1 {
			options = append(options, share.RecordLimit())
		}
		q := newSharer(t, addr, group, topic, options...)
		members.Go(func() {
			for {
				records, err := q.Poll(reading)
				if reading.Err() != nil {
					break
				}
				if err != nil {
					t.Error(err)
					return
				}
				for _, r := range records {
					if strings.HasPrefix(string(r.Value), "true") {
						t.Errorf("an aborted record came: %s", r.Value)
					}
					into.add(fmt.Sprint(m), r.Partition, r.Offset)
				}
			}
			if _, err := q.Commit(ctx); err != nil {
				t.Error(err)
			}
			// Who is a member and does not ask keeps its partitions, and what it has acquired of them, from the one that looks below.
			if err := q.Close(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	rig.Eventually(t, patience, "all are read", func() bool { read, _ := into.total(); return read >= committed })
	stop()
	members.Wait()
	if read, again := into.total(); read != committed || again != 0 {
		t.Errorf("read %d of %d, %d of them again", read, committed, again)
	}
	last := newSharer(t, addr, group, topic) // markers behind the last record
	none, stopNone := context.WithTimeout(t.Context(), shareLock)
	defer stopNone()
	if records, err := last.Poll(none); err == nil {
		t.Errorf("%d records came again, first %v", len(records), records[0].Offset)
	}
	// That gaps are done with is said with the next fetch, so somebody has to go on asking.
	asking, stopAsking := context.WithCancel(t.Context())
	asked := make(chan struct{})
	go func() {
		defer close(asked)
		for asking.Err() == nil {
			if records, err := last.Poll(asking); err == nil && len(records) > 0 {
				t.Errorf("%d records came again, first %v", len(records), records[0].Offset)
			}
		}
	}()
	defer func() { stopAsking(); <-asked }()
	shareDone(t, addr, group, topic)
}

// Records of a topic that is not subscribed to any more can be acknowledged, and after that none of it
// is acquired: a partition is not listed to carry an acknowledgement alone (trap 27).
func shareSubscription(t *testing.T, addr string) {
	before, after, group := uniqueTopic("before"), uniqueTopic("after"), newShareGroup(t, addr, "share.record.lock.duration.ms=60000")
	createTopic(t, addr, before, 1)
	createTopic(t, addr, after, 1)
	produceValues(t, addr, before, 5, 20)
	q := newSharer(t, addr, group, before, share.Explicit())
	held := pollShare(t, q)
	if err := q.Subscribe(after); err != nil {
		t.Fatal(err)
	}
	rig.Eventually(t, patience, "the other topic is assigned", func() bool {
		return slices.Equal(q.Assignment(), []client.TopicPartition{{Topic: after}})
	})
	produceValues(t, addr, before, 5, 20)
	produceValues(t, addr, after, 5, 20)
	acknowledge(t, q, share.Accept, pointers(held)...)
	for seen := 0; seen < 5; {
		records := pollShare(t, q)
		for _, r := range records {
			if r.Topic != after {
				t.Errorf("a record of %s came", r.Topic)
			}
			seen++
		}
		acknowledge(t, q, share.Accept, pointers(records)...)
		commitShare(t, q)
	}
	if got := q.Subscription(); !slices.Equal(got, []string{after}) {
		t.Errorf("subscribed to %v", got)
	}
	rest := newSharer(t, addr, group, before)
	for seen := len(held); seen < 10; {
		for _, r := range pollShare(t, rest) {
			if r.DeliveryCount != 1 && r.Offset >= 5 {
				t.Errorf("offset %d: delivery %d", r.Offset, r.DeliveryCount)
			}
			seen++
		}
	}
	commitShare(t, rest)
	shareDone(t, addr, group, before)
	shareDone(t, addr, group, after)
}

// A topic that is deleted and made again is another: it is read from its start.
func shareTopicMadeAgain(t *testing.T, addr string) {
	topic, group := uniqueTopic("again"), newShareGroup(t, addr)
	createTopic(t, addr, topic, 1)
	produceValues(t, addr, topic, 5, 20)
	q := newSharer(t, addr, group, topic)
	for seen := 0; seen < 5; {
		seen += len(pollShare(t, q))
	}
	commitShare(t, q)
	if _, err := admin(t, addr).DeleteTopics(t.Context(), topic); err != nil {
		t.Fatal(err)
	}
	rig.Eventually(t, patience, "the topic is gone", func() bool {
		details, err := admin(t, addr).ListTopics(t.Context())
		return err == nil && !details.Has(topic)
	})
	createTopic(t, addr, topic, 1)
	produceValues(t, addr, topic, 3, 20)
	for seen := int64(0); seen < 3; {
		for _, r := range pollShare(t, q) {
			if r.Offset != seen {
				t.Errorf("offset %d, expected %d", r.Offset, seen)
			}
			seen++
		}
	}
	commitShare(t, q)
}

// The program of examples/ does what it says, and what one held that is killed with -9 the other gets.
func shareProgram(t *testing.T, addr string) {
	topic, group := uniqueTopic("program"), uniqueTopic("workers")
	createTopic(t, addr, topic, 1) // of several, Apache Kafka would give each member some
	cl, ctx := kgoClient(t, addr, kgo.DefaultProduceTopic(topic), kgo.RecordPartitioner(kgo.RoundRobinPartitioner())), within(t, patience)
	const records = 60
	for i := range records {
		value := fmt.Appendf(nil, "picture %d", i)
		switch i % 20 {
		case 7:
			value = []byte("fail")
		case 9:
			value = []byte("never")
		}
		if err := cl.ProduceSync(ctx, &kgo.Record{Value: value}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	program := filepath.Join(t.TempDir(), "sharegroup")
	build := exec.Command("go", "build", "-o", program, "./examples/sharegroup")
	build.Dir = rig.Root()
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var mu sync.Mutex
	said := map[string][]string{} // "partition offset" by final verdict
	finals := func() (n int) {
		mu.Lock()
		defer mu.Unlock()
		return len(said["accept"]) + len(said["reject"])
	}
	member := func(name, takes string) *rig.Program {
		return rig.Launch(t, name, []string{program, "-brokers", addr, "-topic", topic, "-group", group, "-takes", takes}, func(line string) {
			fields := strings.Fields(line)
			if len(fields) < 6 {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			said[fields[0]] = append(said[fields[0]], fields[1]+" "+fields[2])
		})
	}
	killed := member("killed", "20ms")
	rig.Eventually(t, patience, "the first works", func() bool { return finals() > 5 })
	killed.Kill()
	stays, slow := member("stays", "20ms"), member("slow", "5s") // which outlasts the lock
	shareDone(t, addr, group, topic)
	stays.Terminate()
	slow.Terminate()
	<-stays.Ended()
	<-slow.Ended()
	if n := finals(); n < records-1 || n > records { // the one that was killed may not have come to say it
		t.Errorf("%d of %d are said to be done with", n, records)
	}
	mu.Lock()
	defer mu.Unlock()
	if r, again := len(said["reject"]), len(said["release"]); r < 5 || r > 6 || again < 5 || again > 6 {
		t.Errorf("%d rejected, %d released", r, again)
	}
}

// A broker without share groups is told apart from one that is away; one that has them answers.
func TestShareGroupsAreNotThere(t *testing.T) {
	t.Log("runs on", rig.System())
	addr, topic := clientBroker(t), uniqueTopic("without")
	if rig.System() != "kafka" {
		withoutShareGroups(t, addr, topic)
		return
	}
	createTopic(t, addr, topic, 1)
	produceValues(t, addr, topic, 1, 20)
	if got := pollShare(t, newSharer(t, addr, newShareGroup(t, addr), topic)); len(got) != 1 {
		t.Errorf("read %d records", len(got))
	}
}

func withoutShareGroups(t *testing.T, addr, topic string) {
	t.Helper()
	createTopic(t, addr, topic, 1)
	q := newSharer(t, addr, uniqueTopic("share"), topic)
	if _, err := q.Poll(within(t, patience)); !errors.Is(err, client.ErrUnsupportedVersion) {
		t.Errorf("poll: %v", err)
	}
}
