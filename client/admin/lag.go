package admin

import (
	"context"
	"fmt"
	"slices"

	"barnabas/client"
)

// GroupLag is how far a group is behind.
type GroupLag struct {
	GroupDescription
	Partitions []PartitionLag // sorted: those with a commit and those assigned to a member
}

// Total is the lag of all partitions in records.
func (g *GroupLag) Total() int64 {
	var sum int64
	for i := range g.Partitions {
		sum += max(g.Partitions[i].Lag, 0)
	}
	return sum
}

// PartitionLag is how far a group is behind in a partition.
type PartitionLag struct {
	TopicPartition client.TopicPartition
	Committed      int64              // of the next record to be processed; -1: nothing is committed
	LeaderEpoch    client.LeaderEpoch // beside it
	Metadata       string             // beside it
	Start, End     int64              // where the log begins and ends; -1: unknown, see Err
	Lag            int64              // End - Committed; NoLag where either is unknown
	Member         *GroupMember       // that the partition is assigned to; nil: none
	Err            error              // of the partition's offsets: ErrUnknownTopicOrPartition, ErrLeaderNotAvailable
}

// NoLag stands for a lag that nobody knows. A lag is below zero, and not that, where a commit is
// past the log's end, which has then been cut, or belongs to another topic of the same name.
const NoLag int64 = -1 << 63

// Lag describes groups together with what they have committed and where the logs end, in the order of the
// names. With client.ReadCommitted a log ends at its last stable offset. A group without members or
// commits that anybody knows of has Err ErrGroupIDNotFound.
func (a *Admin) Lag(ctx context.Context, isolation client.Isolation, groups ...string) ([]GroupLag, error) {
	described, err := a.DescribeGroups(ctx, groups...)
	if err != nil {
		return nil, err
	}
	committed, err := a.GroupOffsets(ctx, groups)
	if err != nil {
		return nil, err
	}
	out := make([]GroupLag, len(groups))
	starts, ends := map[client.TopicPartition]OffsetSpec{}, map[client.TopicPartition]OffsetSpec{}
	for i := range out {
		out[i].GroupDescription = described[i]
		if out[i].Err == nil {
			out[i].Err = committed[i].Err
		}
		out[i].Partitions = joinMembers(committed[i].Offsets, described[i].Members)
		for _, p := range out[i].Partitions {
			starts[p.TopicPartition], ends[p.TopicPartition] = Earliest, Latest
		}
	}
	first, err := a.offsetsByPartition(ctx, starts, isolation)
	if err != nil {
		return nil, fmt.Errorf("lag: %w", err)
	}
	last, err := a.offsetsByPartition(ctx, ends, isolation)
	if err != nil {
		return nil, fmt.Errorf("lag: %w", err)
	}
	for i := range out {
		for j := range out[i].Partitions {
			out[i].Partitions[j].measure(first, last)
		}
	}
	return out, nil
}

func (a *Admin) offsetsByPartition(ctx context.Context, specs map[client.TopicPartition]OffsetSpec, isolation client.Isolation) (map[client.TopicPartition]ListedOffset, error) {
	found := map[client.TopicPartition]ListedOffset{}
	if len(specs) == 0 {
		return found, nil
	}
	listed, err := a.ListOffsets(ctx, specs, isolation)
	for _, o := range listed {
		found[o.TopicPartition] = o
	}
	return found, err
}

// joinMembers gives the partitions with commits and those with members.
func joinMembers(offsets []CommittedOffset, members []GroupMember) []PartitionLag {
	byPartition := map[client.TopicPartition]*PartitionLag{}
	of := func(tp client.TopicPartition) *PartitionLag {
		p := byPartition[tp]
		if p == nil {
			p = &PartitionLag{TopicPartition: tp, Committed: -1}
			byPartition[tp] = p
		}
		return p
	}
	for _, c := range offsets {
		p := of(c.TopicPartition)
		p.Committed, p.LeaderEpoch, p.Metadata, p.Err = c.Offset, c.LeaderEpoch, c.Metadata, c.Err
	}
	for i := range members {
		for _, tp := range members[i].Assignment {
			of(tp).Member = &members[i]
		}
	}
	out := make([]PartitionLag, 0, len(byPartition))
	for _, p := range byPartition {
		out = append(out, *p)
	}
	slices.SortFunc(out, func(a, b PartitionLag) int { return comparePartitions(a.TopicPartition, b.TopicPartition) })
	return out
}

func (p *PartitionLag) measure(first, last map[client.TopicPartition]ListedOffset) {
	start, end := first[p.TopicPartition], last[p.TopicPartition]
	p.Start, p.End, p.Lag = start.Offset, end.Offset, NoLag
	if p.Err == nil {
		p.Err = end.Err
	}
	if p.Err == nil {
		p.Err = start.Err
	}
	if p.Committed >= 0 && end.Err == nil {
		p.Lag = p.End - p.Committed
	}
}
