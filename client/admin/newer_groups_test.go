package admin

import (
	"context"
	"errors"
	"reflect"
	"slices"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/client"
)

// Share and streams groups are described by their coordinators, in the order of the names, sorted inside.
func TestNewerGroupsAreDescribed(t *testing.T) {
	answers := func(_ int32, req kmsg.Request) kmsg.Response {
		switch r := req.(type) {
		case *kmsg.FindCoordinatorRequest:
			return coordinators(r, always(2))
		case *kmsg.ShareGroupDescribeRequest:
			resp := kmsg.NewPtrShareGroupDescribeResponse()
			for _, group := range slices.Backward(r.GroupIDs) {
				g := kmsg.NewShareGroupDescribeResponseGroup()
				g.GroupID, g.GroupState, g.GroupEpoch, g.AssignmentEpoch, g.AuthorizedOperations = group, "Stable", 4, 3, 1<<3|1<<8
				if group == "none" {
					g.ErrorCode, g.ErrorMessage = int16(client.ErrGroupIDNotFound), kmsg.StringPtr("not a share group")
				}
				for _, id := range []string{"m2", "m1"} {
					m := kmsg.NewShareGroupDescribeResponseGroupMember()
					m.MemberID, m.MemberEpoch, m.RackID, m.SubscribedTopicNames = id, 2, kmsg.StringPtr("r"), []string{"u", "t"}
					m.Assignment.TopicPartitions = []kmsg.ShareGroupDescribeResponseGroupMemberAssignmentTopicPartition{{Topic: "u", Partitions: []int32{0}}, {Topic: "t", Partitions: []int32{1, 0}}}
					g.Members = append(g.Members, m)
				}
				resp.Groups = append(resp.Groups, g)
			}
			return resp
		case *kmsg.StreamsGroupDescribeRequest:
			resp := kmsg.NewPtrStreamsGroupDescribeResponse()
			g := kmsg.NewStreamsGroupDescribeResponseGroup()
			g.Group, g.State = "streams", "NotReady"
			g.Topology = &kmsg.StreamsGroupDescribeResponseGroupTopology{Epoch: 9, Subtopologies: []kmsg.StreamsGroupDescribeResponseGroupTopologySubtopology{{
				SubtopologyID: "0", SourceTopics: []string{"t"}, StateChangelogTopics: []kmsg.TopicInfo{{Topic: "c", Configs: []kmsg.TopicInfoConfig{{Key: "k", Value: "v"}}}},
			}}}
			m := kmsg.NewStreamsGroupDescribeResponseGroupMember()
			m.MemberID, m.UserEndpoint = "m", &kmsg.StreamsGroupDescribeResponseGroupMemberUserEndpoint{Host: "h", Port: 1}
			m.Assignment.ActiveTasks = []kmsg.TaskIDs{{SubtopologyID: "1", Partitions: []int32{2}}, {SubtopologyID: "0", Partitions: []int32{1, 0}}}
			m.TaskOffsets = []kmsg.TaskOffset{{SubtopologyID: "0", Partition: 1, Offset: 5}}
			g.Members = append(g.Members, m)
			resp.Groups = append(resp.Groups, g)
			return resp
		}
		return nil
	}
	serving(t, []int16{10, 77, 89}, answers, func(ctx context.Context, _ *fake, a *Admin) {
		got, err := a.DescribeShareGroups(ctx, "b", "none", "a")
		if err != nil || got[0].Group != "b" || got[2].Group != "a" || !errors.Is(got[1].Err, client.ErrGroupIDNotFound) {
			t.Fatalf("%+v, %v", got, err)
		}
		if g := got[2]; g.Type != ShareGroup || g.Epoch != 4 || g.AssignmentEpoch != 3 || g.Coordinator.Node != 2 || !slices.Equal(g.AuthorizedOperations, []ACLOperation{OperationRead, OperationDescribe}) {
			t.Errorf("%+v", g)
		}
		want := GroupMember{ID: "m1", Epoch: 2, Rack: "r", Topics: []string{"t", "u"}, Assignment: []client.TopicPartition{at("t", 0), at("t", 1), at("u", 0)}}
		if m := got[0].Members[0]; !reflect.DeepEqual(m, want) {
			t.Errorf("%+v", m)
		}
		streams, err := a.DescribeStreamsGroups(ctx, "streams", "absent")
		if err != nil || !errors.Is(streams[1].Err, errLeftOut) || streams[1].TopologyEpoch != -1 {
			t.Fatalf("%+v, %v", streams, err)
		}
		g := streams[0]
		if g.State != GroupNotReady || g.TopologyEpoch != 9 || g.Subtopologies[0].StateChangelogTopics[0].Configs["k"] != "v" || g.Coordinator.Node != 2 || g.AuthorizedOperations != nil {
			t.Errorf("%+v", g)
		}
		if m := g.Members[0]; m.Endpoint != "h:1" || !slices.Equal(m.Assignment.Active, []StreamsTask{{"0", 0}, {"0", 1}, {"1", 2}}) || m.Offsets[0] != (StreamsTaskOffset{StreamsTask{"0", 1}, 5}) {
			t.Errorf("%+v", m)
		}
	})
}

