package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

const (
	joiners           = 500
	heartbeatEvery    = 3 * time.Second // the clients' default
	committingGroups  = 100
	commitPartitions  = 100
	commitEvery       = 100 * time.Millisecond
	idleConsumers     = 1000
	idlePartitions    = 1000
	longPollMillis    = 500 // the clients' default of fetch.max.wait.ms
	coordinatorWithin = 20 * time.Second
)

// groupRows are what groups cost. Both brokers have group.initial.rebalance.delay.ms=0.
func groupRows() []row {
	return []row{
		{
			name: "join", title: "500 members joining one group at once, until every partition is owned", variants: three,
			metrics: []metric{{"seconds", "time", "s"}, {"cpu", "broker CPU", "s"}},
			bars:    []bar{{pageCache, "seconds", kafka, false, 0.7, "0.3x"}, {durable, "seconds", kafka, false, 0.7, "0.3x"}},
			run:     joinTogether,
		},
		{
			name: "commit", title: "100 groups committing 100 partitions each", variants: []string{kafka, durable},
			metrics: []metric{{"rate", "as fast as they are answered", "commits/s"}, {"cpu", "ten times a second: broker CPU", "s/million"}, {"paced", "ten times a second", "commits/s"}},
			bars:    []bar{{durable, "rate", kafka, true, 1.2, "3x"}, {durable, "cpu", kafka, false, 0.7, "0.3x"}},
			run:     commitTogether,
		},
		{
			name: "idle-fetch", title: "1,000 consumers, each fetching 1,000 idle partitions", variants: []string{kafka, durable},
			metrics: []metric{{"cpu", "broker CPU", "s/s"}, {"fetches", "fetches", "/s"}},
			bars:    []bar{{durable, "cpu", kafka, false, 0.5, "0.1x"}},
			run:     fetchIdle,
		},
	}
}

