package client

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"barnabas/client/internal/accumulator"
	"barnabas/client/internal/cluster"
	"barnabas/internal/batch"
)

// Acks says which acknowledgement a producer waits for.
type Acks int16

// The values of Kafka's acks.
const (
	AcksAll    Acks = -1 // every in-sync replica has the record (and its disk, unless the topic says otherwise)
	AcksNone   Acks = 0  // nobody answers: offsets are unknown, losses go unnoticed
	AcksLeader Acks = 1  // the leader has written it
)

// ParseAcks reads a value of Kafka's acks: "all", "-1", "0" or "1".
func ParseAcks(s string) (Acks, error) {
	switch strings.ToLower(s) {
	case "all", "-1":
		return AcksAll, nil
	case "0":
		return AcksNone, nil
	case "1":
		return AcksLeader, nil
	}
	return 0, fmt.Errorf("acks: %q is none of all, -1, 0, 1", s)
}

// Codec is how a batch is compressed.
type Codec int8

// The values of Kafka's compression.type.
const (
	NoCompression Codec = Codec(batch.None)
	Gzip          Codec = Codec(batch.Gzip)
	Snappy        Codec = Codec(batch.Snappy)
	Lz4           Codec = Codec(batch.Lz4)
	Zstd          Codec = Codec(batch.Zstd)
)

// String gives the name in Kafka's compression.type.
func (c Codec) String() string { return batch.Codec(c).String() }

// ParseCodec reads a value of Kafka's compression.type: none, gzip, snappy, lz4 or zstd.
func ParseCodec(name string) (Codec, error) {
	c, err := batch.ParseCodec(name)
	if err != nil {
		return 0, fmt.Errorf("compression.type: %q is none of none, gzip, snappy, lz4, zstd", name)
	}
	return Codec(c), nil
}

// ProducerOption sets something of a Producer. Each names the Kafka setting that it stands for.
type ProducerOption func(*producerConfig) error

type producerConfig struct {
	acks               Acks
	codec              batch.Codec
	level              int // 0: the codec's own
	linger             time.Duration
	batchBytes         int
	requestBytes       int
	bufferBytes        int64
	maxBlock           time.Duration
	deliveryTimeout    time.Duration
	inFlight           int
	idempotent         bool
	idempotenceSet     bool
	partitioner        Partitioner
	spread             Spread
	adaptive           bool
	ignoreKeys         bool
	availability       time.Duration // 0: brokers count as available however slow they are
	whenFull           BufferFullPolicy
	transactionalID    string
	transactionTimeout time.Duration
}

const (
	defaultBatchBytes   = 16 << 10
	defaultRequestBytes = 1 << 20
	defaultBufferBytes  = 32 << 20

	// maxIdempotentInFlight is how many batches of a producer and partition a broker remembers to
	// recognise repetitions; with more in flight a repetition could be taken for something new.
	maxIdempotentInFlight = 5
)

func defaultProducerConfig() producerConfig {
	return producerConfig{
		acks:               AcksAll,
		linger:             5 * time.Millisecond,
		batchBytes:         defaultBatchBytes,
		requestBytes:       defaultRequestBytes,
		bufferBytes:        defaultBufferBytes,
		maxBlock:           time.Minute,
		deliveryTimeout:    2 * time.Minute,
		inFlight:           maxIdempotentInFlight,
		idempotent:         true,
		adaptive:           true,
		transactionTimeout: time.Minute,
	}
}

func (p *producerConfig) accumulator(c *Client) accumulator.Config {
	return accumulator.Config{
		BatchBytes: p.batchBytes, Linger: p.linger, DeliveryTimeout: p.deliveryTimeout, Idempotent: p.idempotent,
		Transactional: p.transactionalID != "",
		Codec:         p.codec, Levels: batch.Levels{Gzip: p.level, Lz4: p.level, Zstd: p.level}, Log: c.log,
		Backoff: func(failures int) time.Duration { return c.cfg.RetryBackoff.After(failures, c.random) },
	}
}

// levels are the lowest and the highest of each codec that has some.
var levels = map[batch.Codec][2]int{batch.Gzip: {1, 9}, batch.Lz4: {1, 17}, batch.Zstd: {-1 << 17, 22}}

