package admin

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/client"
)

// coordinators answers FindCoordinator from a table, an error where it has none.
func coordinators(r *kmsg.FindCoordinatorRequest, of func(group string) (node int32, code client.Error)) *kmsg.FindCoordinatorResponse {
	resp := kmsg.NewPtrFindCoordinatorResponse()
	if r.Version < 4 {
		node, code := of(r.CoordinatorKey)
		resp.NodeID, resp.Host, resp.Port, resp.ErrorCode = node, fmt.Sprintf("n%d", node), 9092, int16(code)
		return resp
	}
	for _, key := range r.CoordinatorKeys {
		node, code := of(key)
		c := kmsg.NewFindCoordinatorResponseCoordinator()
		c.Key, c.NodeID, c.Host, c.Port, c.ErrorCode = key, node, fmt.Sprintf("n%d", node), 9092, int16(code)
		resp.Coordinators = append(resp.Coordinators, c)
	}
	return resp
}

func always(node int32) func(string) (int32, client.Error) {
	return func(string) (int32, client.Error) { return node, 0 }
}

func askedOf(f *fake, key int16) []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []string
	for _, s := range f.asked {
		var k, node int
		if _, err := fmt.Sscanf(s, "%d@%d", &k, &node); err == nil && k == int(key) {
			out = append(out, s)
		}
	}
	return out
}

// Each coordinator is asked once for all its groups; a group whose coordinator has moved, is
// loading or is not there yet is asked about again, the others are not; each fails alone.
func TestCoordinatorsAreAskedForTheirGroups(t *testing.T) {
	moved, loading, absent := false, true, true
	answers := func(node int32, req kmsg.Request) kmsg.Response {
		switch r := req.(type) {
		case *kmsg.FindCoordinatorRequest:
			return coordinators(r, func(group string) (int32, client.Error) {
				switch {
				case group == "denied":
					return -1, client.ErrGroupAuthorizationFailed
				case group == "late" && absent:
					absent = false
					return -1, client.ErrCoordinatorNotAvailable
				case group == "moved" && moved, group == "second":
					return 2, 0
				}
				return 1, 0
			})
		case *kmsg.DeleteGroupsRequest:
			resp := kmsg.NewPtrDeleteGroupsResponse()
			for _, group := range r.Groups {
				g := kmsg.NewDeleteGroupsResponseGroup()
				g.Group = group
				switch {
				case group == "moved" && node == 1:
					moved, g.ErrorCode = true, int16(client.ErrNotCoordinator)
				case group == "loading" && loading:
					loading, g.ErrorCode = false, int16(client.ErrCoordinatorLoadInProgress)
				case group == "busy":
					g.ErrorCode = int16(client.ErrNonEmptyGroup)
				case group == "forgotten":
					continue
				}
				resp.Groups = append(resp.Groups, g)
			}
			return resp
		}
		return nil
	}
	serving(t, []int16{10, 42}, answers, func(ctx context.Context, f *fake, a *Admin) {
		start := time.Now()
		groups := []string{"late", "busy", "moved", "first", "denied", "second", "loading", "forgotten"}
		got, err := a.DeleteGroups(ctx, groups...)
		if err != nil || len(got) != len(groups) {
			t.Fatalf("%+v, %v", got, err)
		}
		want := map[string]error{"busy": client.ErrNonEmptyGroup, "denied": client.ErrGroupAuthorizationFailed, "forgotten": errLeftOut}
		for i, r := range got {
			if r.Group != groups[i] || !errors.Is(r.Err, want[r.Group]) || (r.Err == nil) != (want[r.Group] == nil) {
				t.Errorf("%+v, expected %v", r, want[r.Group])
			}
		}
		if took := time.Since(start); took > time.Second {
			t.Errorf("took %v", took)
		}
		if asked := askedOf(f, 10); len(asked) != 2 {
			t.Errorf("coordinators were looked for by %d requests", len(asked))
		}
		asked := askedOf(f, 42)
		slices.Sort(asked)
		if !slices.Equal(asked, []string{"42@1", "42@1", "42@2", "42@2"}) {
			t.Errorf("asked %v", asked)
		}
	})
}

