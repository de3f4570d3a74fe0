package api

import (
	"fmt"
	"net"
	"slices"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/internal/coordinator"
	"barnabas/internal/wire"
)

// TestHostsAreWrittenAsJavaDoes: Kafka shows members' hosts so, and its tools print them.
func TestHostsAreWrittenAsJavaDoes(t *testing.T) {
	for address, want := range map[net.Addr]string{
		&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 5}:            "/127.0.0.1",
		&net.TCPAddr{IP: net.ParseIP("::ffff:10.1.2.3"), Port: 5}:    "/10.1.2.3",
		&net.TCPAddr{IP: net.IPv6loopback, Port: 5}:                  "/0:0:0:0:0:0:0:1",
		&net.TCPAddr{IP: net.ParseIP("2001:db8::10:200"), Port: 5}:   "/2001:db8:0:0:0:0:10:200",
		&net.TCPAddr{IP: net.ParseIP("fe80::1"), Port: 5, Zone: "e"}: "/fe80:0:0:0:0:0:0:1%e",
		&net.UnixAddr{Name: "@", Net: "unix"}:                        "/@",
	} {
		if got := hostOf(address); got != want {
			t.Errorf("%v: %s, want %s", address, got, want)
		}
	}
}

func (s *stack) findCoordinator(version int16, kind int8, keys ...string) *kmsg.FindCoordinatorResponse {
	s.t.Helper()
	q := kmsg.NewPtrFindCoordinatorRequest()
	q.Version, q.CoordinatorType, q.CoordinatorKeys, q.CoordinatorKey = version, kind, keys, keys[0]
	return ask[*kmsg.FindCoordinatorResponse](s, q)
}

// The first look for a group makes the topic of groups, and answers; kinds of coordinators that are not
// here are refused with a code that makes clients give up, and make nothing.
func TestFindCoordinator(t *testing.T) {
	s := newStack(t)
	for kind, want := range map[int8]int16{1: kerr.TransactionalIDAuthorizationFailed.Code, 2: kerr.InvalidRequest.Code, 3: kerr.InvalidRequest.Code} {
		if res := s.findCoordinator(3, kind, "k"); res.ErrorCode != want || res.NodeID != -1 || res.Port != -1 {
			t.Errorf("kind %d: %+v", kind, res)
		}
		if res := s.findCoordinator(6, kind, "k", "l"); len(res.Coordinators) != 2 || res.Coordinators[1].ErrorCode != want {
			t.Errorf("kind %d: %+v", kind, res)
		}
	}
	if _, exists := s.controller.Image().Topic(coordinator.OffsetsTopic); exists {
		t.Fatal("looking for other coordinators has made the topic of groups")
	}
	for version := range int16(7) {
		res := s.findCoordinator(version, 0, "g", "", "g")
		if version < 4 {
			if res.ErrorCode != 0 || res.NodeID != 1 || res.Host != "broker.example" || res.Port != 9092 {
				t.Errorf("version %d: %+v", version, res)
			}
			continue
		}
		for i, key := range []string{"g", "", "g"} {
			c := res.Coordinators[i]
			if c.Key != key || c.ErrorCode != 0 || c.NodeID != 1 || c.Host != "broker.example" || c.Port != 9092 {
				t.Errorf("version %d: %+v", version, c)
			}
		}
	}
}

// commitOf asks to commit offset 5 for partitions of topics.
func commitOf(version int16, group string, topics map[string][]int32) *kmsg.OffsetCommitRequest {
	q := kmsg.NewPtrOffsetCommitRequest()
	q.Version, q.Group, q.Generation = version, group, -1
	for name, partitions := range topics {
		one := kmsg.NewOffsetCommitRequestTopic()
		one.Topic = name
		for _, n := range partitions {
			p := kmsg.NewOffsetCommitRequestTopicPartition()
			p.Partition, p.Offset = n, 5
			one.Partitions = append(one.Partitions, p)
		}
		q.Topics = append(q.Topics, one)
	}
	return q
}