// A lag that the broker does not tell is none, and a partition that is not there does not hold the others up.
func TestShareGroupOffsets(t *testing.T) {
	answers := func(_ int32, req kmsg.Request) kmsg.Response {
		switch r := req.(type) {
		case *kmsg.FindCoordinatorRequest:
			return coordinators(r, always(1))
		case *kmsg.DescribeShareGroupOffsetsRequest:
			resp := kmsg.NewPtrDescribeShareGroupOffsetsResponse()
			for _, in := range r.Groups {
				if in.Topics != nil {
					t.Errorf("not all topics: %+v", in)
				}
				g := kmsg.NewDescribeShareGroupOffsetsResponseGroup()
				g.GroupID = in.GroupID
				g.Topics = []kmsg.DescribeShareGroupOffsetsResponseGroupTopic{{Topic: "t", Partitions: []kmsg.DescribeShareGroupOffsetsResponseGroupTopicPartition{
					{Partition: 2, StartOffset: 20, LeaderEpoch: 1, Lag: 3},
					{Partition: 1, StartOffset: -1, Lag: -1},
					{Partition: 0, ErrorCode: int16(client.ErrUnknownTopicOrPartition)},
				}}}
				resp.Groups = append(resp.Groups, g)
			}
			return resp
		case *kmsg.AlterShareGroupOffsetsRequest:
			resp := kmsg.NewPtrAlterShareGroupOffsetsResponse()
			if r.GroupID == "busy" {
				resp.ErrorCode = int16(client.ErrNonEmptyGroup)
				return resp
			}
			resp.Topics = []kmsg.AlterShareGroupOffsetsResponseTopic{{Topic: "t", Partitions: []kmsg.AlterShareGroupOffsetsResponseTopicPartition{
				{Partition: 1, ErrorCode: int16(client.ErrUnknownTopicOrPartition)}, {Partition: 0},
			}}}
			return resp
		case *kmsg.DeleteShareGroupOffsetsRequest:
			resp := kmsg.NewPtrDeleteShareGroupOffsetsResponse()
			if r.GroupID == "none" {
				resp.ErrorCode = int16(client.ErrGroupIDNotFound)
				return resp
			}
			resp.Topics = []kmsg.DeleteShareGroupOffsetsResponseTopic{{Topic: "u", ErrorCode: int16(client.ErrTopicAuthorizationFailed)}, {Topic: "t"}}
			return resp
		}
		return nil
	}
	for version, lag := range map[int16]int64{1: 3, 0: NoLag} {
		serving(t, []int16{10, 90}, answers, func(ctx context.Context, f *fake, a *Admin) {
			f.newest = map[int16]int16{90: version}
			got, err := a.ShareGroupOffsets(ctx, "g")
			if err != nil || got[0].Err != nil || len(got[0].Offsets) != 3 {
				t.Fatalf("%+v, %v", got, err)
			}
			o := got[0].Offsets
			if !errors.Is(o[0].Err, client.ErrUnknownTopicOrPartition) || o[1].Start != -1 || o[1].Lag != NoLag || o[2].Start != 20 || o[2].Lag != lag {
				t.Errorf("version %d: %+v", version, o)
			}
		})
	}
	serving(t, []int16{10, 91, 92}, answers, func(ctx context.Context, _ *fake, a *Admin) {
		starts := map[client.TopicPartition]int64{at("t", 0): 1, at("t", 1): 2, at("t", 2): 3}
		got, err := a.AlterShareGroupOffsets(ctx, "g", starts)
		if err != nil || got[0].Err != nil || !errors.Is(got[1].Err, client.ErrUnknownTopicOrPartition) || !errors.Is(got[2].Err, errLeftOut) {
			t.Errorf("%+v, %v", got, err)
		}
		if got, err = a.AlterShareGroupOffsets(ctx, "busy", starts); err != nil || len(got) != 3 || !errors.Is(got[2].Err, client.ErrNonEmptyGroup) {
			t.Errorf("%+v, %v", got, err)
		}
		gone, err := a.DeleteShareGroupOffsets(ctx, "g", "t", "u", "v")
		if err != nil || gone[0] != (TopicResult{Name: "t"}) || !errors.Is(gone[1].Err, client.ErrTopicAuthorizationFailed) || !errors.Is(gone[2].Err, errLeftOut) {
			t.Errorf("%+v, %v", gone, err)
		}
		if gone, err = a.DeleteShareGroupOffsets(ctx, "none", "t"); err != nil || !errors.Is(gone[0].Err, client.ErrGroupIDNotFound) {
			t.Errorf("%+v, %v", gone, err)
		}
	})
}

