package clustertest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Coordinator finds the broker that coordinates a group; it makes __consumer_offsets at its first use.
func (c *Client) Coordinator(ctx context.Context, group string) (node int32, err error) {
	q := kmsg.NewPtrFindCoordinatorRequest()
	q.CoordinatorKeys = []string{group}
	res, err := Call[*kmsg.FindCoordinatorResponse](ctx, c, q)
	if err != nil {
		return -1, err
	}
	return res.Coordinators[0].NodeID, failure(res.Coordinators[0].ErrorCode, nil)
}

// CommitRequest asks to commit offsets of a topic by partition, for nobody in particular: from
// outside of the group's generations.
func CommitRequest(group, topic string, offsets map[int32]int64) *kmsg.OffsetCommitRequest {
	t := kmsg.NewOffsetCommitRequestTopic()
	t.Topic = topic
	for p, offset := range offsets {
		one := kmsg.NewOffsetCommitRequestTopicPartition()
		one.Partition, one.Offset, one.Metadata = p, offset, kmsg.StringPtr("")
		t.Partitions = append(t.Partitions, one)
	}
	slices.SortFunc(t.Partitions, func(a, b kmsg.OffsetCommitRequestTopicPartition) int { return int(a.Partition - b.Partition) })
	q := kmsg.NewPtrOffsetCommitRequest()
	q.Group, q.Generation, q.Topics = group, -1, append(q.Topics, t)
	return q
}

// CommitRefusal is the first refusal in the answer to a commit.
func CommitRefusal(res *kmsg.OffsetCommitResponse) error {
	for _, t := range res.Topics {
		for _, p := range t.Partitions {
			if p.ErrorCode != 0 {
				return failure(p.ErrorCode, nil)
			}
		}
	}
	return nil
}

// Commit commits offsets of a topic by partition from outside of a group.
func (c *Client) Commit(ctx context.Context, group, topic string, offsets map[int32]int64) error {
	res, err := Call[*kmsg.OffsetCommitResponse](ctx, c, CommitRequest(group, topic, offsets))
	if err != nil {
		return err
	}
	return CommitRefusal(res)
}

// Committed reads what a group has committed for a topic, by partition.
func (c *Client) Committed(ctx context.Context, group, topic string) (map[int32]int64, error) {
	g := kmsg.NewOffsetFetchRequestGroup()
	g.Group = group
	q := kmsg.NewPtrOffsetFetchRequest()
	q.RequireStable, q.Groups = true, append(q.Groups, g)
	res, err := Call[*kmsg.OffsetFetchResponse](ctx, c, q)
	if err != nil {
		return nil, err
	}
	if err := failure(res.Groups[0].ErrorCode, nil); err != nil {
		return nil, err
	}
	offsets := map[int32]int64{}
	for _, t := range res.Groups[0].Topics {
		if t.Topic != topic {
			continue
		}
		for _, p := range t.Partitions {
			if err := failure(p.ErrorCode, nil); err != nil {
				return nil, err
			}
			offsets[p.Partition] = p.Offset
		}
	}
	return offsets, nil
}

// DescribeGroup tells a group's state and its members.
func (c *Client) DescribeGroup(ctx context.Context, group string) (*kmsg.DescribeGroupsResponseGroup, error) {
	q := kmsg.NewPtrDescribeGroupsRequest()
	q.Groups = []string{group}
	res, err := Call[*kmsg.DescribeGroupsResponse](ctx, c, q)
	if err != nil {
		return nil, err
	}
	return &res.Groups[0], failure(res.Groups[0].ErrorCode, res.Groups[0].ErrorMessage)
}

// Member is a member of a classic group, step by step: whoever leads gives each member its part of
// Work, by turns.
type Member struct {
	*Client
	Group, ID  string
	Work       []string
	Session    time.Duration
	Generation int32
	Leads      bool
	Assigned   []string // this member's part, after Sync

	everybody []string // ids of all members, for the one who leads
}

// NewMember makes a member that has not joined.
func (c *Client) NewMember(group string, work ...string) *Member {
	return &Member{Client: c, Group: group, Work: work, Session: 10 * time.Second, Generation: -1}
}

