package client

import (
	"context"
	"errors"
	"fmt"
	"math"
	"regexp"
	"slices"
	"sync"
	"time"

	"barnabas/client/internal/assignor"
	"barnabas/client/internal/cluster"
	"barnabas/client/internal/membership"
	"barnabas/client/internal/turns"
)

// GroupConsumer reads topics together with the other members of its group: each partition is read
// by one of them, and goes on where the group has committed. Subscribe says what is read; Poll
// returns records, and calls OnAssigned, OnRevoked and OnLost when the group rebalances.
//
// Heartbeats and fetching go on by themselves, but a rebalance takes partitions away only inside
// Poll, so records that one Poll returned may be worked on until the next. A program that stays
// away for longer than MaxPollInterval loses its partitions.
//
// All methods are safe for concurrent use; Poll itself is for one goroutine at a time. Close it.
// It speaks the classic protocol of groups, which every Kafka since 0.9 has, or with
// GroupProtocol(ConsumerProtocol) the newer one.
type GroupConsumer struct {
	c     *Client
	k     *Consumer // reads what the member owns
	group string
	cfg   groupConfig
	user  *cluster.User

	// A broker answers a Join when all members have joined. Whatever shared its connection would
	// wait as long, heartbeats among it.
	joins   *cluster.Links
	links   *cluster.Links
	ctx     context.Context // ends with Close
	cancel  context.CancelCauseFunc
	wg      sync.WaitGroup
	closing chan struct{} // closed when Close begins
	gone    chan struct{} // closed when the member has left
	commits turns.Queue   // so that an older commit never overwrites a newer
	polls   chan struct{} // one slot, taken while Poll runs; Close takes it for good

	mu struct { // never held while asking, calling the program or waiting
		sync.Mutex
		machine  membership.Member      // of the protocol that is spoken, and as what it is:
		classic  *membership.Machine    // or nil
		consumer *membership.Reconciler // or nil
		pattern  *regexp.Regexp         // of SubscribeMatching
		names    []string               // of Subscribe
		learning []string               // topics that a leader wants to know about
		failed   error
		closed   bool
		ended    bool // no goroutine may be started any more
		timer    *time.Timer
		changed  chan struct{} // closed and replaced whenever the machine has moved

		resolving  bool        // committed offsets are being asked for
		looking    *time.Timer // after which metadata is asked for again; nil while it need not be
		autoCommit time.Time   // when the next automatic commit is due
	}
}

// NewGroupConsumer makes a member of a group. It waits for nothing and fails only on a wrong
// option; it joins the group once Subscribe says what for. Kafka: group.id.
func (c *Client) NewGroupConsumer(group string, options ...GroupOption) (*GroupConsumer, error) {
	cfg := defaultGroupConfig()
	for _, o := range options {
		if err := o.applyToGroup(&cfg); err != nil {
			return nil, fmt.Errorf("group consumer: %w", err)
		}
	}
	if err := cfg.check(); err != nil {
		return nil, fmt.Errorf("group consumer: %w", err)
	}
	if group == "" {
		return nil, fmt.Errorf("group consumer: group.id is empty: %w", ErrInvalidGroupID)
	}
	cfg.consumer.group, cfg.consumer.groupInstance = group, cfg.instanceID
	k, err := c.NewConsumer(func(own *consumerConfig) error { *own = cfg.consumer; return nil })
	if err != nil {
		return nil, fmt.Errorf("group %w", err)
	}
	g := &GroupConsumer{
		c: c, k: k, group: group, cfg: cfg, joins: cluster.NewLinks(c.cluster, k.meter), links: cluster.NewLinks(c.cluster, k.meter),
		closing: make(chan struct{}), gone: make(chan struct{}), polls: make(chan struct{}, 1),
	}
	g.ctx, g.cancel = context.WithCancelCause(c.ctx)
	k.begin = g.resolveCommitted
	g.enlist()
	g.mu.changed = make(chan struct{})
	g.mu.autoCommit = time.Now().Add(cfg.autoCommitEvery)
	k.meter.Member(func() (id string, assigned int) { return g.Membership().MemberID, len(g.Assignment()) })
	g.user = &cluster.User{Wanted: g.wantedTopics, Changed: func(*cluster.Snapshot) { g.learn() }}
	c.meta.Register(g.user)
	return g, nil
}