// check refuses what does not fit together.
func (p *producerConfig) check(c *config) error {
	if p.acks != AcksAll || p.inFlight > maxIdempotentInFlight {
		if p.idempotent && p.idempotenceSet {
			return fmt.Errorf("enable.idempotence needs acks=all and max.in.flight.requests.per.connection of at most %d",
				maxIdempotentInFlight)
		}
		p.idempotent = false
	}
	if p.transactionalID != "" && !p.idempotent {
		return fmt.Errorf("transactional.id needs enable.idempotence, with acks=all and max.in.flight.requests.per.connection of at most %d",
			maxIdempotentInFlight)
	}
	if r, has := levels[p.codec]; p.level != 0 && !has {
		return fmt.Errorf("compression level %d: compression.type %v has no levels", p.level, p.codec)
	} else if p.level != 0 && (p.level < r[0] || p.level > r[1]) {
		return fmt.Errorf("compression.%v.level: %d is not between %d and %d", p.codec, p.level, r[0], r[1])
	}
	if least := p.linger + c.RequestTimeout; p.deliveryTimeout < least {
		return fmt.Errorf("delivery.timeout.ms (%v) must be at least linger.ms + request.timeout.ms (%v)",
			p.deliveryTimeout, least)
	}
	return nil
}

// WithAcks says whose acknowledgement counts. Default AcksAll. Other values than AcksAll switch
// idempotence off. Kafka: acks.
func WithAcks(a Acks) ProducerOption {
	return func(p *producerConfig) error {
		if a < AcksAll || a > AcksLeader {
			return fmt.Errorf("acks: %d is none of -1, 0, 1", a)
		}
		p.acks = a
		return nil
	}
}

// Compression says how batches are compressed. Default NoCompression. Kafka: compression.type.
func Compression(c Codec) ProducerOption {
	return func(p *producerConfig) error {
		if !batch.Codec(c).Known() {
			return fmt.Errorf("compression.type: %d is not a codec", c)
		}
		p.codec = batch.Codec(c)
		return nil
	}
}

// CompressionLevel sets the level of the codec chosen with Compression: gzip 1 to 9, lz4 1 to 17,
// zstd -131072 to 22; 0 is the codec's default. Other codecs have none. Kafka: compression.gzip.level and its siblings.
func CompressionLevel(level int) ProducerOption {
	return func(p *producerConfig) error {
		p.level = level
		return nil
	}
}

// Linger is how long a batch that is not full waits for further records. Default 5 ms; 0 sends as
// soon as the broker can be given another request. Kafka: linger.ms.
func Linger(d time.Duration) ProducerOption {
	return func(p *producerConfig) error {
		if d < 0 {
			return errors.New("linger.ms must not be negative")
		}
		p.linger = d
		return nil
	}
}

// BatchSize is how many bytes of records (before compression) make a batch full. A record that is
// larger is a batch of its own. Default 16 KiB. Kafka: batch.size.
func BatchSize(bytes int) ProducerOption {
	return func(p *producerConfig) error {
		if bytes < 0 || bytes > math.MaxInt32/2 {
			return fmt.Errorf("batch.size: %d is not between 0 and %d", bytes, math.MaxInt32/2)
		}
		p.batchBytes = bytes
		return nil
	}
}

// MaxRequestSize bounds a record and a request, in bytes before compression. Default 1 MiB.
// Kafka: max.request.size.
func MaxRequestSize(bytes int) ProducerOption {
	return func(p *producerConfig) error {
		if bytes < 1 || bytes > math.MaxInt32/2 {
			return fmt.Errorf("max.request.size: %d is not between 1 and %d", bytes, math.MaxInt32/2)
		}
		p.requestBytes = bytes
		return nil
	}
}

// BufferMemory bounds the bytes of records that were given to Send and whose callbacks have not
// run. At the limit Send waits, see MaxBlock. Default 32 MiB. Kafka: buffer.memory.
func BufferMemory(bytes int64) ProducerOption {
	return func(p *producerConfig) error {
		if bytes < 1 {
			return errors.New("buffer.memory must be above 0")
		}
		p.bufferBytes = bytes
		return nil
	}
}

// MaxBlock is how long Send may wait for metadata and for memory together. Default 1 minute; with
// 0 it never waits, and fails at once where it would have to. Kafka: max.block.ms.
func MaxBlock(d time.Duration) ProducerOption {
	return func(p *producerConfig) error {
		if d < 0 {
			return errors.New("max.block.ms must not be negative")
		}
		p.maxBlock = d
		return nil
	}
}

// DeliveryTimeout is how long after Send a record is tried for; then it fails with
// ErrDeliveryTimeout. It bounds retries, which have no number. Default 2 minutes; at least Linger
// and RequestTimeout together. Kafka: delivery.timeout.ms.
func DeliveryTimeout(d time.Duration) ProducerOption {
	return func(p *producerConfig) error { p.deliveryTimeout = d; return nil }
}

