package admin

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/client"
)

// CommittedOffset is what a group has committed in a partition.
type CommittedOffset struct {
	TopicPartition client.TopicPartition
	client.OffsetAndMetadata
	Err error // ErrUnstableOffsetCommit, ErrTopicAuthorizationFailed
}

// GroupOffsets is what a group has committed.
type GroupOffsets struct {
	Group   string
	Offsets []CommittedOffset // sorted by partition; none where nothing is known of the group
	Err     error             // ErrGroupAuthorizationFailed
}

// OffsetsOption says what GroupOffsets is to give.
type OffsetsOption func(*kmsg.OffsetFetchRequest)

// Stable waits while transactions are open that have offsets to commit (KIP-447); without it what
// was committed before them is given.
func Stable() OffsetsOption { return func(r *kmsg.OffsetFetchRequest) { r.RequireStable = true } }

// withNames sends a request in a version that calls topics by name: what was committed in a topic
// that has been deleted since has no other identity.
type withNames struct {
	kmsg.Request
	newest int16
}

// MaxVersion is the newest version that has names.
func (r withNames) MaxVersion() int16 { return r.newest }

// GroupOffsets gives everything that groups have committed, in the order of the names. The
// coordinator does not tell a group that does not exist from one without commits.
func (a *Admin) GroupOffsets(ctx context.Context, groups []string, options ...OffsetsOption) ([]GroupOffsets, error) {
	return perCoordinator(ctx, a, "offsets of groups", groups, nil,
		func(_ context.Context, of []string) kmsg.Request {
			req := kmsg.NewPtrOffsetFetchRequest()
			for _, o := range options {
				o(req)
			}
			for _, group := range of {
				g := kmsg.NewOffsetFetchRequestGroup() // no list of topics: all
				g.Group = group
				req.Groups = append(req.Groups, g)
			}
			return withNames{req, 9}
		},
		func(resp *kmsg.OffsetFetchResponse, give func(string, GroupOffsets, error)) {
			for i := range resp.Groups {
				g := readOffsets(&resp.Groups[i])
				give(g.Group, g, g.unsettled())
			}
		},
		func(group string, err error) GroupOffsets { return GroupOffsets{Group: group, Err: err} })
}

func readOffsets(in *kmsg.OffsetFetchResponseGroup) GroupOffsets {
	g := GroupOffsets{Group: in.Group, Err: client.CodeError(in.ErrorCode, nil)}
	for _, t := range in.Topics {
		for _, p := range t.Partitions {
			c := CommittedOffset{
				TopicPartition:    client.TopicPartition{Topic: t.Topic, Partition: p.Partition},
				OffsetAndMetadata: client.OffsetAndMetadata{Offset: p.Offset, LeaderEpoch: client.InEpoch(p.LeaderEpoch), Metadata: text(p.Metadata)},
				Err:               client.CodeError(p.ErrorCode, nil),
			}
			if c.Offset >= 0 || c.Err != nil {
				g.Offsets = append(g.Offsets, c)
			}
		}
	}
	slices.SortFunc(g.Offsets, func(a, b CommittedOffset) int { return comparePartitions(a.TopicPartition, b.TopicPartition) })
	return g
}

// unsettled is the group's error, or that of a partition which may pass: then all is asked again.
func (g *GroupOffsets) unsettled() error {
	if g.Err != nil {
		return g.Err
	}
	for _, c := range g.Offsets {
		if again(c.Err) {
			return c.Err
		}
	}
	return nil
}

// PartitionResult is what became of a partition in a call that only changes it.
type PartitionResult struct {
	TopicPartition client.TopicPartition
	Err            error
}

// AlterGroupOffsets commits offsets for a group that has no members, as one without a membership
// does; a group that does not exist is made by it. The results are sorted by partition. Where the
// group has members, now or since the call began, each result wraps ErrNonEmptyGroup, and nothing has
// been committed.
func (a *Admin) AlterGroupOffsets(ctx context.Context, group string, offsets map[client.TopicPartition]client.OffsetAndMetadata) ([]PartitionResult, error) {
	partitions := slices.SortedFunc(maps.Keys(offsets), comparePartitions)
	results, err := perCoordinator(ctx, a, "commit offsets of group "+group, []string{group}, nil,
		func(context.Context, []string) kmsg.Request { return commitRequest(group, partitions, offsets) },
		func(resp *kmsg.OffsetCommitResponse, give func(string, map[client.TopicPartition]error, error)) {
			errs, passing := map[client.TopicPartition]error{}, error(nil)
			for _, t := range resp.Topics {
				for _, p := range t.Partitions {
					err := committed(client.CodeError(p.ErrorCode, nil))
					errs[client.TopicPartition{Topic: t.Topic, Partition: p.Partition}] = err
					// A topic that is not there is not waited for, as in byLeader.
					if again(err) && !errors.Is(err, client.ErrUnknownTopicOrPartition) {
						passing = err
					}
				}
			}
			give(group, errs, passing)
		},
		func(_ string, err error) map[client.TopicPartition]error {
			return forAll(partitions, err)
		})
	if err != nil {
		return nil, err
	}
	return partitionResults(partitions, results[0]), nil
}

