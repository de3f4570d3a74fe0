package batch

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/bits"
)

// BuilderOptions say what kind of batch a Builder makes.
type BuilderOptions struct {
	Codec  Codec
	Levels Levels
	// Checker lends its compressors. Nil: the Builder makes its own where Codec needs one.
	Checker *Checker
	// BaseOffset and LeaderEpoch are for those who write logs; producers leave both 0 (Kafka wants a
	// producer's base offset to be 0, and the leader sets the epoch).
	BaseOffset  int64
	LeaderEpoch int32
	// Control marks a control batch.
	Control bool
	// ExpectedBytes is how large batches become that grow at all, uncompressed: memory for so much is made at once when
	// a batch has a quarter of it. 0: nothing is expected, and memory doubles.
	ExpectedBytes int
}

// Builder makes one batch from records, then, after Reset, another. It is not safe for concurrent use.
type Builder struct {
	options       BuilderOptions
	buf           []byte  // the batch, uncompressed, with room for its header
	summed        running // of the records, without a codec
	count         int32
	baseTimestamp int64
	maxTimestamp  int64
	producer      producer
}

type producer struct {
	id            int64
	epoch         int16
	baseSequence  int32
	transactional bool
}

// NewBuilder returns an empty Builder.
func NewBuilder(o BuilderOptions) *Builder {
	if o.Checker == nil && o.Codec != None {
		o.Checker = NewChecker()
	}
	b := &Builder{options: o}
	b.Reset()
	return b
}

// Reset makes the Builder empty again, without a producer and with the same options, keeping its memory.
func (b *Builder) Reset() {
	if b.buf == nil {
		b.buf = make([]byte, HeaderBytes, 512)
	}
	b.buf, b.count, b.maxTimestamp = b.buf[:HeaderBytes], 0, NoTimestamp
	b.summed = running{}
	b.producer = producer{id: NoProducerID, epoch: NoProducerEpoch, baseSequence: NoSequence}
}

// SetProducer makes the batch one of an idempotent or transactional producer. Any time before Build; Batch has
// the same for later.
func (b *Builder) SetProducer(id int64, epoch int16, baseSequence int32, transactional bool) {
	b.producer = producer{id, epoch, baseSequence, transactional}
}

// Append adds a record. Key, value and headers are copied. A nil key, value or header value is null (a header's
// key is then empty); NoTimestamp is allowed.
func (b *Builder) Append(timestampMs int64, key, value []byte, headers []Header) {
	if b.count == 0 {
		b.baseTimestamp, b.maxTimestamp = timestampMs, timestampMs
	}
	delta := timestampMs - b.baseTimestamp
	body := recordBytes(delta, b.count, key, value, headers)
	if need := varintBytes(int64(body)) + body; cap(b.buf)-len(b.buf) < need {
		b.grow(need)
	}
	p := binary.AppendVarint(b.buf, int64(body))
	p = append(p, 0) // attributes
	p = binary.AppendVarint(p, delta)
	p = binary.AppendVarint(p, int64(b.count))
	p = appendNullable(p, key)
	p = appendNullable(p, value)
	p = binary.AppendVarint(p, int64(len(headers)))
	for _, h := range headers {
		p = binary.AppendVarint(p, int64(len(h.Key)))
		p = append(p, h.Key...)
		p = appendNullable(p, h.Value)
	}
	b.buf = p
	b.count++
	b.maxTimestamp = max(b.maxTimestamp, timestampMs)
	if b.options.Codec == None {
		b.summed.follow(p[HeaderBytes:])
	}
}

// grow makes room for more bytes. append alone would copy a large batch four times over.
func (b *Builder) grow(more int) {
	size := len(b.buf) + max(more, len(b.buf))
	if expected := b.options.ExpectedBytes; len(b.buf) >= expected/4 {
		size = max(size, expected)
	}
	larger := make([]byte, len(b.buf), size)
	copy(larger, b.buf)
	b.buf = larger
}

// Count is how many records have been appended.
func (b *Builder) Count() int32 { return b.count }

// UncompressedSize is the size in bytes of the batch so far, header included, were it not compressed.
func (b *Builder) UncompressedSize() int { return len(b.buf) }

// Capacity is how many bytes of memory Reset keeps.
func (b *Builder) Capacity() int { return cap(b.buf) }