// Brokers that find one coordinator a request are asked so often.
func TestCoordinatorsOfOlderBrokers(t *testing.T) {
	answers := func(_ int32, req kmsg.Request) kmsg.Response {
		switch r := req.(type) {
		case *kmsg.FindCoordinatorRequest:
			return coordinators(r, always(2))
		case *kmsg.DeleteGroupsRequest:
			resp := kmsg.NewPtrDeleteGroupsResponse()
			for _, group := range r.Groups {
				g := kmsg.NewDeleteGroupsResponseGroup()
				g.Group = group
				resp.Groups = append(resp.Groups, g)
			}
			return resp
		}
		return nil
	}
	serving(t, []int16{10, 42}, answers, func(ctx context.Context, f *fake, a *Admin) {
		f.newest = map[int16]int16{10: 3}
		got, err := a.DeleteGroups(ctx, "b", "a")
		if err != nil || got[0] != (GroupResult{Group: "b"}) || got[1] != (GroupResult{Group: "a"}) {
			t.Errorf("%+v, %v", got, err)
		}
		if looked, asked := askedOf(f, 10), askedOf(f, 42); len(looked) != 2 || len(asked) != 1 {
			t.Errorf("%v, then %v", looked, asked)
		}
	})
}

// Whatever keeps a group without a coordinator, the call ends with its timeout and says why.
func TestGroupsWithoutCoordinatorEndWithTheTimeout(t *testing.T) {
	answers := func(_ int32, req kmsg.Request) kmsg.Response {
		switch r := req.(type) {
		case *kmsg.FindCoordinatorRequest:
			return coordinators(r, func(group string) (int32, client.Error) {
				if group == "unled" {
					return -1, client.ErrCoordinatorNotAvailable
				}
				return 2, 0
			})
		case *kmsg.DeleteGroupsRequest:
			g := kmsg.NewDeleteGroupsResponseGroup()
			g.Group = "led"
			return &kmsg.DeleteGroupsResponse{Groups: []kmsg.DeleteGroupsResponseGroup{g}}
		}
		return nil
	}
	serving(t, []int16{10, 42}, answers, func(ctx context.Context, _ *fake, a *Admin) {
		start := time.Now()
		got, err := a.DeleteGroups(ctx, "unled", "led")
		if err != nil || !errors.Is(got[0].Err, client.ErrCoordinatorNotAvailable) || got[1].Err != nil || time.Since(start) != 10*time.Second {
			t.Errorf("%+v, %v after %v", got, err, time.Since(start))
		}
		ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
		defer cancel()
		start = time.Now()
		if got, err = a.DeleteGroups(ctx, "unled"); err != nil || got[0].Err == nil || time.Since(start) != 3*time.Second {
			t.Errorf("%+v, %v after %v", got, err, time.Since(start))
		}
	})
}

func describedMember(id string, metadata, assignment []byte) kmsg.DescribeGroupsResponseGroupMember {
	m := kmsg.NewDescribeGroupsResponseGroupMember()
	m.MemberID, m.ClientID, m.ClientHost, m.ProtocolMetadata, m.MemberAssignment = id, "c-"+id, "/10.0.0.1", metadata, assignment
	return m
}

func subscription(topics ...string) []byte {
	s := kmsg.NewConsumerMemberMetadata()
	s.Version, s.Topics = 1, topics
	return s.AppendTo(nil)
}

func assignment(topic string, partitions ...int32) []byte {
	a := kmsg.NewConsumerMemberAssignment()
	a.Topics = []kmsg.ConsumerMemberAssignmentTopic{{Topic: topic, Partitions: partitions}}
	return a.AppendTo(nil)
}

// describing answers with groups of every kind: consumers, another protocol, one of KIP-848, none. So
// often as unstable says, an offset of group "busy" is not decided yet.
func describing(unstable int) func(int32, kmsg.Request) kmsg.Response {
	return func(_ int32, req kmsg.Request) kmsg.Response {
		if r, ok := req.(*kmsg.OffsetFetchRequest); ok {
			return committedOffsets(r, &unstable)
		}
		return describedGroups(req)
	}
}

