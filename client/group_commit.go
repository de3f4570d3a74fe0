package client

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/client/internal/cluster"
	"barnabas/client/internal/membership"
	"barnabas/client/internal/prefetch"
)

// OffsetAndMetadata is what a group commits of a partition.
type OffsetAndMetadata struct {
	Offset      int64       // of the next record to read: one more than the last that is done with
	LeaderEpoch LeaderEpoch // of the last record that is done with; left out where unknown
	Metadata    string      // the program's own note, at most offset.metadata.max.bytes (4096) long
}

// Position is where reading goes on, for programs that keep positions themselves: AtOffset, and the
// leader confirms first that its log is still the one that was read (KIP-320), see ErrLogTruncated.
// Kafka: seek(partition, offsetAndMetadata).
func (o OffsetAndMetadata) Position() Position {
	epoch, known := o.LeaderEpoch.Get()
	return Position{prefetch.Start{Kind: prefetch.Offset, Number: o.Offset, Epoch: epoch, InEpoch: known}}
}

// LeaderEpoch is the term of a partition's leader in which a record was written, or none. With it
// a consumer finds out that the log was cut below its position (KIP-320). Its zero value is none.
type LeaderEpoch struct{ plusOne int32 }

// InEpoch makes a LeaderEpoch. A negative n is none.
func InEpoch(n int32) LeaderEpoch { return LeaderEpoch{max(n, -1) + 1} }

// Get gives the epoch, and whether there is one.
func (e LeaderEpoch) Get() (epoch int32, known bool) { return e.plusOne - 1, e.plusOne > 0 }

// maxQueuedCommits bounds the commits that wait. CommitAsync then fails with ErrTooManyCommits.
const maxQueuedCommits = 1000

// Commit commits, for every partition that this member reads, the position: all that Poll has
// returned is done with. It waits, and tries again whatever may pass, until ctx ends.
//
// Errors: ErrRebalanceInProgress, ErrIllegalGeneration, ErrUnknownMemberID, and with
// ConsumerProtocol ErrStaleMemberEpoch or ErrFencedMemberEpoch, when partitions have ceased to be this member's, so that nothing was committed and others will get the records again;
// ErrFencedInstanceID; ErrGroupAuthorizationFailed; a *PartitionError for each partition that was
// refused, joined; ctx's. Kafka: commitSync.
func (g *GroupConsumer) Commit(ctx context.Context) error {
	if err := g.commit(ctx, g.positions(g.Assignment()), whileItMayHelp); err != nil {
		return fmt.Errorf("commit: group %q: %w", g.group, err)
	}
	return nil
}

// CommitOffsets is Commit for these offsets. Partitions that this member does not read are
// committed too. Kafka: commitSync(offsets).
func (g *GroupConsumer) CommitOffsets(ctx context.Context, offsets map[TopicPartition]OffsetAndMetadata) error {
	if err := g.commit(ctx, maps.Clone(offsets), whileItMayHelp); err != nil {
		return fmt.Errorf("commit: group %q: %w", g.group, err)
	}
	return nil
}

// CommitAsync is CommitOffsets without waiting; nil offsets mean what Commit would commit. Commits
// go out in the order of the calls, and one that fails is not tried again, since a later one may
// have overtaken it. done, which may be nil, is called once on a goroutine of its own; Close waits
// for it. Kafka: commitAsync.
func (g *GroupConsumer) CommitAsync(offsets map[TopicPartition]OffsetAndMetadata, done func(offsets map[TopicPartition]OffsetAndMetadata, err error)) {
	if offsets == nil {
		offsets = g.positions(g.Assignment())
	} else {
		offsets = maps.Clone(offsets)
	}
	finish := func(err error) {
		if err != nil {
			err = fmt.Errorf("commit: group %q: %w", g.group, err)
		}
		if done != nil {
			done(offsets, err)
		}
	}
	p, ok := g.commits.Enter(maxQueuedCommits)
	run := func() {
		err := ErrTooManyCommits
		if ok {
			if err = p.Await(g.ctx); err == nil {
				err = g.commitOnce(g.ctx, offsets)
			}
			g.commits.Leave(p)
		}
		finish(err)
	}
	if !g.goRun(run) {
		if ok {
			g.commits.Leave(p)
		}
		finish(ErrClosed)
	}
}

// goRun starts a goroutine that Close waits for; false once closed.
func (g *GroupConsumer) goRun(f func()) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.mu.ended {
		return false
	}
	g.wg.Go(f)
	return true
}

// positions gives what is to be committed of partitions: where the next Poll goes on.
func (g *GroupConsumer) positions(partitions []TopicPartition) map[TopicPartition]OffsetAndMetadata {
	g.k.mu.Lock()
	defer g.k.mu.Unlock()
	out := map[TopicPartition]OffsetAndMetadata{}
	for _, tp := range partitions {
		if spot, known := g.k.mu.ahead.Spot(prefetch.TopicPartition(tp)); known {
			out[tp] = OffsetAndMetadata{Offset: spot.Offset, LeaderEpoch: InEpoch(spot.LeaderEpoch)}
		}
	}
	return out
}

