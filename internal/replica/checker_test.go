package replica

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"barnabas/internal/batch"
	"barnabas/internal/commitlog"
	"barnabas/internal/metadata"
)

// checker knows what was acknowledged and what was read, and compares it with what there is.
type checker struct {
	w  *world
	mu struct {
		sync.Mutex
		partitions map[commitlog.TopicPartition]*history
	}
	batches *batch.Checker
	stop    chan struct{}
	clients sync.WaitGroup
}

// history is what clients have seen of one partition.
type history struct {
	epoch   int32
	acked   map[int64]string // by offset
	ackedIn map[int32]int64  // the highest offset acknowledged in each leader epoch
	read    map[int64]string
	marks   map[int32]int64 // the watermark that readers saw last, by leader epoch
}

func newChecker(w *world) *checker {
	c := &checker{w: w, batches: batch.NewChecker(), stop: make(chan struct{})}
	c.mu.partitions = map[commitlog.TopicPartition]*history{}
	return c
}

// begin starts a producer and a reader for each partition.
func (c *checker) begin(pause time.Duration) {
	producer := int64(1000)
	img := c.w.image()
	for t := range img.Topics() { // before any client looks
		for n := range t.Partitions {
			id := commitlog.TopicPartition{Topic: t.Name, Partition: int32(n)}
			c.mu.partitions[id] = &history{acked: map[int64]string{}, ackedIn: map[int32]int64{}, read: map[int64]string{}, marks: map[int32]int64{}}
		}
	}
	for t := range img.Topics() {
		for n := range t.Partitions {
			id := commitlog.TopicPartition{Topic: t.Name, Partition: int32(n)}
			for range 2 {
				producer++
				me := producer
				c.clients.Go(func() { c.produce(id, me, pause) })
			}
			me := producer
			c.clients.Go(func() { c.litter(id, rand.New(rand.NewPCG(c.w.seed, uint64(me)*3))) })
			c.clients.Go(func() { c.consume(id, rand.New(rand.NewPCG(c.w.seed, uint64(me)))) })
		}
	}
}

func (c *checker) end() {
	close(c.stop)
	c.clients.Wait()
}

func (c *checker) going(d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-c.stop:
		return false
	}
}

// leader is where a client with this image goes.
func (c *checker) leader(id commitlog.TopicPartition, img *metadata.Image) (*Partition, int32) {
	p, ok := img.Partition(id.Topic, id.Partition)
	if !ok || p.Leader == metadata.NoLeader {
		return nil, 0
	}
	m := c.w.nodes[p.Leader-1].manager()
	if m == nil {
		return nil, 0
	}
	r, err := m.Partition(id.Topic, id.Partition)
	if err != nil {
		return nil, 0
	}
	return r, p.LeaderEpoch
}

// guess is an image that a client may have: the newest, or what some broker thinks.
func (c *checker) guess(dice *rand.Rand) *metadata.Image {
	n := dice.IntN(brokers + 1)
	if n < brokers {
		if m := c.w.nodes[n].manager(); m != nil && m.image.Load() != nil {
			return m.image.Load()
		}
	}
	return c.w.image()
}

// produce writes one record after the other, each until it is acknowledged, with sequence numbers.
func (c *checker) produce(id commitlog.TopicPartition, producer int64, pause time.Duration) {
	dice := rand.New(rand.NewPCG(c.w.seed, uint64(producer)*7))
	for sequence := int32(0); ; sequence++ {
		value := fmt.Sprintf("%v/%d/%d", id, producer, sequence)
		for tries := 0; ; tries++ {
			if !c.going(time.Duration(dice.Int64N(int64(pause))) + time.Duration(producer)) {
				return
			}
			if c.tryProduce(id, c.guess(dice), producer, sequence, value) {
				break
			}
		}
	}
}

