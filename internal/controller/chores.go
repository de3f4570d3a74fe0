package controller

import (
	"context"
	"slices"
	"time"

	"barnabas/internal/metadata"
)

const (
	// electionsPerChore bounds the leaders that are changed at once without anybody having asked for it; the rest
	// follows after choreRest.
	electionsPerChore = 1000
	choreRest         = time.Second
	// refusedRest is how long fencing waits when the quorum has refused the records.
	refusedRest = 100 * time.Millisecond
	// predecessorBeats is how many intervals of heartbeats the broker has to be heard that was beside the controller before.
	predecessorBeats = 2
	// longAgo bounds intervals, which come from the configuration, so that they can be added to a time.
	longAgo = 365 * 24 * time.Hour
)

// clock is the one timer of an active controller. What it does happens in the controller's goroutine; what was under
// way when it was stopped does not happen.
type clock struct {
	post  func(func(*shard)) bool
	timer *time.Timer
	at    time.Time // when the timer is due
	turn  uint64    // counts settings of the timer

	balance, elections time.Time // when these chores are due
}

func (k *clock) stop() {
	k.turn++
	if k.timer != nil {
		k.timer.Stop()
		k.timer = nil
	}
}

// watchBrokers begins the chores of a controller that has become active in the place of another node's, or of nobody's (-1).
func (s *shard) watchBrokers(before int32) {
	now := time.Now()
	s.sessions.timeout = max(s.options.Config.Millis("broker.session.timeout.ms"), leastSession)
	s.sessions.beat = s.options.Config.Millis("broker.heartbeat.interval.ms")
	s.sessions.begin(s.image, now)
	s.sessions.succeed(before, predecessorBeats*s.sessions.beat)
	s.clock.balance, s.clock.elections = now.Add(s.balanceInterval()), now.Add(s.electionInterval())
	s.look(now)
}

func (s *shard) balanceInterval() time.Duration {
	seconds := s.options.Config.Int64("leader.imbalance.check.interval.seconds")
	return s.jittered(time.Duration(min(seconds, int64(longAgo/time.Second))) * time.Second)
}

func (s *shard) electionInterval() time.Duration {
	return s.jittered(min(s.options.Config.Millis("unclean.leader.election.interval.ms"), longAgo))
}

// jittered makes a period a little longer, so that what recurs does not happen at one instant on all nodes.
func (s *shard) jittered(d time.Duration) time.Duration {
	return d + time.Duration(s.random.Int64N(int64(d/64+time.Microsecond)))
}

// look does what is due, and sets the clock for what comes next.
func (s *shard) look(now time.Time) {
	if !s.active {
		return
	}
	next := s.fenceOverdue(now)
	if s.active { // still: a refusal may have ended it
		s.balance(now)
	}
	if s.active {
		s.electUnclean(now)
	}
	if s.active {
		s.raise()
	}
	if !s.active {
		return
	}
	for _, at := range []time.Time{s.clock.balance, s.clock.elections} {
		if next.IsZero() || at.Before(next) {
			next = at
		}
	}
	s.clock.stop()
	turn := s.clock.turn
	s.clock.at = next
	s.clock.timer = time.AfterFunc(next.Sub(now)+time.Duration(s.random.Int64N(int64(time.Millisecond))), func() {
		s.clock.post(func(s *shard) {
			if s.clock.turn == turn {
				s.ring(time.Now())
			}
		})
	})
}

// ring is the clock's.
func (s *shard) ring(now time.Time) {
	if late := now.Sub(s.clock.at); late > s.sessions.timeout/stallsPerSession {
		s.options.Logger.Warn("the controller has stood still; brokers get the time again", "late", late)
		s.sessions.again(now)
	}
	s.look(now)
}