func describedGroups(req kmsg.Request) kmsg.Response {
	switch r := req.(type) {
	case *kmsg.FindCoordinatorRequest:
		return coordinators(r, always(2))
	case *kmsg.DescribeGroupsRequest:
		resp := kmsg.NewPtrDescribeGroupsResponse()
		for _, group := range r.Groups {
			g := kmsg.NewDescribeGroupsResponseGroup()
			g.Group, g.State = group, "Stable"
			switch group {
			case "consumers":
				g.ProtocolType, g.Protocol = "consumer", "range"
				static := describedMember("m2", subscription("u", "t"), assignment("t", 1, 0))
				static.InstanceID = kmsg.StringPtr("i2")
				g.Members = append(g.Members, static, describedMember("m1", nil, nil), describedMember("m3", []byte{1}, nil))
			case "connect":
				g.ProtocolType, g.Protocol = "connect", "sessioned"
				g.Members = append(g.Members, describedMember("w", []byte{1, 2}, []byte{3}))
			default:
				g.ErrorCode, g.State = int16(client.ErrGroupIDNotFound), "Dead"
			}
			if group == "dead" {
				g.ErrorCode = 0
			}
			resp.Groups = append(resp.Groups, g)
		}
		return resp
	case *kmsg.ConsumerGroupDescribeRequest:
		resp := kmsg.NewPtrConsumerGroupDescribeResponse()
		for _, group := range r.Groups {
			g := kmsg.NewConsumerGroupDescribeResponseGroup()
			g.Group = group
			if group != "newer" {
				g.ErrorCode = int16(client.ErrGroupIDNotFound)
			} else {
				g.State, g.AssignorName = "Reconciling", "uniform"
				m := kmsg.NewConsumerGroupDescribeResponseGroupMember()
				m.MemberID, m.SubscribedTopics = "m", []string{"t"}
				m.Assignment.TopicPartitions = []kmsg.AssignmentTopicPartition{{Topic: "t", Partitions: []int32{2, 1}}}
				g.Members = append(g.Members, m)
			}
			resp.Groups = append(resp.Groups, g)
		}
		return resp
	case *kmsg.ListOffsetsRequest:
		return listedOffsets(r)
	}
	return nil
}

func TestGroupsAreDescribed(t *testing.T) {
	serving(t, []int16{10, 15, 69}, describing(0), func(ctx context.Context, f *fake, a *Admin) {
		got, err := a.DescribeGroups(ctx, "newer", "consumers", "none", "connect", "dead")
		if err != nil {
			t.Fatal(err)
		}
		at := BrokerDescription{Node: 2, Host: "n2", Port: 9092}
		tp := func(p int32) client.TopicPartition { return client.TopicPartition{Topic: "t", Partition: p} }
		newer, consumers, connect := got[0], got[1], got[3]
		if newer.Type != ConsumerGroup || newer.State != GroupReconciling || newer.Protocol != "uniform" || newer.Coordinator != at ||
			!slices.Equal(newer.Members[0].Assignment, []client.TopicPartition{tp(1), tp(2)}) {
			t.Errorf("KIP-848: %+v", newer)
		}
		if consumers.Type != ClassicGroup || consumers.State != GroupStable || consumers.Protocol != "range" || consumers.Coordinator != at || len(consumers.Members) != 3 {
			t.Errorf("consumers: %+v", consumers)
		}
		if m := consumers.Members[0]; m.ID != "m1" || m.Topics != nil || m.Assignment != nil || m.Err != nil {
			t.Errorf("a member without bytes: %+v", m)
		}
		if m := consumers.Members[1]; m.InstanceID != "i2" || m.ClientID != "c-m2" || m.Host != "/10.0.0.1" || m.Err != nil ||
			!slices.Equal(m.Topics, []string{"t", "u"}) || !slices.Equal(m.Assignment, []client.TopicPartition{tp(0), tp(1)}) {
			t.Errorf("a member: %+v", m)
		}
		if m := consumers.Members[2]; m.Err == nil || !slices.Equal(m.Metadata, []byte{1}) {
			t.Errorf("a member with damaged bytes: %+v", m)
		}
		if m := connect.Members[0]; connect.ProtocolType != "connect" || m.Err != nil || m.Topics != nil ||
			!slices.Equal(m.Metadata, []byte{1, 2}) || !slices.Equal(m.AssignmentBytes, []byte{3}) {
			t.Errorf("another protocol: %+v", connect)
		}
		for _, d := range []GroupDescription{got[2], got[4]} {
			if !errors.Is(d.Err, client.ErrGroupIDNotFound) {
				t.Errorf("described %+v", d)
			}
		}
		if n := len(askedOf(f, 15)); n != 1 {
			t.Errorf("%d requests for five groups of one coordinator", n)
		}
	})
	// A broker without KIP-848 has no groups of it.
	serving(t, []int16{10, 15}, describing(0), func(ctx context.Context, _ *fake, a *Admin) {
		got, err := a.DescribeGroups(ctx, "newer", "connect")
		if err != nil || !errors.Is(got[0].Err, client.ErrGroupIDNotFound) || got[1].Err != nil {
			t.Errorf("%+v, %v", got, err)
		}
	})
}

