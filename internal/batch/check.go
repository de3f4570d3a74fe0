package batch

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"sync"
)

// Rules are what a topic demands of an incoming batch.
type Rules struct {
	// NowMs is the leader's time: the append time with LogAppendTime, and what the timestamp bounds count from.
	NowMs         int64
	TimestampType TimestampType // message.timestamp.type
	// MaxBeforeMs and MaxAfterMs bound how far a record's CreateTime may lie before or after NowMs
	// (message.timestamp.before.max.ms and after.max.ms; math.MaxInt64 is no bound). Neither applies to
	// LogAppendTime nor to records without a timestamp.
	MaxBeforeMs, MaxAfterMs int64
	// RequireKeys refuses records without a key (compacted topics).
	RequireKeys bool
	// Internal: the batch comes from this process (a coordinator), so it may be a control batch, and what only
	// producers must respect is not asked for (base offset 0, a sequence with every producer id).
	Internal bool
	// Codec is what the batch is to be stored with, unless KeepCodec says to store it as it came
	// (compression.type=producer). A control batch that is not compressed stays so.
	Codec     Codec
	KeepCodec bool
	Levels    Levels // for recompression
	// MaxBytes (max.message.bytes) bounds the batch as it comes and again after recompression: ErrTooLarge.
	// Zero or less: no bound.
	MaxBytes int
	// MaxDecompressedBytes bounds what the records may decompress to: ErrInflates. It bounds work rather than
	// memory, since records are decompressed piece by piece. Zero or less: DefaultMaxDecompressedBytes.
	MaxDecompressedBytes int
}

// DefaultMaxDecompressedBytes is the bound where Rules name none, and a bound that no Rules can exceed. Kafka has
// none. A batch of the default max.message.bytes (1 MiB) reaches it only at a ratio of 1:1000.
const DefaultMaxDecompressedBytes = 1 << 30

