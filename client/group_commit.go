package client

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/client/internal/cluster"
	"barnabas/client/internal/membership"
)

// OffsetAndMetadata is what a group commits of a partition.
type OffsetAndMetadata struct {
	Offset      int64       // of the next record to read: one more than the last that is done with
	LeaderEpoch LeaderEpoch // of the last record that is done with; left out where unknown
	Metadata    string      // the program's own note, at most offset.metadata.max.bytes (4096) long
}

// LeaderEpoch is the term of a partition's leader in which a record was written, or none. With it
// a consumer finds out that the log was cut below its position (KIP-320). Its zero value is none.
type LeaderEpoch struct{ plusOne int32 }

// InEpoch makes a LeaderEpoch. A negative n is none.
func InEpoch(n int32) LeaderEpoch { return LeaderEpoch{max(n, -1) + 1} }

// Get gives the epoch, and whether there is one.
func (e LeaderEpoch) Get() (epoch int32, known bool) { return e.plusOne - 1, e.plusOne > 0 }

// commitQueue lets commits go out one after another, so that an older one never overwrites a newer. Whoever gives up
// while it waits only steps out of the queue: those behind it still wait for those that were before it.
type commitQueue struct {
	mu     sync.Mutex
	places []*place // the first one's turn it is
}

// place is one commit's in the queue.
type place struct {
	turn chan struct{} // closed when it is the first
}

// maxQueuedCommits bounds the commits that wait. CommitAsync then fails with ErrTooManyCommits.
const maxQueuedCommits = 1000

// enter takes a place in the queue: await its turn, then commit, then leave.
func (q *commitQueue) enter(limit int) (*place, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.places) >= limit {
		return nil, ErrTooManyCommits
	}
	p := &place{turn: make(chan struct{})}
	q.places = append(q.places, p)
	if len(q.places) == 1 {
		close(p.turn)
	}
	return p, nil
}

// leave gives a place up, after the commit or instead of it.
func (q *commitQueue) leave(p *place) {
	q.mu.Lock()
	defer q.mu.Unlock()
	at := slices.Index(q.places, p)
	q.places = slices.Delete(q.places, at, at+1)
	if at == 0 && len(q.places) > 0 {
		close(q.places[0].turn)
	}
}

// await waits until what is in the queue now is done.
func (q *commitQueue) await(ctx context.Context) error {
	p, err := q.enter(math.MaxInt)
	if err != nil {
		return err
	}
	defer q.leave(p)
	return p.await(ctx)
}

// await waits for the place's turn.
func (p *place) await(ctx context.Context) error {
	select {
	case <-p.turn:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Commit commits, for every partition that this member reads, the position: all that Poll has
// returned is done with. It waits, and tries again whatever may pass, until ctx ends.
//
// Errors: ErrRebalanceInProgress, ErrIllegalGeneration or ErrUnknownMemberID when partitions have
// ceased to be this member's, so that nothing was committed and others will get the records again;
// ErrFencedInstanceID; ErrGroupAuthorizationFailed; a *PartitionError for each partition that was
// refused, joined; ctx's. Kafka: commitSync.
func (g *GroupConsumer) Commit(ctx context.Context) error {
	if err := g.commitOf(ctx, g.Assignment()); err != nil {
		return fmt.Errorf("commit: group %q: %w", g.group, err)
	}
	return nil
}

// CommitOffsets is Commit for these offsets. Partitions that this member does not read are
// committed too. Kafka: commitSync(offsets).
func (g *GroupConsumer) CommitOffsets(ctx context.Context, offsets map[TopicPartition]OffsetAndMetadata) error {
	if err := g.commit(ctx, maps.Clone(offsets)); err != nil {
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
	p, err := g.commits.enter(maxQueuedCommits)
	run := func() {
		if err == nil {
			if err = p.await(g.ctx); err == nil {
				err = g.commitOnce(g.ctx, offsets)
			}
			g.commits.leave(p)
		}
		finish(err)
	}
	if !g.goRun(run) {
		if err == nil {
			g.commits.leave(p)
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
		if cur := g.k.mu.cursors[tp]; cur != nil && cur.position >= 0 {
			out[tp] = OffsetAndMetadata{Offset: cur.position, LeaderEpoch: InEpoch(cur.lastRead)}
		}
	}
	return out
}

// uncommitted gives the positions that have moved since they were last committed.
func (g *GroupConsumer) uncommitted() map[TopicPartition]OffsetAndMetadata {
	g.k.mu.Lock()
	defer g.k.mu.Unlock()
	out := map[TopicPartition]OffsetAndMetadata{}
	for tp, cur := range g.k.mu.cursors {
		if cur.position >= 0 && cur.position != cur.committed {
			out[tp] = OffsetAndMetadata{Offset: cur.position, LeaderEpoch: InEpoch(cur.lastRead)}
		}
	}
	return out
}

func (g *GroupConsumer) commitOf(ctx context.Context, partitions []TopicPartition) error {
	return g.commit(ctx, g.positions(partitions))
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
func (g *GroupConsumer) commit(ctx context.Context, offsets map[TopicPartition]OffsetAndMetadata) error {
	if len(offsets) == 0 {
		return nil
	}
	p, err := g.commits.enter(2 * maxQueuedCommits)
	if err != nil {
		return err
	}
	defer g.commits.leave(p)
	if err := p.await(ctx); err != nil {
		return err
	}
	for failures := 1; ; failures++ {
		err := g.commitOnce(ctx, offsets)
		if err == nil || ctx.Err() != nil || !g.mayCommitAgain(offsets, err) {
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
	case errors.Is(err, ErrRebalanceInProgress), errors.Is(err, ErrIllegalGeneration):
		if !g.k.reads(maps.Keys(offsets)) {
			return false
		}
		g.mu.Lock()
		defer g.mu.Unlock()
		_, _, member := g.mu.machine.Generation()
		return member
	case errors.Is(err, ErrUnknownMemberID), errors.Is(err, ErrFencedInstanceID), errors.Is(err, ErrClosed):
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
func (g *GroupConsumer) commitOnce(ctx context.Context, offsets map[TopicPartition]OffsetAndMetadata) error {
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
		g.event(func(m *membership.Machine, now time.Time) { m.CoordinatorLost(now, node) })
		return err
	}
	err = g.committed(resp.(*kmsg.OffsetCommitResponse), names, offsets)
	if cluster.LostCoordinator(err) && err != nil {
		g.event(func(m *membership.Machine, now time.Time) { m.CoordinatorLost(now, node) })
	} else {
		g.event(func(m *membership.Machine, now time.Time) { m.CommitAnswered(now, id, generation, err) })
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
			t.Topic = tp.Topic
			if known := s.Topics[tp.Topic]; known != nil {
				t.TopicID = known.ID
			}
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
			} else if cur := g.k.mu.cursors[tp]; cur != nil {
				cur.committed = offsets[tp].Offset
			}
		}
	}
	return errors.Join(errs...)
}