func (c *checker) tryProduce(id commitlog.TopicPartition, img *metadata.Image, producer int64, sequence int32, value string) bool {
	p, _ := c.leader(id, img)
	if p == nil {
		return false
	}
	b := batch.NewBuilder(batch.BuilderOptions{})
	b.SetProducer(producer, 0, sequence, false)
	b.Append(time.Now().UnixMilli(), []byte("k"), []byte(value), nil)
	built, err := b.Build()
	if err != nil {
		panic("BUG: " + err.Error())
	}
	epoch, err := p.LeaderEpoch(-1)
	if err != nil || epoch < c.newest(id, epoch) {
		return false // as clients, which never go back to a leader of an earlier epoch (KIP-320)
	}
	a, err := p.Append(built, true, time.Now().UnixMilli())
	if err == nil && sequence%16 == 15 { // the process was held up before it could look
		<-time.After(time.Duration(1+a.Next%40) * 100 * time.Millisecond)
	}
	if errors.Is(err, commitlog.ErrOutOfOrderSequence) {
		c.w.fail("%v: sequence %d is refused by a leader in epoch %d: %v", id, sequence, epoch, err)
	}
	if err == nil {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		err = p.AwaitCommitted(ctx, a.Next, a.LeaderEpoch)
	}
	if err != nil {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	h := c.mu.partitions[id]
	if other, ok := h.acked[a.First]; ok && other != value {
		c.w.fail("%v: offset %d was acknowledged for %s and for %s", id, a.First, other, value)
	}
	h.acked[a.First] = value
	h.ackedIn[epoch] = max(h.ackedIn[epoch], a.First)
	return true
}

// litter writes now and then, in bursts, what nobody waits for, to whoever believes to lead: so there is always something
// that one replica has and others have not. It may be lost, and may not come twice.
func (c *checker) litter(id commitlog.TopicPartition, dice *rand.Rand) {
	for n := 0; c.going(time.Duration(dice.IntN(60_000_000)) + 7); n++ {
		p, _ := c.leader(id, c.guess(dice))
		for i := range 1 + dice.IntN(4) {
			if p == nil {
				break
			}
			b := batch.NewBuilder(batch.BuilderOptions{})
			b.Append(time.Now().UnixMilli(), []byte("k"), fmt.Appendf(nil, "%v litter %d.%d", id, n, i), nil)
			built, err := b.Build()
			if err != nil {
				panic("BUG: " + err.Error())
			}
			_, _ = p.Append(built, false, time.Now().UnixMilli())
		}
	}
}

// newest is the highest leader epoch that a client of the partition has met.
func (c *checker) newest(id commitlog.TopicPartition, epoch int32) int32 {
	c.mu.Lock()
	defer c.mu.Unlock()
	h := c.mu.partitions[id]
	h.epoch = max(h.epoch, epoch)
	return h.epoch
}

// consume reads whatever readers may read, from wherever it is led.
func (c *checker) consume(id commitlog.TopicPartition, dice *rand.Rand) {
	position := int64(0)
	for c.going(time.Duration(5+dice.IntN(30))*time.Millisecond + time.Duration(dice.IntN(1000))) {
		p, _ := c.leader(id, c.guess(dice))
		if dice.IntN(4) == 0 { // a near follower
			if m := c.w.nodes[dice.IntN(brokers)].manager(); m != nil {
				p, _ = m.Partition(id.Topic, id.Partition)
			}
		}
		if p == nil {
			continue
		}
		epoch, leads := p.LeaderEpoch(-1)
		r, err := p.ReadHere(position, c.newest(id, epoch), 1<<20, true, ReadUncommitted)
		if errors.Is(err, ErrOffsetOutOfRange) {
			c.w.fail("%v: a reader at %d is out of range: %+v", id, position, r.Progress)
		}
		if err != nil {
			continue
		}
		data, err := r.Records.AppendTo(nil)
		if err = errors.Join(err, r.Records.Close()); err != nil {
			continue
		}
		now, _ := p.LeaderEpoch(-1)
		c.mu.Lock()
		h := c.mu.partitions[id]
		if leads == nil && now == epoch {
			if h.marks[epoch] > r.Progress.HighWatermark {
				c.w.fail("%v: the watermark fell from %d to %d in epoch %d", id, h.marks[epoch], r.Progress.HighWatermark, epoch)
			}
			h.marks[epoch] = r.Progress.HighWatermark
		}
		for offset, value := range c.valuesIn(data) {
			if before, ok := h.read[offset]; ok && before != value {
				c.w.fail("%v: offset %d was read as %s and as %s", id, offset, before, value)
			}
			h.read[offset] = value
			position = max(position, offset+1)
		}
		c.mu.Unlock()
		if dice.IntN(20) == 0 {
			position = dice.Int64N(position + 1)
		}
	}
}

// valuesIn decodes the records of batches, by offset.
func (c *checker) valuesIn(data []byte) map[int64]string {
	values := map[int64]string{}
	for len(data) > 0 {
		b, rest, err := batch.Next(data)
		if err != nil {
			panic("BUG: " + err.Error())
		}
		data = rest
		for r, err := range c.batches.Records(b) {
			if err != nil {
				panic("BUG: " + err.Error())
			}
			values[b.BaseOffset()+int64(r.OffsetDelta)] = string(r.Value)
		}
	}
	return values
}

// verdict compares everything, once all replicas are whole and nobody writes.
func (c *checker) verdict() {
	for id, h := range c.mu.partitions {
		var first map[int64]string
		var end int64
		for _, n := range c.w.nodes {
			p, err := n.manager().Partition(id.Topic, id.Partition)
			if err != nil {
				c.w.fail("%v on node %d: %v", id, n.id, err)
				continue
			}
			log := c.contents(p)
			at := p.Progress()
			if first == nil {
				first, end = log, at.End
				continue
			}
			if at.End != end {
				c.w.fail("%v: node %d ends at %d, node 1 at %d", id, n.id, at.End, end)
			}
			for offset, value := range first {
				if log[offset] != value {
					c.w.fail("%v: offset %d is %s on node 1 and %s on node %d", id, offset, value, log[offset], n.id)
					break
				}
			}
		}
		c.compare(id, h, first)
	}
}

func (c *checker) compare(id commitlog.TopicPartition, h *history, log map[int64]string) {
	lost := 0
	for offset, value := range h.acked {
		if log[offset] != value {
			if lost++; lost <= 3 {
				c.w.fail("%v: acknowledged %s at %d, found %q", id, value, offset, log[offset])
			}
		}
	}
	for offset, value := range h.read {
		if log[offset] != value {
			c.w.fail("%v: read %s at %d, found %q", id, value, offset, log[offset])
			break
		}
	}
	places := map[string]int64{}
	for offset, value := range log {
		if other, twice := places[value]; twice {
			c.w.fail("%v: %s is at %d and at %d", id, value, offset, other)
		}
		places[value] = offset
	}
	if len(h.acked) == 0 {
		c.w.fail("%v: nothing was acknowledged", id)
	}
}

// contents is everything in a replica's log.
func (c *checker) contents(p *Partition) map[int64]string {
	all := map[int64]string{}
	at := p.Progress()
	for from := at.Start; from < at.End; {
		r, err := p.log.Read(from, 1<<20, at.End, true)
		if err != nil {
			c.w.fail("%v: read at %d: %v", p.id, from, err)
			return all
		}
		data, err := r.AppendTo(nil)
		if err = errors.Join(err, r.Close()); err != nil || r.Next <= from {
			c.w.fail("%v: read at %d to %d: %v", p.id, from, r.Next, err)
			return all
		}
		for offset, value := range c.valuesIn(data) {
			all[offset] = value
		}
		from = r.Next
	}
	return all
}

func (c *checker) acknowledged() (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, h := range c.mu.partitions {
		n += len(h.acked)
	}
	return n
}