// outcomes are the codes of a commit, by topic and partition; each must be answered once.
func outcomes(t *testing.T, res *kmsg.OffsetCommitResponse) map[string]int16 {
	t.Helper()
	codes := map[string]int16{}
	for _, one := range res.Topics {
		for _, p := range one.Partitions {
			key := fmt.Sprintf("%s-%d", one.Topic, p.Partition)
			if _, twice := codes[key]; twice {
				t.Fatalf("%s is answered twice", key)
			}
			codes[key] = p.ErrorCode
		}
	}
	return codes
}

// Of a commit, what exists is committed and the rest refused, partition by partition.
func TestOffsetCommitRefusesWhatDoesNotExist(t *testing.T) {
	s := newStack(t)
	id := s.createTopic("orders", 3)
	s.findCoordinator(4, 0, "g")
	unknown := kerr.UnknownTopicOrPartition.Code
	for version := int16(2); version < 10; version++ {
		res := ask[*kmsg.OffsetCommitResponse](s, commitOf(version, "g", map[string][]int32{"orders": {0, 7, -1, 2}, "missing": {0}}))
		want := map[string]int16{"orders-0": 0, "orders-2": 0, "orders-7": unknown, "orders--1": unknown, "missing-0": unknown}
		if got := outcomes(t, res); fmt.Sprint(got) != fmt.Sprint(want) || len(res.Topics) != 2 {
			t.Errorf("version %d: %v", version, got)
		}
		res = ask[*kmsg.OffsetCommitResponse](s, commitOf(version, "g", map[string][]int32{"orders": {9}}))
		if got := outcomes(t, res); fmt.Sprint(got) != fmt.Sprint(map[string]int16{"orders-9": unknown}) {
			t.Errorf("version %d: %v", version, got)
		}
	}
	q := commitOf(10, "g", map[string][]int32{"": {1, 8}})
	q.Topics[0].TopicID = id
	res := ask[*kmsg.OffsetCommitResponse](s, q)
	if len(res.Topics) != 1 || res.Topics[0].TopicID != id || res.Topics[0].Partitions[0].ErrorCode != 0 || res.Topics[0].Partitions[1].ErrorCode != unknown {
		t.Errorf("by id: %+v", res)
	}
	d := kmsg.NewPtrOffsetDeleteRequest()
	d.Group = "g"
	for _, name := range []string{"orders", "missing"} {
		one := kmsg.NewOffsetDeleteRequestTopic()
		one.Topic = name
		one.Partitions = []kmsg.OffsetDeleteRequestTopicPartition{{Partition: 0}, {Partition: 7}}
		d.Topics = append(d.Topics, one)
	}
	deleted := map[string]int16{}
	for _, one := range ask[*kmsg.OffsetDeleteResponse](s, d).Topics {
		for _, p := range one.Partitions {
			deleted[fmt.Sprintf("%s-%d", one.Topic, p.Partition)] = p.ErrorCode
		}
	}
	if want := map[string]int16{"orders-0": 0, "orders-7": unknown, "missing-0": unknown, "missing-7": unknown}; fmt.Sprint(deleted) != fmt.Sprint(want) {
		t.Errorf("deleted %v", deleted)
	}
}