// MaxInFlight bounds the unanswered requests to a broker. Default and, with idempotence, most: 5.
// Kafka: max.in.flight.requests.per.connection.
func MaxInFlight(n int) ProducerOption {
	return func(p *producerConfig) error {
		if n < 1 || n > cluster.MaxInFlight {
			return fmt.Errorf("max.in.flight.requests.per.connection: %d is not between 1 and %d", n, cluster.MaxInFlight)
		}
		p.inFlight = n
		return nil
	}
}

// Idempotence gives every batch a sequence number, so that a retry neither writes it twice nor
// changes the order. Default true where acks and MaxInFlight allow it. Without it a retry can
// write a batch twice, and put it behind later ones unless MaxInFlight is 1.
// Kafka: enable.idempotence.
func Idempotence(on bool) ProducerOption {
	return func(p *producerConfig) error { p.idempotent, p.idempotenceSet = on, true; return nil }
}

// PartitionBy chooses the partition of records that name none, in place of KeyPartition and Spread.
// Kafka: partitioner.class.
func PartitionBy(chosen Partitioner) ProducerOption {
	return func(p *producerConfig) error {
		if chosen == nil {
			return errors.New("partitioner.class: the partitioner is nil")
		}
		p.partitioner = chosen
		return nil
	}
}

// SpreadBy says how records that name no partition and have no key are spread. Default
// SpreadInTurn. Kafka: partitioner.class; its default is SpreadUniformly.
func SpreadBy(s Spread) ProducerOption {
	return func(p *producerConfig) error {
		if s < SpreadInTurn || s > SpreadUniformly {
			return fmt.Errorf("spread: there is no way %d", s)
		}
		p.spread = s
		return nil
	}
}

// AdaptivePartitioning lets SpreadUniformly give less to partitions whose batches wait longer.
// Default true. Kafka: partitioner.adaptive.partitioning.enable.
func AdaptivePartitioning(on bool) ProducerOption {
	return func(p *producerConfig) error { p.adaptive = on; return nil }
}

// PartitionAvailabilityTimeout lets SpreadSticky and SpreadUniformly pass over the partitions of a
// broker that has neither taken nor answered anything for that long, although there was something. Default 0,
// which passes over none. Kafka: partitioner.availability.timeout.ms.
func PartitionAvailabilityTimeout(d time.Duration) ProducerOption {
	return func(p *producerConfig) error {
		if d < 0 {
			return errors.New("partitioner.availability.timeout.ms must not be negative")
		}
		p.availability = d
		return nil
	}
}

// IgnoreKeys spreads records with keys like those without. Default false. Kafka:
// partitioner.ignore.keys.
func IgnoreKeys(on bool) ProducerOption {
	return func(p *producerConfig) error { p.ignoreKeys = on; return nil }
}

// BufferFullPolicy is what Send does while BufferMemory is used up.
type BufferFullPolicy int8

// What Send may do while BufferMemory is used up.
const (
	FailAfterMaxBlock BufferFullPolicy = iota // wait for MaxBlock, then ErrBufferFull
	WaitWhenFull                              // wait until there is memory, however long, or ctx or Close ends it
	FailWhenFull                              // return ErrBufferFull at once; MaxBlock still counts for metadata
)

// WhenBufferFull says what Send does while BufferMemory is used up. Default FailAfterMaxBlock,
// which is what Kafka's producer does.
func WhenBufferFull(policy BufferFullPolicy) ProducerOption {
	return func(p *producerConfig) error {
		if policy < FailAfterMaxBlock || policy > FailWhenFull {
			return fmt.Errorf("buffer full: there is no policy %d", policy)
		}
		p.whenFull = policy
		return nil
	}
}

// TransactionalID makes a producer whose records belong to transactions, see InitTransactions. One
// producer at a time uses an id: whoever initialises it later fences the one before. Kafka:
// transactional.id.
func TransactionalID(id string) ProducerOption {
	return func(p *producerConfig) error {
		if id == "" {
			return errors.New("transactional.id is empty")
		}
		p.transactionalID = id
		return nil
	}
}

// TransactionTimeout is after how long the coordinator aborts a transaction that is still open, and
// fences its producer. Default 1 minute, at most what the brokers allow
// (transaction.max.timeout.ms, 15 minutes). Kafka: transaction.timeout.ms.
func TransactionTimeout(d time.Duration) ProducerOption {
	return func(p *producerConfig) error {
		if d < time.Millisecond || d.Milliseconds() > math.MaxInt32 {
			return fmt.Errorf("transaction.timeout.ms: %v is not between 1 ms and %d ms", d, math.MaxInt32)
		}
		p.transactionTimeout = d
		return nil
	}
}
