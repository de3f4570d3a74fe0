package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/client/internal/assignor"
	"barnabas/client/internal/cluster"
	"barnabas/client/internal/membership"
)

// This file runs the membership's state machine: events go in under the lock, and what it wants
// done is started there and waited for elsewhere.

// event lets the machine take something in, and starts what it wants done.
func (g *GroupConsumer) event(tell func(m membership.Member, now time.Time)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.mu.ended {
		return
	}
	g.tellLocked(tell)
	close(g.mu.changed)
	g.mu.changed = make(chan struct{})
}

// tellLocked is event for what changes nothing that anybody waits for.
func (g *GroupConsumer) tellLocked(tell func(m membership.Member, now time.Time)) {
	m := g.mu.machine
	tell(m, time.Now())
	for _, a := range m.Actions() {
		g.performLocked(a)
	}
	g.armLocked(m.Deadline())
}

// armLocked lets the time tick when the machine wants it.
func (g *GroupConsumer) armLocked(at time.Time, wanted bool) {
	if !wanted {
		if g.mu.timer != nil {
			g.mu.timer.Stop()
		}
		return
	}
	wait := max(time.Until(at), 0)
	if g.mu.timer == nil {
		g.mu.timer = time.AfterFunc(wait, func() {
			g.event(func(m membership.Member, now time.Time) { m.Tick(now) })
		})
		return
	}
	g.mu.timer.Reset(wait)
}

// spareForRebalance is how much longer than a rebalance may take a broker has for its answer.
const spareForRebalance = 5 * time.Second

func (g *GroupConsumer) performLocked(a membership.Action) {
	rebalance := max(g.c.cfg.RequestTimeout, g.cfg.maxPollInterval+spareForRebalance)
	switch a := a.(type) {
	case membership.FindCoordinator:
		g.wg.Go(func() {
			node, err := g.c.cluster.FindCoordinator(g.ctx, cluster.GroupCoordinator, g.group)
			g.event(func(m membership.Member, now time.Time) { m.Found(now, a.Flight, node, unsupported(err)) })
		})
	case membership.Join:
		g.k.meter.Rebalancing(time.Now())
		g.wg.Go(func() {
			resp, err := g.ask(g.joins, a.To, a.Request, rebalance)
			joined, _ := resp.(*kmsg.JoinGroupResponse)
			g.event(func(m membership.Member, now time.Time) { g.mu.classic.Joined(now, a.Flight, joined, err) })
		})
	case membership.Learn:
		g.mu.learning = a.Topics
		g.wg.Go(func() {
			topics := g.describe(a.Topics)
			g.event(func(m membership.Member, now time.Time) { g.mu.classic.Learned(now, a.Flight, topics) })
		})
	case membership.Sync:
		g.wg.Go(func() {
			resp, err := g.ask(g.joins, a.To, a.Request, rebalance)
			synced, _ := resp.(*kmsg.SyncGroupResponse)
			g.event(func(m membership.Member, now time.Time) { g.mu.classic.Synced(now, a.Flight, synced, err) })
		})
	case membership.Heartbeat:
		g.wg.Go(func() {
			resp, err := g.ask(g.links, a.To, a.Request, min(g.c.cfg.RequestTimeout, g.cfg.sessionTimeout))
			beaten, _ := resp.(*kmsg.HeartbeatResponse)
			g.event(func(m membership.Member, now time.Time) { g.mu.classic.Beaten(now, a.Flight, beaten, err) })
		})
	case membership.Leave:
		g.wg.Go(func() {
			if _, err := g.ask(g.links, a.To, a.Request, g.c.cfg.RequestTimeout); err != nil {
				g.c.log.Info("group could not be told that a member leaves", "group", g.group, "error", err)
			}
			g.event(func(m membership.Member, now time.Time) { m.Left(now, a.Flight) })
		})
	case membership.ConsumerHeartbeat:
		g.wg.Go(func() { g.heartbeat(a) })
	case membership.Tell:
		g.k.tell()
	case membership.Fail:
		g.mu.failed = a.Err
		g.k.tell()
	case membership.Gone:
		close(g.gone)
	}
}