// enlist makes the member that the protocol asks for.
func (g *GroupConsumer) enlist() {
	cfg := membership.Config{
		Group: g.group, InstanceID: g.cfg.instanceID, Rack: g.cfg.consumer.rack, Assignors: g.cfg.assignors,
		SessionTimeout: g.cfg.sessionTimeout, HeartbeatInterval: g.cfg.heartbeatInterval, MaxPollInterval: g.cfg.maxPollInterval,
		RetryBackoff: g.c.cfg.RetryBackoff.First, RetryBackoffMax: g.c.cfg.RetryBackoff.Most, Jitter: g.c.random.Float,
		MemberID: randomUUID().String(), RemoteAssignor: g.cfg.remoteAssignor,
	}
	if g.cfg.protocol == ConsumerProtocol {
		g.mu.consumer = membership.NewReconciler(cfg)
		g.mu.machine = g.mu.consumer
		return
	}
	g.mu.classic = membership.New(cfg)
	g.mu.machine = g.mu.classic
}

// Subscribe replaces what is read: these topics. Those that do not exist are read once they do.
// Without any, the member gives up what it has and leaves the group. It does not wait: the group
// rebalances in the calls of Poll that follow. Kafka: subscribe and unsubscribe.
func (g *GroupConsumer) Subscribe(topics ...string) error {
	if slices.Contains(topics, "") {
		return fmt.Errorf("subscribe: %w", ErrInvalidTopic)
	}
	return g.subscribe(slices.Clone(topics), nil)
}

// SubscribeMatching is Subscribe to all topics whose whole name matches, those included that are
// made later: they are found when metadata is refreshed, see MetadataMaxAge. A member whose
// pattern matches no topic waits outside of the group. Kafka: subscribe(Pattern).
//
// With ConsumerProtocol the group's coordinator matches, by the same syntax (RE2), and finds new
// topics by itself. Kafka: subscribe(SubscriptionPattern).
func (g *GroupConsumer) SubscribeMatching(pattern *regexp.Regexp) error {
	if pattern == nil {
		return errors.New("subscribe: the pattern is nil")
	}
	whole, err := regexp.Compile("^(?:" + pattern.String() + ")$")
	if err != nil {
		return fmt.Errorf("subscribe: %w", err)
	}
	return g.subscribe(nil, whole)
}

func (g *GroupConsumer) subscribe(topics []string, pattern *regexp.Regexp) error {
	if g.isClosing() {
		return fmt.Errorf("subscribe: %w", ErrClosed)
	}
	g.mu.Lock()
	g.mu.names, g.mu.pattern = topics, pattern
	g.mu.Unlock()
	g.learn()
	g.c.meta.Update()
	return nil
}

func (g *GroupConsumer) isClosing() bool {
	select {
	case <-g.closing:
		return true
	case <-g.ctx.Done():
		return true
	default:
		return false
	}
}

// Poll returns records of one partition, at least one and at most max.poll.records, waiting until
// there are some; partitions take turns. The slice and what it holds are the caller's to keep.
// While it waits it lets the group rebalance: what partitions that are given up have still to commit (AutoCommit) and a
// callback are ended even if ctx ends first.
//
// Errors: ctx's when it ends first, with what has kept records from coming where something has; ErrClosed; a *PartitionError, as Consumer.Poll returns them, for
// a partition that cannot be read on without the program's decision, among them ErrNoOffset after
// NoAutoOffsetReset; and what ends the membership for good, then from every Poll, for instance
// ErrFencedInstanceID, ErrGroupAuthorizationFailed, ErrInconsistentGroupProtocol,
// ErrGroupMaxSizeReached. Whatever may pass is retried and not returned.
func (g *GroupConsumer) Poll(ctx context.Context) ([]Record, error) {
	select {
	case g.polls <- struct{}{}:
		defer func() { <-g.polls }()
	default:
		if g.isClosing() {
			return nil, fmt.Errorf("poll: %w", ErrClosed)
		}
		return nil, fmt.Errorf("poll: %w", ErrConcurrentPoll)
	}
	g.event(func(m membership.Member, now time.Time) { m.PollBegan(now); g.k.meter.PollBegan(now) })
	defer g.event(func(m membership.Member, now time.Time) { m.PollEnded(now); g.k.meter.PollEnded(now) })
	for {
		if g.isClosing() {
			return nil, fmt.Errorf("poll: %w", ErrClosed)
		}
		if err := g.serve(g.ctx); err != nil {
			return nil, fmt.Errorf("poll: group %q: %w", g.group, err)
		}
		g.commitAutomatically(time.Now())
		records, err := g.k.takeReady()
		if records != nil || err != nil {
			return records, err
		}
		if err := g.awaitNews(ctx); err != nil {
			return nil, fmt.Errorf("poll: %w", err)
		}
	}
}

