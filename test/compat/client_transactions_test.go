//go:build compat

package compat

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"barnabas/client"
	ours "barnabas/client/admin"
	"barnabas/test/compat/rig"
)

var transactionTests = []clientTest{
	{name: "transactions by transaction.version 2", needs: []need{transactions, killable, supported("transaction.version", 2)}, run: transactionsAt(2)},
	{name: "transactions by transaction.version 1", needs: []need{transactions, killable, supported("transaction.version", 2)}, run: transactionsAt(1), shorter: nowhere},
	{name: "transactions by transaction.version 0", needs: []need{transactions, killable}, run: transactionsAt(0), shorter: []siteOf{kafka391}},
}

// transactionsAt has our producer's transactions in the protocol of transaction.version 2, or, the feature downgraded, in the
// one before it (KIP-890). What was committed franz-go tells.
func transactionsAt(level int16) func(t *testing.T, p *site) {
	return func(t *testing.T, p *site) {
		before := p.finalized["transaction.version"]
		setTransactionVersion(t, p.addr, level)
		defer setTransactionVersion(t, p.addr, before)
		t.Run("all or nothing", func(t *testing.T) { ourAllOrNothing(t, p.addr) })
		t.Run("fencing", func(t *testing.T) { ourFencing(t, p.addr) })
		t.Run("timed out", func(t *testing.T) { ourTimedOut(t, p.addr) })
		t.Run("offsets of a stranger", func(t *testing.T) { ourStranger(t, p.addr) })
		t.Run("exactly once copy, broker killed", func(t *testing.T) { ourExactlyOnceCopy(t, p) })
		t.Run("nothing hangs", func(t *testing.T) { nothingHangs(t, p.addr) })
	}
}

func setTransactionVersion(t *testing.T, addr string, level int16) {
	t.Helper()
	a := ours.New(ourClient(t, addr))
	ctx := within(t, patience)
	if have, err := a.DescribeFeatures(ctx); err != nil || have.Finalized["transaction.version"].Max != level {
		kind := ours.SafeDowngrade
		if have.Finalized["transaction.version"].Max < level {
			kind = ours.Upgrade
		}
		if err == nil {
			err = a.UpdateFeatures(ctx, []ours.FeatureUpdate{{Feature: "transaction.version", Level: level, Kind: kind}})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	rig.Eventually(t, patience, "transaction.version is in force", func() bool {
		have, err := a.DescribeFeatures(ctx)
		return err == nil && have.Finalized["transaction.version"].Max == level
	})
}

func transactional(t *testing.T, addr, id string, options ...client.ProducerOption) *client.Producer {
	t.Helper()
	c := ourClient(t, addr, client.RetryBackoff(20*time.Millisecond, time.Second))
	p, err := c.NewProducer(append([]client.ProducerOption{client.TransactionalID(id)}, options...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = p.Close(ctx)
	})
	if err := p.InitTransactions(within(t, patience)); err != nil {
		t.Fatal(err)
	}
	return p
}

// readCommitted gives the values that franz-go reads of each partition up to the ends as they stand.
func readCommitted(t *testing.T, addr, topic string) map[int32][]string {
	t.Helper()
	ctx := within(t, patience)
	left := endOffsets(t, addr, topic)
	maps.DeleteFunc(left, func(_ int32, end int64) bool { return end == 0 })
	cl := kgoClient(t, addr, kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords())
	values := map[int32][]string{}
	for len(left) > 0 {
		fetches := cl.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			t.Fatalf("read %s: %v; left %v", topic, err, left)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			if !r.Attrs.IsControl() {
				values[r.Partition] = append(values[r.Partition], string(r.Value))
			}
			if r.Offset+1 >= left[r.Partition] { // transactions end with markers, so the last is never left out
				delete(left, r.Partition)
			}
		})
	}
	return values
}

