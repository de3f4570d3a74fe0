package coordinator

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/internal/batch"
	"barnabas/internal/config"
	"barnabas/internal/coordinator/group"
	"barnabas/internal/metadata"
	"barnabas/internal/metrics"
	"barnabas/internal/replica"
)

// Options is what a Coordinator is made of. All fields but Metrics are required.
type Options struct {
	NodeID   int32
	Replicas *replica.Manager
	Config   *config.Set // static settings: those of groups do not change while a broker runs
	Logger   *slog.Logger
	Now      func() time.Time
	Random   io.Reader         // seeds what the shards draw; safe for concurrent use
	Metrics  *metrics.Registry // nil counts for nobody
}

// Coordinator holds the shards of the partitions that this broker leads. It is a metadata.Publisher,
// to be told after the replica.Manager.
type Coordinator struct {
	o        Options
	log      *slog.Logger
	shards   group.Config
	codec    batch.Codec
	linger   time.Duration // see gather
	wait     time.Duration // offsets.commit.timeout.ms
	checker  *batch.Checker
	builders sync.Pool     // of *batch.Builder, for partitions that are not idle
	loads    chan struct{} // a slot for each partition that may be read at one time
	queued   atomic.Int64  // bytes of the requests that wait for a partition
	stats    stats

	image   atomic.Pointer[metadata.Image] // the newest that the partitions follow
	started bool                           // Publish's alone

	ctx     context.Context // of all partitions
	cancel  context.CancelFunc
	running sync.WaitGroup

	mu struct { // held for look-ups and single insertions only
		sync.RWMutex
		partitions map[int32]*partition
		looking    bool // followAtLast runs
	}
	lookSoon chan struct{} // one slot: followAtLast is to look as if it had just begun
}

// New returns a Coordinator that leads nothing yet. ctx bounds its life, like Close.
func New(ctx context.Context, o Options) *Coordinator {
	c := &Coordinator{
		o: o, log: o.Logger, shards: shardConfig(o.Config), checker: batch.NewChecker(),
		codec:  batch.Codec(o.Config.Int("offsets.topic.compression.codec")),
		linger: time.Duration(o.Config.Int64("group.coordinator.append.linger.ms")) * time.Millisecond,
		wait:   o.Config.Millis("offsets.commit.timeout.ms"),
		loads:  make(chan struct{}, o.Config.Int("group.coordinator.threads")),
		stats:  newStats(o.Metrics),
	}
	c.image.Store(metadata.Empty())
	c.mu.partitions, c.lookSoon = map[int32]*partition{}, make(chan struct{}, 1)
	c.ctx, c.cancel = context.WithCancel(ctx)
	c.showGroups(o.Metrics)
	return c
}

// Close gives every partition up: who waits is told ErrNotCoordinator, and asks elsewhere.
func (c *Coordinator) Close() {
	c.mu.Lock() // nothing is begun any more from here on
	c.cancel()
	c.mu.Unlock()
	c.running.Wait()
}

// Publish implements metadata.Publisher: partitions come and go with the leadership of their
// replicas, and the offsets of deleted topics with the topics.
func (c *Coordinator) Publish(_ context.Context, d *metadata.Delta, img *metadata.Image) {
	c.image.Store(img)
	if !c.started {
		select {
		case <-c.o.Replicas.Ready():
			c.started = true
		default:
			return // history is being replayed, and there are no replicas yet
		}
		c.follow()
		return
	}
	c.forgetTopics(d)
	for i := range d.Topics {
		t := &d.Topics[i]
		if t.Old != nil && t.Old.Name == OffsetsTopic || t.New != nil && t.New.Name == OffsetsTopic {
			c.follow()
			return
		}
	}
}

// forgetTopics has the offsets of deleted topics deleted.
func (c *Coordinator) forgetTopics(d *metadata.Delta) {
	var names []string
	var ids [][16]byte
	for i := range d.Topics {
		if t := &d.Topics[i]; t.New == nil {
			names, ids = append(names, t.Old.Name), append(ids, t.Old.ID)
		}
	}
	if len(names) == 0 {
		return
	}
	for _, p := range c.led() {
		p.inbox.post(func(p *partition) {
			now := p.c.o.Now()
			p.apply(now, p.shard.TopicsDeleted(now, names, ids), false)
		})
	}
}

// follow makes the partitions those that the newest image gives to this broker. What is not there yet is looked for again.
func (c *Coordinator) follow() {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.followLocked():
	case c.mu.looking:
		select {
		case c.lookSoon <- struct{}{}: // what is missing now may be new
		default:
		}
	default:
		c.mu.looking = true
		c.running.Go(c.followAtLast)
	}
}

// followAtLast follows until every partition is there: what keeps a replica from being opened may pass without a change of
// this topic's metadata, and nobody else coordinates its groups meanwhile. The pauses are those of loadAtLast.
func (c *Coordinator) followAtLast() {
	for pause := firstLoadPause; ; pause = min(2*pause, mostLoadPause) {
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-c.lookSoon:
			timer.Stop()
			pause = firstLoadPause / 2 // and firstLoadPause next
			continue
		case <-c.ctx.Done():
			timer.Stop()
			return
		}
		c.mu.Lock()
		complete := c.followLocked()
		c.mu.looking = !complete
		c.mu.Unlock()
		if complete {
			return
		}
	}
}