// everyone runs n goroutines, ends all with the first error, and waits for them.
func everyone(ctx context.Context, n int, run func(ctx context.Context, i int) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			if err := run(ctx, i); err != nil {
				cancel(err)
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}

// coordinator waits until the group's coordinator is there.
func (b *broker) coordinator(ctx context.Context, group string) error {
	ctx, cancel := context.WithTimeout(ctx, coordinatorWithin)
	defer cancel()
	return b.until(ctx, "coordinator", func(ctx context.Context) error {
		w, err := dialWire(ctx, b.addr)
		if err != nil {
			return err
		}
		defer w.close()
		find := kmsg.NewPtrFindCoordinatorRequest()
		find.Version, find.CoordinatorKeys = 4, []string{group}
		found, err := ask[*kmsg.FindCoordinatorResponse](ctx, w, find)
		if err != nil {
			return err
		}
		for _, c := range found.Coordinators {
			if err := kerr.ErrorForCode(c.ErrorCode); err != nil {
				return err
			}
		}
		return nil
	})
}

func (b *broker) dropGroups(ctx context.Context, groups ...string) error {
	cl, err := b.client()
	if err != nil {
		return err
	}
	defer cl.Close()
	_, err = kadm.NewClient(cl).DeleteGroups(ctx, groups...)
	return err
}

// ownership knows when a group is whole: everybody is in one generation, and every partition has an owner in it.
type ownership struct {
	mu                  sync.Mutex
	members, partitions int
	generation          int32
	there, owned        int // in the generation
	done                bool
	whole               chan struct{} // closed when done
}

func (o *ownership) note(generation int32, owned int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.done {
		return
	}
	if generation > o.generation {
		o.generation, o.there, o.owned = generation, 0, 0
	}
	if generation < o.generation {
		return
	}
	o.there++
	if o.owned += owned; o.there == o.members && o.owned == o.partitions {
		o.done = true
		close(o.whole)
	}
}

func joinTogether(ctx context.Context, l *lab, v variant, _ string) (s sample, err error) {
	err = l.withTopic(ctx, v, joiners, func(topic string) error {
		group := "group-" + topic
		if err := v.broker.coordinator(ctx, group); err != nil {
			return err
		}
		members := make([]*member, joiners)
		for i := range members {
			w, err := dialWire(ctx, v.broker.addr)
			if err != nil {
				return err
			}
			defer w.close()
			members[i] = &member{wire: w, group: group, topic: topic, partitions: joiners}
		}
		all := &ownership{members: joiners, partitions: joiners, whole: make(chan struct{})}
		cpu, start := v.broker.cpuSeconds(), time.Now()
		if err := everyone(ctx, joiners, func(ctx context.Context, i int) error { return members[i].until(ctx, all) }); err != nil {
			return err
		}
		s = sample{"seconds": time.Since(start).Seconds(), "cpu": v.broker.cpuSeconds() - cpu}
		return nil
	})
	return s, err
}

// until is a member's life until the group is whole.
func (m *member) until(ctx context.Context, all *ownership) error {
	for {
		owned, again, err := m.round(ctx)
		if err != nil {
			return err
		}
		for beat := time.NewTicker(heartbeatEvery); !again; {
			if owned >= 0 {
				all.note(m.generation, owned)
				owned = -1
			}
			select {
			case <-all.whole:
				beat.Stop()
				return nil
			case <-ctx.Done():
				return ctx.Err()
			case <-beat.C:
			}
			if again, err = m.heartbeat(ctx); err != nil {
				return err
			}
		}
	}
}

// commitTogether has every group commit all its partitions, first ten times a second for the processor's time, then again
// as soon as it is answered for the rate.
func commitTogether(ctx context.Context, l *lab, v variant, _ string) (s sample, err error) {
	err = l.withTopic(ctx, v, commitPartitions, func(topic string) error {
		committers := make([]*committer, committingGroups)
		for i := range committers {
			if committers[i], err = v.broker.openCommitter(ctx, fmt.Sprintf("committing-%d", i), topic); err != nil {
				return err
			}
			defer committers[i].close()
		}
		run := func(d, every time.Duration) (float64, error) {
			var n atomic.Int64
			stop := time.Now().Add(d)
			err := everyone(ctx, committingGroups, func(ctx context.Context, i int) error {
				next := time.Now().Add(every * time.Duration(i) / committingGroups)
				for {
					time.Sleep(time.Until(next))
					if time.Now().After(stop) {
						return nil
					}
					if err := committers[i].commit(ctx, n.Add(1)); err != nil {
						return err
					}
					next = next.Add(every)
				}
			})
			return float64(n.Load() * commitPartitions), err
		}
		if _, err := run(max(time.Second, l.seconds(2)), 0); err != nil { // warm
			return err
		}
		d := max(2*time.Second, l.seconds(10))
		cpu := v.broker.cpuSeconds()
		n, err := run(d, commitEvery)
		if err != nil {
			return err
		}
		cpu = v.broker.cpuSeconds() - cpu
		most, err := run(d, 0)
		s = sample{"rate": most / d.Seconds(), "cpu": cpu / n * 1e6, "paced": n / d.Seconds()}
		return err
	})
	return s, err
}

// committer commits every partition of a topic for a group without members, as consumers with partitions of their own
// choice do. The driver shares the processors with the broker that it measures, so it encodes the request once, and
// decodes an answer only where it differs from the first good one.
type committer struct {
	*wire
	req       *kmsg.OffsetCommitRequest
	frame     []byte
	offsetsAt []int // where in frame the offsets lie
	good      []byte
}

func newCommitter(w *wire, group, topic string) *committer {
	c := &committer{wire: w, req: commitRequest(group, topic)}
	c.frame = w.format.AppendRequest(nil, c.req, 0)
	for i := range c.req.Topics[0].Partitions {
		c.req.Topics[0].Partitions[i].Offset = math.MaxInt64 / 3 // no byte of it is one of 0
	}
	for at, frame := 0, w.format.AppendRequest(nil, c.req, 0); at < len(frame); at++ {
		if frame[at] != c.frame[at] {
			c.offsetsAt = append(c.offsetsAt, at)
			at += 7
		}
	}
	return c
}

// openCommitter connects, and has committed once.
func (b *broker) openCommitter(ctx context.Context, group, topic string) (*committer, error) {
	if err := b.coordinator(ctx, group); err != nil {
		return nil, err
	}
	w, err := dialWire(ctx, b.addr)
	if err != nil {
		return nil, err
	}
	c := newCommitter(w, group, topic)
	within, cancel := context.WithTimeout(ctx, coordinatorWithin)
	defer cancel()
	return c, b.until(within, "commit", func(ctx context.Context) error { return c.commit(ctx, 0) })
}

func commitRequest(group, topic string) *kmsg.OffsetCommitRequest {
	req := kmsg.NewPtrOffsetCommitRequest()
	req.Version, req.Group, req.Generation = 8, group, -1
	t := kmsg.NewOffsetCommitRequestTopic()
	t.Topic = topic
	for p := range int32(commitPartitions) {
		one := kmsg.NewOffsetCommitRequestTopicPartition()
		one.Partition = p
		t.Partitions = append(t.Partitions, one)
	}
	req.Topics = append(req.Topics, t)
	return req
}

func (c *committer) commit(ctx context.Context, offset int64) error {
	for _, at := range c.offsetsAt {
		binary.BigEndian.PutUint64(c.frame[at:], uint64(offset))
	}
	if err := c.exchange(ctx, c.frame); err != nil {
		return err
	}
	if c.good != nil && bytes.Equal(c.reply, c.good) {
		return nil
	}
	answer := kmsg.NewPtrOffsetCommitResponse()
	answer.Version = c.req.Version
	if err := answer.ReadFrom(c.reply[1:]); err != nil {
		return fmt.Errorf("OffsetCommit: %w", err)
	}
	for _, t := range answer.Topics {
		for _, p := range t.Partitions {
			if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
				return fmt.Errorf("commit of partition %d for %s: %w", p.Partition, c.req.Group, err)
			}
		}
	}
	c.good = slices.Clone(c.reply)
	return nil
}