func ourAllOrNothing(t *testing.T, addr string) {
	ctx := within(t, patience)
	topic := uniqueTopic("our-txn")
	createTopic(t, addr, topic, 3)
	p := transactional(t, addr, topic, client.BatchSize(300))
	want := map[int32][]string{}
	for n := range 12 {
		if err := p.Begin(); err != nil {
			t.Fatal(err)
		}
		commit := n%3 != 2
		for i := range 40 {
			at := int32(i % 3)
			if n == 5 && at == 0 {
				continue
			}
			value := fmt.Sprintf("transaction %d record %d", n, i)
			if err := p.Send(ctx, client.ProducerRecord{Topic: topic, Partition: client.ToPartition(at), Value: []byte(value)}, nil); err != nil {
				t.Fatal(err)
			}
			if commit {
				want[at] = append(want[at], value)
			}
		}
		if n == 2 { // one of the aborted is on disk, the others may never have left
			if err := p.Flush(ctx); err != nil {
				t.Fatal(err)
			}
		}
		end := p.Abort
		if commit {
			end = p.Commit
		}
		if err := end(ctx); err != nil {
			t.Fatalf("transaction %d: %v", n, err)
		}
	}
	got := readCommitted(t, addr, topic)
	for n := range int32(3) {
		if !slices.Equal(got[n], want[n]) {
			t.Errorf("partition %d: %d values, expected %d: %v", n, len(got[n]), len(want[n]), got[n])
		}
	}
}

func ourFencing(t *testing.T, addr string) {
	ctx := within(t, patience)
	topic := uniqueTopic("our-fencing")
	createTopic(t, addr, topic, 1)
	send := func(p *client.Producer, value string) error {
		_, err := p.SendSync(ctx, client.ProducerRecord{Topic: topic, Value: []byte(value)})
		return err
	}
	old := transactional(t, addr, topic)
	if err := errors.Join(old.Begin(), send(old, "old")); err != nil {
		t.Fatal(err)
	}
	young := transactional(t, addr, topic)
	if err := errors.Join(young.Begin(), send(young, "young")); err != nil {
		t.Fatal(err)
	}
	if err := send(old, "late"); err == nil {
		t.Error("the fenced producer's record was taken")
	}
	if err := old.Commit(ctx); err == nil {
		t.Error("the fenced producer has committed")
	}
	if err := old.Abort(ctx); !errors.Is(err, client.ErrProducerFenced) {
		t.Errorf("the fenced producer aborts: %v", err)
	}
	if err := old.Begin(); !errors.Is(err, client.ErrProducerFenced) {
		t.Errorf("the fenced producer begins: %v", err)
	}
	if err := young.Commit(ctx); err != nil {
		t.Fatal(err)
	}
	if got := readCommitted(t, addr, topic); !slices.Equal(got[0], []string{"young"}) {
		t.Errorf("committed are %v", got)
	}
}

// A transaction that takes too long is aborted by the coordinator, and its producer fenced.
func ourTimedOut(t *testing.T, addr string) {
	ctx := within(t, patience)
	topic := uniqueTopic("our-timeout")
	createTopic(t, addr, topic, 1)
	// On a slow machine a second may be over before the record is taken.
	var p *client.Producer
	for timeout := time.Second; ; timeout *= 2 {
		p = transactional(t, addr, topic, client.TransactionTimeout(timeout))
		if err := p.Begin(); err != nil {
			t.Fatal(err)
		}
		_, err := p.SendSync(ctx, client.ProducerRecord{Topic: topic, Value: []byte("v")})
		if err == nil {
			break
		}
		t.Logf("within %v: %v", timeout, err)
		if timeout > time.Minute {
			t.Fatal("no transaction has lasted long enough for one record")
		}
	}
	adm := admin(t, addr)
	rig.Eventually(t, patience, "the coordinator aborts the transaction", func() bool {
		d, err := adm.DescribeTransactions(ctx, topic)
		return err == nil && strings.HasSuffix(d[topic].State, "Abort")
	})
	if err := p.Commit(ctx); err == nil {
		t.Error("committed what was aborted")
	}
	next := transactional(t, addr, topic)
	if err := next.Begin(); err != nil {
		t.Fatal(err)
	}
	if _, err := next.SendSync(ctx, client.ProducerRecord{Topic: topic, Value: []byte("w")}); err != nil {
		t.Fatal(err)
	}
	if err := next.Commit(ctx); err != nil {
		t.Fatal(err)
	}
	if got := readCommitted(t, addr, topic); !slices.Equal(got[0], []string{"w"}) {
		t.Errorf("committed are %v", got)
	}
}