// awaitNews waits until there may be something for Poll to do.
func (g *GroupConsumer) awaitNews(ctx context.Context) error {
	var due <-chan time.Time
	if g.cfg.autoCommit && g.hasUncommitted() {
		g.mu.Lock()
		timer := time.NewTimer(max(time.Until(g.mu.autoCommit), time.Millisecond))
		g.mu.Unlock()
		defer timer.Stop()
		due = timer.C
	}
	select {
	case <-g.k.news:
	case <-due:
	case <-g.closing:
		return ErrClosed
	case <-g.ctx.Done():
		return ErrClosed
	case <-ctx.Done():
		return because(ctx, g.trouble())
	}
	return nil
}

// trouble is what keeps records from coming, other than that there are none or others read them.
func (g *GroupConsumer) trouble() error {
	g.mu.Lock()
	err, names, pattern := g.mu.machine.Trouble(), g.mu.names, g.mu.pattern
	g.mu.Unlock()
	s := g.c.meta.Snapshot()
	switch {
	case len(names) == 0 && pattern == nil:
		return errors.New("nothing is subscribed to (Subscribe)")
	case err != nil:
		return fmt.Errorf("group %q: %w", g.group, err)
	}
	for _, name := range names {
		if t := s.Topics[name]; t != nil && t.Err != nil {
			return fmt.Errorf("topic %q: %w", name, t.Err)
		}
	}
	return g.k.trouble()
}

// serve runs the callbacks that are due, and gives the error that ended the membership.
func (g *GroupConsumer) serve(ctx context.Context) error {
	for {
		g.mu.Lock()
		call, ok := g.mu.machine.TakeCall()
		err := g.mu.failed
		g.mu.Unlock()
		if !ok {
			return err
		}
		// A callback that takes too long is a program that stays away.
		g.event(func(m membership.Member, now time.Time) { m.PollEnded(now) })
		g.run(ctx, call)
		g.event(func(m membership.Member, now time.Time) { m.CallDone(now); m.PollBegan(now) })
	}
}

// run tells the program of a change, with what goes with it.
func (g *GroupConsumer) run(ctx context.Context, call membership.Call) {
	ctx, cancel := context.WithTimeoutCause(ctx, g.cfg.maxPollInterval, errors.New("max.poll.interval.ms has passed"))
	defer cancel()
	partitions := make([]TopicPartition, len(call.Partitions))
	for i, tp := range call.Partitions {
		partitions[i] = TopicPartition(tp)
	}
	g.c.log.Debug("group rebalances", "group", g.group, "what", call.Kind.String(), "partitions", len(partitions))
	tell := func(f Rebalance) {
		if f != nil {
			f(ctx, g, slices.Clone(partitions))
		}
	}
	defer g.tellRebalanced(call, time.Now())
	switch call.Kind {
	case membership.Assigned:
		g.k.own(partitions, call.TopicIDs)
		tell(g.cfg.onAssigned)
		g.resolveCommitted()
	case membership.Revoked:
		if g.cfg.autoCommit {
			if err := g.commit(ctx, g.positions(partitions), unlessDeleted); err != nil {
				g.c.log.Warn("automatic commit of partitions that are given up", "group", g.group, "error", err)
			}
		}
		tell(g.cfg.onRevoked)
		g.k.disown(partitions)
	case membership.Lost:
		if g.cfg.onLost != nil {
			tell(g.cfg.onLost)
		} else {
			tell(g.cfg.onRevoked)
		}
		g.k.disown(partitions)
	}
}

