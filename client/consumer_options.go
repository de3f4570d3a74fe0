package client

import (
	"fmt"
	"math"
	"time"
)

// Position is where to start reading a partition: Earliest, Latest, AtOffset or AtTime.
type Position struct {
	kind   positionKind
	number int64 // an offset, or Unix ms
}

type positionKind int8

const (
	positionNone positionKind = iota
	positionEarliest
	positionLatest
	positionOffset
	positionTime
	positionCommitted // where the group has committed; its consumer finds out
)

var (
	// Earliest is the first record that the partition still has.
	Earliest = Position{kind: positionEarliest}
	// Latest is behind the last record, so that only what is written later is read.
	Latest = Position{kind: positionLatest}
)

// AtOffset is the record with that offset, or the first after it where there is none.
func AtOffset(offset int64) Position { return Position{positionOffset, offset} }

// AtTime is the first record whose timestamp is t or later, by the partition's order; where all
// are earlier it is Latest. Timestamps are in whole milliseconds.
func AtTime(t time.Time) Position { return Position{positionTime, t.UnixMilli()} }

// String gives the position as the command line writes it.
func (p Position) String() string {
	switch p.kind {
	case positionEarliest:
		return "earliest"
	case positionLatest:
		return "latest"
	case positionOffset:
		return fmt.Sprintf("offset %d", p.number)
	case positionTime:
		return time.UnixMilli(p.number).UTC().Format("2006-01-02T15:04:05.000Z")
	default:
		return "none"
	}
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
	reset        resetTo
	minBytes     int32
	maxBytes     int32
	maxWait      time.Duration
	maxPartition int32
	maxPoll      int
	isolation    Isolation
	checkCRCs    bool
}

func defaultConsumerConfig() consumerConfig {
	return consumerConfig{
		reset:        resetTo{to: Latest},
		minBytes:     1,
		maxBytes:     50 << 20,
		maxWait:      500 * time.Millisecond,
		maxPartition: 1 << 20,
		maxPoll:      500,
		checkCRCs:    true,
	}
}

// resetTo is auto.offset.reset.
type resetTo struct {
	to   Position // positionNone: report, or back is set
	back time.Duration
}

func (r resetTo) report() bool { return r.to.kind == positionNone && r.back == 0 }

func (r resetTo) position(now time.Time) Position {
	if r.back > 0 {
		return AtTime(now.Add(-r.back))
	}
	return r.to
}

// AutoOffsetReset says where to go on when a position lies outside what the partition has, for
// instance because it has expired, and where a group begins that has committed nothing: Earliest
// or Latest. Default Latest. Kafka: auto.offset.reset.
func AutoOffsetReset(to Position) ConsumerOption {
	return func(c *consumerConfig) error {
		if to.kind != positionEarliest && to.kind != positionLatest {
			return fmt.Errorf("auto.offset.reset: %v is neither earliest nor latest", to)
		}
		c.reset = resetTo{to: to}
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
		c.reset = resetTo{back: d}
		return nil
	}
}

// NoAutoOffsetReset lets Poll return ErrOffsetOutOfRange for a partition whose position lies
// outside what it has, and ErrNoOffset for one of which a group has committed nothing.
// Kafka: auto.offset.reset=none.
func NoAutoOffsetReset() ConsumerOption {
	return func(c *consumerConfig) error { c.reset = resetTo{}; return nil }
}

// FetchMinBytes is how much a broker gathers before it answers, as long as FetchMaxWait allows.
// Default 1. Kafka: fetch.min.bytes.
func FetchMinBytes(n int) ConsumerOption {
	return byteOption("fetch.min.bytes", n, func(c *consumerConfig) *int32 { return &c.minBytes })
}

// FetchMaxWait is how long a broker may wait for FetchMinBytes. Default 500 ms.
// Kafka: fetch.max.wait.ms.
func FetchMaxWait(d time.Duration) ConsumerOption {
	return func(c *consumerConfig) error {
		if d < 0 || d > math.MaxInt32*time.Millisecond {
			return fmt.Errorf("fetch.max.wait.ms: %v is out of range", d)
		}
		c.maxWait = d
		return nil
	}
}

// FetchMaxBytes bounds what a broker sends at once, and what this consumer keeps ahead of Poll. A
// batch that is larger alone comes nevertheless. Default 50 MiB. Kafka: fetch.max.bytes.
func FetchMaxBytes(n int) ConsumerOption {
	return byteOption("fetch.max.bytes", n, func(c *consumerConfig) *int32 { return &c.maxBytes })
}

// MaxPartitionFetchBytes bounds what a broker sends of one partition at once. A partition with
// that much waiting for Poll is not fetched from. A batch that is larger alone comes nevertheless.
// Default 1 MiB. Kafka: max.partition.fetch.bytes.
func MaxPartitionFetchBytes(n int) ConsumerOption {
	return byteOption("max.partition.fetch.bytes", n, func(c *consumerConfig) *int32 { return &c.maxPartition })
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

func byteOption(key string, n int, field func(*consumerConfig) *int32) ConsumerOption {
	return func(c *consumerConfig) error {
		if n < 0 || n > math.MaxInt32 {
			return fmt.Errorf("%s: %d is out of range", key, n)
		}
		*field(c) = int32(n)
		return nil
	}
}
