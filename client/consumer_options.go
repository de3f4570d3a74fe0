package client

import (
	"fmt"
	"math"
	"time"

	"barnabas/client/internal/prefetch"
)

// Position is where to start reading a partition: Earliest, Latest, AtOffset or AtTime.
type Position struct{ start prefetch.Start }

var (
	// Earliest is the first record that the partition still has.
	Earliest = Position{prefetch.Start{Kind: prefetch.Earliest}}
	// Latest is behind the last record, so that only what is written later is read.
	Latest = Position{prefetch.Start{Kind: prefetch.Latest}}
)

// AtOffset is the record with that offset, or the first after it where there is none.
func AtOffset(offset int64) Position {
	return Position{prefetch.Start{Kind: prefetch.Offset, Number: offset}}
}

// AtTime is the first record whose timestamp is t or later, by the partition's order; where all
// are earlier it is Latest. Timestamps are in whole milliseconds.
func AtTime(t time.Time) Position {
	return Position{prefetch.Start{Kind: prefetch.Time, Number: t.UnixMilli()}}
}

// String gives the position as the command line writes it.
func (p Position) String() string { return p.start.String() }

func (p Position) check(tp TopicPartition) error {
	if p.start.Kind == prefetch.Known || p.start.Kind == prefetch.Offset && p.start.Number < 0 {
		return &PartitionError{tp, fmt.Errorf("cannot start at %v: %w", p, ErrOffsetOutOfRange)}
	}
	return nil
}

// Isolation says whether records of transactions that are not, or not yet, committed are read.
type Isolation int8

// The values of Kafka's isolation.level.
const (
	ReadUncommitted Isolation = 0
	ReadCommitted   Isolation = 1
)

// ConsumerOption sets something of a Consumer. Each names the Kafka setting that it stands for.
type ConsumerOption func(*consumerConfig) error

type consumerConfig struct {
	reset        prefetch.Reset
	minBytes     int32
	maxBytes     int32
	maxWait      time.Duration
	maxPartition int32
	maxPoll      int
	isolation    Isolation
	checkCRCs    bool
	rack         string

	group, groupInstance string // for metrics that are pushed; "" where there is none
}

func defaultConsumerConfig() consumerConfig {
	return consumerConfig{
		reset:        prefetch.Reset{To: prefetch.Latest},
		minBytes:     1,
		maxBytes:     50 << 20,
		maxWait:      500 * time.Millisecond,
		maxPartition: 1 << 20,
		maxPoll:      500,
		checkCRCs:    true,
	}
}

// AutoOffsetReset says where to go on when a position lies outside what the partition has, for
// instance because it has expired, and where a group begins that has committed nothing: Earliest
// or Latest. Default Latest. Kafka: auto.offset.reset.
func AutoOffsetReset(to Position) ConsumerOption {
	return func(c *consumerConfig) error {
		if to != Earliest && to != Latest {
			return fmt.Errorf("auto.offset.reset: %v is neither earliest nor latest", to)
		}
		c.reset = prefetch.Reset{To: to.start.Kind}
		return nil
	}
}

// AutoOffsetResetBack is AutoOffsetReset to the first record that is at most as old as d.
// Kafka: auto.offset.reset=by_duration:… (KIP-1106).
func AutoOffsetResetBack(d time.Duration) ConsumerOption {
	return func(c *consumerConfig) error {
		if d <= 0 {
			return fmt.Errorf("auto.offset.reset: a duration of %v is not above 0", d)
		}
		c.reset = prefetch.Reset{Back: d}
		return nil
	}
}

// NoAutoOffsetReset lets Poll return ErrOffsetOutOfRange for a partition whose position lies
// outside what it has, and ErrNoOffset for one of which a group has committed nothing.
// Kafka: auto.offset.reset=none.
func NoAutoOffsetReset() ConsumerOption {
	return func(c *consumerConfig) error { c.reset = prefetch.Reset{}; return nil }
}

// FetchMinBytes is how much a broker gathers before it answers, as long as FetchMaxWait allows.
// Default 1. Kafka: fetch.min.bytes.
func FetchMinBytes(n int) ConsumerOption {
	return byteOption("fetch.min.bytes", n, 0, func(c *consumerConfig) *int32 { return &c.minBytes })
}

// FetchMaxWait is how long a broker may wait for FetchMinBytes. Default 500 ms.
// Kafka: fetch.max.wait.ms.
func FetchMaxWait(d time.Duration) ConsumerOption {
	return func(c *consumerConfig) error {
		if d < 0 || d > math.MaxInt32*time.Millisecond {
			return fmt.Errorf("fetch.max.wait.ms: %v is not between 0 and %v", d, math.MaxInt32*time.Millisecond)
		}
		c.maxWait = d
		return nil
	}
}

// FetchMaxBytes bounds what a broker sends at once, and what this consumer keeps ahead of Poll. A
// batch that is larger alone comes nevertheless. Default 50 MiB. Kafka: fetch.max.bytes.
func FetchMaxBytes(n int) ConsumerOption {
	return byteOption("fetch.max.bytes", n, 1, func(c *consumerConfig) *int32 { return &c.maxBytes })
}

// MaxPartitionFetchBytes bounds what a broker sends of one partition at once. A partition with
// that much waiting for Poll is not fetched from. A batch that is larger alone comes nevertheless.
// Default 1 MiB. Kafka: max.partition.fetch.bytes.
func MaxPartitionFetchBytes(n int) ConsumerOption {
	return byteOption("max.partition.fetch.bytes", n, 1, func(c *consumerConfig) *int32 { return &c.maxPartition })
}

// MaxPollRecords bounds what one Poll returns. Default 500. Kafka: max.poll.records.
func MaxPollRecords(n int) ConsumerOption {
	return func(c *consumerConfig) error {
		if n < 1 {
			return fmt.Errorf("max.poll.records: %d is less than 1", n)
		}
		c.maxPoll = n
		return nil
	}
}

// IsolationLevel says whether records of uncommitted transactions are read. Default
// ReadUncommitted. Kafka: isolation.level.
func IsolationLevel(i Isolation) ConsumerOption {
	return func(c *consumerConfig) error {
		if i != ReadUncommitted && i != ReadCommitted {
			return fmt.Errorf("isolation.level: %d is neither 0 nor 1", i)
		}
		c.isolation = i
		return nil
	}
}

// CheckCRCs says whether the checksum of every batch is verified. Default true. Kafka: check.crcs.
func CheckCRCs(check bool) ConsumerOption {
	return func(c *consumerConfig) error { c.checkCRCs = check; return nil }
}

// Rack is where this consumer runs, as the brokers' broker.rack says it. Where the brokers have a
// replica.selector.class that looks at racks, records come from a replica nearby instead of the
// leader (KIP-392). In a group RangeAssignor, and the brokers' own assignors, prefer partitions with
// a replica there. Default: none. Kafka: client.rack.
func Rack(rack string) ConsumerOption {
	return func(c *consumerConfig) error { c.rack = rack; return nil }
}

func byteOption(key string, n, least int, field func(*consumerConfig) *int32) ConsumerOption {
	return func(c *consumerConfig) error {
		if n < least || n > math.MaxInt32 {
			return fmt.Errorf("%s: %d is not between %d and %d", key, n, least, math.MaxInt32)
		}
		*field(c) = int32(n)
		return nil
	}
}