// Checked is an accepted batch.
type Checked struct {
	// Batch is the batch to store: the one that was checked, patched in place, or a new one where it had to be
	// recompressed. Its offsets are still to be assigned.
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
// own no goroutines. Make one per node or client; it is safe for concurrent use. Its zero value is ready.
type Checker struct {
	scratches   [codecs]sync.Pool         // of *scratch
	compressors [codecs][speeds]sync.Pool // of *compressor
}

// NewChecker returns a Checker. Nothing is to be closed.
func NewChecker() *Checker { return &Checker{} }

var errTrailing = errors.New("bytes follow the last record")

// Check does to an incoming batch what Kafka's leader does (its LogValidator): header sanity, CRC, record count
// against offset deltas, every record walked (decompressing), timestamps, keys. It recompresses where the topic's
// codec differs, and sets max timestamp and timestamp type, in place when possible: a batch that is stored as it
// came costs no allocation, and its records are not copied. b belongs to the Checker during the call; a batch
// that is refused is unchanged.
//
// It is stricter than Kafka in what would make others stumble later. The records' offset deltas must be 0, 1, 2 and
// so on, where Kafka stores any in an uncompressed batch and fails on a compressed one. A record's length must be
// exact and a null's length -1, also in a compressed batch, and nothing may follow the compressed stream. In a batch
// that claims LogAppendTime, the timestamp bounds apply to what the records say.
//
// Errors: ErrCorrupt, ErrMagic, ErrTooLarge, ErrInflates, ErrUnsupportedCodec, *InvalidRecordsError.
func (c *Checker) Check(b Batch, r Rules) (Checked, error) {
	if err := checkHeader(b, &r); err != nil {
		return Checked{}, err
	}
	target := r.Codec
	if r.KeepCodec || b.IsControl() && b.Codec() == None {
		target = b.Codec()
	}
	k := newWalk(b, &r)
	checked := Checked{Batch: b, Records: b.Count(), AppendTimeMs: -1}
	if target == b.Codec() {
		if err := c.pass(b, &k, r.decompressedLimit(), nil); err != nil {
			return Checked{}, err
		}
	} else {
		var err error
		if checked.Batch, err = c.recompress(b, &k, target, &r); err != nil {
			return Checked{}, err
		}
	}
	checked.MaxTimestampMs, checked.OffsetOfMaxTimestamp = k.maxTimestamp, k.maxDelta
	if r.TimestampType == LogAppendTime {
		checked.MaxTimestampMs, checked.OffsetOfMaxTimestamp = r.NowMs, b.LastOffsetDelta()
		checked.AppendTimeMs = r.NowMs
	}
	checked.Batch.setTimestamps(r.TimestampType, checked.MaxTimestampMs)
	return checked, nil
}

func (r *Rules) decompressedLimit() int64 {
	if r.MaxDecompressedBytes <= 0 {
		return DefaultMaxDecompressedBytes
	}
	return min(int64(r.MaxDecompressedBytes), DefaultMaxDecompressedBytes)
}

// checkHeader decides all that can be decided without looking at the records.
func checkHeader(b Batch, r *Rules) error {
	if len(b) < HeaderBytes {
		return fmt.Errorf("%w: %d bytes are less than a header", ErrCorrupt, len(b))
	}
	if _, err := FrameBytes(b); err != nil {
		return err
	}
	if !r.Internal && b.BaseOffset() != 0 {
		return invalid("base offset is %d, producers must send 0", b.BaseOffset())
	}
	if r.MaxBytes > 0 && len(b) > r.MaxBytes {
		return fmt.Errorf("%w: %d bytes where at most %d are allowed", ErrTooLarge, len(b), r.MaxBytes)
	}
	if err := b.CheckCRC(); err != nil {
		return err
	}
	if !b.Codec().Known() {
		return fmt.Errorf("%w: %s", ErrUnsupportedCodec, b.Codec())
	}
	if !r.KeepCodec && !r.Codec.Known() {
		return fmt.Errorf("%w: the rules ask for %s", ErrUnsupportedCodec, r.Codec)
	}
	count, span := int64(b.Count()), int64(b.LastOffsetDelta())+1
	switch {
	case span <= 0:
		return invalid("last offset delta is %d", b.LastOffsetDelta())
	case count <= 0:
		return invalid("record count is %d", count)
	case count != span:
		return invalid("record count is %d, but the offsets make room for %d", count, span)
	case r.Internal:
		return nil
	case b.IsControl():
		return invalid("clients cannot write control records")
	case b.ProducerID() >= 0 && b.BaseSequence() < 0:
		return invalid("sequence number is %d with producer id %d", b.BaseSequence(), b.ProducerID())
	}
	return nil
}

// pass walks the records of b and gives what was decompressed to tee, if there is one.
func (c *Checker) pass(b Batch, k *walk, limit int64, tee *compressor) error {
	s, err := c.borrow(b.Codec())
	if err != nil {
		return err
	}
	defer c.giveBack(s)
	if tee == nil {
		err = s.begin(b, limit, nil)
	} else {
		err = s.begin(b, limit, tee)
	}
	if err == nil {
		err = k.run(&s.window, b.Count())
	}
	switch {
	case err == nil:
		return k.verdict()
	case errors.Is(err, errShort), errors.Is(err, errMalformed), errors.Is(err, errTrailing):
		return invalid("%s", err)
	}
	return fmt.Errorf("check a batch of %d bytes: %w", len(b), err)
}

// recompress walks b and returns a new batch with the same records in another codec. Record bytes stay as they
// are, so base timestamp and deltas do too.
func (c *Checker) recompress(b Batch, k *walk, target Codec, r *Rules) (Batch, error) {
	out, err := c.borrowCompressor(target, r.Levels)
	if err != nil {
		return nil, err
	}
	defer c.giveBackCompressor(out)
	limit := int64(math.MaxInt32 - HeaderBytes)
	if r.MaxBytes > 0 {
		limit = max(0, min(limit, int64(r.MaxBytes)-HeaderBytes))
	}
	out.begin(limit)
	if b.Codec() == None {
		if err := c.pass(b, k, r.decompressedLimit(), nil); err != nil {
			return nil, err
		}
		if _, err := out.Write(b.payload()); err != nil {
			return nil, err
		}
	} else if err := c.pass(b, k, r.decompressedLimit(), out); err != nil {
		return nil, err
	}
	payload, err := out.finish()
	if err != nil {
		return nil, err
	}
	made := make(Batch, HeaderBytes+len(payload))
	copy(made, b[:HeaderBytes])
	copy(made.payload(), payload)
	binary.BigEndian.PutUint32(made[lengthAt:], uint32(len(made)-lengthOverhead))
	made[attributesAt+1] = made[attributesAt+1]&^codecMask | byte(target)
	made.updateCRC()
	return made, nil
}
