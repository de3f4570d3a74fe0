package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/client/internal/cluster"
	"barnabas/client/internal/membership"
	"barnabas/client/internal/prefetch"
)

// Committed gives what the group has committed of partitions; those of which it has committed
// nothing are left out. It waits for commits of transactions that are under way (KIP-447).
// Errors: ErrGroupAuthorizationFailed, a *PartitionError for each partition that was refused,
// joined; ErrClosed; ctx's. Kafka: committed.
func (g *GroupConsumer) Committed(ctx context.Context, partitions ...TopicPartition) (map[TopicPartition]OffsetAndMetadata, error) {
	offsets, err := g.fetchCommitted(ctx, partitions)
	if err != nil {
		return nil, fmt.Errorf("committed offsets of group %q: %w", g.group, err)
	}
	return offsets, nil
}

// fetchCommitted tries until ctx ends.
func (g *GroupConsumer) fetchCommitted(ctx context.Context, partitions []TopicPartition) (map[TopicPartition]OffsetAndMetadata, error) {
	if len(partitions) == 0 {
		return nil, nil
	}
	for failures := 1; ; failures++ {
		offsets, err := g.fetchCommittedOnce(ctx, partitions)
		if err == nil || ctx.Err() != nil || errors.Is(err, ErrClosed) || !mayPass(err) && !outdatedMember(err) {
			return offsets, err
		}
		if late := g.pause(ctx, failures); late != nil {
			return nil, fmt.Errorf("%w; the last attempt: %w", late, err)
		}
	}
}

// outdatedMember tells whether a coordinator has refused what a member asked under an epoch that is
// not its any more. It has another one soon.
func outdatedMember(err error) bool {
	return errors.Is(err, ErrStaleMemberEpoch) || errors.Is(err, ErrUnknownMemberID)
}

func (g *GroupConsumer) fetchCommittedOnce(ctx context.Context, partitions []TopicPartition) (map[TopicPartition]OffsetAndMetadata, error) {
	node, err := g.awaitCoordinator(ctx)
	if err != nil {
		return nil, err
	}
	req, names := g.offsetFetch(partitions)
	asked := &req.Groups[0]
	if g.cfg.protocol == ConsumerProtocol {
		g.mu.Lock()
		id, epoch, member := g.mu.machine.Generation()
		g.mu.Unlock()
		if member { // the coordinator sees to it that it is one still
			asked.MemberID, asked.MemberEpoch = &id, epoch
		}
	}
	resp, err := g.askCoordinator(ctx, node, req, len(names) > 0, firstOffsetFetchWithTopicIDs)
	var offsets map[TopicPartition]OffsetAndMetadata
	if err == nil {
		offsets, err = readOffsets(resp.(*kmsg.OffsetFetchResponse), names)
	}
	switch {
	case err == nil:
		g.c.log.Debug("committed offsets", "group", g.group, "broker", node, "asked", len(partitions), "found", len(offsets))
	case outdatedMember(err) && asked.MemberID != nil:
		g.event(func(m membership.Member, now time.Time) {
			m.CommitAnswered(now, *asked.MemberID, asked.MemberEpoch, err)
		})
	case ctx.Err() == nil && cluster.LostCoordinator(err):
		g.event(func(m membership.Member, now time.Time) { m.CoordinatorLost(now, node) })
	}
	return offsets, err
}

// offsetFetch asks for stable offsets only (trap 25): what a transaction is about to commit must
// not be read over.
func (g *GroupConsumer) offsetFetch(partitions []TopicPartition) (*kmsg.OffsetFetchRequest, map[[16]byte]string) {
	s := g.c.meta.Snapshot()
	req := kmsg.NewPtrOffsetFetchRequest()
	req.RequireStable = true
	req.Group = g.group // up to version 7, with Topics
	one := kmsg.NewOffsetFetchRequestGroup()
	one.Group = g.group
	names, all := map[[16]byte]string{}, true
	for _, tp := range slices.SortedFunc(slices.Values(partitions), compareTP) {
		if n := len(one.Topics); n == 0 || one.Topics[n-1].Topic != tp.Topic {
			t := kmsg.NewOffsetFetchRequestGroupTopic()
			t.Topic, t.TopicID = tp.Topic, g.topicID(s, tp)
			all = all && t.TopicID != [16]byte{}
			names[t.TopicID] = tp.Topic
			one.Topics = append(one.Topics, t)
			req.Topics = append(req.Topics, kmsg.OffsetFetchRequestTopic{Topic: tp.Topic})
		}
		t, old := &one.Topics[len(one.Topics)-1], &req.Topics[len(req.Topics)-1]
		t.Partitions = append(t.Partitions, tp.Partition)
		old.Partitions = append(old.Partitions, tp.Partition)
	}
	req.Groups = append(req.Groups, one)
	if !all {
		return req, nil
	}
	return req, names
}