func commitRequest(group string, partitions []client.TopicPartition, offsets map[client.TopicPartition]client.OffsetAndMetadata) kmsg.Request {
	req := kmsg.NewPtrOffsetCommitRequest() // generation -1, no member: not as a member
	req.Group = group
	eachTopic(partitions, func(topic string, tps []client.TopicPartition) {
		t := kmsg.NewOffsetCommitRequestTopic()
		t.Topic = topic
		for _, tp := range tps {
			p := kmsg.NewOffsetCommitRequestTopicPartition()
			p.Partition, p.Offset, p.Metadata = tp.Partition, offsets[tp].Offset, kmsg.StringPtr(offsets[tp].Metadata)
			p.LeaderEpoch, _ = offsets[tp].LeaderEpoch.Get()
			t.Partitions = append(t.Partitions, p)
		}
		req.Topics = append(req.Topics, t)
	})
	return withNames{req, 9}
}

// committed words what a coordinator says to a commit that comes from no member.
func committed(err error) error {
	switch {
	case errors.Is(err, client.ErrUnknownMemberID), errors.Is(err, client.ErrRebalanceInProgress),
		errors.Is(err, client.ErrIllegalGeneration), errors.Is(err, client.ErrStaleMemberEpoch):
		return fmt.Errorf("%w: only they may commit: %w", client.ErrNonEmptyGroup, err)
	}
	return err
}

func failedPartition(tp client.TopicPartition, err error) PartitionResult {
	return PartitionResult{tp, err}
}

func forAll(partitions []client.TopicPartition, err error) map[client.TopicPartition]error {
	errs := map[client.TopicPartition]error{}
	for _, tp := range partitions {
		errs[tp] = err
	}
	return errs
}

func partitionResults(partitions []client.TopicPartition, errs map[client.TopicPartition]error) []PartitionResult {
	out := make([]PartitionResult, len(partitions))
	for i, tp := range partitions {
		err, answered := errs[tp]
		if !answered {
			err = errLeftOut
		}
		out[i] = PartitionResult{tp, err}
	}
	return out
}

// DeleteGroupOffsets forgets what a group has committed in partitions. The results are sorted by
// partition. A member that subscribes to the topic keeps its offsets: ErrGroupSubscribedToTopic.
// Other errors: ErrGroupIDNotFound, ErrNonEmptyGroup where the members are no consumers.
func (a *Admin) DeleteGroupOffsets(ctx context.Context, group string, of ...client.TopicPartition) ([]PartitionResult, error) {
	partitions := slices.CompactFunc(slices.SortedFunc(slices.Values(of), comparePartitions),
		func(a, b client.TopicPartition) bool { return a == b })
	results, err := perCoordinator(ctx, a, "delete offsets of group "+group, []string{group}, nil,
		func(context.Context, []string) kmsg.Request {
			req := kmsg.NewPtrOffsetDeleteRequest()
			req.Group = group
			eachTopic(partitions, func(topic string, tps []client.TopicPartition) {
				t := kmsg.NewOffsetDeleteRequestTopic()
				t.Topic = topic
				for _, tp := range tps {
					t.Partitions = append(t.Partitions, kmsg.OffsetDeleteRequestTopicPartition{Partition: tp.Partition})
				}
				req.Topics = append(req.Topics, t)
			})
			return req
		},
		func(resp *kmsg.OffsetDeleteResponse, give func(string, map[client.TopicPartition]error, error)) {
			errs := map[client.TopicPartition]error{}
			for _, t := range resp.Topics {
				for _, p := range t.Partitions {
					errs[client.TopicPartition{Topic: t.Topic, Partition: p.Partition}] = client.CodeError(p.ErrorCode, nil)
				}
			}
			give(group, errs, client.CodeError(resp.ErrorCode, nil))
		},
		func(_ string, err error) map[client.TopicPartition]error { return forAll(partitions, err) })
	if err != nil {
		return nil, err
	}
	return partitionResults(partitions, results[0]), nil
}
