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
	GroupNotReady            GroupState = "NotReady" // a streams group whose topics are not there (KIP-1071)
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

// The versions of ListGroups that brought filters.
const (
	listGroupsByState int16 = 4
	listGroupsByType  int16 = 5
)

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
		switch {
		case resp.Version < listGroupsByState && len(req.StatesFilter) > 0:
			return tooOld(resp, listGroupsByState, "filter by state")
		case resp.Version < listGroupsByType && len(req.TypesFilter) > 0:
			return tooOld(resp, listGroupsByType, "filter by type")
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

// The kinds of coordinators that FindCoordinator is asked for.
const (
	groupCoordinator       int8 = 0
	transactionCoordinator int8 = 1
)

// perCoordinator is a call about groups, which their coordinators answer. at is told where each
// group's coordinator is; nil: nobody wants to know.
func perCoordinator[Response kmsg.Response, Result any](ctx context.Context, a *Admin, what string, groups []string,
	at map[string]BrokerDescription,
	request func(context.Context, []string) kmsg.Request,
	read func(Response, func(string, Result, error)),
	failed func(string, error) Result,
) ([]Result, error) {
	return spread[string, Response, Result]{
		what: what, request: request, read: read, failed: failed, awaited: again, repeated: again,
		owners: func(ctx context.Context, groups []string) (map[client.Target][]string, map[string]error, error) {
			return a.byCoordinator(ctx, groupCoordinator, groups, at)
		},
	}.run(ctx, a, groups)
}

// byCoordinator finds the coordinators of groups or transactional ids now; unfound has those that have
// none, and why.
func (a *Admin) byCoordinator(ctx context.Context, kind int8, keys []string, at map[string]BrokerDescription) (
	found map[client.Target][]string, unfound map[string]error, err error,
) {
	found, unfound = map[client.Target][]string{}, map[string]error{}
	take := func(key string, node int32, host string, port int32, err error) {
		if err != nil {
			unfound[key] = err
			return
		}
		found[client.ToBroker(node)] = append(found[client.ToBroker(node)], key)
		if at != nil {
			at[key] = BrokerDescription{Node: node, Host: host, Port: port}
		}
	}
	rest := slices.Compact(slices.Sorted(slices.Values(keys)))
	for len(rest) > 0 {
		req := kmsg.NewPtrFindCoordinatorRequest()
		req.CoordinatorType, req.CoordinatorKey, req.CoordinatorKeys = kind, rest[0], rest
		resp, err := ask[*kmsg.FindCoordinatorResponse](ctx, a, client.AnyBroker, req)
		if err != nil {
			return nil, nil, fmt.Errorf("find the coordinator: %w", err)
		}
		if resp.Version < 4 { // one key a request (KIP-699)
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

	// Epoch and AssignmentEpoch go up with what the members want, and with what they are to have, in groups of types
	// ConsumerGroup and ShareGroup; else -1.
	Epoch           int32
	AssignmentEpoch int32

	AuthorizedOperations []ACLOperation // on the group; nil without the option of that name
	Err                  error          // ErrGroupIDNotFound, ErrGroupAuthorizationFailed
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

	// What the newer protocols add: where the member stands (-1 in classic groups), where it runs, the regular expression
	// that it subscribes by, and, where the group is of type ConsumerGroup, what it is to have in the end and whether it
	// is one that speaks the classic protocol.
	Epoch      int32
	Rack       string
	TopicRegex string
	Target     []client.TopicPartition // sorted
	Classic    bool

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
// protocol and of KIP-848 are described; for others see DescribeShareGroups and DescribeStreamsGroups.
func (a *Admin) DescribeGroups(ctx context.Context, groups ...string) ([]GroupDescription, error) {
	at := map[string]BrokerDescription{}
	out, err := perCoordinator(ctx, a, "describe groups", groups, at,
		func(_ context.Context, of []string) kmsg.Request {
			req := kmsg.NewPtrDescribeGroupsRequest()
			req.Groups, req.IncludeAuthorizedOperations = of, a.authorized
			return req
		},
		func(resp *kmsg.DescribeGroupsResponse, give func(string, GroupDescription, error)) {
			for i := range resp.Groups {
				d := readGroup(&resp.Groups[i])
				give(d.Group, d, d.Err)
			}
		},
		failedGroup)
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

func failedGroup(group string, err error) GroupDescription {
	return GroupDescription{Group: group, Epoch: -1, AssignmentEpoch: -1, Err: err}
}

func readGroup(in *kmsg.DescribeGroupsResponseGroup) GroupDescription {
	d := GroupDescription{
		Group: in.Group, Type: ClassicGroup, State: GroupState(in.State), ProtocolType: in.ProtocolType, Protocol: in.Protocol,
		Epoch: -1, AssignmentEpoch: -1, AuthorizedOperations: operations(in.AuthorizedOperations),
		Err: client.CodeError(in.ErrorCode, in.ErrorMessage),
	}
	if d.Err == nil && d.State == GroupDead { // as versions before 6 say that there is no such group
		d.Err = client.ErrGroupIDNotFound
	}
	for i := range in.Members {
		m := &in.Members[i]
		out := GroupMember{
			ID: m.MemberID, InstanceID: text(m.InstanceID), ClientID: m.ClientID, Host: m.ClientHost,
			Epoch: -1, Metadata: m.ProtocolMetadata, AssignmentBytes: m.MemberAssignment,
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
			m.Assignment = appendPartitions(m.Assignment, t.Topic, t.Partitions)
		}
		slices.SortFunc(m.Assignment, comparePartitions)
	}
	return nil
}

// appendPartitions adds those of one topic.
func appendPartitions(to []client.TopicPartition, topic string, partitions []int32) []client.TopicPartition {
	for _, p := range partitions {
		to = append(to, client.TopicPartition{Topic: topic, Partition: p})
	}
	return to
}

// readAssignment reads what a member of the newer protocols has, or is to have.
func readAssignment(in []kmsg.AssignmentTopicPartition) []client.TopicPartition {
	var out []client.TopicPartition
	for _, t := range in {
		out = appendPartitions(out, t.Topic, t.Partitions)
	}
	slices.SortFunc(out, comparePartitions)
	return out
}

// classicMember is the type of a member that speaks the classic protocol in a group of KIP-848's (ConsumerGroupDescribe 1).
const classicMember int8 = 0

// describeConsumerGroups describes those of the groups that are of KIP-848's protocol. A broker
// without it has none.
func (a *Admin) describeConsumerGroups(ctx context.Context, groups []string, at map[string]BrokerDescription) (map[string]GroupDescription, error) {
	if len(groups) == 0 {
		return nil, nil
	}
	found, err := perCoordinator(ctx, a, "describe consumer groups", groups, at,
		func(_ context.Context, of []string) kmsg.Request {
			req := kmsg.NewPtrConsumerGroupDescribeRequest()
			req.Groups, req.IncludeAuthorizedOperations = of, a.authorized
			return req
		},
		func(resp *kmsg.ConsumerGroupDescribeResponse, give func(string, GroupDescription, error)) {
			for i := range resp.Groups {
				d := readConsumerGroup(&resp.Groups[i])
				give(d.Group, d, d.Err)
			}
		},
		failedGroup)
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
		Epoch: in.Epoch, AssignmentEpoch: in.AssignmentEpoch, AuthorizedOperations: operations(in.AuthorizedOperations),
		Err: client.CodeError(in.ErrorCode, in.ErrorMessage),
	}
	for i := range in.Members {
		m := &in.Members[i]
		d.Members = append(d.Members, GroupMember{
			ID: m.MemberID, InstanceID: text(m.InstanceID), ClientID: m.ClientID, Host: m.ClientHost,
			Topics: slices.Sorted(slices.Values(m.SubscribedTopics)), Assignment: readAssignment(m.Assignment.TopicPartitions),
			Epoch: m.MemberEpoch, Rack: text(m.RackID), TopicRegex: text(m.SubscribedTopicRegex),
			Target: readAssignment(m.TargetAssignment.TopicPartitions), Classic: m.MemberType == classicMember,
		})
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
