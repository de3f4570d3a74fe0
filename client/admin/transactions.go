package admin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/client"
)

// TransactionState is where a transaction stands, in Kafka's names.
type TransactionState string

// Kafka's states.
const (
	TransactionEmpty             TransactionState = "Empty" // the transactional id has begun none yet
	TransactionOngoing           TransactionState = "Ongoing"
	TransactionPrepareCommit     TransactionState = "PrepareCommit" // decided; the partitions are being told
	TransactionPrepareAbort      TransactionState = "PrepareAbort"
	TransactionCompleteCommit    TransactionState = "CompleteCommit"
	TransactionCompleteAbort     TransactionState = "CompleteAbort"
	TransactionDead              TransactionState = "Dead"              // the transactional id is being forgotten
	TransactionPrepareEpochFence TransactionState = "PrepareEpochFence" // the producer is being fenced
)

// TransactionListing is a transactional id as ListTransactions gives it.
type TransactionListing struct {
	TransactionalID string
	ProducerID      int64
	State           TransactionState
	Coordinator     int32 // node id
}

// TransactionFilter says which transactional ids ListTransactions is to give.
type TransactionFilter func(*kmsg.ListTransactionsRequest)

// TransactionsInStates asks for those in one of these states.
func TransactionsInStates(states ...TransactionState) TransactionFilter {
	return func(r *kmsg.ListTransactionsRequest) {
		for _, s := range states {
			r.StateFilters = append(r.StateFilters, string(s))
		}
	}
}

// TransactionsOfProducers asks for those of one of these producer ids.
func TransactionsOfProducers(ids ...int64) TransactionFilter {
	return func(r *kmsg.ListTransactionsRequest) { r.ProducerIDFilters = append(r.ProducerIDFilters, ids...) }
}

// TransactionsLongerThan asks for those that have been ongoing for more than that (KIP-994). Brokers before
// Kafka 3.8 cannot tell: ErrUnsupported.
func TransactionsLongerThan(d time.Duration) TransactionFilter {
	return func(r *kmsg.ListTransactionsRequest) { r.DurationFilterMillis = d.Milliseconds() }
}

// TransactionsMatching asks for those whose transactional id, all of it, matches a regular expression of RE2's syntax
// (KIP-1152): ErrInvalidRegularExpression where it is none. Brokers before Kafka 4.1 cannot: ErrUnsupported.
func TransactionsMatching(pattern string) TransactionFilter {
	return func(r *kmsg.ListTransactionsRequest) { r.TransactionalIDPattern = &pattern }
}

// The versions of ListTransactions that brought filters.
const (
	listTransactionsByDuration int16 = 1
	listTransactionsByPattern  int16 = 2
)