// followLocked tells whether all partitions that are to be here are. Once the coordinator is closed none is.
func (c *Coordinator) followLocked() (complete bool) {
	topic, _ := c.image.Load().Topic(OffsetsTopic)
	for n, p := range c.mu.partitions {
		if topic == nil || topic.ID != p.topicID || int(n) >= len(topic.Partitions) ||
			topic.Partitions[n].Leader != c.o.NodeID || topic.Partitions[n].LeaderEpoch != p.epoch {
			delete(c.mu.partitions, n)
			p.stop()
		}
	}
	if topic == nil {
		return true
	}
	complete = true
	for i, state := range topic.Partitions {
		n := int32(i)
		if _, led := c.mu.partitions[n]; led || state.Leader != c.o.NodeID || c.ctx.Err() != nil {
			continue
		}
		r, err := c.o.Replicas.Partition(OffsetsTopic, n)
		if err != nil {
			c.log.Error("groups are unavailable: their partition is; it is looked for again", "partition", n, "err", err)
			complete = false
			continue
		}
		c.mu.partitions[n] = c.begin(n, topic.ID, state.LeaderEpoch, r)
	}
	return complete
}

// begin starts the goroutine of a partition.
func (c *Coordinator) begin(n int32, topic metadata.UUID, epoch int32, r *replica.Partition) *partition {
	var seed [16]byte
	if _, err := io.ReadFull(c.o.Random, seed[:]); err != nil {
		panic(fmt.Sprintf("BUG: a random source that ends: %v", err))
	}
	p := newPartition(c, n, r)
	p.topicID, p.epoch = topic, epoch
	first, second := binary.BigEndian.Uint64(seed[:]), binary.BigEndian.Uint64(seed[8:])
	p.dice.Seed(first, second)
	p.shard = group.New(c.shards, rand.NewPCG(second, first))
	if at := r.Progress(); at.End == at.Start {
		p.loaded(at.End) // nothing to read: whoever finds the coordinator is served at once
	}
	ctx, stop := context.WithCancel(c.ctx)
	p.stop = stop
	c.running.Go(func() { p.run(ctx) })
	return p
}

// led are the partitions, in no order.
func (c *Coordinator) led() []*partition {
	c.mu.RLock()
	defer c.mu.RUnlock()
	all := make([]*partition, 0, len(c.mu.partitions))
	for _, p := range c.mu.partitions {
		all = append(all, p)
	}
	return all
}

// Image is the newest metadata that the partitions follow: who finds a partition of
// __consumer_offsets led here in it is let in here.
func (c *Coordinator) Image() *metadata.Image { return c.image.Load() }

// Partition is the partition of __consumer_offsets that a group belongs to; ok is false while there
// is no such topic.
func (c *Coordinator) Partition(groupID string) (number int32, ok bool) {
	topic, exists := c.image.Load().Topic(OffsetsTopic)
	if !exists || len(topic.Partitions) == 0 {
		return -1, false
	}
	return PartitionFor(groupID, int32(len(topic.Partitions))), true
}

// Submit hands in a request about one group, in the order of the calls. The request belongs to the
// coordinator from then on; bytes is its size on the wire.
func (c *Coordinator) Submit(groupID string, from group.Client, q kmsg.Request, bytes int) *Call {
	n, ok := c.Partition(groupID)
	if !ok {
		return refused(fmt.Errorf("group %q: there is no %s yet: %w", groupID, OffsetsTopic, ErrNotCoordinator))
	}
	return c.SubmitTo(n, from, q, bytes)
}

// SubmitTo is Submit for the groups of one partition.
func (c *Coordinator) SubmitTo(n int32, from group.Client, q kmsg.Request, bytes int) *Call {
	c.mu.RLock()
	p := c.mu.partitions[n]
	c.mu.RUnlock()
	if p == nil {
		return refused(fmt.Errorf("%s-%d: %w", OffsetsTopic, n, ErrNotCoordinator))
	}
	if p.replica.InDoubt() {
		return refused(p.inDoubt())
	}
	call := &Call{from: from, request: q, bytes: int64(bytes), wait: c.wait, partition: p, done: make(chan struct{})}
	if err := p.inbox.submit(call); err != nil {
		return refused(fmt.Errorf("%v: %w", p, err))
	}
	return call
}

// Doubt says that others may have gone on without this broker, or that it knows better now; the replica.Manager has been told
// before. Members that wait for others of their groups are told ErrNotCoordinator. It does not wait.
func (c *Coordinator) Doubt(doubted bool) {
	if !doubted {
		return
	}
	for _, p := range c.led() {
		p.inbox.post((*partition).sendAway)
	}
}

// Led are the numbers of the partitions that this broker leads, in no order.
func (c *Coordinator) Led() []int32 {
	c.mu.RLock()
	defer c.mu.RUnlock()
	all := make([]int32, 0, len(c.mu.partitions))
	for n := range c.mu.partitions {
		all = append(all, n)
	}
	return all
}

// topics is what a shard may know of the metadata.
type topics struct{ image *metadata.Image }

// Topic implements group.Topics.
func (t topics) Topic(name string) (id [16]byte, partitions int32, ok bool) {
	topic, ok := t.image.Topic(name)
	if !ok {
		return id, 0, false
	}
	return topic.ID, int32(len(topic.Partitions)), true
}

// Name implements group.Topics.
func (t topics) Name(id [16]byte) (string, bool) {
	topic, ok := t.image.TopicByID(id)
	if !ok {
		return "", false
	}
	return topic.Name, true
}