// heartbeat sends a heartbeat of the consumer protocol.
func (g *GroupConsumer) heartbeat(a membership.ConsumerHeartbeat) {
	resp, err := g.askHeartbeat(a)
	if a.Leaves {
		if err != nil {
			g.c.log.Info("group could not be told that a member leaves", "group", g.group, "error", err)
		}
		g.event(func(m membership.Member, now time.Time) { m.Left(now, a.Flight) })
		return
	}
	beaten, _ := resp.(*kmsg.ConsumerGroupHeartbeatResponse)
	unresolved := 0
	g.event(func(_ membership.Member, now time.Time) {
		g.mu.consumer.Answered(now, a.Flight, beaten, err)
		unresolved = len(g.mu.consumer.Unresolved())
	})
	if unresolved > 0 {
		g.learn()
		g.c.meta.Update()
	}
}

// firstHeartbeatWithPattern is the version of ConsumerGroupHeartbeat from which coordinators match
// topics themselves.
const firstHeartbeatWithPattern = 1

func (g *GroupConsumer) askHeartbeat(a membership.ConsumerHeartbeat) (kmsg.Response, error) {
	l, err := g.links.Node(a.To)
	if err != nil {
		g.c.meta.Update()
		return nil, err
	}
	conn, err := l.Connect(g.ctx)
	if err != nil {
		return nil, err
	}
	version, err := conn.Version(a.Request, -1)
	if err != nil {
		return nil, unsupported(err)
	}
	if a.Request.SubscribedTopicRegex != nil && version < firstHeartbeatWithPattern {
		return nil, fmt.Errorf("%w: the coordinator cannot match a pattern, it speaks ConsumerGroupHeartbeat version %d", ErrUnsupportedVersion, version)
	}
	return conn.Ask(g.ctx, a.Request, -1)
}

// ask sends a request to the coordinator.
func (g *GroupConsumer) ask(links *cluster.Links, node int32, req kmsg.Request, limit time.Duration) (kmsg.Response, error) {
	l, err := links.Node(node)
	if err != nil {
		g.c.meta.Update()
		return nil, err
	}
	resp, err := l.RequestWithin(g.ctx, req, limit)
	return resp, unsupported(err)
}

// unsupported gives the error that no retry mends where a broker does not know a request.
func unsupported(err error) error {
	if errors.Is(err, ErrUnsupported) {
		return fmt.Errorf("%w: %w", ErrUnsupportedVersion, err)
	}
	return err
}

// describe asks for the metadata of topics as it is now, and falls back on what is known.
func (g *GroupConsumer) describe(topics []string) map[string]assignor.Topic {
	ctx, cancel := context.WithTimeout(g.ctx, g.c.cfg.RequestTimeout)
	defer cancel()
	s, err := g.c.meta.Renew(ctx)
	if err != nil {
		g.c.log.Warn("metadata for an assignment may be old", "group", g.group, "error", err)
		s = g.c.meta.Snapshot()
	}
	return describeTopics(s, topics)
}

// describeTopics gives what an assignment needs to know of those topics that exist.
func describeTopics(s *cluster.Snapshot, topics []string) map[string]assignor.Topic {
	out := make(map[string]assignor.Topic, len(topics))
	for _, name := range topics {
		t := s.Topics[name]
		if t == nil || len(t.Partitions) == 0 {
			continue
		}
		d := assignor.Topic{ID: t.ID, Partitions: int32(len(t.Partitions)), Racks: make([][]string, len(t.Partitions))}
		for p := range t.Partitions {
			for _, node := range t.Partitions[p].Replicas {
				if rack := s.Brokers[node].Rack; rack != "" {
					d.Racks[p] = append(d.Racks[p], rack)
				}
			}
		}
		out[name] = d
	}
	return out
}