func TestGroupsOfAllBrokersAreListed(t *testing.T) {
	answers := func(node int32, req kmsg.Request) kmsg.Response {
		switch r := req.(type) {
		case *kmsg.DescribeClusterRequest:
			resp := kmsg.NewPtrDescribeClusterResponse()
			for n := range int32(2) {
				resp.Brokers = append(resp.Brokers, kmsg.DescribeClusterResponseBroker{NodeID: n + 1, Host: fmt.Sprintf("n%d", n+1), Port: 9092})
			}
			return resp
		case *kmsg.ListGroupsRequest:
			if node == 1 && slices.Contains(r.TypesFilter, "share") {
				return nil // hangs up
			}
			g := kmsg.NewListGroupsResponseGroup()
			g.Group, g.ProtocolType, g.GroupState = fmt.Sprintf("of-%d", 3-node), "consumer", fmt.Sprint(r.StatesFilter, r.TypesFilter)
			return &kmsg.ListGroupsResponse{Version: r.Version, Groups: []kmsg.ListGroupsResponseGroup{g}}
		}
		return nil
	}
	serving(t, []int16{16, 60}, answers, func(ctx context.Context, _ *fake, a *Admin) {
		got, err := a.ListGroups(ctx, InStates(GroupEmpty, GroupStable), OfTypes(ClassicGroup))
		want := []GroupListing{
			{"of-1", "consumer", "[Empty Stable] [classic]", ClassicGroup, 2}, {"of-2", "consumer", "[Empty Stable] [classic]", ClassicGroup, 1},
		}
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%+v, %v", got, err)
		}
		got, err = a.ListGroups(ctx, OfTypes(ShareGroup))
		if !errors.Is(err, client.ErrNetwork) || len(got) != 1 || got[0].Group != "of-1" {
			t.Errorf("with a broker that does not answer: %+v, %v", got, err)
		}
	})
}

// committedOffsets answers that partition 0 of t is at 5 and 1 at 12, and 9 of none at 1.
func committedOffsets(r *kmsg.OffsetFetchRequest, unstable *int) *kmsg.OffsetFetchResponse {
	resp := kmsg.NewPtrOffsetFetchResponse()
	for _, asked := range r.Groups {
		g := kmsg.NewOffsetFetchResponseGroup()
		g.Group = asked.Group
		if asked.Group == "denied" {
			g.ErrorCode = int16(client.ErrGroupAuthorizationFailed)
			resp.Groups = append(resp.Groups, g)
			continue
		}
		add := func(topic string, partition int32, offset int64) *kmsg.OffsetFetchResponseGroupTopicPartition {
			t := kmsg.NewOffsetFetchResponseGroupTopic()
			t.Topic = topic
			p := kmsg.NewOffsetFetchResponseGroupTopicPartition()
			p.Partition, p.Offset, p.LeaderEpoch, p.Metadata = partition, offset, 3, kmsg.StringPtr("m")
			t.Partitions = append(t.Partitions, p)
			g.Topics = append(g.Topics, t)
			return &g.Topics[len(g.Topics)-1].Partitions[0]
		}
		p := add("t", 1, 12)
		if asked.Group == "busy" && r.RequireStable && *unstable > 0 {
			*unstable--
			p.ErrorCode = int16(client.ErrUnstableOffsetCommit)
		}
		add("t", 0, 5)
		add("none", 9, 1)
		resp.Groups = append(resp.Groups, g)
	}
	return resp
}