// firstOffsetFetchOfMany is the version of OffsetFetch from which it asks for several groups.
const firstOffsetFetchOfMany = 8

func readOffsets(answer *kmsg.OffsetFetchResponse, names map[[16]byte]string) (map[TopicPartition]OffsetAndMetadata, error) {
	out := map[TopicPartition]OffsetAndMetadata{}
	var errs []error
	take := func(tp TopicPartition, offset int64, epoch int32, metadata *string, code int16) {
		if err := CodeError(code, nil); err != nil {
			errs = append(errs, &PartitionError{tp, err})
			return
		}
		if offset < 0 {
			return
		}
		o := OffsetAndMetadata{Offset: offset, LeaderEpoch: InEpoch(epoch)}
		if metadata != nil {
			o.Metadata = *metadata
		}
		out[tp] = o
	}
	if answer.Version < firstOffsetFetchOfMany {
		if err := CodeError(answer.ErrorCode, nil); err != nil {
			return nil, err
		}
		for _, t := range answer.Topics {
			for _, p := range t.Partitions {
				take(TopicPartition{t.Topic, p.Partition}, p.Offset, p.LeaderEpoch, p.Metadata, p.ErrorCode)
			}
		}
		return out, errors.Join(errs...)
	}
	for _, group := range answer.Groups {
		if err := CodeError(group.ErrorCode, nil); err != nil {
			return nil, err
		}
		for _, t := range group.Topics {
			name := t.Topic
			if answer.Version >= firstOffsetFetchWithTopicIDs {
				name = names[t.TopicID]
			}
			for _, p := range t.Partitions {
				take(TopicPartition{name, p.Partition}, p.Offset, p.LeaderEpoch, p.Metadata, p.ErrorCode)
			}
		}
	}
	return out, errors.Join(errs...)
}

// resolveCommitted finds out where partitions begin that are to go on where the group has
// committed. There is one goroutine at a time for it.
func (g *GroupConsumer) resolveCommitted() {
	g.mu.Lock()
	start := !g.mu.resolving && !g.mu.ended && len(g.unresolved()) > 0
	if start {
		g.mu.resolving = true
		g.wg.Go(g.resolve)
	}
	g.mu.Unlock()
}

// unresolved gives the partitions that wait to hear where they begin.
func (g *GroupConsumer) unresolved() []fetchClaim {
	g.k.mu.Lock()
	defer g.k.mu.Unlock()
	return g.k.mu.ahead.AwaitCommitted()
}

func (g *GroupConsumer) resolve() {
	for {
		g.mu.Lock()
		waiting := g.unresolved()
		if len(waiting) == 0 || g.ctx.Err() != nil {
			g.mu.resolving = false
			g.mu.Unlock()
			return
		}
		g.mu.Unlock()
		partitions := make([]TopicPartition, len(waiting))
		for i := range waiting {
			partitions[i] = TopicPartition(waiting[i].TopicPartition)
		}
		// A limit, so that partitions which are no longer ours, or have come, are looked at again.
		ctx, cancel := context.WithTimeout(g.ctx, g.c.cfg.RequestTimeout)
		offsets, err := g.fetchCommitted(ctx, partitions)
		timedOut := ctx.Err() != nil
		cancel()
		if err != nil && timedOut {
			continue
		}
		g.k.change(func(s *prefetch.Store[Record], now time.Time) {
			for i := range waiting {
				o, found := offsets[partitions[i]]
				epoch, _ := o.LeaderEpoch.Get()
				s.Begin(now, &waiting[i], prefetch.Spot{Offset: o.Offset, LeaderEpoch: epoch}, found, err)
			}
		})
	}
}