// Members are told apart by both of their names, and the group's error is the call's.
func TestMembersAreRemoved(t *testing.T) {
	moved := false
	answers := func(node int32, req kmsg.Request) kmsg.Response {
		switch r := req.(type) {
		case *kmsg.FindCoordinatorRequest:
			return coordinators(r, func(string) (int32, client.Error) {
				if moved {
					return 2, 0
				}
				return 1, 0
			})
		case *kmsg.LeaveGroupRequest:
			resp := kmsg.NewPtrLeaveGroupResponse()
			switch {
			case r.Group == "denied":
				resp.ErrorCode = int16(client.ErrGroupAuthorizationFailed)
			case node == 1:
				moved, resp.ErrorCode = true, int16(client.ErrNotCoordinator)
			}
			for _, m := range slices.Backward(r.Members) {
				if r.Version >= 5 && *m.Reason != "why" {
					t.Errorf("%+v", m)
				}
				out := kmsg.NewLeaveGroupResponseMember()
				if out.MemberID, out.InstanceID = m.MemberID, m.InstanceID; m.MemberID == "stranger" {
					out.ErrorCode = int16(client.ErrUnknownMemberID)
				}
				resp.Members = append(resp.Members, out)
			}
			return resp
		}
		return nil
	}
	serving(t, []int16{10, 13}, answers, func(ctx context.Context, f *fake, a *Admin) {
		members := []Membership{{ID: "stranger"}, {InstanceID: "i"}, {ID: "m"}}
		got, err := a.RemoveMembersFromGroup(ctx, "g", members, Because("why"))
		if err != nil || !errors.Is(got[0].Err, client.ErrUnknownMemberID) || got[1] != (MemberResult{Member: members[1]}) || got[2].Err != nil {
			t.Errorf("%+v, %v", got, err)
		}
		if asked := askedOf(f, 13); !slices.Equal(asked, []string{"13@1", "13@2"}) {
			t.Errorf("asked %v", asked)
		}
		if _, err := a.RemoveMembersFromGroup(ctx, "denied", members, Because("why")); !errors.Is(err, client.ErrGroupAuthorizationFailed) {
			t.Error(err)
		}
	})
	serving(t, []int16{10, 13}, answers, func(ctx context.Context, f *fake, a *Admin) {
		f.newest = map[int16]int16{13: 2}
		if _, err := a.RemoveMembersFromGroup(ctx, "g", []Membership{{ID: "m"}}); !errors.Is(err, client.ErrUnsupported) {
			t.Errorf("a broker that removes none but the caller: %v", err)
		}
	})
}