// ListTransactions gives the transactional ids that the coordinators on all brokers know, sorted (KIP-664). Where a
// broker does not answer, those of the others come together with the error.
func (a *Admin) ListTransactions(ctx context.Context, filters ...TransactionFilter) ([]TransactionListing, error) {
	cluster, err := a.DescribeCluster(ctx)
	if err != nil {
		return nil, fmt.Errorf("list transactions: %w", err)
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	var out []TransactionListing
	var errs []error
	for _, b := range cluster.Brokers {
		wg.Go(func() {
			some, err := a.transactionsOf(ctx, b.Node, filters)
			mu.Lock()
			defer mu.Unlock()
			out = append(out, some...)
			if err != nil {
				errs = append(errs, fmt.Errorf("list the transactions of broker %d: %w", b.Node, err))
			}
		})
	}
	wg.Wait()
	slices.SortFunc(out, func(a, b TransactionListing) int { return cmp.Compare(a.TransactionalID, b.TransactionalID) })
	return out, errors.Join(errs...)
}

func (a *Admin) transactionsOf(ctx context.Context, node int32, filters []TransactionFilter) ([]TransactionListing, error) {
	req := kmsg.NewPtrListTransactionsRequest()
	for _, f := range filters {
		f(req)
	}
	var out []TransactionListing
	err := a.try(ctx, func(ctx context.Context) error {
		resp, err := ask[*kmsg.ListTransactionsResponse](ctx, a, client.ToBroker(node), req)
		switch {
		case err != nil:
			return err
		case resp.Version < listTransactionsByDuration && req.DurationFilterMillis >= 0:
			return tooOld(resp, listTransactionsByDuration, "filter by duration")
		case resp.Version < listTransactionsByPattern && req.TransactionalIDPattern != nil:
			return tooOld(resp, listTransactionsByPattern, "filter by pattern")
		case len(resp.UnknownStateFilters) > 0:
			return fmt.Errorf("no such states: %q: %w", resp.UnknownStateFilters, client.ErrInvalidRequest)
		}
		out = nil
		for _, t := range resp.TransactionStates {
			out = append(out, TransactionListing{t.TransactionalID, t.ProducerID, TransactionState(t.TransactionState), node})
		}
		return client.CodeError(resp.ErrorCode, nil)
	})
	return out, err
}

// TransactionDescription is a transactional id as DescribeTransactions gives it.
type TransactionDescription struct {
	TransactionalID string
	State           TransactionState
	ProducerID      int64
	ProducerEpoch   int16
	Timeout         time.Duration
	Started         time.Time // zero where no transaction is open
	Partitions      []client.TopicPartition
	Coordinator     int32 // node id
	Err             error // ErrTransactionalIDNotFound, ErrTransactionalIDAuthorizationFailed
}

// perTransactionCoordinator is a call about transactional ids, which their coordinators answer.
func perTransactionCoordinator[Response kmsg.Response, Result any](ctx context.Context, a *Admin, what string, ids []string,
	at map[string]BrokerDescription,
	request func(context.Context, []string) kmsg.Request,
	read func(Response, func(string, Result, error)),
	failed func(string, error) Result,
) ([]Result, error) {
	return spread[string, Response, Result]{
		what: what, request: request, read: read, failed: failed, awaited: again, repeated: again,
		owners: func(ctx context.Context, ids []string) (map[client.Target][]string, map[string]error, error) {
			return a.byCoordinator(ctx, transactionCoordinator, ids, at)
		},
	}.run(ctx, a, ids)
}

// DescribeTransactions gives what coordinators know of transactional ids, in the order of the ids (KIP-664).
func (a *Admin) DescribeTransactions(ctx context.Context, ids ...string) ([]TransactionDescription, error) {
	at := map[string]BrokerDescription{}
	out, err := perTransactionCoordinator(ctx, a, "describe transactions", ids, at,
		func(_ context.Context, of []string) kmsg.Request {
			req := kmsg.NewPtrDescribeTransactionsRequest()
			req.TransactionalIDs = of
			return req
		},
		func(resp *kmsg.DescribeTransactionsResponse, give func(string, TransactionDescription, error)) {
			for i := range resp.TransactionStates {
				d := readTransaction(&resp.TransactionStates[i])
				give(d.TransactionalID, d, d.Err)
			}
		},
		func(id string, err error) TransactionDescription {
			return TransactionDescription{TransactionalID: id, Err: err}
		})
	for i := range out {
		out[i].Coordinator = -1
		if b, found := at[out[i].TransactionalID]; found {
			out[i].Coordinator = b.Node
		}
	}
	return out, err
}

func readTransaction(in *kmsg.DescribeTransactionsResponseTransactionState) TransactionDescription {
	d := TransactionDescription{
		TransactionalID: in.TransactionalID, State: TransactionState(in.State), ProducerID: in.ProducerID, ProducerEpoch: in.ProducerEpoch,
		Timeout: time.Duration(in.TimeoutMillis) * time.Millisecond, Err: client.CodeError(in.ErrorCode, nil),
	}
	if in.StartTimestamp > 0 {
		d.Started = time.UnixMilli(in.StartTimestamp)
	}
	for _, t := range in.Topics {
		for _, p := range t.Partitions {
			d.Partitions = append(d.Partitions, client.TopicPartition{Topic: t.Topic, Partition: p})
		}
	}
	slices.SortFunc(d.Partitions, comparePartitions)
	return d
}

// HangingTransaction is a transaction in one partition, as DescribeProducers shows it.
type HangingTransaction struct {
	TopicPartition   client.TopicPartition
	ProducerID       int64
	ProducerEpoch    int16
	CoordinatorEpoch int32 // -1: no marker was ever written for the producer
}

// HangingTransaction is what AbortTransaction needs of a producer whose TransactionStart is not -1.
func (p ProducerState) HangingTransaction(in client.TopicPartition) HangingTransaction {
	return HangingTransaction{in, p.ProducerID, int16(p.Epoch), p.CoordinatorEpoch}
}

// AbortTransaction ends a transaction in one partition by force: readers of committed records, whom it has held up, go
// on and never see it. It is for transactions whose coordinator has forgotten them; to end one that is under way, with
// all its partitions, see FenceProducers (KIP-664). Errors: ErrInvalidProducerEpoch, ErrTransactionCoordinatorFenced,
// ErrClusterAuthorizationFailed, ErrUnknownTopicOrPartition.
func (a *Admin) AbortTransaction(ctx context.Context, t HangingTransaction) error {
	results, err := perLeader(ctx, a, "abort a transaction", []client.TopicPartition{t.TopicPartition},
		func(_ context.Context, of []client.TopicPartition) kmsg.Request {
			m := kmsg.NewWriteTxnMarkersRequestMarker()
			m.ProducerID, m.ProducerEpoch, m.Committed = t.ProducerID, t.ProducerEpoch, false
			m.CoordinatorEpoch = max(t.CoordinatorEpoch, 0)
			m.Topics = []kmsg.WriteTxnMarkersRequestMarkerTopic{{Topic: t.TopicPartition.Topic, Partitions: numbers(of)}}
			req := kmsg.NewPtrWriteTxnMarkersRequest()
			req.Markers = append(req.Markers, m)
			return req
		},
		func(resp *kmsg.WriteTxnMarkersResponse, give func(client.TopicPartition, PartitionResult, error)) {
			for _, m := range resp.Markers {
				for _, topic := range m.Topics {
					for _, p := range topic.Partitions {
						tp := client.TopicPartition{Topic: topic.Topic, Partition: p.Partition}
						give(tp, PartitionResult{TopicPartition: tp}, client.CodeError(p.ErrorCode, nil))
					}
				}
			}
		},
		failedPartition)
	if err == nil {
		err = results[0].Err
	}
	if err != nil {
		return fmt.Errorf("abort the transaction of producer %d in %v: %w", t.ProducerID, t.TopicPartition, err)
	}
	return nil
}

// FencedProducer is what FenceProducers did to a transactional id.
type FencedProducer struct {
	TransactionalID string
	ProducerID      int64 // -1 where Err is set
	ProducerEpoch   int16 // that a producer would go on with; -1 where Err is set
	Err             error // ErrTransactionalIDAuthorizationFailed, ErrClusterAuthorizationFailed, …
}

// fencingTimeout is the transaction.timeout.ms that FenceProducers names: that of a transaction nobody is to begin.
const fencingTimeout = time.Minute

// FenceProducers takes transactional ids away from the producers that have them: what they have under way is aborted,
// and their next call fails with ErrProducerFenced. It waits until the abort is done. An id that nobody has used becomes
// known by it. The results are in the order of the ids. Kafka: fenceProducers, forceTerminateTransaction.
func (a *Admin) FenceProducers(ctx context.Context, ids ...string) ([]FencedProducer, error) {
	failed := func(id string, err error) FencedProducer { return FencedProducer{id, -1, -1, err} }
	var mu sync.Mutex
	var wg sync.WaitGroup
	var failures []error
	byID := map[string]FencedProducer{}
	for _, id := range slices.Compact(slices.Sorted(slices.Values(ids))) {
		wg.Go(func() { // the answer does not name the id
			out, err := perTransactionCoordinator(ctx, a, "fence producers", []string{id}, nil,
				func(context.Context, []string) kmsg.Request {
					req := kmsg.NewPtrInitProducerIDRequest()
					req.TransactionalID, req.TransactionTimeoutMillis = &id, int32(fencingTimeout.Milliseconds())
					req.ProducerID, req.ProducerEpoch = -1, -1
					return req
				},
				func(resp *kmsg.InitProducerIDResponse, give func(string, FencedProducer, error)) {
					give(id, FencedProducer{id, resp.ProducerID, resp.ProducerEpoch, nil}, client.CodeError(resp.ErrorCode, nil))
				}, failed)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				failures = append(failures, err)
				out = []FencedProducer{failed(id, err)}
			}
			byID[id] = out[0]
		})
	}
	wg.Wait()
	if len(failures) > 0 && len(failures) == len(byID) {
		return nil, failures[0]
	}
	results := make([]FencedProducer, len(ids))
	for i, id := range ids {
		results[i] = byID[id]
	}
	return results, nil
}