// fenceOverdue fences the brokers that are taken for dead. It says when to look again, zero for no brokers to watch.
func (s *shard) fenceOverdue(now time.Time) (next time.Time) {
	ids, next := s.sessions.overdue(s.image, now)
	if len(ids) > 0 {
		s.options.Logger.Warn("brokers are not heard of any more and are fenced", "brokers", ids)
		if err := s.proposeAll(fenceBrokers(s.view(), ids), recordsPerBrokerEntry); err != nil {
			s.options.Logger.Error("brokers that are not heard of could not be fenced", "brokers", ids, "err", err)
			return now.Add(refusedRest)
		}
	}
	if next.IsZero() {
		return next
	}
	// Often enough to notice that this process has stood still.
	if soon := now.Add(s.sessions.timeout / stallsPerSession); soon.Before(next) {
		return soon
	}
	return next
}

// balance gives leadership back to the preferred replicas (auto.leader.rebalance.enable), every
// leader.imbalance.check.interval.seconds.
func (s *shard) balance(now time.Time) {
	if now.Before(s.clock.balance) {
		return
	}
	s.clock.balance = now.Add(s.balanceInterval())
	if !s.effective().Bool("auto.leader.rebalance.enable") {
		return
	}
	records, more := s.view().partitions().PreferLeaders(0, electionsPerChore)
	if more {
		s.clock.balance = now.Add(s.jittered(choreRest))
	}
	if len(records) == 0 {
		return
	}
	s.options.Logger.Info("partitions go back to their preferred leaders", "partitions", len(records))
	if err := s.proposeAll(records, recordsPerEntry); err != nil {
		s.options.Logger.Error("partitions could not go back to their preferred leaders", "err", err)
	}
}

// electUnclean gives leaders to partitions that have none where their topics would rather lose records than wait, every
// unclean.leader.election.interval.ms: the setting may have been made after the last replica that has everything went.
func (s *shard) electUnclean(now time.Time) {
	if now.Before(s.clock.elections) {
		return
	}
	s.clock.elections = now.Add(s.electionInterval())
	records, begun, more := s.view().leadAnyhow(electionsPerChore)
	if more {
		s.clock.elections = now.Add(s.jittered(choreRest))
	}
	if len(records) == 0 {
		return
	}
	s.options.Logger.Warn("partitions are led by replicas that lack records, as their topics allow", "partitions", len(records))
	if err := s.proposeAll(records, recordsPerEntry); err != nil {
		s.options.Logger.Error("leaderless partitions could not be given leaders", "err", err)
		return
	}
	for _, partition := range begun {
		s.options.Logger.Warn("partition begins anew without its records: its data directory is gone, and unclean.leader.election.enable allows it",
			"partition", partition)
	}
}

// raise is the chore: it looks at few partitions, so it does so whenever the clock does, which is soon after a broker
// has come.
func (s *shard) raise() {
	records := s.view().raiseInternal(raisesAtOnce)
	if len(records) == 0 {
		return
	}
	s.options.Logger.Info("internal topics get replicas on brokers that have joined", "changes", len(records))
	if err := s.proposeAll(records, recordsPerEntry); err != nil {
		s.options.Logger.Error("internal topics could not be given more replicas", "err", err)
	}
}

// alive tells decisions whose process was heard of within its session.
func (s *shard) alive(b *metadata.Broker) bool { return s.sessions.alive(b, time.Now()) }

// registered begins the session of a registration that is being decided; news: it is not one that was known.
func (s *shard) registered(r *Registration, epoch int64, news bool) {
	if r.ID == s.options.NodeID {
		s.sessions.own = r.Incarnation
	}
	if !news && s.sessions.brokers[r.ID] != nil {
		return
	}
	// The entry with the registration comes after everything that is committed now.
	now := time.Now()
	s.sessions.registered(r, epoch, now, s.loader.Image().Offset()+1)
	s.clock.soon(s, now)
}

// soon has the clock look at once after the event that is being handled.
func (k *clock) soon(s *shard, now time.Time) {
	if k.timer != nil {
		k.at = now
		k.timer.Reset(0)
	}
}