// listedOffsets answers that every partition begins at 2 and ends at 10.
func listedOffsets(r *kmsg.ListOffsetsRequest) *kmsg.ListOffsetsResponse {
	resp := kmsg.NewPtrListOffsetsResponse()
	for _, t := range r.Topics {
		out := kmsg.NewListOffsetsResponseTopic()
		out.Topic = t.Topic
		for _, p := range t.Partitions {
			part := kmsg.NewListOffsetsResponseTopicPartition()
			part.Partition, part.Offset = p.Partition, 10
			if p.Timestamp == Earliest.time {
				part.Offset = 2
			}
			out.Partitions = append(out.Partitions, part)
		}
		resp.Topics = append(resp.Topics, out)
	}
	return resp
}

// Offsets come by name, whatever newer versions there are, from each coordinator at once; one
// that is unstable is waited for where that was asked for.
func TestGroupOffsets(t *testing.T) {
	serving(t, []int16{9, 10}, describing(2), func(ctx context.Context, f *fake, a *Admin) {
		got, err := a.GroupOffsets(ctx, []string{"g", "denied", "busy"}, Stable())
		if err != nil || !errors.Is(got[1].Err, client.ErrGroupAuthorizationFailed) {
			t.Fatalf("%+v, %v", got, err)
		}
		for _, i := range []int{0, 2} {
			want := []CommittedOffset{
				{TopicPartition: client.TopicPartition{Topic: "none", Partition: 9}, OffsetAndMetadata: client.OffsetAndMetadata{Offset: 1, LeaderEpoch: client.InEpoch(3), Metadata: "m"}},
				{TopicPartition: client.TopicPartition{Topic: "t", Partition: 0}, OffsetAndMetadata: client.OffsetAndMetadata{Offset: 5, LeaderEpoch: client.InEpoch(3), Metadata: "m"}},
				{TopicPartition: client.TopicPartition{Topic: "t", Partition: 1}, OffsetAndMetadata: client.OffsetAndMetadata{Offset: 12, LeaderEpoch: client.InEpoch(3), Metadata: "m"}},
			}
			if !slices.Equal(got[i].Offsets, want) || got[i].Err != nil {
				t.Errorf("%+v", got[i])
			}
		}
		if n := len(askedOf(f, 9)); n != 3 {
			t.Errorf("asked %d times", n)
		}
	})
}

func TestLagJoinsCommitsMembersAndLogs(t *testing.T) {
	serving(t, []int16{2, 9, 10, 15, 69}, describing(0), func(ctx context.Context, _ *fake, a *Admin) {
		got, err := a.Lag(ctx, client.ReadCommitted, "newer", "gone", "denied")
		if err != nil {
			t.Fatal(err)
		}
		type row struct {
			tp                         client.TopicPartition
			committed, start, end, lag int64
			member                     bool
			err                        error
		}
		var rows []row
		for _, p := range got[0].Partitions {
			rows = append(rows, row{p.TopicPartition, p.Committed, p.Start, p.End, p.Lag, p.Member != nil, p.Err})
		}
		want := []row{
			{client.TopicPartition{Topic: "none", Partition: 9}, 1, -1, -1, NoLag, false, client.ErrUnknownTopicOrPartition},
			{client.TopicPartition{Topic: "t", Partition: 0}, 5, 2, 10, 5, false, nil},
			{client.TopicPartition{Topic: "t", Partition: 1}, 12, 2, 10, -2, true, nil},
			{client.TopicPartition{Topic: "t", Partition: 2}, -1, -1, -1, NoLag, true, client.ErrUnknownTopicOrPartition}, // the fake's t has two
		}
		if !reflect.DeepEqual(rows, want) || got[0].Total() != 5 {
			t.Errorf("%+v, total %d", rows, got[0].Total())
		}
		if !errors.Is(got[1].Err, client.ErrGroupIDNotFound) || got[2].Err == nil {
			t.Errorf("%v, %v", got[1].Err, got[2].Err)
		}
	})
}

