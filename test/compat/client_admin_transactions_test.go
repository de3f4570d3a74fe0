//go:build compat

package compat

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/client"
	ours "barnabas/client/admin"
)

func ourTransactionsAdmin(ctx context.Context, t *testing.T, addr string, a *ours.Admin) {
	topic, _ := madeTopic(ctx, t, a, "our-txn-admin", 1)
	tp := client.TopicPartition{Topic: topic}
	id := uniqueTopic("our-txn-admin")
	open := func() *client.Producer {
		p := transactional(t, addr, id, client.TransactionTimeout(time.Minute))
		if err := p.Begin(); err != nil {
			t.Fatal(err)
		}
		if _, err := p.SendSync(ctx, client.ProducerRecord{Topic: topic, Value: []byte("v")}); err != nil {
			t.Fatal(err)
		}
		return p
	}
	p := open()
	got, err := a.DescribeTransactions(ctx, id+"-none", id)
	if err != nil || !errors.Is(got[0].Err, client.ErrTransactionalIDNotFound) {
		t.Fatalf("%+v, %v", got, err)
	}
	d := got[1]
	if d.Err != nil || d.State != ours.TransactionOngoing || d.Timeout != time.Minute || time.Since(d.Started) > patience || !slices.Equal(d.Partitions, []client.TopicPartition{tp}) ||
		d.ProducerID < 0 || d.Coordinator < 0 {
		t.Errorf("%+v", d)
	}
	listed := func(filters ...ours.TransactionFilter) bool {
		l, err := a.ListTransactions(ctx, filters...)
		if err != nil {
			t.Fatal(err)
		}
		return slices.Contains(l, ours.TransactionListing{TransactionalID: id, ProducerID: d.ProducerID, State: ours.TransactionOngoing, Coordinator: d.Coordinator})
	}
	for what, c := range map[string]struct {
		filters []ours.TransactionFilter
		want    bool
	}{
		"all": {nil, true}, "ongoing": {[]ours.TransactionFilter{ours.TransactionsInStates(ours.TransactionOngoing)}, true},
		"dead": {[]ours.TransactionFilter{ours.TransactionsInStates(ours.TransactionDead)}, false},
		"its":  {[]ours.TransactionFilter{ours.TransactionsOfProducers(d.ProducerID)}, true}, "another's": {[]ours.TransactionFilter{ours.TransactionsOfProducers(d.ProducerID + 1000)}, false},
		"long": {[]ours.TransactionFilter{ours.TransactionsLongerThan(time.Hour)}, false},
	} {
		if got := listed(c.filters...); got != c.want {
			t.Errorf("%s: listed %v, expected %v", what, got, c.want)
		}
	}
	if _, err := a.ListTransactions(ctx, ours.TransactionsMatching("(")); refusedForAge(ctx, t, addr, kmsg.ListTransactions, 2, err) {
	} else if !errors.Is(err, client.ErrInvalidRegularExpression) {
		t.Errorf("a pattern that is none: %v", err)
	} else if !listed(ours.TransactionsMatching("our-txn-admin.*")) || listed(ours.TransactionsMatching("txn-admin")) {
		t.Error("listed by a pattern is not what matches it whole")
	}
	if _, err := a.ListTransactions(ctx, ours.TransactionsInStates("Nowhere")); !errors.Is(err, client.ErrInvalidRequest) {
		t.Errorf("a state that is none: %v", err)
	}
	fenced, err := a.FenceProducers(ctx, id)
	if err != nil || fenced[0].Err != nil || fenced[0].ProducerEpoch <= d.ProducerEpoch && fenced[0].ProducerID == d.ProducerID {
		t.Fatalf("%+v, %v", fenced, err)
	}
	if err := p.Commit(ctx); !errors.Is(err, client.ErrProducerFenced) && !errors.Is(err, client.ErrInvalidProducerEpoch) {
		t.Errorf("committed by one that was fenced: %v", err)
	}
	open()
	ourHanging(ctx, t, a, tp, id)
}

// ourHanging aborts a transaction in its partition, whatever its coordinator thinks of it.
func ourHanging(ctx context.Context, t *testing.T, a *ours.Admin, tp client.TopicPartition, id string) {
	end := func(isolation client.Isolation) int64 {
		l, err := a.ListOffsets(ctx, map[client.TopicPartition]ours.OffsetSpec{tp: ours.Latest}, isolation)
		if err != nil || l[0].Err != nil {
			t.Fatalf("%+v, %v", l, err)
		}
		return l[0].Offset
	}
	if end(client.ReadCommitted) >= end(client.ReadUncommitted) {
		t.Fatal("no transaction is open")
	}
	cluster, err := a.DescribeCluster(ctx)
	if err != nil {
		t.Fatal(err)
	}
	producers, err := a.DescribeProducersOn(ctx, cluster.Brokers[0].Node, tp)
	if err != nil || producers[0].Err != nil {
		t.Fatalf("%+v, %v", producers, err)
	}
	i := slices.IndexFunc(producers[0].Producers, func(p ours.ProducerState) bool { return p.TransactionStart >= 0 })
	if i < 0 {
		t.Fatalf("of %s: %+v", id, producers)
	}
	hanging := producers[0].Producers[i].HangingTransaction(tp)
	old := hanging
	old.ProducerEpoch--
	if err := a.AbortTransaction(ctx, old); !errors.Is(err, client.ErrInvalidProducerEpoch) {
		t.Errorf("aborted in an epoch that is over: %v", err)
	}
	if err := a.AbortTransaction(ctx, hanging); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() (int64, bool) { n := end(client.ReadCommitted); return n, n == end(client.ReadUncommitted) })
	if err := a.AbortTransaction(ctx, ours.HangingTransaction{TopicPartition: client.TopicPartition{Topic: tp.Topic, Partition: 9}}); !errors.Is(err, client.ErrUnknownTopicOrPartition) {
		t.Errorf("aborted nowhere: %v", err)
	}
}
