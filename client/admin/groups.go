package admin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/client"
)

// GroupState is where a group stands in its life, in Kafka's names.
type GroupState string

// Kafka's states. Assigning and Reconciling are of the newer protocols (KIP-848) alone.
const (
	GroupEmpty               GroupState = "Empty"               // no members; commits may be there
	GroupPreparingRebalance  GroupState = "PreparingRebalance"  // waiting for members to join again
	GroupCompletingRebalance GroupState = "CompletingRebalance" // waiting for the leader's assignment
	GroupStable              GroupState = "Stable"
	GroupAssigning           GroupState = "Assigning"
	GroupReconciling         GroupState = "Reconciling"
	GroupDead                GroupState = "Dead"
)

// GroupType is the protocol that a group's members speak with the coordinator.
type GroupType string

// Kafka's types.
const (
	ClassicGroup  GroupType = "classic"
	ConsumerGroup GroupType = "consumer" // KIP-848
	ShareGroup    GroupType = "share"
	StreamsGroup  GroupType = "streams"
)

// GroupListing is a group as ListGroups gives it.
type GroupListing struct {
	Group        string
	ProtocolType string // "consumer", "connect", …; empty where there were commits only
	State        GroupState
	Type         GroupType
	Coordinator  int32 // node id
}

// GroupFilter says which groups ListGroups is to give.
type GroupFilter func(*kmsg.ListGroupsRequest)

// InStates asks for groups in one of these states (KIP-518).
func InStates(states ...GroupState) GroupFilter {
	return func(r *kmsg.ListGroupsRequest) {
		for _, s := range states {
			r.StatesFilter = append(r.StatesFilter, string(s))
		}
	}
}

// OfTypes asks for groups of one of these types (KIP-848).
func OfTypes(types ...GroupType) GroupFilter {
	return func(r *kmsg.ListGroupsRequest) {
		for _, t := range types {
			r.TypesFilter = append(r.TypesFilter, string(t))
		}
	}
}