// The group of a member that it has put out does not take its offsets, and the transaction fails;
// the next one is fine.
func ourStranger(t *testing.T, addr string) {
	ctx := within(t, patience)
	topic := uniqueTopic("our-stranger")
	createTopic(t, addr, topic, 1)
	g := readingMember(t, addr, topic, topic)
	awaitAssignment(t, g, 1)
	p := transactional(t, addr, topic)
	tp := client.TopicPartition{Topic: topic}
	at := map[client.TopicPartition]client.OffsetAndMetadata{tp: {Offset: 3, Metadata: "note"}}
	stranger := g.Membership()
	stranger.Generation += 5
	if err := p.Begin(); err != nil {
		t.Fatal(err)
	}
	if _, err := p.SendSync(ctx, client.ProducerRecord{Topic: topic, Value: []byte("lost")}); err != nil {
		t.Fatal(err)
	}
	if err := p.SendOffsets(ctx, at, stranger); !errors.Is(err, client.ErrIllegalGeneration) {
		t.Errorf("offsets of another generation: %v", err)
	}
	if err := p.Commit(ctx); !errors.Is(err, client.ErrTransactionAborted) {
		t.Errorf("commit: %v", err)
	}
	if err := p.Abort(ctx); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(p.Begin(), p.SendOffsets(ctx, at, g.Membership()), p.Commit(ctx)); err != nil {
		t.Fatal(err)
	}
	got, err := g.Committed(ctx, tp)
	if err != nil || got[tp].Offset != 3 || got[tp].Metadata != "note" {
		t.Errorf("committed %+v: %v", got, err)
	}
	if got := readCommitted(t, addr, topic); len(got[0]) > 0 {
		t.Errorf("committed are %v", got)
	}
}

func readingMember(t *testing.T, addr, group, topic string) *client.GroupConsumer {
	t.Helper()
	c := ourClient(t, addr, client.RetryBackoff(20*time.Millisecond, time.Second))
	g, err := c.NewGroupConsumer(group, client.NoAutoCommit(), client.IsolationLevel(client.ReadCommitted),
		client.AutoOffsetReset(client.Earliest), client.MaxPollRecords(50))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = g.Close(ctx)
	})
	if err := g.Subscribe(topic); err != nil {
		t.Fatal(err)
	}
	return g
}

// awaitAssignment polls until the member reads so many partitions.
func awaitAssignment(t *testing.T, g *client.GroupConsumer, partitions int) {
	t.Helper()
	rig.Eventually(t, patience, "the member has its partitions", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		_, _ = g.Poll(ctx)
		return len(g.Assignment()) == partitions
	})
}

const (
	copied   = 3000 // records of the exactly once copy
	copyMost = 100  // of them, in one transaction
)