func (m *Member) joinRequest() *kmsg.JoinGroupRequest {
	q := kmsg.NewPtrJoinGroupRequest()
	q.Group, q.MemberID, q.ProtocolType = m.Group, m.ID, "work"
	q.SessionTimeoutMillis, q.RebalanceTimeoutMillis = int32(m.Session.Milliseconds()), int32(m.Session.Milliseconds())
	q.Protocols = append(q.Protocols, kmsg.JoinGroupRequestProtocol{Name: "turns", Metadata: []byte(strings.Join(m.Work, ","))})
	return q
}

// StartJoin sends a JoinGroup, whose answer waits for the other members.
func (m *Member) StartJoin(ctx context.Context) (*Pending, error) {
	return Start(ctx, m.Client, m.joinRequest())
}

// Join joins the group, with an id that it is given first, and waits for the others.
func (m *Member) Join(ctx context.Context) error {
	for {
		p, err := m.StartJoin(ctx)
		if err != nil {
			return err
		}
		if err := m.Joined(ctx, p); !errors.Is(err, kerr.MemberIDRequired) {
			return err
		}
	}
}

// Joined takes the answer to a StartJoin.
func (m *Member) Joined(ctx context.Context, p *Pending) error {
	res, err := Wait[*kmsg.JoinGroupResponse](ctx, p)
	if err != nil {
		return err
	}
	if res.MemberID != "" {
		m.ID = res.MemberID
	}
	if err := failure(res.ErrorCode, nil); err != nil {
		return err
	}
	m.Generation, m.Leads, m.everybody = res.Generation, res.LeaderID == m.ID, nil
	for _, other := range res.Members {
		m.everybody = append(m.everybody, other.MemberID)
	}
	slices.Sort(m.everybody)
	return nil
}

// Sync hands out the work where this member leads, and waits for its own part.
func (m *Member) Sync(ctx context.Context) error {
	q := kmsg.NewPtrSyncGroupRequest()
	q.Group, q.MemberID, q.Generation = m.Group, m.ID, m.Generation
	q.ProtocolType, q.Protocol = kmsg.StringPtr("work"), kmsg.StringPtr("turns")
	if m.Leads {
		parts := make([][]string, len(m.everybody))
		for i, w := range m.Work {
			at := i % len(parts)
			parts[at] = append(parts[at], w)
		}
		for i, id := range m.everybody {
			q.GroupAssignment = append(q.GroupAssignment,
				kmsg.SyncGroupRequestGroupAssignment{MemberID: id, MemberAssignment: []byte(strings.Join(parts[i], ","))})
		}
	}
	res, err := Call[*kmsg.SyncGroupResponse](ctx, m.Client, q)
	if err != nil {
		return err
	}
	m.Assigned = strings.FieldsFunc(string(res.MemberAssignment), func(r rune) bool { return r == ',' })
	return failure(res.ErrorCode, nil)
}

// Heartbeat says that the member lives; REBALANCE_IN_PROGRESS tells it to join again.
func (m *Member) Heartbeat(ctx context.Context) error {
	q := kmsg.NewPtrHeartbeatRequest()
	q.Group, q.MemberID, q.Generation = m.Group, m.ID, m.Generation
	res, err := Call[*kmsg.HeartbeatResponse](ctx, m.Client, q)
	if err != nil {
		return err
	}
	return failure(res.ErrorCode, nil)
}

// CommitAs commits offsets of a topic as this member of its generation.
func (m *Member) CommitAs(ctx context.Context, topic string, offsets map[int32]int64) error {
	q := CommitRequest(m.Group, topic, offsets)
	q.MemberID, q.Generation = m.ID, m.Generation
	res, err := Call[*kmsg.OffsetCommitResponse](ctx, m.Client, q)
	if err != nil {
		return err
	}
	return CommitRefusal(res)
}

// Leave leaves the group.
func (m *Member) Leave(ctx context.Context) error {
	one := kmsg.NewLeaveGroupRequestMember()
	one.MemberID = m.ID
	q := kmsg.NewPtrLeaveGroupRequest()
	q.Group, q.Members = m.Group, append(q.Members, one)
	res, err := Call[*kmsg.LeaveGroupResponse](ctx, m.Client, q)
	if err != nil {
		return err
	}
	if err := failure(res.ErrorCode, nil); err != nil {
		return err
	}
	if len(res.Members) != 1 {
		return fmt.Errorf("%d members have left", len(res.Members))
	}
	return failure(res.Members[0].ErrorCode, nil)
}