// SizeWith is what UncompressedSize would be after Append with the same arguments.
func (b *Builder) SizeWith(timestampMs int64, key, value []byte, headers []Header) int {
	delta := int64(0)
	if b.count > 0 {
		delta = timestampMs - b.baseTimestamp
	}
	body := recordBytes(delta, b.count, key, value, headers)
	return len(b.buf) + varintBytes(int64(body)) + body
}

// EstimatedSize is the size in bytes that the batch will have if it compresses to ratio (of compressed to
// uncompressed bytes; producers keep one per topic). Without a codec it is exact.
func (b *Builder) EstimatedSize(ratio float64) int {
	if b.options.Codec == None {
		return len(b.buf)
	}
	return HeaderBytes + int(float64(len(b.buf)-HeaderBytes)*ratio)
}

// Build returns the finished batch in memory of its own. The Builder stays as it is, to be Reset before the next
// batch. Errors: ErrEmpty when nothing was appended, ErrTooLarge when a length does not fit its field,
// ErrUnsupportedCodec.
func (b *Builder) Build() (Batch, error) {
	if err := b.check(); err != nil {
		return nil, err
	}
	payload := b.buf[HeaderBytes:]
	if b.options.Codec != None {
		k, err := b.options.Checker.borrowCompressor(b.options.Codec, b.options.Levels)
		if err != nil {
			return nil, err
		}
		defer b.options.Checker.giveBackCompressor(k)
		k.begin(math.MaxInt32 - HeaderBytes)
		if _, err := k.Write(payload); err != nil {
			return nil, err
		}
		if payload, err = k.finish(); err != nil {
			return nil, err
		}
	}
	made := make(Batch, HeaderBytes+len(payload))
	copy(made.payload(), payload)
	b.putHeader(made)
	made.updateCRC()
	return made, nil
}

// BuildInPlace is Build for a batch that is done with before the next Append or Reset: without a codec it lies in the
// Builder's own memory. Its header may be patched; building again writes it anew.
func (b *Builder) BuildInPlace() (Batch, error) {
	if b.options.Codec != None {
		return b.Build()
	}
	if err := b.check(); err != nil {
		return nil, err
	}
	made := Batch(b.buf)
	clear(made[:HeaderBytes])
	b.putHeader(made)
	if b.summed.bytes == 0 {
		made.updateCRC() // joining sums would cost more than so few bytes
	} else {
		made.joinCRC(b.summed.finish(made.payload()))
	}
	return made, nil
}

func (b *Builder) check() error {
	switch {
	case b.count == 0:
		return ErrEmpty
	case len(b.buf) > math.MaxInt32:
		return fmt.Errorf("%w: %d bytes", ErrTooLarge, len(b.buf))
	}
	return nil
}

// putHeader leaves only the checksum to be put.
func (b *Builder) putHeader(made Batch) {
	binary.BigEndian.PutUint32(made[lengthAt:], uint32(len(made)-lengthOverhead))
	made[magicAt] = magic
	made.Assign(b.options.BaseOffset, b.options.LeaderEpoch)
	made[attributesAt+1] = byte(b.options.Codec)
	if b.options.Control {
		made[attributesAt+1] |= controlFlag
	}
	binary.BigEndian.PutUint32(made[lastOffsetDeltaAt:], uint32(b.count-1))
	binary.BigEndian.PutUint64(made[baseTimestampAt:], uint64(b.baseTimestamp))
	binary.BigEndian.PutUint64(made[maxTimestampAt:], uint64(b.maxTimestamp))
	binary.BigEndian.PutUint32(made[countAt:], uint32(b.count))
	p := b.producer
	made.putProducer(p.id, p.epoch, p.baseSequence, p.transactional)
}

// recordBytes is the size of a record after its length.
func recordBytes(timestampDelta int64, offsetDelta int32, key, value []byte, headers []Header) int {
	n := 1 + varintBytes(timestampDelta) + varintBytes(int64(offsetDelta)) + nullableBytes(key) + nullableBytes(value) +
		varintBytes(int64(len(headers)))
	for _, h := range headers {
		n += varintBytes(int64(len(h.Key))) + len(h.Key) + nullableBytes(h.Value)
	}
	return n
}

func appendNullable(p, field []byte) []byte {
	if field == nil {
		return append(p, 1) // the varint -1
	}
	return append(binary.AppendVarint(p, int64(len(field))), field...)
}

func nullableBytes(field []byte) int {
	if field == nil {
		return 1
	}
	return varintBytes(int64(len(field))) + len(field)
}

func varintBytes(v int64) int {
	u := uint64(v)<<1 ^ uint64(v>>63)
	return (bits.Len64(u|1) + 6) / 7
}
