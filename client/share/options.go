package share

import (
	"fmt"
	"math"
	"time"
)

// Option sets something of a Consumer. Each names the Kafka setting that it stands for.
type Option func(*config) error

type config struct {
	explicit        bool
	recordLimit     bool
	maxPoll         int
	minBytes        int32
	maxBytes        int32
	maxWait         time.Duration
	checkCRCs       bool
	rack            string
	maxPollInterval time.Duration
	onAcknowledged  func([]Result)
}

func defaultConfig() config {
	return config{
		maxPoll: 500, minBytes: 1, maxBytes: 50 << 20, maxWait: 500 * time.Millisecond, checkCRCs: true,
		maxPollInterval: 5 * time.Minute,
	}
}

// Explicit has the program acknowledge each record, before the next Poll. Default: every record of
// a Poll is accepted by the Poll after it, or by Commit; Close accepts nothing.
// Kafka: share.acknowledgement.mode=explicit, default implicit.
func Explicit() Option { return func(c *config) error { c.explicit = true; return nil } }

// RecordLimit has brokers acquire no more than MaxPollRecords (KIP-1206). They are asked for records one
// after another, and what a Poll does not return is not acquired, at the price of smaller answers.
// Default: brokers acquire whole batches, so that more may be held than one Poll returns, and all of them
// are asked at once; the next calls of Poll return the rest. Brokers before Apache Kafka 4.2 do that in any case.
// Kafka: share.acquire.mode=record_limit, default batch_optimized.
func RecordLimit() Option { return func(c *config) error { c.recordLimit = true; return nil } }

// MaxPollRecords bounds what one Poll returns, and is how many records brokers are asked to acquire
// at once. Default 500. Kafka: max.poll.records.
func MaxPollRecords(n int) Option {
	return func(c *config) error {
		if n < 1 || n > math.MaxInt32 {
			return fmt.Errorf("max.poll.records: %d is out of range", n)
		}
		c.maxPoll = n
		return nil
	}
}

// FetchMinBytes is how much a broker gathers before it answers, as long as FetchMaxWait allows.
// Default 1. Kafka: fetch.min.bytes.
func FetchMinBytes(n int) Option {
	return bytesOption("fetch.min.bytes", n, func(c *config) *int32 { return &c.minBytes })
}

// FetchMaxBytes bounds what a broker sends at once; a batch that is larger alone comes nevertheless. With several
// brokers so much of each may wait for Poll. Default 50 MiB. Kafka: fetch.max.bytes.
func FetchMaxBytes(n int) Option {
	return bytesOption("fetch.max.bytes", n, func(c *config) *int32 { return &c.maxBytes })
}

// FetchMaxWait is how long a broker may wait for FetchMinBytes. Acknowledgements for the same broker wait
// as long, since a session has one request under way. Default 500 ms. Kafka: fetch.max.wait.ms.
func FetchMaxWait(d time.Duration) Option {
	return func(c *config) error {
		if d < 0 || d > math.MaxInt32*time.Millisecond {
			return fmt.Errorf("fetch.max.wait.ms: %v is out of range", d)
		}
		c.maxWait = d
		return nil
	}
}

// CheckCRCs says whether the checksum of every batch is verified. Default true. Kafka: check.crcs.
func CheckCRCs(check bool) Option {
	return func(c *config) error { c.checkCRCs = check; return nil }
}

// Rack is where this consumer runs, which the group's assignor may look at. Default: none. Kafka: client.rack.
func Rack(rack string) Option { return func(c *config) error { c.rack = rack; return nil } }

// MaxPollInterval is how long a program may stay away from Poll before its member leaves the group, so that
// others read its partitions; the next Poll joins again. Records that it holds are not affected: their
// locks count. Default 5 minutes. Kafka: max.poll.interval.ms.
func MaxPollInterval(d time.Duration) Option {
	return func(c *config) error {
		if d < time.Millisecond || d > math.MaxInt32*time.Millisecond {
			return fmt.Errorf("max.poll.interval.ms: %v is out of range", d)
		}
		c.maxPollInterval = d
		return nil
	}
}

// OnAcknowledged is called with what became of acknowledgements: inside of Poll, Commit and Close, on
// their goroutines, for as long as some of them are called; f must call none of them. What Commit returns
// it is told, too. Default: nothing is told, and refused acknowledgements are logged.
// Kafka: setAcknowledgementCommitCallback.
func OnAcknowledged(f func([]Result)) Option {
	return func(c *config) error { c.onAcknowledged = f; return nil }
}

func bytesOption(key string, n int, field func(*config) *int32) Option {
	return func(c *config) error {
		if n < 0 || n > math.MaxInt32 {
			return fmt.Errorf("%s: %d is out of range", key, n)
		}
		*field(c) = int32(n)
		return nil
	}
}