// ourExactlyOnceCopy reads a topic and writes another, committing what it has read with what it
// has written. Transactions fail on purpose, copiers are replaced without a farewell, and the
// broker is killed. In the end everything has been copied once and in order.
func ourExactlyOnceCopy(t *testing.T, p *site) {
	ctx := within(t, 2*patience)
	from, to := uniqueTopic("copy-from"), uniqueTopic("copy-to")
	createTopic(t, p.addr, from, 2)
	createTopic(t, p.addr, to, 2)
	source, err := ourClient(t, p.addr).NewProducer()
	if err != nil {
		t.Fatal(err)
	}
	want := map[int32][]string{}
	for i := range copied {
		at := int32(i % 2)
		want[at] = append(want[at], fmt.Sprint(i))
		if err := source.Send(ctx, client.ProducerRecord{Topic: from, Partition: client.ToPartition(at), Value: fmt.Append(nil, i)}, nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := source.Close(ctx); err != nil {
		t.Fatal(err)
	}
	restarted := make(chan struct{})
	opened := 0
	interlude := func() {
		if opened++; opened != copied/copyMost/2 { // so many transactions there are, whichever copier opens them
			return
		}
		restart := p.kill()
		go func() {
			defer close(restarted)
			restart()
		}()
	}
	rounds := 0
	for done := int64(0); done < copied; done = committedOf(ctx, t, p.addr, from) {
		rounds++
		// Every copier is dropped after some transactions, its last one left open.
		if err := copyRecords(ctx, t, p.addr, from, to, 12, interlude); err != nil {
			t.Logf("copier %d, %d copied before: %v", rounds, done, err)
		}
		if ctx.Err() != nil {
			t.Fatalf("%d of %d records copied in %d rounds: %v", done, copied, rounds, context.Cause(ctx))
		}
	}
	<-restarted
	got := readCommitted(t, p.addr, to)
	for n := range int32(2) {
		if !slices.Equal(got[n], want[n]) {
			t.Errorf("partition %d: %d records copied of %d: %v", n, len(got[n]), len(want[n]), got[n])
		}
	}
}

// committedOf sums up the positions of a group, 0 while they cannot be had.
func committedOf(ctx context.Context, t *testing.T, addr, group string) (sum int64) {
	t.Helper()
	offsets, err := admin(t, addr).FetchOffsets(ctx, group)
	if err != nil {
		return 0
	}
	offsets.Each(func(o kadm.OffsetResponse) { sum += max(o.At, 0) })
	return sum
}

// copyRecords commits so many transactions, every fourth aborted first, and leaves another open.
// interlude happens between what each of them has sent and its end.
func copyRecords(ctx context.Context, t *testing.T, addr, from, to string, transactions int, interlude func()) error {
	c := ourClient(t, addr, client.RetryBackoff(20*time.Millisecond, time.Second), client.RequestTimeout(5*time.Second))
	g, err := c.NewGroupConsumer(from, client.NoAutoCommit(), client.IsolationLevel(client.ReadCommitted),
		client.AutoOffsetReset(client.Earliest), client.MaxPollRecords(copyMost), client.SessionTimeout(6*time.Second),
		client.InstanceID("copier")) // static, so that the next one need not wait for this one's session
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = g.Close(ctx) }()
	if err := g.Subscribe(from); err != nil {
		t.Fatal(err)
	}
	p, err := c.NewProducer(client.TransactionalID(to), client.Linger(0))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		c.Close() // with all that it has, unsent or not, as if the program had died
		_ = p.Close(ctx)
	}()
	if err := p.InitTransactions(ctx); err != nil {
		return err
	}
	for n := range transactions {
		polling, cancel := context.WithTimeout(ctx, 5*time.Second)
		records, err := g.Poll(polling)
		cancel()
		if err != nil {
			return err // behind the last record, or the broker is away
		}
		for attempt := 0; ; attempt++ {
			if err := copyOnce(ctx, p, g, to, records); err != nil {
				return err
			}
			if n == transactions-1 {
				return nil
			}
			interlude()
			if n%4 != 3 || attempt > 0 {
				break
			}
			if err := p.Abort(ctx); err != nil {
				return err
			}
		}
		if err := p.Commit(ctx); err != nil {
			return err
		}
	}
	return nil
}

// copyOnce opens a transaction with the records and the position behind them.
func copyOnce(ctx context.Context, p *client.Producer, g *client.GroupConsumer, to string, records []client.Record) error {
	if err := p.Begin(); err != nil {
		return err
	}
	for _, r := range records {
		if err := p.Send(ctx, client.ProducerRecord{Topic: to, Partition: client.ToPartition(r.Partition), Value: r.Value}, nil); err != nil {
			return err
		}
	}
	last := records[len(records)-1]
	return p.SendOffsets(ctx, map[client.TopicPartition]client.OffsetAndMetadata{
		last.TopicPartition(): {Offset: last.Offset + 1, LeaderEpoch: client.InEpoch(last.LeaderEpoch)},
	}, g.Membership())
}

// nothingHangs: every transaction that any of the tests began has ended.
func nothingHangs(t *testing.T, addr string) {
	ctx := within(t, patience)
	adm := admin(t, addr)
	rig.Eventually(t, patience, "no transaction is open", func() bool {
		all, err := adm.ListTransactions(ctx, nil, nil)
		if err != nil {
			return false
		}
		for _, x := range all {
			if !strings.HasPrefix(x.State, "Complete") && x.State != "Empty" {
				return false
			}
		}
		return len(all) > 0
	})
}