// ListGroups gives the groups of all brokers, sorted by name. Where a broker does not answer, the
// groups of the others come together with the error.
func (a *Admin) ListGroups(ctx context.Context, filters ...GroupFilter) ([]GroupListing, error) {
	cluster, err := a.DescribeCluster(ctx)
	if err != nil {
		return nil, fmt.Errorf("list groups: %w", err)
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	var out []GroupListing
	var errs []error
	for _, b := range cluster.Brokers {
		wg.Go(func() {
			groups, err := a.groupsOf(ctx, b.Node, filters)
			mu.Lock()
			defer mu.Unlock()
			out = append(out, groups...)
			if err != nil {
				errs = append(errs, fmt.Errorf("list the groups of broker %d: %w", b.Node, err))
			}
		})
	}
	wg.Wait()
	slices.SortFunc(out, func(a, b GroupListing) int { return cmp.Compare(a.Group, b.Group) })
	return out, errors.Join(errs...)
}

func (a *Admin) groupsOf(ctx context.Context, node int32, filters []GroupFilter) ([]GroupListing, error) {
	req := kmsg.NewPtrListGroupsRequest()
	for _, f := range filters {
		f(req)
	}
	var out []GroupListing
	err := a.try(ctx, func(ctx context.Context) error {
		resp, err := ask[*kmsg.ListGroupsResponse](ctx, a, client.ToBroker(node), req)
		if err != nil {
			return err
		}
		out = nil
		for _, g := range resp.Groups {
			out = append(out, GroupListing{
				Group: g.Group, ProtocolType: g.ProtocolType, State: GroupState(g.GroupState),
				Type: cmp.Or(GroupType(g.GroupType), ClassicGroup), Coordinator: node,
			})
		}
		return client.CodeError(resp.ErrorCode, nil)
	})
	return out, err
}

// perCoordinator is a call about groups, which their coordinators answer. at is told where each
// group's coordinator is; nil: nobody wants to know.
func perCoordinator[Response kmsg.Response, Result any](ctx context.Context, a *Admin, what string, groups []string,
	at map[string]BrokerDescription,
	request func(context.Context, []string) kmsg.Request,
	read func(Response, func(string, Result, error)),
	failed func(string, error) Result,
) ([]Result, error) {
	return spread[string, Response, Result]{
		what: what, request: request, read: read, failed: failed, awaited: again,
		owners: func(ctx context.Context, groups []string) (map[int32][]string, map[string]error, error) {
			return a.byCoordinator(ctx, groups, at)
		},
	}.run(ctx, a, groups)
}

// groupCoordinator is the kind of coordinator that FindCoordinator is asked for.
const groupCoordinator int8 = 0

// byCoordinator finds the coordinators of groups now; unfound has those that have none, and why.
func (a *Admin) byCoordinator(ctx context.Context, groups []string, at map[string]BrokerDescription) (
	found map[int32][]string, unfound map[string]error, err error,
) {
	found, unfound = map[int32][]string{}, map[string]error{}
	take := func(group string, node int32, host string, port int32, err error) {
		if err != nil {
			unfound[group] = err
			return
		}
		found[node] = append(found[node], group)
		if at != nil {
			at[group] = BrokerDescription{Node: node, Host: host, Port: port}
		}
	}
	rest := slices.Compact(slices.Sorted(slices.Values(groups)))
	for len(rest) > 0 {
		req := kmsg.NewPtrFindCoordinatorRequest()
		req.CoordinatorType, req.CoordinatorKey, req.CoordinatorKeys = groupCoordinator, rest[0], rest
		resp, err := ask[*kmsg.FindCoordinatorResponse](ctx, a, client.AnyBroker, req)
		if err != nil {
			return nil, nil, fmt.Errorf("find the coordinator: %w", err)
		}
		if resp.Version < 4 { // one group a request (KIP-699)
			take(rest[0], resp.NodeID, resp.Host, resp.Port, client.CodeError(resp.ErrorCode, resp.ErrorMessage))
			rest = rest[1:]
			continue
		}
		for _, c := range resp.Coordinators {
			take(c.Key, c.NodeID, c.Host, c.Port, client.CodeError(c.ErrorCode, c.ErrorMessage))
		}
		break
	}
	return found, unfound, nil
}

// GroupDescription is a group as DescribeGroups gives it.
type GroupDescription struct {
	Group        string
	Type         GroupType
	State        GroupState
	ProtocolType string // "consumer", "connect", …; empty where there were commits only
	Protocol     string // what the members have agreed on: for consumers the assignor's name
	Coordinator  BrokerDescription
	Members      []GroupMember // by id
	Err          error         // ErrGroupIDNotFound, ErrGroupAuthorizationFailed
}

// GroupMember is a member of a group.
type GroupMember struct {
	ID         string
	InstanceID string // of a static member (KIP-345), else empty
	ClientID   string
	Host       string // as the coordinator sees it: "/10.0.0.7"

	// Topics and Assignment are what the member subscribes to and what it has been given, where the
	// group's protocol type is "consumer". While the group rebalances they are empty.
	Topics     []string
	Assignment []client.TopicPartition // sorted

	// Metadata and AssignmentBytes are the same as the member and the leader sent them, in a form
	// that is the protocol type's own. Nil in groups of type ConsumerGroup.
	Metadata        []byte
	AssignmentBytes []byte

	// Err says that the bytes are not what protocol type "consumer" has.
	Err error
}

// consumerProtocol is the protocol type whose bytes are known (ConsumerProtocolSubscription and
// ConsumerProtocolAssignment among Kafka's message definitions).
const consumerProtocol = "consumer"

// DescribeGroups gives groups with their members, in the order of the names. Groups of the classic
// protocol and of KIP-848 are described, others are not found.
func (a *Admin) DescribeGroups(ctx context.Context, groups ...string) ([]GroupDescription, error) {
	at := map[string]BrokerDescription{}
	out, err := perCoordinator(ctx, a, "describe groups", groups, at,
		func(_ context.Context, of []string) kmsg.Request {
			req := kmsg.NewPtrDescribeGroupsRequest()
			req.Groups = of
			return req
		},
		func(resp *kmsg.DescribeGroupsResponse, give func(string, GroupDescription, error)) {
			for i := range resp.Groups {
				d := readGroup(&resp.Groups[i])
				give(d.Group, d, d.Err)
			}
		},
		func(group string, err error) GroupDescription { return GroupDescription{Group: group, Err: err} })
	if err != nil {
		return nil, err
	}
	var missing []string
	for _, d := range out {
		if errors.Is(d.Err, client.ErrGroupIDNotFound) {
			missing = append(missing, d.Group)
		}
	}
	newer, err := a.describeConsumerGroups(ctx, missing, at)
	if err != nil {
		return nil, err
	}
	for i := range out {
		if d, ok := newer[out[i].Group]; ok {
			out[i] = d
		}
		out[i].Coordinator = at[out[i].Group]
	}
	return out, nil
}

func readGroup(in *kmsg.DescribeGroupsResponseGroup) GroupDescription {
	d := GroupDescription{
		Group: in.Group, Type: ClassicGroup, State: GroupState(in.State), ProtocolType: in.ProtocolType, Protocol: in.Protocol,
		Err: client.CodeError(in.ErrorCode, in.ErrorMessage),
	}
	if d.Err == nil && d.State == GroupDead { // as versions before 6 say that there is no such group
		d.Err = client.ErrGroupIDNotFound
	}
	for i := range in.Members {
		m := &in.Members[i]
		out := GroupMember{
			ID: m.MemberID, InstanceID: text(m.InstanceID), ClientID: m.ClientID, Host: m.ClientHost,
			Metadata: m.ProtocolMetadata, AssignmentBytes: m.MemberAssignment,
		}
		if d.ProtocolType == consumerProtocol {
			out.Err = out.readConsumer()
		}
		d.Members = append(d.Members, out)
	}
	slices.SortFunc(d.Members, func(a, b GroupMember) int { return cmp.Compare(a.ID, b.ID) })
	return d
}

// readConsumer fills Topics and Assignment from the bytes.
func (m *GroupMember) readConsumer() error {
	if len(m.Metadata) > 0 {
		var subscription kmsg.ConsumerMemberMetadata
		if err := subscription.ReadFrom(m.Metadata); err != nil {
			return fmt.Errorf("subscription of %s: %w", m.ID, err)
		}
		m.Topics = slices.Sorted(slices.Values(subscription.Topics))
	}
	if len(m.AssignmentBytes) > 0 {
		var assignment kmsg.ConsumerMemberAssignment
		if err := assignment.ReadFrom(m.AssignmentBytes); err != nil {
			return fmt.Errorf("assignment of %s: %w", m.ID, err)
		}
		for _, t := range assignment.Topics {
			m.assign(t.Topic, t.Partitions)
		}
		slices.SortFunc(m.Assignment, comparePartitions)
	}
	return nil
}

func (m *GroupMember) assign(topic string, partitions []int32) {
	for _, p := range partitions {
		m.Assignment = append(m.Assignment, client.TopicPartition{Topic: topic, Partition: p})
	}
}

// describeConsumerGroups describes those of the groups that are of KIP-848's protocol. A broker
// without it has none.
func (a *Admin) describeConsumerGroups(ctx context.Context, groups []string, at map[string]BrokerDescription) (map[string]GroupDescription, error) {
	if len(groups) == 0 {
		return nil, nil
	}
	found, err := perCoordinator(ctx, a, "describe consumer groups", groups, at,
		func(_ context.Context, of []string) kmsg.Request {
			req := kmsg.NewPtrConsumerGroupDescribeRequest()
			req.Groups = of
			return req
		},
		func(resp *kmsg.ConsumerGroupDescribeResponse, give func(string, GroupDescription, error)) {
			for i := range resp.Groups {
				d := readConsumerGroup(&resp.Groups[i])
				give(d.Group, d, d.Err)
			}
		},
		func(group string, err error) GroupDescription { return GroupDescription{Group: group, Err: err} })
	if err != nil {
		return nil, err
	}
	out := map[string]GroupDescription{}
	for _, d := range found {
		if !errors.Is(d.Err, client.ErrGroupIDNotFound) && !errors.Is(d.Err, client.ErrUnsupported) {
			out[d.Group] = d
		}
	}
	return out, nil
}

func readConsumerGroup(in *kmsg.ConsumerGroupDescribeResponseGroup) GroupDescription {
	d := GroupDescription{
		Group: in.Group, Type: ConsumerGroup, State: GroupState(in.State), ProtocolType: consumerProtocol, Protocol: in.AssignorName,
		Err: client.CodeError(in.ErrorCode, in.ErrorMessage),
	}
	for i := range in.Members {
		m := &in.Members[i]
		out := GroupMember{
			ID: m.MemberID, InstanceID: text(m.InstanceID), ClientID: m.ClientID, Host: m.ClientHost,
			Topics: slices.Sorted(slices.Values(m.SubscribedTopics)),
		}
		for _, t := range m.Assignment.TopicPartitions {
			out.assign(t.Topic, t.Partitions)
		}
		slices.SortFunc(out.Assignment, comparePartitions)
		d.Members = append(d.Members, out)
	}
	slices.SortFunc(d.Members, func(a, b GroupMember) int { return cmp.Compare(a.ID, b.ID) })
	return d
}

// GroupResult is what became of a group in a call that only changes it.
type GroupResult struct {
	Group string
	Err   error
}

// DeleteGroups deletes groups with everything that they have committed. The results are in the
// order of the names. Their errors are ErrGroupIDNotFound and ErrNonEmptyGroup, above all.
func (a *Admin) DeleteGroups(ctx context.Context, groups ...string) ([]GroupResult, error) {
	return perCoordinator(ctx, a, "delete groups", groups, nil,
		func(_ context.Context, of []string) kmsg.Request {
			req := kmsg.NewPtrDeleteGroupsRequest()
			req.Groups = of
			return req
		},
		func(resp *kmsg.DeleteGroupsResponse, give func(string, GroupResult, error)) {
			for _, g := range resp.Groups {
				give(g.Group, GroupResult{Group: g.Group}, client.CodeError(g.ErrorCode, g.ErrorMessage))
			}
		},
		func(group string, err error) GroupResult { return GroupResult{group, err} })
}