// wantedTopics keeps in the metadata what the machine watches. Groups never create a topic.
func (g *GroupConsumer) wantedTopics(time.Time) cluster.Wanted {
	g.mu.Lock()
	defer g.mu.Unlock()
	names := slices.Concat(g.mu.machine.Watched(), g.mu.names, g.mu.learning)
	if g.mu.consumer != nil {
		return cluster.Wanted{Names: names, IDs: g.mu.consumer.Unresolved()}
	}
	return cluster.Wanted{Names: names, All: g.mu.pattern != nil}
}

// learn takes in the metadata: which topics a pattern stands for, and whether numbers of
// partitions have changed.
func (g *GroupConsumer) learn() {
	s := g.c.meta.Snapshot()
	g.event(func(m membership.Member, now time.Time) {
		if g.mu.consumer != nil {
			g.learnNamesLocked(s, now)
			return
		}
		topics := g.mu.names
		if g.mu.pattern != nil {
			topics = nil
			for name, t := range s.Topics {
				if t.Err == nil && (!t.Internal || g.cfg.internalTopics) && g.mu.pattern.MatchString(name) {
					topics = append(topics, name)
				}
			}
		}
		g.lookOutLocked(s)
		g.mu.classic.Subscribe(now, topics)
		g.mu.classic.Metadata(now, describeTopics(s, m.Watched()))
	})
}

// learnNamesLocked takes in what topics are called that the coordinator wants to be read.
func (g *GroupConsumer) learnNamesLocked(s *cluster.Snapshot, now time.Time) {
	pattern := ""
	if g.mu.pattern != nil {
		pattern = g.mu.pattern.String()
	}
	g.mu.consumer.Subscribe(now, g.mu.names, pattern)
	names := map[[16]byte]string{}
	if len(g.mu.consumer.Unresolved()) > 0 {
		for name, t := range s.Topics {
			if t.Err == nil {
				names[t.ID] = name
			}
		}
	}
	g.mu.consumer.Metadata(now, names)
	g.lookOutLocked(s)
}

// lookOutLocked asks for metadata again soon while a topic does not exist: that it is made is not to
// go unnoticed for metadata.max.age.ms.
func (g *GroupConsumer) lookOutLocked(s *cluster.Snapshot) {
	missing := slices.ContainsFunc(g.mu.names, func(name string) bool {
		t := s.Topics[name]
		return t == nil || t.Err != nil
	})
	if g.mu.consumer != nil { // the coordinator finds topics by itself, we only what they are called
		missing = len(g.mu.consumer.Unresolved()) > 0
	}
	if !missing || g.mu.looking != nil {
		return
	}
	g.mu.looking = time.AfterFunc(g.c.cfg.RetryBackoff.Most, func() {
		g.mu.Lock()
		g.mu.looking = nil
		ended := g.mu.ended
		g.mu.Unlock()
		if !ended {
			g.c.meta.Update()
		}
	})
}

// awaitCoordinator gives the coordinator's node, having one found where none is known.
func (g *GroupConsumer) awaitCoordinator(ctx context.Context) (int32, error) {
	for {
		g.mu.Lock()
		if !g.mu.ended { // as a wish it wakes nobody: two who wait would never let each other rest
			g.tellLocked(func(m membership.Member, now time.Time) { m.WantCoordinator(now) })
		}
		node, changed, failed, ended := g.mu.machine.Coordinator(), g.mu.changed, g.mu.failed, g.mu.ended
		trouble := g.mu.machine.Trouble()
		g.mu.Unlock()
		switch {
		case ended:
			return -1, ErrClosed
		case node >= 0:
			return node, nil
		case failed != nil:
			return -1, failed
		}
		again := time.NewTimer(g.c.cfg.RetryBackoff.First)
		select {
		case <-changed:
		case <-again.C:
		case <-ctx.Done():
			again.Stop()
			return -1, because(ctx, trouble)
		case <-g.ctx.Done():
			again.Stop()
			return -1, ErrClosed
		}
		again.Stop()
	}
}
