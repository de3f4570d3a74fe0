package admin

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/client"
)

// metadataNaming answers Metadata with a controller.
func metadataNaming(req kmsg.Request, controller int32) kmsg.Response {
	r, ok := req.(*kmsg.MetadataRequest)
	if !ok {
		return nil
	}
	resp := metadataOf(r, func(string, int32) int32 { return 1 })
	resp.ControllerID = controller
	return resp
}

// created answers for each topic with what code says.
func created(r *kmsg.CreateTopicsRequest, code func(topic string) client.Error) kmsg.Response {
	resp := kmsg.NewPtrCreateTopicsResponse()
	for _, topic := range r.Topics {
		out := kmsg.NewCreateTopicsResponseTopic()
		out.Topic, out.ErrorCode = topic.Topic, int16(code(topic.Topic))
		resp.Topics = append(resp.Topics, out)
	}
	return resp
}

// What is the controller's goes to the broker that the metadata names, and follows it.
func TestTheControllerIsAsked(t *testing.T) {
	controller := int32(2)
	answers := func(node int32, req kmsg.Request) kmsg.Response {
		if r, ok := req.(*kmsg.CreateTopicsRequest); ok {
			return created(r, func(string) client.Error {
				if node != 1 {
					controller = 1 // it was elected meanwhile
					return client.ErrNotController
				}
				return 0
			})
		}
		return metadataNaming(req, controller)
	}
	serving(t, []int16{19}, answers, func(ctx context.Context, f *fake, a *Admin) {
		if _, err := a.CreateTopic(ctx, NewTopic{Name: "t"}); err != nil {
			t.Error(err)
		}
		if asked := askedOf(f, 19); !slices.Equal(asked, []string{"19@2", "19@1"}) {
			t.Errorf("asked %v", asked)
		}
	})
}

// Any other broker is asked where the controller hangs up, or none is known.
func TestAnyBrokerIsAskedWhereTheControllerIsNotReached(t *testing.T) {
	for _, controller := range []int32{2, -1} {
		answers := func(node int32, req kmsg.Request) kmsg.Response {
			if r, ok := req.(*kmsg.CreateTopicsRequest); ok && (node == 1 || controller < 0) {
				return created(r, func(string) client.Error { return 0 })
			}
			return metadataNaming(req, controller)
		}
		serving(t, []int16{19}, answers, func(ctx context.Context, _ *fake, a *Admin) {
			if _, err := a.CreateTopic(ctx, NewTopic{Name: "t"}); err != nil {
				t.Errorf("controller %d: %v", controller, err)
			}
		})
	}
}

// Topics for which the controller has no time (KIP-599) are asked for again, the others are not, and their errors stay.
func TestThrottledTopicsAreAskedForAgain(t *testing.T) {
	patience := 2
	var asked []string
	answers := func(_ int32, req kmsg.Request) kmsg.Response {
		r, ok := req.(*kmsg.CreateTopicsRequest)
		if !ok {
			return nil
		}
		var names []string
		for _, topic := range r.Topics {
			names = append(names, topic.Topic)
		}
		asked = append(asked, fmt.Sprint(names))
		patience--
		return created(r, func(topic string) client.Error {
			switch {
			case topic == "bad":
				return client.ErrInvalidConfig
			case topic == "never", topic == "late" && patience > 0:
				return client.ErrThrottlingQuotaExceeded
			}
			return 0
		})
	}
	serving(t, []int16{19}, answers, func(ctx context.Context, _ *fake, a *Admin) {
		made, err := a.CreateTopics(ctx, []NewTopic{{Name: "bad"}, {Name: "late"}, {Name: "good"}})
		if err != nil || !errors.Is(made[0].Err, client.ErrInvalidConfig) || made[1].Err != nil || made[2].Err != nil {
			t.Errorf("%+v, %v", made, err)
		}
		if want := []string{"[bad late good]", "[late]"}; !slices.Equal(asked, want) {
			t.Errorf("asked %v", asked)
		}
		made, err = a.CreateTopics(ctx, []NewTopic{{Name: "good"}, {Name: "never"}})
		if err != nil || made[0].Err != nil || !errors.Is(made[1].Err, client.ErrThrottlingQuotaExceeded) {
			t.Errorf("out of time: %+v, %v", made, err)
		}
	})
}

// A broker that goes away while it is asked leaves what the others said, and a call that nobody answered has an error.
func TestABrokenConnectionIsTheCallsError(t *testing.T) {
	answers := func(_ int32, req kmsg.Request) kmsg.Response {
		switch r := req.(type) {
		case *kmsg.CreateTopicsRequest:
			if len(r.Topics) == 1 {
				return nil // hangs up
			}
			return created(r, func(topic string) client.Error {
				if topic == "late" {
					return client.ErrThrottlingQuotaExceeded
				}
				return 0
			})
		}
		return nil
	}
	serving(t, []int16{19}, answers, func(ctx context.Context, _ *fake, a *Admin) {
		if made, err := a.CreateTopics(ctx, []NewTopic{{Name: "t"}}); made != nil || err == nil {
			t.Errorf("%+v, %v", made, err)
		}
		made, err := a.CreateTopics(ctx, []NewTopic{{Name: "t"}, {Name: "late"}})
		if err != nil || made[0].Err != nil || !errors.Is(made[1].Err, client.ErrThrottlingQuotaExceeded) {
			t.Errorf("%+v, %v", made, err)
		}
	})
}