// uncommitted gives the positions that have moved since they were last committed.
func (g *GroupConsumer) uncommitted() map[TopicPartition]OffsetAndMetadata {
	g.k.mu.Lock()
	defer g.k.mu.Unlock()
	out := map[TopicPartition]OffsetAndMetadata{}
	for tp, spot := range g.k.mu.ahead.Uncommitted {
		out[TopicPartition(tp)] = OffsetAndMetadata{Offset: spot.Offset, LeaderEpoch: InEpoch(spot.LeaderEpoch)}
	}
	return out
}

// hasUncommitted tells whether uncommitted gives anything.
func (g *GroupConsumer) hasUncommitted() bool {
	g.k.mu.Lock()
	defer g.k.mu.Unlock()
	for range g.k.mu.ahead.Uncommitted {
		return true
	}
	return false
}

// whileItMayHelp and unlessDeleted say when a commit that failed is tried again. Nobody waits with
// giving a partition up for a topic that has been deleted to come back.
func whileItMayHelp(error) bool { return true }

func unlessDeleted(err error) bool {
	return !errors.Is(err, ErrUnknownTopicOrPartition) && !errors.Is(err, ErrUnknownTopicID)
}

// commitAutomatically commits what earlier calls of Poll returned, when it is time to.
func (g *GroupConsumer) commitAutomatically(now time.Time) {
	if !g.cfg.autoCommit {
		return
	}
	g.mu.Lock()
	due := !now.Before(g.mu.autoCommit)
	if due {
		g.mu.autoCommit = now.Add(g.cfg.autoCommitEvery)
	}
	g.mu.Unlock()
	if !due {
		return
	}
	offsets := g.uncommitted()
	if len(offsets) == 0 {
		return
	}
	g.CommitAsync(offsets, func(_ map[TopicPartition]OffsetAndMetadata, err error) {
		if err != nil && !errors.Is(err, ErrClosed) {
			g.c.log.Warn("automatic commit", "error", err) // the next one brings it
		}
	})
}

// commit waits for its turn and tries until ctx ends, as long as the partitions stay this member's.
func (g *GroupConsumer) commit(ctx context.Context, offsets map[TopicPartition]OffsetAndMetadata, again func(error) bool) error {
	switch {
	case g.ctx.Err() != nil:
		return ErrClosed
	case len(offsets) == 0:
		return nil
	}
	p, ok := g.commits.Enter(2 * maxQueuedCommits)
	if !ok {
		return ErrTooManyCommits
	}
	defer g.commits.Leave(p)
	if err := p.Await(ctx); err != nil {
		return err
	}
	for failures := 1; ; failures++ {
		err := g.commitOnce(ctx, offsets)
		if err == nil || ctx.Err() != nil || !again(err) || !g.mayCommitAgain(offsets, err) {
			return err
		}
		if late := g.pause(ctx, failures); late != nil {
			return fmt.Errorf("%w; the last attempt: %w", late, err)
		}
	}
}

// pause waits before the next attempt.
func (g *GroupConsumer) pause(ctx context.Context, failures int) error {
	limited, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := context.AfterFunc(g.ctx, func() { cancel(ErrClosed) })
	defer stop()
	return cluster.Sleep(limited, g.c.cfg.RetryBackoff.After(failures, g.c.random))
}

// mayCommitAgain tells whether the same commit may succeed later. While the group rebalances it
// may, if the partitions stay with us.
func (g *GroupConsumer) mayCommitAgain(offsets map[TopicPartition]OffsetAndMetadata, err error) bool {
	switch {
	case errors.Is(err, ErrRebalanceInProgress), errors.Is(err, ErrIllegalGeneration), errors.Is(err, ErrStaleMemberEpoch):
		if !g.k.reads(maps.Keys(offsets)) {
			return false
		}
		g.mu.Lock()
		defer g.mu.Unlock()
		_, _, member := g.mu.machine.Generation()
		return member
	case errors.Is(err, ErrUnknownMemberID), errors.Is(err, ErrFencedInstanceID), errors.Is(err, ErrFencedMemberEpoch), errors.Is(err, ErrClosed):
		return false
	}
	return mayPass(err)
}

// mayPass tells whether the same request to the coordinator may succeed later. An error that a
// broker cannot name counts: it is often a passing one.
func mayPass(err error) bool {
	var code Error
	return !errors.As(err, &code) || code.Retriable() || errors.Is(err, ErrUnknownServerError)
}

