package batch

// BuilderOptions say what kind of batch a Builder makes.
type BuilderOptions struct {
	Codec  Codec
	Levels Levels
	// Checker lends its compressors. Nil: the Builder makes its own, if Codec needs one.
	Checker *Checker
	// BaseOffset and LeaderEpoch are for those who write logs; producers leave both 0 (Kafka wants a
	// producer's base offset to be 0, and the leader sets the epoch).
	BaseOffset  int64
	LeaderEpoch int32
	// Control marks a control batch.
	Control bool
}

// Builder makes one batch from records, then, after Reset, another. It is not safe for concurrent use.
type Builder struct {
	options BuilderOptions
}

// NewBuilder returns an empty Builder.
func NewBuilder(o BuilderOptions) *Builder { return &Builder{options: o} }

// SetProducer makes the batch one of an idempotent or transactional producer. Any time before Build.
func (b *Builder) SetProducer(id int64, epoch int16, baseSequence int32, transactional bool) {}

// Append adds a record. Key, value and headers are copied; nil is null; NoTimestamp is allowed.
func (b *Builder) Append(timestampMs int64, key, value []byte, headers []Header) {}

// Count is how many records have been appended.
func (b *Builder) Count() int32 { return 0 }

// UncompressedSize is the size in bytes of the batch so far, header included, were it not compressed.
func (b *Builder) UncompressedSize() int { return 0 }

// SizeWith is what UncompressedSize would be after Append with the same arguments.
func (b *Builder) SizeWith(timestampMs int64, key, value []byte, headers []Header) int { return 0 }

// EstimatedSize is the size in bytes that the batch will have if it compresses to ratio (of compressed to
// uncompressed bytes; producers keep one per topic). Without a codec it is exact.
func (b *Builder) EstimatedSize(ratio float64) int { return 0 }

// Build returns the finished batch in memory of its own. The Builder must be Reset before the next Append.
// It fails with ErrEmpty when nothing was appended and with ErrTooLarge when the batch does not fit an int32.
func (b *Builder) Build() (Batch, error) { return nil, ErrUnsupportedCodec }

// Reset makes the Builder empty again, with the same options, keeping its memory.
func (b *Builder) Reset() {}