// Requests about several groups are split and put together again, in the order in which groups were named; one group's
// trouble is its own.
func TestSeveralGroupsInOneRequest(t *testing.T) {
	s := newStack(t)
	s.createTopic("orders", 3)
	s.findCoordinator(4, 0, "g")
	groups := []string{"g3", "g1", "nobody", "g2"}
	for _, g := range groups {
		if g != "nobody" {
			ask[*kmsg.OffsetCommitResponse](s, commitOf(9, g, map[string][]int32{"orders": {0}}))
		}
	}
	for version := int16(8); version <= 10; version++ {
		q := kmsg.NewPtrOffsetFetchRequest()
		q.Version = version
		for _, g := range groups {
			one := kmsg.NewOffsetFetchRequestGroup()
			one.Group = g
			q.Groups = append(q.Groups, one)
		}
		for i, g := range ask[*kmsg.OffsetFetchResponse](s, q).Groups {
			if g.Group != groups[i] || g.ErrorCode != 0 || (len(g.Topics) == 1) != (groups[i] != "nobody") {
				t.Errorf("version %d: %+v", version, g)
			}
		}
	}
	for version := range int16(7) {
		q := kmsg.NewPtrDescribeGroupsRequest()
		q.Version, q.Groups, q.IncludeAuthorizedOperations = version, groups, true
		for i, g := range ask[*kmsg.DescribeGroupsResponse](s, q).Groups {
			want := map[bool]string{true: "Dead", false: "Empty"}[groups[i] == "nobody"]
			if g.Group != groups[i] || g.State != want || (version >= 3 && g.ErrorCode == 0) != (g.AuthorizedOperations == groupOperations) {
				t.Errorf("version %d: %+v", version, g)
			}
		}
		if version > 5 {
			continue
		}
		l := kmsg.NewPtrListGroupsRequest()
		l.Version = version
		var listed []string
		for _, g := range ask[*kmsg.ListGroupsResponse](s, l).Groups {
			listed = append(listed, g.Group)
		}
		if slices.Sort(listed); !slices.Equal(listed, []string{"g1", "g2", "g3"}) {
			t.Errorf("version %d lists %v", version, listed)
		}
	}
	d := kmsg.NewPtrDeleteGroupsRequest()
	d.Version, d.Groups = 2, []string{"g2", "nobody", "g1", "g2"}
	codes := map[string]int16{}
	for _, g := range ask[*kmsg.DeleteGroupsResponse](s, d).Groups {
		codes[g.Group] = g.ErrorCode
	}
	if want := map[string]int16{"g1": 0, "g2": 0, "nobody": kerr.GroupIDNotFound.Code}; fmt.Sprint(codes) != fmt.Sprint(want) {
		t.Errorf("deleted %v", codes)
	}
}

// Without a coordinator here, every API says so at every version, in the place that it has for it.
func TestNoCoordinatorHere(t *testing.T) {
	s := newStack(t)
	s.createTopic("orders", 3)
	for _, r := range routes {
		var code func(kmsg.Response) int16
		var q kmsg.Request
		switch r.key {
		case kmsg.OffsetCommit:
			q = commitOf(0, "g", map[string][]int32{"orders": {1}})
			code = func(r kmsg.Response) int16 { return r.(*kmsg.OffsetCommitResponse).Topics[0].Partitions[0].ErrorCode }
		case kmsg.JoinGroup:
			q, code = &kmsg.JoinGroupRequest{Group: "g"}, func(r kmsg.Response) int16 { return r.(*kmsg.JoinGroupResponse).ErrorCode }
		case kmsg.Heartbeat:
			q, code = &kmsg.HeartbeatRequest{Group: "g"}, func(r kmsg.Response) int16 { return r.(*kmsg.HeartbeatResponse).ErrorCode }
		case kmsg.LeaveGroup:
			q, code = &kmsg.LeaveGroupRequest{Group: "g"}, func(r kmsg.Response) int16 { return r.(*kmsg.LeaveGroupResponse).ErrorCode }
		case kmsg.SyncGroup:
			q = &kmsg.SyncGroupRequest{Group: "g", ProtocolType: kmsg.StringPtr("p"), Protocol: kmsg.StringPtr("p")}
			code = func(r kmsg.Response) int16 { return r.(*kmsg.SyncGroupResponse).ErrorCode }
		case kmsg.DescribeGroups:
			q, code = &kmsg.DescribeGroupsRequest{Groups: []string{"g"}}, func(r kmsg.Response) int16 { return r.(*kmsg.DescribeGroupsResponse).Groups[0].ErrorCode }
		case kmsg.DeleteGroups:
			q, code = &kmsg.DeleteGroupsRequest{Groups: []string{"g"}}, func(r kmsg.Response) int16 { return r.(*kmsg.DeleteGroupsResponse).Groups[0].ErrorCode }
		case kmsg.OffsetDelete:
			q, code = &kmsg.OffsetDeleteRequest{Group: "g"}, func(r kmsg.Response) int16 { return r.(*kmsg.OffsetDeleteResponse).ErrorCode }
		case kmsg.OffsetFetch:
			f := &kmsg.OffsetFetchRequest{Group: "g", Topics: []kmsg.OffsetFetchRequestTopic{{Topic: "orders", Partitions: []int32{1}}}}
			f.Groups = []kmsg.OffsetFetchRequestGroup{{Group: "g"}}
			q, code = f, func(r kmsg.Response) int16 {
				res := r.(*kmsg.OffsetFetchResponse)
				switch {
				case res.Version < 2:
					return res.Topics[0].Partitions[0].ErrorCode
				case res.Version < 8:
					return res.ErrorCode
				}
				return res.Groups[0].ErrorCode
			}
		default:
			continue
		}
		for version := r.min; version <= r.max; version++ {
			q.SetVersion(version)
			want := kerr.NotCoordinator.Code
			if r.key == kmsg.OffsetCommit && version >= 10 {
				q.(*kmsg.OffsetCommitRequest).Topics[0].TopicID = [16]byte{1}
			}
			if got := code(s.ask(q)); got != want {
				t.Errorf("%s version %d: code %d", r.key.Name(), version, got)
			}
		}
	}
}