// commitOnce sends one commit under the identity that the member has now.
func (g *GroupConsumer) commitOnce(ctx context.Context, offsets map[TopicPartition]OffsetAndMetadata) (err error) {
	defer func(began time.Time) { g.tellCommitted(len(offsets), began, err) }(time.Now())
	node, err := g.awaitCoordinator(ctx)
	if err != nil {
		return err
	}
	g.mu.Lock()
	id, generation, known := g.mu.machine.Generation()
	member := g.mu.machine.Subscribed() || len(g.mu.machine.Owned()) > 0
	g.mu.Unlock()
	if member && !known {
		// Without an identity the group's fence would not hold: an empty group takes offsets from anybody.
		return fmt.Errorf("commit for group %s: the member has lost its place: %w", g.group, ErrUnknownMemberID)
	}
	req := kmsg.NewPtrOffsetCommitRequest()
	req.Group, req.MemberID, req.Generation = g.group, id, generation
	if g.cfg.instanceID != "" {
		req.InstanceID = &g.cfg.instanceID
	}
	names := g.addOffsets(req, offsets)
	resp, err := g.askCoordinator(ctx, node, req, len(names) > 0, firstCommitWithTopicIDs)
	if err != nil {
		if ctx.Err() == nil { // otherwise it is the caller who has no time
			g.event(func(m membership.Member, now time.Time) { m.CoordinatorLost(now, node) })
		}
		return err
	}
	err = g.committed(resp.(*kmsg.OffsetCommitResponse), names, offsets)
	if cluster.LostCoordinator(err) && err != nil {
		g.event(func(m membership.Member, now time.Time) { m.CoordinatorLost(now, node) })
	} else {
		g.event(func(m membership.Member, now time.Time) { m.CommitAnswered(now, id, generation, err) })
	}
	return err
}

// The versions from which topics have ids and no names.
const (
	firstCommitWithTopicIDs      = 10
	firstOffsetFetchWithTopicIDs = 10
)

// askCoordinator sends a request about offsets: with topic ids where all are known.
func (g *GroupConsumer) askCoordinator(ctx context.Context, node int32, req kmsg.Request, ids bool, firstWithIDs int16) (kmsg.Response, error) {
	l, err := g.links.Node(node)
	if err != nil {
		return nil, err
	}
	conn, err := l.Connect(ctx)
	if err != nil {
		return nil, err
	}
	limit := int16(-1)
	if !ids {
		limit = firstWithIDs - 1
	}
	resp, err := conn.Ask(ctx, req, limit)
	return resp, unsupported(err)
}

// addOffsets fills a commit, and gives the topics' names by their ids; empty where an id is unknown.
func (g *GroupConsumer) addOffsets(req *kmsg.OffsetCommitRequest, offsets map[TopicPartition]OffsetAndMetadata) map[[16]byte]string {
	s := g.c.meta.Snapshot()
	names, all := map[[16]byte]string{}, true
	for _, tp := range slices.SortedFunc(maps.Keys(offsets), compareTP) {
		if n := len(req.Topics); n == 0 || req.Topics[n-1].Topic != tp.Topic {
			t := kmsg.NewOffsetCommitRequestTopic()
			t.Topic, t.TopicID = tp.Topic, g.topicID(s, tp)
			all = all && t.TopicID != [16]byte{}
			names[t.TopicID] = tp.Topic
			req.Topics = append(req.Topics, t)
		}
		o := offsets[tp]
		p := kmsg.NewOffsetCommitRequestTopicPartition()
		p.Partition, p.Offset, p.Metadata = tp.Partition, o.Offset, &o.Metadata
		p.LeaderEpoch, _ = o.LeaderEpoch.Get()
		t := &req.Topics[len(req.Topics)-1]
		t.Partitions = append(t.Partitions, p)
	}
	if !all {
		return nil
	}
	return names
}

// topicID gives the id of the topic that is read: by the time of a commit another one may have its
// name, which is not what the offset is about. Of what is not read it is the one of the metadata.
func (g *GroupConsumer) topicID(s *cluster.Snapshot, tp TopicPartition) [16]byte {
	g.k.mu.Lock()
	id := g.k.mu.ahead.TopicID(prefetch.TopicPartition(tp))
	g.k.mu.Unlock()
	if known := s.Topics[tp.Topic]; id == anyTopic && known != nil {
		return known.ID
	}
	return id
}

// committed reads the answer to a commit.
func (g *GroupConsumer) committed(answer *kmsg.OffsetCommitResponse, names map[[16]byte]string, offsets map[TopicPartition]OffsetAndMetadata) error {
	var errs []error
	g.k.mu.Lock()
	defer g.k.mu.Unlock()
	for _, t := range answer.Topics {
		name := t.Topic
		if answer.Version >= firstCommitWithTopicIDs {
			name = names[t.TopicID]
		}
		for _, p := range t.Partitions {
			tp := TopicPartition{name, p.Partition}
			if err := CodeError(p.ErrorCode, nil); err != nil {
				errs = append(errs, &PartitionError{tp, err})
			} else {
				g.k.mu.ahead.Committed(prefetch.TopicPartition(tp), offsets[tp].Offset)
			}
		}
	}
	return errors.Join(errs...)
}