// Assignment gives the partitions that this member reads, sorted. Kafka: assignment.
func (g *GroupConsumer) Assignment() []TopicPartition { return g.k.Assignment() }

// Pause lets Poll return nothing of these partitions until Resume. They stay assigned, and the
// other partitions go on. A partition that is given up and comes back is not paused. Partitions
// that are not assigned are passed over. Kafka: pause.
func (g *GroupConsumer) Pause(partitions ...TopicPartition) { g.k.Pause(partitions...) }

// Resume ends Pause. Kafka: resume.
func (g *GroupConsumer) Resume(partitions ...TopicPartition) { g.k.Resume(partitions...) }

// Seek goes on reading an assigned partition from another position. What was fetched of it and not
// yet polled is dropped. Errors: ErrNotAssigned. Kafka: seek.
func (g *GroupConsumer) Seek(tp TopicPartition, at Position) error { return g.k.Seek(tp, at) }

// Position gives the offset that Poll returns next of a partition, which is what Commit commits;
// false where it is not assigned, or the start is not known yet. Kafka: position.
func (g *GroupConsumer) Position(tp TopicPartition) (offset int64, known bool) {
	return g.k.Position(tp)
}

// Watermarks gives the first offset that a partition has and the offset behind the last one that
// consumers may read, as of the latest fetch; false before the first.
func (g *GroupConsumer) Watermarks(tp TopicPartition) (low, high int64, known bool) {
	return g.k.Watermarks(tp)
}

// Membership is who a member is within its group.
type Membership struct {
	Group      string
	MemberID   string // "" while it is no member
	InstanceID string // "" for a dynamic member
	Generation int32  // its epoch, with ConsumerProtocol; -1 while it is no member

	lost bool // it has read, or is about to, and is no member: nobody could fence it off
}

// Membership gives who this member is now, for Producer.SendOffsets, which refuses that of a consumer that is not in its
// group any more, or not yet. Kafka: groupMetadata.
func (g *GroupConsumer) Membership() Membership {
	g.mu.Lock()
	defer g.mu.Unlock()
	id, generation, ok := g.mu.machine.Generation()
	lost := !ok && (g.mu.machine.Subscribed() || len(g.mu.machine.Owned()) > 0)
	if !ok {
		id, generation = "", assignor.NoGeneration
	}
	return Membership{Group: g.group, MemberID: id, InstanceID: g.cfg.instanceID, Generation: generation, lost: lost}
}

// Close gives up what is owned, calling OnRevoked, and leaves the group, so that others get the
// partitions at once; a static member keeps its partitions reserved instead. With AutoCommit it commits what Poll has
// returned. A Poll that waits returns ErrClosed. When ctx ends first the rest is left undone, and
// the group finds out by SessionTimeout. Kafka: close(timeout).
func (g *GroupConsumer) Close(ctx context.Context) error {
	g.mu.Lock()
	already := g.mu.closed
	g.mu.closed = true
	g.mu.Unlock()
	if already {
		return nil
	}
	close(g.closing)
	err := g.depart(ctx)
	g.mu.Lock()
	g.mu.ended = true
	for _, timer := range []*time.Timer{g.mu.timer, g.mu.looking} {
		if timer != nil {
			timer.Stop()
		}
	}
	g.mu.Unlock()
	g.c.meta.Unregister(g.user)
	g.cancel(ErrClosed)
	g.joins.Close()
	g.links.Close()
	g.wg.Wait()
	_ = g.k.Close()
	if err != nil {
		return fmt.Errorf("close: group %q: %w", g.group, err)
	}
	return nil
}

// depart lets the machine end the membership, and runs its last callbacks.
func (g *GroupConsumer) depart(ctx context.Context) error {
	select {
	case g.polls <- struct{}{}: // a Poll that runs has ended
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	g.event(func(m membership.Member, now time.Time) { m.Close(now) })
	for {
		if err := g.serve(ctx); err != nil {
			return nil //nolint:nilerr // Poll has returned it; there is nothing left to leave
		}
		select {
		case <-g.gone:
			last, _ := g.commits.Enter(math.MaxInt)
			defer g.commits.Leave(last)
			return last.Await(ctx)
		case <-g.k.news:
		case <-g.ctx.Done():
			return ErrClosed
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
