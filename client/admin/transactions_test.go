package admin

import (
	"context"
	"errors"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/client"
)

// byID finds the coordinators of transactional ids on broker 2, and fails the test for what is no transactional id.
func byID(t *testing.T, r *kmsg.FindCoordinatorRequest) kmsg.Response {
	if r.CoordinatorType != transactionCoordinator {
		t.Errorf("a coordinator of kind %d is looked for", r.CoordinatorType)
	}
	return coordinators(r, func(id string) (int32, client.Error) {
		if id == "denied" {
			return -1, client.ErrTransactionalIDAuthorizationFailed
		}
		return 2, 0
	})
}

func TestTransactionsAreDescribedByTheirCoordinators(t *testing.T) {
	loading := true
	answers := func(node int32, req kmsg.Request) kmsg.Response {
		switch r := req.(type) {
		case *kmsg.FindCoordinatorRequest:
			return byID(t, r)
		case *kmsg.DescribeTransactionsRequest:
			resp := kmsg.NewPtrDescribeTransactionsResponse()
			for _, id := range slices.Backward(r.TransactionalIDs) {
				s := kmsg.NewDescribeTransactionsResponseTransactionState()
				s.TransactionalID, s.State, s.TimeoutMillis, s.StartTimestamp = id, "Ongoing", 60_000, -1
				switch {
				case id == "none":
					s.ErrorCode = int16(client.ErrTransactionalIDNotFound)
				case id == "late" && loading:
					loading, s.ErrorCode = false, int16(client.ErrCoordinatorLoadInProgress)
				case id == "late":
					s.StartTimestamp = 7000
					s.Topics = []kmsg.DescribeTransactionsResponseTransactionStateTopic{{Topic: "b", Partitions: []int32{1, 0}}, {Topic: "a", Partitions: []int32{3}}}
				}
				resp.TransactionStates = append(resp.TransactionStates, s)
			}
			return resp
		}
		return nil
	}
	serving(t, []int16{10, 65}, answers, func(ctx context.Context, _ *fake, a *Admin) {
		got, err := a.DescribeTransactions(ctx, "denied", "late", "none", "open")
		if err != nil || !errors.Is(got[0].Err, client.ErrTransactionalIDAuthorizationFailed) || got[0].Coordinator != -1 || !errors.Is(got[2].Err, client.ErrTransactionalIDNotFound) {
			t.Fatalf("%+v, %v", got, err)
		}
		want := TransactionDescription{
			TransactionalID: "late", State: TransactionOngoing, Timeout: time.Minute, Started: time.UnixMilli(7000), Coordinator: 2,
			Partitions: []client.TopicPartition{{Topic: "a", Partition: 3}, {Topic: "b", Partition: 0}, {Topic: "b", Partition: 1}},
		}
		if !reflect.DeepEqual(got[1], want) {
			t.Errorf("%+v", got[1])
		}
		if !got[3].Started.IsZero() || got[3].Err != nil {
			t.Errorf("%+v", got[3])
		}
	})
}

// Each broker is asked for the transactions that it coordinates; one that fails leaves those of the others.
func TestTransactionsOfAllBrokersAreListed(t *testing.T) {
	answers := func(node int32, req kmsg.Request) kmsg.Response {
		switch r := req.(type) {
		case *kmsg.DescribeClusterRequest:
			resp := kmsg.NewPtrDescribeClusterResponse()
			for n := range int32(2) {
				resp.Brokers = append(resp.Brokers, kmsg.DescribeClusterResponseBroker{NodeID: n + 1, Host: "n", Port: 9092})
			}
			return resp
		case *kmsg.ListTransactionsRequest:
			resp := kmsg.NewPtrListTransactionsResponse()
			switch {
			case r.DurationFilterMillis != 1500 || *r.TransactionalIDPattern != "a+" || len(r.ProducerIDFilters) != 2:
				t.Errorf("%+v", r)
			case node == 1:
				resp.ErrorCode = int16(client.ErrClusterAuthorizationFailed)
			case slices.Contains(r.StateFilters, "Nonsense"):
				resp.UnknownStateFilters = []string{"Nonsense"}
			default:
				resp.TransactionStates = []kmsg.ListTransactionsResponseTransactionState{{TransactionalID: "b", ProducerID: 7, TransactionState: "Empty"}, {TransactionalID: "a"}}
			}
			return resp
		}
		return nil
	}
	serving(t, []int16{60, 66}, answers, func(ctx context.Context, _ *fake, a *Admin) {
		filters := []TransactionFilter{TransactionsLongerThan(1500 * time.Millisecond), TransactionsMatching("a+"), TransactionsOfProducers(1, 2)}
		got, err := a.ListTransactions(ctx, filters...)
		if !errors.Is(err, client.ErrClusterAuthorizationFailed) || len(got) != 2 || got[1] != (TransactionListing{"b", 7, TransactionEmpty, 2}) {
			t.Errorf("%+v, %v", got, err)
		}
		if _, err := a.ListTransactions(ctx, append(filters, TransactionsInStates("Nonsense"))...); !errors.Is(err, client.ErrInvalidRequest) {
			t.Error(err)
		}
	})
}