// Only Kafka's own administrator writes to the topics of coordinators.
func TestInternalTopicsAreNotWrittenTo(t *testing.T) {
	s := newStack(t)
	s.findCoordinator(4, 0, "g")
	for client, want := range map[string]int16{"somebody": kerr.InvalidTopicException.Code, "__admin_client": 0} {
		q := produceTo(9, -1, coordinator.OffsetsTopic, [16]byte{}, 0, records(1, 1))
		body := q.AppendTo(nil)
		reply, _, err := s.handler.Handle(s.ctx, s.peer(), &wire.Request{Header: wire.Header{Key: 0, Version: 9, ClientID: client}, Body: body})
		if err != nil {
			t.Fatal(err)
		}
		res, err := s.finish(s.ctx, q, reply)
		if err != nil {
			t.Fatal(err)
		}
		if got := res.(*kmsg.ProduceResponse).Topics[0].Partitions[0].ErrorCode; got != want {
			t.Errorf("%s: code %d", client, got)
		}
	}
}

// Clients of the consumer protocol are told at once that there is none, as by a Kafka without it.
func TestConsumerProtocolIsRefusedAtOnce(t *testing.T) {
	s := newStack(t)
	for version := range int16(2) {
		q := kmsg.NewPtrConsumerGroupHeartbeatRequest()
		q.Version, q.Group = version, "g"
		if res := ask[*kmsg.ConsumerGroupHeartbeatResponse](s, q); res.ErrorCode != kerr.UnsupportedVersion.Code {
			t.Errorf("version %d: %+v", version, res)
		}
	}
}

// What a request carries in bytes is kept after its memory went back to its pool: what members joined
// with, and what they were assigned.
func TestWhatMembersSayIsKept(t *testing.T) {
	s := newStack(t, "group.initial.rebalance.delay.ms=0")
	s.findCoordinator(4, 0, "g")
	j := kmsg.NewPtrJoinGroupRequest()
	j.Version, j.Group, j.SessionTimeoutMillis, j.RebalanceTimeoutMillis, j.ProtocolType = 3, "g", 10_000, 10_000, "work"
	j.Protocols = append(j.Protocols, kmsg.JoinGroupRequestProtocol{Name: "turns", Metadata: []byte("what I can do")})
	joined := ask[*kmsg.JoinGroupResponse](s, j)
	if len(joined.Members) != 1 || string(joined.Members[0].ProtocolMetadata) != "what I can do" {
		t.Fatalf("%+v", joined)
	}
	y := kmsg.NewPtrSyncGroupRequest()
	y.Version, y.Group, y.MemberID, y.Generation = 3, "g", joined.MemberID, joined.Generation
	y.GroupAssignment = append(y.GroupAssignment, kmsg.SyncGroupRequestGroupAssignment{MemberID: joined.MemberID, MemberAssignment: []byte("my part")})
	if got := ask[*kmsg.SyncGroupResponse](s, y); got.ErrorCode != 0 || string(got.MemberAssignment) != "my part" {
		t.Fatalf("%+v", got)
	}
	d := kmsg.NewPtrDescribeGroupsRequest()
	d.Version, d.Groups = 5, []string{"g"}
	if m := ask[*kmsg.DescribeGroupsResponse](s, d).Groups[0].Members[0]; string(m.ProtocolMetadata) != "what I can do" || string(m.MemberAssignment) != "my part" {
		t.Fatalf("%+v", m)
	}
}