// A broker that does not know a request is named with it, whatever broker the call goes to.
func TestWhatABrokerLacksIsNamed(t *testing.T) {
	answers := func(_ int32, req kmsg.Request) kmsg.Response {
		switch r := req.(type) {
		case *kmsg.FindCoordinatorRequest:
			return coordinators(r, always(2))
		case *kmsg.DescribeClusterRequest:
			resp := kmsg.NewPtrDescribeClusterResponse()
			resp.Brokers = []kmsg.DescribeClusterResponseBroker{{NodeID: 2, Host: "n2", Port: 9092}}
			return resp
		}
		return nil
	}
	tp := client.TopicPartition{Topic: "t"}
	serving(t, []int16{10, 60}, answers, func(ctx context.Context, _ *fake, a *Admin) {
		for request, call := range map[string]func() error{
			"CreateTopics": func() error { _, err := a.CreateTopics(ctx, []NewTopic{{Name: "t"}}); return err },
			"DescribeACLs": func() error { _, err := a.DescribeACLs(ctx, ACLFilter{}); return err },
			"CreateACLs": func() error {
				_, err := a.CreateACLs(ctx, []ACLBinding{{Resource: ACLTopic, Name: "t", Principal: "User:u", Operation: OperationRead, Permission: Allow}})
				return err
			},
			"AlterClientQuotas": func() error { _, err := a.AlterClientQuotas(ctx, []QuotaChange{{}}); return err },
			"AlterUserSCRAMCredentials": func() error {
				_, err := a.AlterUserScramCredentials(ctx, []ScramChange{DeleteScram("u", ScramSHA256)})
				return err
			},
			"CreateDelegationToken": func() error { _, err := a.CreateDelegationToken(ctx); return err },
			"ListTransactions":      func() error { _, err := a.ListTransactions(ctx); return err },
			"WriteTxnMarkers":       func() error { return a.AbortTransaction(ctx, HangingTransaction{TopicPartition: tp}) },
			"InitProducerID":        func() error { r, err := a.FenceProducers(ctx, "id"); return errors.Join(err, r[0].Err) },
			"DescribeTransactions":  func() error { r, err := a.DescribeTransactions(ctx, "id"); return errors.Join(err, r[0].Err) },
			"ShareGroupDescribe":    func() error { r, err := a.DescribeShareGroups(ctx, "g"); return errors.Join(err, r[0].Err) },
			"StreamsGroupDescribe":  func() error { r, err := a.DescribeStreamsGroups(ctx, "g"); return errors.Join(err, r[0].Err) },
			"LeaveGroup":            func() error { _, err := a.RemoveMembersFromGroup(ctx, "g", []Membership{{ID: "m"}}); return err },
			"AlterReplicaLogDirs": func() error {
				r, err := a.AlterReplicaLogDirs(ctx, map[PartitionReplica]string{{tp, 2}: "/d"})
				return errors.Join(err, r[0].Err)
			},
		} {
			err := call()
			if !errors.Is(err, client.ErrUnsupported) || !strings.Contains(err.Error(), request) ||
				!strings.Contains(err.Error(), "n1:9092") && !strings.Contains(err.Error(), "n2:9092") {
				t.Errorf("%s: %v", request, err)
			}
		}
	})
}

// A filter for which an older broker's request has no place is an error, not a longer list.
func TestFiltersThatABrokerDoesNotKnow(t *testing.T) {
	answers := func(_ int32, req kmsg.Request) kmsg.Response {
		switch req.(type) {
		case *kmsg.DescribeClusterRequest:
			resp := kmsg.NewPtrDescribeClusterResponse()
			resp.Brokers = []kmsg.DescribeClusterResponseBroker{{NodeID: 1, Host: "n1", Port: 9092}}
			return resp
		case *kmsg.ListGroupsRequest:
			return &kmsg.ListGroupsResponse{Groups: []kmsg.ListGroupsResponseGroup{{Group: "g"}}}
		case *kmsg.ListTransactionsRequest:
			return &kmsg.ListTransactionsResponse{TransactionStates: []kmsg.ListTransactionsResponseTransactionState{{TransactionalID: "id"}}}
		case *kmsg.ListConfigResourcesRequest:
			return &kmsg.ListConfigResourcesResponse{ConfigResources: []kmsg.ListConfigResourcesResponseConfigResource{{Name: "m"}}}
		}
		return nil
	}
	serving(t, []int16{16, 60, 66, 74}, answers, func(ctx context.Context, f *fake, a *Admin) {
		f.newest = map[int16]int16{16: 3, 66: 0, 74: 0}
		refused := map[string]func() error{
			"states":  func() error { _, err := a.ListGroups(ctx, InStates(GroupStable)); return err },
			"types":   func() error { _, err := a.ListGroups(ctx, OfTypes(ShareGroup)); return err },
			"time":    func() error { _, err := a.ListTransactions(ctx, TransactionsLongerThan(0)); return err },
			"pattern": func() error { _, err := a.ListTransactions(ctx, TransactionsMatching("a")); return err },
			"kinds":   func() error { _, err := a.ListConfigResources(ctx, TopicResource); return err },
			"ids":     func() error { _, err := a.DescribeTopicsByID(ctx, client.UUID{1}); return err },
		}
		f.newest[3] = 11
		for what, call := range refused {
			if err := call(); !errors.Is(err, client.ErrUnsupported) {
				t.Errorf("%s: %v", what, err)
			}
		}
		if g, err := a.ListGroups(ctx); err != nil || len(g) != 1 {
			t.Errorf("%v, %v", g, err)
		}
		if l, err := a.ListTransactions(ctx, TransactionsOfProducers(1)); err != nil || len(l) != 1 {
			t.Errorf("%v, %v", l, err)
		}
		if r, err := a.ListConfigResources(ctx, ClientMetricsResource); err != nil || len(r) != 1 || r[0] != ClientMetrics("m") {
			t.Errorf("%v, %v", r, err)
		}
	})
}
