package sim

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"barnabas/internal/batch"
)

// consumer follows one partition from its start, and notes all that it sees. Some have a rack, and go to the replica there
// that the leader names (KIP-392).
type consumer struct {
	*guest
	place   Place
	rack    string
	checker *batch.Checker
	next    int64
	nearest int32 // the replica to read from; 0: the leader
	again   int   // answers until it reads some of the partition once more
}

const (
	longPoll    = 700 * time.Millisecond
	fetchBytes  = 1 << 16
	rereadEvery = 30 // answers
	endEvery    = 9  // answers
)

func (r *Run) consumer(place Place, rack string) *consumer {
	c := &consumer{guest: r.guest(fmt.Sprintf("consumer-%s-%d", place.Topic, place.Partition)), place: place, rack: rack, checker: batch.NewChecker()}
	c.again = 1 + c.dice.IntN(rereadEvery)
	return c
}

func (c *consumer) consume(ctx context.Context) {
	defer c.close()
	for ctx.Err() == nil {
		err := c.read(ctx)
		if err == nil && c.dice.IntN(endEvery) == 0 {
			err = c.askEnd(ctx)
		}
		if err != nil {
			delete(c.leads, c.place)
			c.nearest = 0
			c.rest(ctx, 30*time.Millisecond)
			continue
		}
		if c.again--; c.again == 0 && c.next > 0 {
			c.next, c.again = c.dice.Int64N(c.next), 1+c.dice.IntN(rereadEvery)
		}
		c.rest(ctx, 10*time.Millisecond) // lets records gather, so that there are fewer fetches
	}
}

// read is one fetch.
func (c *consumer) read(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, callPatience)
	defer cancel()
	leader, err := c.leader(ctx, c.place)
	if err != nil {
		return err
	}
	from, epoch := leader.node, leader.epoch
	if c.nearest != 0 {
		from = c.nearest
	}
	asked := c.r.history.Now()
	q := question{place: c.place, epoch: epoch, from: c.next, rack: c.rack, wait: longPoll, most: int32(fetchBytes/4 + c.dice.IntN(fetchBytes))}
	got, err := c.fetch(ctx, from, q)
	if errors.Is(err, kerr.OffsetOutOfRange) && c.nearest == 0 {
		return c.outOfRange(ctx, leader)
	}
	if err != nil {
		return err
	}
	if got.PreferredReadReplica > 0 && got.PreferredReadReplica != from {
		c.nearest = got.PreferredReadReplica
		return nil
	}
	records, next, err := decode(c.checker, got.RecordBatches, c.next)
	if err != nil {
		c.r.met(damagedRead)
		c.next = next
		return err
	}
	c.r.history.Read(asked, Read{
		Place: c.place, Reader: c.host, Node: from, Follower: from != leader.node, LeaderEpoch: epoch, From: c.next,
		Records: records, Watermark: got.HighWatermark, LogStart: got.LogStartOffset,
	})
	if len(records) > 0 {
		c.r.Trace(c.host, "read %d to %d", c.next, next)
	}
	if from != leader.node {
		c.r.met(followerRead)
	}
	c.next = next
	return nil
}

// outOfRange: the log may end before what this consumer has read, where losses are allowed. It asks where.
func (c *consumer) outOfRange(ctx context.Context, leader leads) error {
	end, err := c.end(ctx, c.place, leader)
	if err == nil {
		c.next = min(c.next, end)
	}
	return err
}

func (c *consumer) askEnd(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, callPatience)
	defer cancel()
	leader, err := c.leader(ctx, c.place)
	if err == nil {
		_, err = c.end(ctx, c.place, leader)
	}
	return err
}