// The leader of the partition is told, again where it has moved.
func TestAbortTransactionGoesToTheLeader(t *testing.T) {
	leader := int32(1)
	answers := func(node int32, req kmsg.Request) kmsg.Response {
		switch r := req.(type) {
		case *kmsg.MetadataRequest:
			return metadataOf(r, func(string, int32) int32 { return leader })
		case *kmsg.WriteTxnMarkersRequest:
			m := r.Markers[0]
			if m.Committed || m.ProducerID != 5 || m.ProducerEpoch != 6 || m.CoordinatorEpoch != 0 || !slices.Equal(m.Topics[0].Partitions, []int32{1}) {
				t.Errorf("%+v", m)
			}
			p := kmsg.WriteTxnMarkersResponseMarkerTopicPartition{Partition: 1}
			switch {
			case node == 1:
				leader, p.ErrorCode = 2, int16(client.ErrNotLeaderOrFollower)
			case m.Topics[0].Topic == "fenced":
				p.ErrorCode = int16(client.ErrTransactionCoordinatorFenced)
			}
			out := kmsg.WriteTxnMarkersResponseMarker{ProducerID: 5, Topics: []kmsg.WriteTxnMarkersResponseMarkerTopic{{Topic: m.Topics[0].Topic, Partitions: []kmsg.WriteTxnMarkersResponseMarkerTopicPartition{p}}}}
			return &kmsg.WriteTxnMarkersResponse{Markers: []kmsg.WriteTxnMarkersResponseMarker{out}}
		}
		return nil
	}
	serving(t, []int16{27}, answers, func(ctx context.Context, f *fake, a *Admin) {
		hanging := ProducerState{ProducerID: 5, Epoch: 6, CoordinatorEpoch: -1, TransactionStart: 3}
		if err := a.AbortTransaction(ctx, hanging.HangingTransaction(at("t", 1))); err != nil {
			t.Error(err)
		}
		if asked := askedOf(f, 27); !slices.Equal(asked, []string{"27@1", "27@2"}) {
			t.Errorf("asked %v", asked)
		}
		if err := a.AbortTransaction(ctx, hanging.HangingTransaction(at("fenced", 1))); !errors.Is(err, client.ErrTransactionCoordinatorFenced) {
			t.Error(err)
		}
		if err := a.AbortTransaction(ctx, hanging.HangingTransaction(at("t", 9))); !errors.Is(err, client.ErrUnknownTopicOrPartition) {
			t.Error(err)
		}
	})
}

// A transaction that is being aborted is waited for; each id is answered for itself.
func TestFenceProducers(t *testing.T) {
	busy := 3
	answers := func(node int32, req kmsg.Request) kmsg.Response {
		switch r := req.(type) {
		case *kmsg.FindCoordinatorRequest:
			return byID(t, r)
		case *kmsg.InitProducerIDRequest:
			if r.ProducerID != -1 || r.ProducerEpoch != -1 || r.TransactionTimeoutMillis != 60_000 || node != 2 {
				t.Errorf("%+v", r)
			}
			resp := kmsg.NewPtrInitProducerIDResponse()
			resp.ProducerID, resp.ProducerEpoch = int64(len(*r.TransactionalID)), 4
			if busy--; *r.TransactionalID == "busy" && busy > 0 {
				resp.ErrorCode = int16(client.ErrConcurrentTransactions)
			}
			return resp
		}
		return nil
	}
	serving(t, []int16{10, 22}, answers, func(ctx context.Context, _ *fake, a *Admin) {
		got, err := a.FenceProducers(ctx, "busy", "denied", "id", "busy")
		if err != nil || got[0] != (FencedProducer{"busy", 4, 4, nil}) || got[2] != (FencedProducer{"id", 2, 4, nil}) || got[3] != got[0] {
			t.Fatalf("%+v, %v", got, err)
		}
		if !errors.Is(got[1].Err, client.ErrTransactionalIDAuthorizationFailed) || got[1].ProducerID != -1 {
			t.Errorf("%+v", got[1])
		}
		if got, err := a.FenceProducers(ctx); err != nil || len(got) != 0 {
			t.Errorf("of none: %v, %v", got, err)
		}
	})
}

// One broker, follower or leader, is asked for the producers that it remembers.
func TestProducersOfOneBroker(t *testing.T) {
	answers := func(node int32, req kmsg.Request) kmsg.Response {
		r, ok := req.(*kmsg.DescribeProducersRequest)
		if !ok {
			return nil
		}
		resp := kmsg.NewPtrDescribeProducersResponse()
		for _, topic := range r.Topics {
			out := kmsg.NewDescribeProducersResponseTopic()
			out.Topic = topic.Topic
			for _, p := range topic.Partitions {
				part := kmsg.NewDescribeProducersResponseTopicPartition()
				if part.Partition = p; p == 1 {
					part.ErrorCode = int16(client.ErrNotLeaderOrFollower)
				}
				part.ActiveProducers = []kmsg.DescribeProducersResponseTopicPartitionActiveProducer{{ProducerID: int64(node)}}
				out.Partitions = append(out.Partitions, part)
			}
			resp.Topics = append(resp.Topics, out)
		}
		return resp
	}
	serving(t, []int16{61}, answers, func(ctx context.Context, f *fake, a *Admin) {
		got, err := a.DescribeProducersOn(ctx, 2, at("t", 1), at("t", 0))
		if err != nil || got[0].Producers[0].ProducerID != 2 || !errors.Is(got[1].Err, client.ErrNotLeaderOrFollower) {
			t.Errorf("%+v, %v", got, err)
		}
		if asked := askedOf(f, 61); !slices.Equal(asked, []string{"61@2"}) {
			t.Errorf("asked %v", asked)
		}
	})
}
