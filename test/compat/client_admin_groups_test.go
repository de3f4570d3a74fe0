//go:build compat

package compat

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/client"
	ours "barnabas/client/admin"
)

// answerOf sends a request to the one broker at addr and gives the answer.
func answerOf[Response kmsg.Response](ctx context.Context, t *testing.T, addr string, req kmsg.Request) Response {
	t.Helper()
	resp, err := ourClient(t, addr).Request(ctx, client.AnyBroker, req)
	if err != nil {
		t.Fatal(err)
	}
	return resp.(Response)
}

// coordinated finds a group's coordinator: what groups are kept in is made when somebody looks for the first.
func coordinated(ctx context.Context, t *testing.T, addr, group string) {
	t.Helper()
	eventually(t, func() (*kmsg.FindCoordinatorResponse, bool) {
		req := kmsg.NewPtrFindCoordinatorRequest()
		req.CoordinatorKeys = []string{group}
		r := answerOf[*kmsg.FindCoordinatorResponse](ctx, t, addr, req)
		return r, len(r.Coordinators) == 1 && r.Coordinators[0].ErrorCode == 0
	})
}

// memberID is a base64 UUID, as members of the newer protocols name themselves.
const memberID = "MkU3OEVBNTcwNTJENDM1Qg"

// ourShareGroups describes and changes a group whose member speaks the protocol by hand.
func ourShareGroups(ctx context.Context, t *testing.T, addr string, a *ours.Admin) {
	topic, _ := madeTopic(ctx, t, a, "our-share", 2)
	group := uniqueTopic("our-share")
	coordinated(ctx, t, addr, group)
	beat := func(epoch int32) *kmsg.ShareGroupHeartbeatResponse {
		req := kmsg.NewPtrShareGroupHeartbeatRequest()
		req.GroupID, req.MemberID, req.MemberEpoch = group, memberID, epoch
		if epoch == 0 {
			req.SubscribedTopicNames = []string{topic}
		}
		return answerOf[*kmsg.ShareGroupHeartbeatResponse](ctx, t, addr, req)
	}
	joined := eventually(t, func() (*kmsg.ShareGroupHeartbeatResponse, bool) { r := beat(0); return r, r.ErrorCode == 0 })
	got := eventually(t, func() ([]ours.GroupDescription, bool) {
		beat(joined.MemberEpoch)
		d, err := a.DescribeShareGroups(ctx, group+"-none", group)
		return d, err == nil && d[1].Err == nil && len(d[1].Members) == 1 && len(d[1].Members[0].Assignment) == 2
	})
	if g := got[1]; g.Type != ours.ShareGroup || g.State != ours.GroupStable || g.Epoch < 1 || g.Members[0].ID != memberID || !slices.Equal(g.Members[0].Topics, []string{topic}) ||
		g.Coordinator.Port == 0 || g.Members[0].Epoch < 1 {
		t.Errorf("%+v", g)
	}
	if !errors.Is(got[0].Err, client.ErrGroupIDNotFound) {
		t.Errorf("one that is not there: %+v", got[0])
	}
	first, second, none := client.TopicPartition{Topic: topic}, client.TopicPartition{Topic: topic, Partition: 1}, client.TopicPartition{Topic: topic + "-none"}
	starts := map[client.TopicPartition]int64{first: 0, second: 0, none: 0}
	if results, err := a.AlterShareGroupOffsets(ctx, group, starts); err != nil || !errors.Is(results[0].Err, client.ErrNonEmptyGroup) {
		t.Errorf("altered under its member: %v, %v", results, err)
	}
	beat(-1) // leaves
	listed, err := a.ListGroups(ctx, ours.OfTypes(ours.ShareGroup), ours.InStates(ours.GroupEmpty))
	if err != nil || !slices.ContainsFunc(listed, func(l ours.GroupListing) bool { return l.Group == group && l.Type == ours.ShareGroup }) {
		t.Errorf("listed: %v, %v", listed, err)
	}
	results, err := a.AlterShareGroupOffsets(ctx, group, starts)
	if err != nil || len(results) != 3 || results[0].Err != nil || results[1].Err != nil || !errors.Is(results[2].Err, client.ErrUnknownTopicOrPartition) {
		t.Fatalf("altered: %v, %v", results, err)
	}
	offsets, err := a.ShareGroupOffsets(ctx, group, group+"-none")
	if err != nil || offsets[0].Err != nil || len(offsets[0].Offsets) != 2 || offsets[0].Offsets[1].TopicPartition != second || offsets[0].Offsets[1].Start != 0 {
		t.Errorf("offsets: %+v, %v", offsets, err)
	}
	t.Logf("offsets: %+v", offsets)
	if gone, err := a.DeleteShareGroupOffsets(ctx, group, topic, topic+"-none"); err != nil || gone[0].Err != nil || !errors.Is(gone[1].Err, client.ErrUnknownTopicOrPartition) {
		t.Errorf("offsets deleted: %v, %v", gone, err)
	}
	if gone, err := a.DeleteGroups(ctx, group); err != nil || gone[0].Err != nil {
		t.Errorf("deleted: %v, %v", gone, err)
	}
}

