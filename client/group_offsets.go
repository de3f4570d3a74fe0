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
		if err == nil || ctx.Err() != nil || errors.Is(err, ErrClosed) || !mayPass(err) {
			return offsets, err
		}
		if late := g.pause(ctx, failures); late != nil {
			return nil, fmt.Errorf("%w; the last attempt: %w", late, err)
		}
	}
}

func (g *GroupConsumer) fetchCommittedOnce(ctx context.Context, partitions []TopicPartition) (map[TopicPartition]OffsetAndMetadata, error) {
	node, err := g.awaitCoordinator(ctx)
	if err != nil {
		return nil, err
	}
	req, names := g.offsetFetch(partitions)
	resp, err := g.askCoordinator(ctx, node, req, len(names) > 0, firstOffsetFetchWithTopicIDs)
	var offsets map[TopicPartition]OffsetAndMetadata
	if err == nil {
		offsets, err = readOffsets(resp.(*kmsg.OffsetFetchResponse), names)
	}
	if err != nil && cluster.LostCoordinator(err) {
		g.event(func(m *membership.Machine, now time.Time) { m.CoordinatorLost(now, node) })
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
			t.Topic = tp.Topic
			if known := s.Topics[tp.Topic]; known != nil {
				t.TopicID = known.ID
			}
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

// unresolved gives the cursors of partitions that wait to hear where they begin.
func (g *GroupConsumer) unresolved() []*cursor {
	g.k.mu.Lock()
	defer g.k.mu.Unlock()
	var out []*cursor
	for _, cur := range g.k.mu.cursors {
		if cur.start.kind == positionCommitted && !cur.stopped {
			out = append(out, cur)
		}
	}
	return out
}

func (g *GroupConsumer) resolve() {
	for {
		g.mu.Lock()
		cursors := g.unresolved()
		if len(cursors) == 0 || g.ctx.Err() != nil {
			g.mu.resolving = false
			g.mu.Unlock()
			return
		}
		g.mu.Unlock()
		partitions := make([]TopicPartition, len(cursors))
		for i, cur := range cursors {
			partitions[i] = cur.tp
		}
		// A limit, so that partitions which are no longer ours, or have come, are looked at again.
		ctx, cancel := context.WithTimeout(g.ctx, g.c.cfg.RequestTimeout)
		offsets, err := g.fetchCommitted(ctx, partitions)
		timedOut := ctx.Err() != nil
		cancel()
		if err != nil && timedOut {
			continue
		}
		g.begin(cursors, offsets, err)
	}
}

// begin lets partitions be read from what the group has committed, or from where it is to begin
// otherwise.
func (g *GroupConsumer) begin(cursors []*cursor, offsets map[TopicPartition]OffsetAndMetadata, err error) {
	k := g.k
	k.mu.Lock()
	for _, cur := range cursors {
		// Given up, stopped, or somebody has sought. What has come back since it was asked about has another cursor,
		// and may have been read and committed by others in between: it is asked about again.
		if cur.dropped || cur.stopped {
			continue
		}
		o, found := offsets[cur.tp]
		switch {
		case found:
			cur.start, cur.next, cur.position, cur.committed = Position{}, o.Offset, o.Offset, o.Offset
			cur.lastRead, _ = o.LeaderEpoch.Get()
			cur.nextEpoch, cur.validate = cur.lastRead, cur.lastRead >= 0
		case err != nil:
			k.stopLocked(cur, fmt.Errorf("find the committed offset: %w", err))
		case k.cfg.reset.report():
			k.stopLocked(cur, ErrNoOffset)
		default:
			cur.start = k.cfg.reset.position(time.Now())
		}
	}
	k.wakeFetchersLocked()
	k.mu.Unlock()
	k.tell()
}
