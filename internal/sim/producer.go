package sim

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/internal/batch"
	"barnabas/internal/clustertest"
)

// producer writes to one partition, in bursts, as an idempotent producer does: it numbers its batches, has up to window
// of them under way, and repeats each until it has an answer.
type producer struct {
	*guest
	place  Place
	acks   int16
	window int

	id       int64 // -1: none yet
	sequence int32 // of the next record under this id
	serial   int   // of the next record ever
	open     []made
	started  bool      // something was acknowledged under this id
	left     int       // batches of this burst
	refused  time.Time // since when the next batch is refused as out of order; zero: it is not
}

// made is a batch that is not acknowledged.
type made struct {
	sequence int32
	values   []string
}

// sequencesHold is the name of what a producer itself finds wrong.
const sequencesHold = "sequences hold"

const (
	burstMost    = 24 // batches
	recordsMost  = 14 // of a batch
	betweenBurst = 1300 * time.Millisecond
	refusalLasts = 30 * time.Second // of one by who leads: longer than anybody is cut off
)

func (r *Run) producer(place Place, acks int16) *producer {
	g := r.guest(fmt.Sprintf("producer-%s-%d", place.Topic, place.Partition))
	return &producer{guest: g, place: place, acks: acks, window: 1 + g.dice.IntN(4), id: -1}
}

// produce goes on until the guests are asked to go, and then until it has all its answers, or the world ends.
func (p *producer) produce(world, guests context.Context) {
	defer p.close()
	for world.Err() == nil {
		if p.id < 0 && !p.introduce(world) {
			continue
		}
		for guests.Err() == nil && p.left > 0 && (len(p.open) == 0 || p.started && len(p.open) < p.window) {
			p.make()
		}
		if len(p.open) > 0 {
			p.send(world)
			continue
		}
		if !p.rest(guests, betweenBurst) {
			return
		}
		p.left = 1 + p.dice.IntN(burstMost)
	}
}

func (p *producer) make() {
	m := made{sequence: p.sequence}
	for range 1 + p.dice.IntN(recordsMost) {
		m.values = append(m.values, fmt.Sprintf("%s-%d/%06d", p.place.Topic, p.place.Partition, p.serial))
		p.serial++
	}
	p.sequence += int32(len(m.values))
	p.open = append(p.open, m)
	p.left--
}

// introduce gets an id.
func (p *producer) introduce(ctx context.Context) bool {
	calling, cancel := context.WithTimeout(ctx, callPatience)
	defer cancel()
	from := p.anyone()
	c, err := p.at(calling, from)
	if err == nil {
		var id int64
		if id, err = c.ProducerID(calling); err == nil {
			p.id, p.sequence, p.started = id, 0, false
			for i := range p.open {
				p.open[i].sequence = p.sequence
				p.sequence += int32(len(p.open[i].values))
			}
			return true
		}
		p.broken(from, err)
	}
	p.rest(ctx, 20*time.Millisecond)
	return false
}

// send sends all open batches, in order, and takes the answers as far as they are good.
func (p *producer) send(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, callPatience)
	defer cancel()
	to, err := p.leader(ctx, p.place)
	var c *clustertest.Client
	if err == nil {
		c, err = p.at(ctx, to.node)
	}
	if err != nil {
		p.stumble(ctx)
		return
	}
	count := len(p.open)
	if !p.started {
		count = 1 // who is not known may begin anywhere, so the second must not come first
	}
	var under []underWay
	for _, m := range p.open[:count] {
		u := underWay{m: m, noted: p.r.history.Attempt(Attempt{
			Place: p.place, Client: p.host, Node: to.node, Acks: p.acks, Producer: p.id, Sequence: m.sequence, Values: m.values,
		})}
		u.answer, err = clustertest.Start(ctx, c, clustertest.ProduceRequest(p.acks, p.place.Topic, p.place.Partition, p.batch(m)))
		if err != nil {
			u.noted.End(-1, err)
			break
		}
		under = append(under, u)
	}
	p.take(ctx, to.node, under, err)
}

// underWay is a batch that was sent.
type underWay struct {
	m      made
	noted  *Attempt
	answer *clustertest.Pending
}

// take waits for the answers. What is not acknowledged stays open, in order.
func (p *producer) take(ctx context.Context, node int32, under []underWay, failed error) {
	var still []made
	sent := len(under)
	for i, u := range under {
		offset := int64(-1)
		res, err := clustertest.Wait[*kmsg.ProduceResponse](ctx, u.answer)
		if err == nil {
			var got kmsg.ProduceResponseTopicPartition
			got, err = clustertest.Produced(res)
			offset = got.BaseOffset
		}
		u.noted.End(offset, err)
		if err == nil {
			p.started, p.refused = true, time.Time{}
			p.r.Trace(p.host, "acknowledged %d at %d", u.m.sequence, offset)
			continue
		}
		p.broken(node, err)
		if i == 0 && p.forgotten(err) {
			return
		}
		still, failed = append(still, u.m), err
	}
	p.open = append(still, p.open[sent:]...)
	if failed != nil {
		p.broken(node, failed)
		p.stumble(ctx)
	}
}

// forgotten: what the cluster knew of this producer is lost. With acks=all that must not be, for what it has acknowledged
// is lost then too; with acks=1 the producer begins again under another id, without what was open: it may be there.
func (p *producer) forgotten(err error) bool {
	for _, lost := range []error{kerr.OutOfOrderSequenceNumber, kerr.InvalidProducerEpoch, kerr.DuplicateSequenceNumber, kerr.UnknownProducerID} {
		if !errors.Is(err, lost) {
			continue
		}
		if p.acks != 1 {
			if p.refused.IsZero() {
				p.refused = time.Now()
			}
			// One that was deposed and has not heard of it may say so, since a produce request names no leader epoch.
			if time.Since(p.refused) < refusalLasts {
				return false
			}
			p.r.complain(sequencesHold, "%s: the batch from %d on is refused, and all before it is acknowledged: %v", p.host, p.open[0].sequence, err)
		}
		p.id, p.open = -1, nil
		return true
	}
	return false
}

func (p *producer) batch(m made) batch.Batch {
	b := batch.NewBuilder(batch.BuilderOptions{})
	for _, v := range m.values {
		b.Append(time.Now().UnixMilli(), nil, []byte(v), nil)
	}
	b.SetProducer(p.id, 0, m.sequence, false)
	built, err := b.Build()
	if err != nil {
		panic(fmt.Sprintf("BUG: build a batch: %v", err))
	}
	return built
}

func (p *producer) stumble(ctx context.Context) {
	delete(p.leads, p.place)
	p.rest(ctx, 15*time.Millisecond)
}
