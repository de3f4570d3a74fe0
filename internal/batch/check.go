package batch

// Rules are what a topic demands of an incoming batch.
type Rules struct {
	// NowMs is the leader's time: the append time with LogAppendTime, and what the timestamp bounds count from.
	NowMs         int64
	TimestampType TimestampType // message.timestamp.type
	// MaxBeforeMs and MaxAfterMs bound how far a record's CreateTime may lie before or after NowMs
	// (message.timestamp.before.max.ms and after.max.ms). Neither applies to LogAppendTime.
	MaxBeforeMs, MaxAfterMs int64
	// RequireKeys refuses records without a key (compacted topics).
	RequireKeys bool
	// Internal: the batch comes from this process (a coordinator), so it may be a control batch.
	Internal bool
	// Codec is what the batch is to be stored with, unless KeepCodec says to store it as it came
	// (compression.type=producer).
	Codec     Codec
	KeepCodec bool
	Levels    Levels // for recompression
	// MaxBytes (max.message.bytes) bounds the batch as it comes and again after recompression: ErrTooLarge.
	// Zero or less: no bound.
	MaxBytes int
	// MaxDecompressedBytes bounds what the records may decompress to: ErrInflates. It bounds work, not
	// memory: records are decompressed piece by piece. Zero or less: DefaultMaxDecompressedBytes.
	MaxDecompressedBytes int
}

// DefaultMaxDecompressedBytes is the bound where Rules name none. Kafka has none; a batch of the default
// max.message.bytes cannot legitimately reach this one.
const DefaultMaxDecompressedBytes = 1 << 30

// Checked is an accepted batch.
type Checked struct {
	// Batch is the batch to store: the one that was checked, patched in place, or a new one where it had to be
	// recompressed. Offsets are still to be assigned.
	Batch   Batch
	Records int32
	// MaxTimestampMs is the largest timestamp, or with LogAppendTime the append time. NoTimestamp if none has one.
	MaxTimestampMs int64
	// OffsetOfMaxTimestamp is the offset delta of the first record with that timestamp, with LogAppendTime of
	// the last record; -1 where MaxTimestampMs is NoTimestamp.
	OffsetOfMaxTimestamp int32
	// AppendTimeMs is what a producer is told: the append time with LogAppendTime, otherwise -1.
	AppendTimeMs int64
}

// Checker checks, reads and compresses batches. It holds the decompressors and compressors that it reuses, which
// own no goroutines. Make one per node or client; it is safe for concurrent use.
type Checker struct{}

// NewChecker returns a Checker. Nothing is to be closed.
func NewChecker() *Checker { return &Checker{} }

// Check does to an incoming batch what Kafka's leader does: header sanity, CRC, record count against offset
// deltas, every record walked (decompressing), offset deltas 0..n-1, timestamps, keys. It recompresses where
// the topic's codec differs and applies LogAppendTime, in place when possible. b belongs to the Checker
// during the call and may have been patched even where it is refused.
//
// Errors: ErrCorrupt, ErrMagic, ErrTooLarge, ErrInflates, ErrUnsupportedCodec, *InvalidRecordsError.
func (c *Checker) Check(b Batch, r Rules) (Checked, error) { return Checked{}, ErrUnsupportedCodec }
