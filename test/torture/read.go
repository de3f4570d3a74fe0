package torture

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"barnabas/client"
)

// reader keeps what was read where, and each way in which reading went wrong.
type reader struct {
	seed uint64

	mu                        sync.Mutex
	seen                      map[place]id
	next                      map[int32]int64
	skipped, rewound, changed int64
	refusals                  []error
}

func newReader(seed uint64) *reader {
	return &reader{seed: seed, seen: map[place]id{}, next: map[int32]int64{}}
}

// take takes in what one Poll returned; gaps are markers and what was aborted, where some may be.
func (k *reader) take(records []client.Record, gaps bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, r := range records {
		switch next := k.next[r.Partition]; {
		case r.Offset > next && !gaps:
			k.skipped++
		case r.Offset < next:
			k.rewound++
		}
		k.next[r.Partition] = r.Offset + 1
		seed, what := readValue(r.Value)
		at := place{r.Partition, r.Offset}
		if before, known := k.seen[at]; seed != k.seed || known && before != what {
			k.changed++
			continue
		}
		k.seen[at] = what
	}
}

func (k *reader) refused(err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.refusals = append(k.refusals, err)
}

func (k *reader) positions() map[int32]int64 {
	k.mu.Lock()
	defer k.mu.Unlock()
	at := map[int32]int64{}
	for p, next := range k.next {
		at[p] = next
	}
	return at
}

// missing tells where the reader has not arrived at the ends.
func (k *reader) missing(ends map[int32]int64) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	for p, end := range ends {
		if at := k.next[p]; at < end {
			return errors.Join(append(k.refusals, fmt.Errorf("partition %d is read up to %d of %d", p, at, end))...)
		}
	}
	return nil
}

// read reads a topic from its start until ctx ends.
func (r *run) read(ctx context.Context, into *reader, isolation client.Isolation, topic string) {
	_ = r.reading(ctx, into, isolation, topic, func(*client.Consumer) bool { return false })
}

// readTo reads a topic from its start to the ends.
func (r *run) readTo(ctx context.Context, into *reader, isolation client.Isolation, topic string, ends map[int32]int64) error {
	return r.reading(ctx, into, isolation, topic, func(k *client.Consumer) bool {
		for p, end := range ends {
			if at, known := k.Position(client.TopicPartition{Topic: topic, Partition: p}); end > 0 && (!known || at < end) {
				return false
			}
		}
		return true
	})
}

func (r *run) reading(ctx context.Context, into *reader, isolation client.Isolation, topic string, done func(*client.Consumer) bool) error {
	c, err := r.client()
	if err != nil {
		return err
	}
	defer c.Close()
	k, err := c.NewConsumer(client.NoAutoOffsetReset(), client.IsolationLevel(isolation))
	if err != nil {
		return err
	}
	defer k.Close()
	if err := eventually(ctx, func() error { return k.AssignTopic(ctx, topic, client.Earliest) }); err != nil {
		return err
	}
	for !done(k) {
		// What is left may be markers, which Poll does not return: then Position moves.
		polling, cancel := context.WithTimeout(ctx, askAgain)
		records, err := k.Poll(polling)
		cancel()
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil && polling.Err() == nil:
			into.refused(err)
			return err
		}
		into.take(records, isolation == client.ReadCommitted)
	}
	return nil
}

// group is two members of one group, each of which goes on where the group has committed.
type group struct {
	r        *run
	protocol client.Protocol
	name     string

	mu               sync.Mutex
	seen             map[place]id
	read, handovers  int64
	skipped, changed int64
	refusals         []error
}

func (r *run) groups(ctx context.Context, working *sync.WaitGroup) (all []*group) {
	for _, protocol := range r.o.Groups {
		g := &group{r: r, protocol: protocol, name: fmt.Sprintf("%s-%s", r.o.Topic, protocol), seen: map[place]id{}}
		all = append(all, g)
		working.Go(func() { g.member(ctx) })
		working.Go(func() {
			rng := rand.New(rand.NewPCG(r.o.Seed, uint64(len(protocol))))
			for ctx.Err() == nil {
				staying, cancel := context.WithTimeout(ctx, jitter(rng, memberStays))
				g.member(staying)
				<-staying.Done()
				cancel()
			}
		})
	}
	return all
}