func ourStreamsGroups(ctx context.Context, t *testing.T, addr string, a *ours.Admin) {
	topic, _ := madeTopic(ctx, t, a, "our-streams", 2)
	group := uniqueTopic("our-streams")
	coordinated(ctx, t, addr, group)
	req := kmsg.NewPtrStreamsGroupHeartbeatRequest()
	req.Group, req.MemberID, req.RebalanceTimeoutMillis, req.ProcessID = group, memberID, 10_000, kmsg.StringPtr("process")
	req.ClientTags = []kmsg.StreamsGroupHeartbeatRequestClientTag{{Key: "zone", Value: "b"}}
	req.UserEndpoint = &kmsg.StreamsGroupHeartbeatRequestUserEndpoint{Host: "h", Port: 99}
	req.ActiveTasks, req.StandbyTasks, req.WarmupTasks = []kmsg.TaskIDs{}, []kmsg.TaskIDs{}, []kmsg.TaskIDs{}
	req.Topology = &kmsg.StreamsGroupHeartbeatRequestTopology{Epoch: 3, Subtopologies: []kmsg.StreamsGroupHeartbeatRequestTopologySubtopology{{
		SubtopologyID: "0", SourceTopics: []string{topic}, StateChangelogTopics: []kmsg.TopicInfo{{Topic: topic + "-changelog", ReplicationFactor: 1}},
	}}}
	joined := eventually(t, func() (*kmsg.StreamsGroupHeartbeatResponse, bool) {
		r := answerOf[*kmsg.StreamsGroupHeartbeatResponse](ctx, t, addr, req)
		return r, r.ErrorCode == 0
	})
	got := eventually(t, func() ([]ours.StreamsGroupDescription, bool) {
		again := kmsg.NewPtrStreamsGroupHeartbeatRequest()
		again.Group, again.MemberID, again.MemberEpoch, again.RebalanceTimeoutMillis = group, memberID, joined.MemberEpoch, -1
		if r := answerOf[*kmsg.StreamsGroupHeartbeatResponse](ctx, t, addr, again); r.ErrorCode == 0 {
			joined = r
		}
		d, err := a.DescribeStreamsGroups(ctx, group, group+"-none")
		return d, err == nil && d[0].Err == nil && len(d[0].Members) == 1 && len(d[0].Members[0].Target.Active) == 2
	})
	g := got[0]
	if g.TopologyEpoch != 3 || len(g.Subtopologies) != 1 || !slices.Equal(g.Subtopologies[0].SourceTopics, []string{topic}) || g.Epoch < 1 || g.Coordinator.Port == 0 {
		t.Errorf("%+v", g)
	}
	if m := g.Members[0]; m.Process != "process" || m.Tags["zone"] != "b" || m.Endpoint != "h:99" || m.Target.Active[1] != (ours.StreamsTask{Subtopology: "0", Partition: 1}) {
		t.Errorf("%+v", m)
	}
	if !errors.Is(got[1].Err, client.ErrGroupIDNotFound) {
		t.Errorf("one that is not there: %+v", got[1])
	}
	if listed, err := a.ListGroups(ctx, ours.OfTypes(ours.StreamsGroup)); err != nil || len(listed) != 1 || listed[0].Group != group {
		t.Errorf("listed: %v, %v", listed, err)
	}
	leave := kmsg.NewPtrStreamsGroupHeartbeatRequest()
	leave.Group, leave.MemberID, leave.MemberEpoch, leave.RebalanceTimeoutMillis = group, memberID, -1, -1
	answerOf[*kmsg.StreamsGroupHeartbeatResponse](ctx, t, addr, leave)
	tp := client.TopicPartition{Topic: topic}
	if results, err := a.AlterGroupOffsets(ctx, group, map[client.TopicPartition]client.OffsetAndMetadata{tp: {Offset: 7}}); err != nil || results[0].Err != nil {
		t.Errorf("committed: %v, %v", results, err)
	}
	if offsets, err := a.GroupOffsets(ctx, []string{group}); err != nil || len(offsets[0].Offsets) != 1 || offsets[0].Offsets[0].Offset != 7 {
		t.Errorf("committed: %v, %v", offsets, err)
	}
	if gone, err := a.DeleteGroups(ctx, group); err != nil || gone[0].Err != nil {
		t.Errorf("deleted: %v, %v", gone, err)
	}
}