// committing answers every partition of an OffsetCommit with what code says.
func committing(code func(client.TopicPartition) client.Error) func(int32, kmsg.Request) kmsg.Response {
	return func(_ int32, req kmsg.Request) kmsg.Response {
		switch r := req.(type) {
		case *kmsg.FindCoordinatorRequest:
			return coordinators(r, always(1))
		case *kmsg.OffsetCommitRequest:
			if r.Version > 9 || r.Generation != -1 || r.MemberID != "" || r.InstanceID != nil {
				return nil
			}
			resp := kmsg.NewPtrOffsetCommitResponse()
			for _, t := range r.Topics {
				out := kmsg.NewOffsetCommitResponseTopic()
				out.Topic = t.Topic
				for _, p := range t.Partitions {
					out.Partitions = append(out.Partitions, kmsg.OffsetCommitResponseTopicPartition{
						Partition: p.Partition, ErrorCode: int16(code(client.TopicPartition{Topic: t.Topic, Partition: p.Partition})),
					})
				}
				resp.Topics = append(resp.Topics, out)
			}
			return resp
		}
		return nil
	}
}

func TestAlterGroupOffsets(t *testing.T) {
	a, b := client.TopicPartition{Topic: "a", Partition: 0}, client.TopicPartition{Topic: "b", Partition: 7}
	loading, code := 2, client.Error(0)
	answers := committing(func(tp client.TopicPartition) client.Error {
		switch {
		case tp == a && loading > 0:
			loading--
			return client.ErrCoordinatorLoadInProgress
		case tp == b:
			return code
		}
		return 0
	})
	serving(t, []int16{8, 10}, answers, func(ctx context.Context, _ *fake, admin *Admin) {
		for _, c := range []struct{ answer, want client.Error }{
			{0, 0},
			{client.ErrUnknownTopicOrPartition, client.ErrUnknownTopicOrPartition},
			{client.ErrUnknownMemberID, client.ErrNonEmptyGroup},
			{client.ErrRebalanceInProgress, client.ErrNonEmptyGroup},
			{client.ErrOffsetMetadataTooLarge, client.ErrOffsetMetadataTooLarge},
		} {
			code = c.answer
			start := time.Now()
			got, err := admin.AlterGroupOffsets(ctx, "g", map[client.TopicPartition]client.OffsetAndMetadata{b: {Offset: 2}, a: {Offset: 1}})
			if err != nil || len(got) != 2 || got[0] != (PartitionResult{TopicPartition: a}) || got[1].TopicPartition != b {
				t.Fatalf("%+v, %v", got, err)
			}
			if (c.want == 0) != (got[1].Err == nil) || c.want != 0 && !(errors.Is(got[1].Err, c.want) && errors.Is(got[1].Err, c.answer)) {
				t.Errorf("%v became %v", c.answer, got[1].Err)
			}
			if took := time.Since(start); took > 500*time.Millisecond {
				t.Errorf("%v took %v", c.answer, took)
			}
		}
	})
}

func TestDeleteGroupOffsets(t *testing.T) {
	answers := func(_ int32, req kmsg.Request) kmsg.Response {
		switch r := req.(type) {
		case *kmsg.FindCoordinatorRequest:
			return coordinators(r, always(1))
		case *kmsg.OffsetDeleteRequest:
			resp := kmsg.NewPtrOffsetDeleteResponse()
			if r.Group == "none" {
				resp.ErrorCode = int16(client.ErrGroupIDNotFound)
				return resp
			}
			for _, t := range r.Topics {
				out := kmsg.NewOffsetDeleteResponseTopic()
				out.Topic = t.Topic
				for _, p := range t.Partitions {
					part := kmsg.OffsetDeleteResponseTopicPartition{Partition: p.Partition}
					if t.Topic == "subscribed" {
						part.ErrorCode = int16(client.ErrGroupSubscribedToTopic)
					}
					out.Partitions = append(out.Partitions, part)
				}
				resp.Topics = append(resp.Topics, out)
			}
			return resp
		}
		return nil
	}
	serving(t, []int16{10, 47}, answers, func(ctx context.Context, _ *fake, a *Admin) {
		tp, other := client.TopicPartition{Topic: "t", Partition: 1}, client.TopicPartition{Topic: "subscribed"}
		got, err := a.DeleteGroupOffsets(ctx, "g", tp, other, tp)
		if err != nil || len(got) != 2 || !errors.Is(got[0].Err, client.ErrGroupSubscribedToTopic) || got[1] != (PartitionResult{TopicPartition: tp}) {
			t.Errorf("%+v, %v", got, err)
		}
		got, err = a.DeleteGroupOffsets(ctx, "none", tp)
		if err != nil || !errors.Is(got[0].Err, client.ErrGroupIDNotFound) {
			t.Errorf("%+v, %v", got, err)
		}
	})
}