// Heartbeat takes a broker's word that it is alive. It does not wait for what follows from that to be committed.
// Errors: ErrUnknownBroker, ErrStaleBrokerEpoch, ErrNotController, ErrClosed.
func (c *Controller) Heartbeat(ctx context.Context, h metadata.Heartbeat) (metadata.HeartbeatAnswer, error) {
	type outcome struct {
		answer metadata.HeartbeatAnswer
		err    error
	}
	answered := make(chan outcome, 1)
	if !c.inbox.post(func(s *shard) {
		answer, err := s.heartbeat(&h, time.Now())
		answered <- outcome{answer, err}
	}) {
		return metadata.HeartbeatAnswer{}, ErrClosed
	}
	select {
	case got := <-answered:
		return got.answer, got.err
	case <-ctx.Done():
		return metadata.HeartbeatAnswer{}, context.Cause(ctx)
	}
}

func (s *shard) heartbeat(h *metadata.Heartbeat, now time.Time) (metadata.HeartbeatAnswer, error) {
	var none metadata.HeartbeatAnswer
	switch {
	case s.closed:
		return none, ErrClosed
	case !s.active:
		return none, ErrNotController
	}
	// What is not committed may never be, so it is no reason to turn a broker away.
	committed := s.loader.Image()
	b, err := (&view{image: committed}).registered(h.Broker, h.Epoch)
	if err != nil {
		return none, err
	}
	if !s.sessions.hasSpoken(b) {
		if err := s.proposeAll(s.view().partitions().FirstHeard(b.ID), recordsPerEntry); err != nil {
			return none, err
		}
	}
	ready, stuck := s.sessions.heardOf(h, now, committed.Offset())
	if stuck && !b.Fenced && !h.WantFence {
		s.options.Logger.Warn("a broker takes over no metadata any more and is fenced", "broker", b.ID, "offset", h.MetadataOffset, "committed", committed.Offset())
		fence := *h
		fence.WantFence = true
		h = &fence
	}
	records, err := takeHeartbeat(s.view(), h, ready)
	if err != nil {
		s.options.Logger.Warn("a heartbeat without effect", "broker", h.Broker, "err", err)
	}
	if err := s.proposeAll(records, recordsPerBrokerEntry); err != nil {
		return none, err
	}
	if len(records) > 0 {
		s.tell(h, b)
		s.clock.soon(s, now)
	}
	answer := metadata.HeartbeatAnswer{Fenced: b.Fenced}
	if h.WantShutDown {
		// It may be the last whose vote makes a majority: once it is gone nobody could say any more that it is.
		answer.MayShutDown = b.Fenced
	}
	return answer, nil
}

// tell logs what a heartbeat has changed.
func (s *shard) tell(h *metadata.Heartbeat, before *metadata.Broker) {
	after, ok := s.image.Broker(before.ID)
	if !ok {
		return
	}
	log := s.options.Logger.With("broker", before.ID)
	switch {
	case after.ShuttingDown && !before.ShuttingDown:
		log.Info("broker shuts down; its partitions are led by others")
	case after.Fenced && !before.Fenced && h.WantShutDown:
		log.Info("broker has nothing left to hand over and may stop")
	case after.Fenced && !before.Fenced:
		log.Warn("broker is fenced", "asked_for", h.WantFence)
	case before.Fenced && !after.Fenced:
		log.Info("broker takes part")
	case !slices.Equal(after.Directories, before.Directories):
		log.Warn("broker has lost log directories", "left", len(after.Directories), "of", len(before.Directories))
	}
}

// Connection tells that the connection to another node was made, or has broken. It does not wait.
func (c *Controller) Connection(node int32, up bool) {
	c.inbox.post(func(s *shard) {
		now := time.Now()
		s.sessions.connection(node, up, now)
		s.clock.soon(s, now)
	})
}