// ourConsumerGroups describes a group of KIP-848 whose member speaks the protocol by hand.
func ourConsumerGroups(ctx context.Context, t *testing.T, addr string, a *ours.Admin) {
	topic, made := madeTopic(ctx, t, a, "our-848", 2)
	group := uniqueTopic("our-848")
	coordinated(ctx, t, addr, group)
	beat := func(epoch int32, owned []kmsg.ConsumerGroupHeartbeatRequestTopic) *kmsg.ConsumerGroupHeartbeatResponse {
		req := kmsg.NewPtrConsumerGroupHeartbeatRequest()
		req.Group, req.MemberID, req.MemberEpoch, req.RebalanceTimeoutMillis = group, memberID, epoch, -1
		if epoch == 0 {
			req.RebalanceTimeoutMillis, req.RackID, req.SubscribedTopicRegex = 10_000, kmsg.StringPtr("rack"), kmsg.StringPtr(topic+".*")
			req.InstanceID = kmsg.StringPtr("instance")
		}
		req.InstanceID, req.Topics = kmsg.StringPtr("instance"), owned
		return answerOf[*kmsg.ConsumerGroupHeartbeatResponse](ctx, t, addr, req)
	}
	all := []kmsg.ConsumerGroupHeartbeatRequestTopic{}
	joined := eventually(t, func() (*kmsg.ConsumerGroupHeartbeatResponse, bool) { r := beat(0, all); return r, r.ErrorCode == 0 })
	got := eventually(t, func() ([]ours.GroupDescription, bool) {
		if r := beat(joined.MemberEpoch, all); r.ErrorCode == 0 {
			joined = r
			if r.Assignment != nil && len(r.Assignment.Topics) == 1 {
				all = []kmsg.ConsumerGroupHeartbeatRequestTopic{{TopicID: made.ID, Partitions: []int32{0, 1}}}
			}
		}
		d, err := a.DescribeGroups(ctx, group)
		return d, err == nil && d[0].Err == nil && len(d[0].Members) == 1 && len(d[0].Members[0].Assignment) == 2 && d[0].State == ours.GroupStable
	})
	if g := got[0]; g.Type != ours.ConsumerGroup || g.Epoch < 1 || g.AssignmentEpoch != g.Epoch || g.Coordinator.Port == 0 || g.Protocol == "" {
		t.Errorf("%+v", g)
	}
	if m := got[0].Members[0]; m.Rack != "rack" || m.TopicRegex != topic+".*" || m.InstanceID != "instance" || m.Epoch < 1 || !slices.Equal(m.Target, m.Assignment) || m.Classic {
		t.Errorf("%+v", m)
	}
	removed, err := a.RemoveMembersFromGroup(ctx, group, []ours.Membership{{InstanceID: "instance"}, {InstanceID: "stranger"}})
	if err != nil || removed[0].Err != nil || !errors.Is(removed[1].Err, client.ErrUnknownMemberID) {
		t.Errorf("removed: %v, %v", removed, err)
	}
	eventually(t, func() ([]ours.GroupDescription, bool) {
		d, err := a.DescribeGroups(ctx, group)
		return d, err == nil && len(d[0].Members) == 0
	})
}

// ourRemovedMembers takes members out of a classic group.
func ourRemovedMembers(ctx context.Context, t *testing.T, addr string, a *ours.Admin) {
	group := uniqueTopic("our-removed")
	coordinated(ctx, t, addr, group)
	join := func(member, instance string) *kmsg.JoinGroupResponse {
		req := kmsg.NewPtrJoinGroupRequest()
		req.Group, req.MemberID, req.SessionTimeoutMillis, req.RebalanceTimeoutMillis, req.ProtocolType = group, member, 30_000, 30_000, "other"
		if instance != "" {
			req.InstanceID = &instance
		}
		req.Protocols = []kmsg.JoinGroupRequestProtocol{{Name: "p", Metadata: []byte{1}}}
		return answerOf[*kmsg.JoinGroupResponse](ctx, t, addr, req)
	}
	static := eventually(t, func() (*kmsg.JoinGroupResponse, bool) { r := join("", "instance"); return r, r.ErrorCode == 0 })
	members := func() []ours.GroupMember {
		d, err := a.DescribeGroups(ctx, group)
		if err != nil || d[0].Err != nil && !errors.Is(d[0].Err, client.ErrGroupIDNotFound) {
			t.Fatalf("%+v, %v", d, err)
		}
		return d[0].Members
	}
	if m := members(); len(m) != 1 || m[0].ID != static.MemberID || m[0].InstanceID != "instance" {
		t.Fatalf("%+v", m)
	}
	removed, err := a.RemoveMembersFromGroup(ctx, group, []ours.Membership{{ID: "stranger"}, {InstanceID: "instance"}}, ours.Because("test"))
	if err != nil || !errors.Is(removed[0].Err, client.ErrUnknownMemberID) || removed[1].Err != nil || removed[1].Member.InstanceID != "instance" {
		t.Errorf("%v, %v", removed, err)
	}
	if m := members(); len(m) != 0 {
		t.Errorf("%+v", m)
	}
	dynamic := join("", "")
	dynamic = join(dynamic.MemberID, "")
	if removed, err = a.RemoveMembersFromGroup(ctx, group, []ours.Membership{{ID: dynamic.MemberID}}); err != nil || removed[0].Err != nil || len(members()) != 0 {
		t.Errorf("%v, %v", removed, err)
	}
}
