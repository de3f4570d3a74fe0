package commitlog

import (
	"errors"
	"fmt"
	"math"
	"strconv"

	"barnabas/internal/batch"
	"barnabas/internal/commitlog/producer"
	"barnabas/internal/commitlog/segment"
)

// TopicPartition names a log.
type TopicPartition struct {
	Topic     string
	Partition int32
}

// String is Kafka's form, which is also the name of the log's directory: "orders-3".
func (tp TopicPartition) String() string {
	return tp.Topic + "-" + strconv.FormatInt(int64(tp.Partition), 10)
}

// Config holds the effective settings of one log under Kafka's names. Start from DefaultConfig: zero is a value.
type Config struct {
	SegmentBytes       int32 // segment.bytes: roll before the segment outgrows this
	IndexMaxBytes      int32 // segment.index.bytes: roll when an index is this large
	IndexIntervalBytes int32 // index.interval.bytes: at most about this much is scanned to find an offset
	SegmentMs          int64 // segment.ms: roll when the first batch is this old
	SegmentJitterMs    int64 // segment.jitter.ms: up to so much earlier, by chance, so that logs do not roll together
	RetentionBytes     int64 // retention.bytes: -1 is no limit
	RetentionMs        int64 // retention.ms: -1 is no limit
	Delete, Compact    bool  // cleanup.policy
	// FlushBeforeAck: every append schedules a flush. Otherwise only FlushMessages and FlushMs do, as in Kafka.
	FlushBeforeAck    bool
	FlushMessages     int64 // flush.messages: an append that brings so many unflushed records returns after the flush
	FlushMs           int64 // flush.ms: nothing stays unflushed longer than this
	FileDeleteDelayMs int64 // file.delete.delay.ms: from renaming to removing a file
	// Preallocate gives every new segment its whole space at once (preallocate), and keeps ReserveBytes beyond it:
	// when the disk is too full to roll, the log goes on in that space, and only then answers ErrNoSpace.
	Preallocate     bool
	ReserveBytes    int64
	MaxMessageBytes int32 // max.message.bytes

	TimestampType                             batch.TimestampType
	TimestampBeforeMaxMs, TimestampAfterMaxMs int64
	Codec                                     batch.Codec
	KeepCodec                                 bool // compression.type=producer
	Levels                                    batch.Levels
	DeleteRetentionMs                         int64
	MinCompactionLagMs, MaxCompactionLagMs    int64
	MinCleanableRatio                         float64
}

// DefaultConfig returns Kafka's defaults, durable.
func DefaultConfig() Config {
	return Config{
		SegmentBytes: 1 << 30, IndexMaxBytes: 10 << 20, IndexIntervalBytes: 4096,
		SegmentMs: 7 * 24 * 3600_000, RetentionBytes: -1, RetentionMs: 7 * 24 * 3600_000, Delete: true,
		FlushBeforeAck: true, FlushMessages: math.MaxInt64, FlushMs: math.MaxInt64, FileDeleteDelayMs: 60_000,
		MaxMessageBytes: 1<<20 + 12, TimestampBeforeMaxMs: math.MaxInt64, TimestampAfterMaxMs: 3600_000, KeepCodec: true,
		DeleteRetentionMs: 24 * 3600_000, MaxCompactionLagMs: math.MaxInt64, MinCleanableRatio: 0.5,
	}
}

// limits are those of one segment.
func (c *Config) limits() segment.Limits {
	ms := c.SegmentMs
	if c.Compact && c.MaxCompactionLagMs > 0 { // the active segment is not compacted
		ms = min(ms, c.MaxCompactionLagMs)
	}
	return segment.Limits{Bytes: c.SegmentBytes, IndexBytes: c.IndexMaxBytes, Ms: ms}
}

// What a caller can decide upon. Everything else is an error of the disk: the append or read did not happen.
var (
	// ErrOffline: the data directory has failed and refuses everything.
	ErrOffline = errors.New("data directory is offline")
	// ErrNoSpace: the disk is full. Nothing was written; a later append may succeed.
	ErrNoSpace = errors.New("no space left in data directory")
	// ErrExhausted is ErrNoSpace too: the process has no file descriptors left. Nothing was written, and nothing is wrong
	// with the disk.
	ErrExhausted = fmt.Errorf("file descriptors are used up (%w)", ErrNoSpace)
	// ErrOutOfRange: the offset lies before the start or past the end of what may be read, or an append does not
	// begin at the log's end.
	ErrOutOfRange = errors.New("offset out of range")
	// ErrCorrupt: the stored bytes are not what was written. Nothing from that batch on is served.
	ErrCorrupt = segment.ErrCorrupt
	// ErrOutOfOrderSequence: not the sequence that follows the producer's last one.
	ErrOutOfOrderSequence = producer.ErrOutOfOrderSequence
	// ErrInvalidProducerEpoch: the producer id has been seen with a higher epoch.
	ErrInvalidProducerEpoch = producer.ErrInvalidEpoch
	// ErrInvalidTransactionState: a batch outside of a transaction from a producer that has one open.
	ErrInvalidTransactionState = producer.ErrInvalidTransactionState
	// ErrCoordinatorFenced: a transaction marker from a coordinator that has been replaced.
	ErrCoordinatorFenced = producer.ErrCoordinatorFenced
	// ErrLargerThanSegment: the batch does not fit into an empty segment.
	ErrLargerThanSegment = errors.New("batch is larger than a segment")
	// ErrClosed: the log has been removed, or its directory closed.
	ErrClosed = errors.New("log is closed")
	// ErrEpochOver: a batch of a leader's whose epoch has ended; a later one has begun in the log.
	ErrEpochOver = errors.New("leader epoch is over")
	// ErrTopicID: the directory's log of that name belongs to another topic, deleted and made again.
	ErrTopicID = errors.New("log belongs to another topic of this name")
)