// member reads until ctx ends, commits what it has read after each Poll, and leaves.
func (g *group) member(ctx context.Context) {
	c, err := g.r.client()
	if err != nil {
		g.refused(err)
		return
	}
	defer c.Close()
	fresh := map[int32]int64{} // the next offset of each partition since it was given
	forget := func(_ context.Context, _ *client.GroupConsumer, partitions []client.TopicPartition) {
		for _, tp := range partitions {
			delete(fresh, tp.Partition)
		}
	}
	options := []client.GroupOption{
		client.GroupProtocol(g.protocol), client.NoAutoCommit(), client.AutoOffsetReset(client.Earliest), client.OnRevoked(forget), client.OnLost(forget),
		client.OnAssigned(func(ctx context.Context, k *client.GroupConsumer, partitions []client.TopicPartition) {
			g.mu.Lock()
			g.handovers += int64(len(partitions))
			g.mu.Unlock()
			forget(ctx, k, partitions)
		}),
	}
	if g.protocol == client.ClassicProtocol {
		options = append(options, client.Assignors(client.CooperativeStickyAssignor), client.SessionTimeout(sessionTimeout), client.HeartbeatInterval(500*time.Millisecond))
	}
	k, err := c.NewGroupConsumer(g.name, options...)
	if err != nil {
		g.refused(err)
		return
	}
	defer func() {
		leaving, cancel := context.WithTimeout(context.WithoutCancel(ctx), requestTimeout)
		defer cancel()
		_ = k.Close(leaving) // who cannot say that it goes is put out by and by
	}()
	if err := k.Subscribe(g.r.o.Topic); err != nil {
		g.refused(err)
		return
	}
	for {
		records, err := k.Poll(ctx)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			g.refused(err)
			return
		}
		g.take(records, fresh)
		committing, cancel := context.WithTimeout(ctx, requestTimeout)
		_ = k.Commit(committing) // refused while the group is divided anew: then it is read again
		cancel()
	}
}

func (g *group) take(records []client.Record, fresh map[int32]int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, r := range records {
		if next, known := fresh[r.Partition]; known && r.Offset != next {
			g.skipped++
		}
		fresh[r.Partition] = r.Offset + 1
		g.read++
		seed, what := readValue(r.Value)
		at := place{r.Partition, r.Offset}
		if before, known := g.seen[at]; seed != g.r.o.Seed || known && before != what {
			g.changed++
		}
		g.seen[at] = what
	}
}

func (g *group) refused(err error) {
	if errors.Is(err, client.ErrClosed) {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.refusals = append(g.refusals, fmt.Errorf("a member by the protocol %s: %w", g.protocol, err))
}

// missing tells what no member has read, or that one has been refused.
func (g *group) missing(ends map[int32]int64) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	for p, end := range ends {
		for o := range end {
			if _, read := g.seen[place{p, o}]; !read {
				return errors.Join(append(g.refusals, fmt.Errorf("offset %d of partition %d is not read", o, p))...)
			}
		}
	}
	return nil
}

func (g *group) count(final *reader, c *Counts) {
	g.mu.Lock()
	defer g.mu.Unlock()
	c.ByGroups[g.protocol], c.Handovers[g.protocol] = g.read, g.handovers
	c.wrong["group phantom"] += g.changed
	c.wrong["group skipped"] += g.skipped
	if c.wrong["refused"] += int64(len(g.refusals)); len(g.refusals) > 0 && c.FirstFailure == nil {
		c.FirstFailure = g.refusals[0]
	}
	for at, what := range final.seen {
		got, read := g.seen[at]
		switch {
		case !read:
			c.wrong["group missed"]++
		case got != what:
			c.wrong["group phantom"]++
		}
	}
}