// fetchIdle opens a session with every partition on each of many connections and asks again and again whether anything
// moved.
func fetchIdle(ctx context.Context, l *lab, v variant, _ string) (s sample, err error) {
	err = l.withTopic(ctx, v, idlePartitions, func(topic string) error {
		var opened, fetches atomic.Int64
		consumers := make([]*wire, idleConsumers)
		for i := range consumers { // one after the other: a thousand at once are more than Apache Kafka's backlog
			if consumers[i], err = dialWire(ctx, v.broker.addr); err != nil {
				return err
			}
			defer consumers[i].close()
		}
		settled := make(chan struct{})
		ctx, cancel := context.WithCancelCause(ctx)
		over := errors.New("measured")
		done := make(chan error, 1)
		go func() {
			done <- everyone(ctx, idleConsumers, func(ctx context.Context, i int) error {
				return keepFetching(ctx, consumers[i], topic, func(first bool) {
					if fetches.Add(1); first && opened.Add(1) == idleConsumers {
						close(settled)
					}
				})
			})
		}()
		select {
		case <-settled:
		case err := <-done:
			cancel(nil)
			return err
		}
		time.Sleep(2 * time.Second) // the first answers are over
		d := max(3*time.Second, l.seconds(10))
		cpu, n := v.broker.cpuSeconds(), fetches.Load()
		time.Sleep(d)
		s = sample{"cpu": (v.broker.cpuSeconds() - cpu) / d.Seconds(), "fetches": float64(fetches.Load()-n) / d.Seconds()}
		cancel(over)
		if err := <-done; !errors.Is(err, over) {
			return err
		}
		return nil
	})
	return s, err
}

func keepFetching(ctx context.Context, w *wire, topic string, answered func(first bool)) error {
	req := kmsg.NewPtrFetchRequest()
	req.Version, req.MaxWaitMillis, req.MinBytes, req.MaxBytes = 12, longPollMillis, 1, 50<<20
	for first := true; ; first = false {
		req.Topics = nil
		if req.SessionID == 0 {
			t := kmsg.NewFetchRequestTopic()
			t.Topic = topic
			for p := range int32(idlePartitions) {
				one := kmsg.NewFetchRequestTopicPartition()
				one.Partition, one.PartitionMaxBytes = p, 1<<20
				t.Partitions = append(t.Partitions, one)
			}
			req.Topics, req.SessionEpoch = append(req.Topics, t), 0
		}
		answer, err := ask[*kmsg.FetchResponse](ctx, w, req)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			return err
		}
		switch e := kerr.ErrorForCode(answer.ErrorCode); e {
		case nil:
			req.SessionID = answer.SessionID
			req.SessionEpoch++
		case kerr.FetchSessionIDNotFound, kerr.InvalidFetchSessionEpoch:
			req.SessionID = 0
		default:
			return fmt.Errorf("fetch: %w", e)
		}
		answered(first)
	}
}
