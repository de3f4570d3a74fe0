// Package batch knows what a Kafka record batch (magic 2) is, as the bytes that travel from socket
// to segment to socket. It frames, checks, patches, iterates, recompresses and builds batches, and
// decides whether a leader may accept one. Any package may call it. It refuses to know topics,
// partitions, requests, files, producer state and the clock: those come in as arguments or stay out.
//
// The layout is that of Kafka's DefaultRecordBatch (KIP-98): a header of 61 bytes, then the records,
// compressed together or not at all. All integers are big-endian.
package batch

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"
)

// Batch is one record batch (magic 2) as it travels: exactly its own length, header first. Methods read
// and patch the bytes in place. The accessors also work on a Batch that holds no more than the first
// HeaderBytes bytes; on fewer they panic. Next and Check establish what the accessors take for granted.
type Batch []byte

// Where the header's fields lie. The checksum covers everything from the attributes on, so base offset,
// length, leader epoch and magic can be patched without touching it.
const (
	baseOffsetAt      = 0
	lengthAt          = 8
	leaderEpochAt     = 12
	magicAt           = 16
	crcAt             = 17
	attributesAt      = 21
	lastOffsetDeltaAt = 23
	baseTimestampAt   = 27
	maxTimestampAt    = 35
	producerIDAt      = 43
	producerEpochAt   = 51
	baseSequenceAt    = 53
	countAt           = 57

	// HeaderBytes is the size of a batch's header, and of a batch without records.
	HeaderBytes = 61
	// PrefixBytes is how much of a batch FrameBytes needs: up to and including the magic byte.
	PrefixBytes = 17

	// lengthOverhead is what the length field leaves out: base offset and the field itself.
	lengthOverhead = 12

	magic = 2
)

// What a field holds where there is nothing to say.
const (
	NoProducerID    int64 = -1
	NoProducerEpoch int16 = -1
	NoSequence      int32 = -1
	NoTimestamp     int64 = -1
	NoLeaderEpoch   int32 = -1
)

const (
	codecMask         = 0x07
	logAppendTimeFlag = 0x08
	transactionalFlag = 0x10
	controlFlag       = 0x20
	deleteHorizonFlag = 0x40
)

// TimestampType says what a record's timestamp means.
type TimestampType int8

const (
	// CreateTime is the time that the producer gave each record.
	CreateTime TimestampType = 0
	// LogAppendTime is the leader's time of the append, one for the whole batch (its max timestamp).
	LogAppendTime TimestampType = 1
)

// String returns Kafka's name, as message.timestamp.type has it.
func (t TimestampType) String() string {
	if t == LogAppendTime {
		return "LogAppendTime"
	}
	return "CreateTime"
}

// ParseTimestampType reads a value of message.timestamp.type.
func ParseTimestampType(name string) (TimestampType, error) {
	switch name {
	case "CreateTime":
		return CreateTime, nil
	case "LogAppendTime":
		return LogAppendTime, nil
	}
	return 0, fmt.Errorf("timestamp type %q: allowed are CreateTime and LogAppendTime", name)
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// FrameBytes returns the size of the batch that begins with prefix, header included, from its first
// PrefixBytes bytes. It returns ErrIncomplete for a shorter prefix, ErrMagic for the message formats 0 and 1,
// and ErrCorrupt for any other magic and for a length that cannot hold a header.
func FrameBytes(prefix []byte) (int64, error) {
	if len(prefix) < PrefixBytes {
		return 0, ErrIncomplete
	}
	switch m := prefix[magicAt]; m {
	case magic:
	case 0, 1:
		return 0, fmt.Errorf("%w: magic %d", ErrMagic, m)
	default:
		return 0, fmt.Errorf("%w: magic %d", ErrCorrupt, m)
	}
	size := int64(int32(binary.BigEndian.Uint32(prefix[lengthAt:]))) + lengthOverhead
	if size < HeaderBytes {
		return 0, fmt.Errorf("%w: length of %d bytes is less than a header", ErrCorrupt, size)
	}
	return size, nil
}

// Next frames the first batch of buf and returns it (its capacity is its length) and what follows. Only
// length and magic are looked at: bytes that matter need CheckCRC or Check. It returns ErrIncomplete where buf
// ends inside the batch (or is empty), otherwise the errors of FrameBytes. The batch aliases buf.
func Next(buf []byte) (b Batch, rest []byte, err error) {
	size, err := FrameBytes(buf)
	if err != nil {
		return nil, buf, err
	}
	if size > int64(len(buf)) {
		return nil, buf, ErrIncomplete
	}
	return Batch(buf[:size:size]), buf[size:], nil
}

// CheckCRC compares the batch's bytes with its checksum (CRC-32C) and returns an error that wraps ErrCorrupt
// where they differ, or where the batch is not exactly as long as it says.
func (b Batch) CheckCRC() error {
	if len(b) < HeaderBytes {
		return fmt.Errorf("%w: %d bytes are less than a header", ErrCorrupt, len(b))
	}
	if b.Size() != int64(len(b)) {
		return fmt.Errorf("%w: batch of %d bytes says it has %d", ErrCorrupt, len(b), b.Size())
	}
	if want, got := b.CRC(), b.computeCRC(); want != got {
		return fmt.Errorf("%w: checksum is %08x, the bytes give %08x", ErrCorrupt, want, got)
	}
	return nil
}

func (b Batch) computeCRC() uint32 { return crc32.Checksum(b[attributesAt:], castagnoli) }

func (b Batch) updateCRC() { binary.BigEndian.PutUint32(b[crcAt:], b.computeCRC()) }

// joinCRC is updateCRC where the checksum of the payload is known.
func (b Batch) joinCRC(payload uint32) {
	header := crc32.Checksum(b[attributesAt:HeaderBytes], castagnoli)
	binary.BigEndian.PutUint32(b[crcAt:], joinedSum(header, payload, len(b)-HeaderBytes))
}

// BaseOffset is the offset that record deltas count from. Producers send 0.
func (b Batch) BaseOffset() int64 { return int64(binary.BigEndian.Uint64(b[baseOffsetAt:])) }

// LastOffset is the offset of the batch's last record, also where compaction has removed that record.
func (b Batch) LastOffset() int64 { return b.BaseOffset() + int64(b.LastOffsetDelta()) }

// NextOffset is the offset after the batch.
func (b Batch) NextOffset() int64 { return b.LastOffset() + 1 }

// Size is the batch's size in bytes as its length field has it, header included.
func (b Batch) Size() int64 {
	return int64(int32(binary.BigEndian.Uint32(b[lengthAt:]))) + lengthOverhead
}

// LeaderEpoch is the epoch of the leader that appended the batch.
func (b Batch) LeaderEpoch() int32 { return int32(binary.BigEndian.Uint32(b[leaderEpochAt:])) }

// Magic is 2 in everything that Next returns.
func (b Batch) Magic() int8 { return int8(b[magicAt]) }

// CRC is the stored checksum; CheckCRC compares it.
func (b Batch) CRC() uint32 { return binary.BigEndian.Uint32(b[crcAt:]) }

// Attributes are the batch's flags, as they are.
func (b Batch) Attributes() int16 { return int16(binary.BigEndian.Uint16(b[attributesAt:])) }

// Codec is how the records are compressed. It may be a value without a name (5 to 7).
func (b Batch) Codec() Codec { return Codec(b[attributesAt+1] & codecMask) }

// TimestampType says what the records' timestamps mean.
func (b Batch) TimestampType() TimestampType {
	if b[attributesAt+1]&logAppendTimeFlag != 0 {
		return LogAppendTime
	}
	return CreateTime
}

// IsTransactional says whether the records count only once a marker commits them.
func (b Batch) IsTransactional() bool { return b[attributesAt+1]&transactionalFlag != 0 }

// IsControl says whether the batch holds a control record (see ParseControl) instead of data.
func (b Batch) IsControl() bool { return b[attributesAt+1]&controlFlag != 0 }

// DeleteHorizon returns the time (ms) from which compaction may drop the batch's tombstones and markers, and
// whether compaction has set one (KIP-534). It then lies where the base timestamp was.
func (b Batch) DeleteHorizon() (ms int64, ok bool) {
	return b.BaseTimestamp(), b[attributesAt+1]&deleteHorizonFlag != 0
}

// LastOffsetDelta is the last offset minus the base offset.
func (b Batch) LastOffsetDelta() int32 { return int32(binary.BigEndian.Uint32(b[lastOffsetDeltaAt:])) }

// BaseTimestamp (ms) is what the records' timestamp deltas count from.
func (b Batch) BaseTimestamp() int64 { return int64(binary.BigEndian.Uint64(b[baseTimestampAt:])) }

// MaxTimestamp (ms) is the largest timestamp of the records, or with LogAppendTime that of all of them.
func (b Batch) MaxTimestamp() int64 { return int64(binary.BigEndian.Uint64(b[maxTimestampAt:])) }

// ProducerID is the idempotent producer's id, or NoProducerID.
func (b Batch) ProducerID() int64 { return int64(binary.BigEndian.Uint64(b[producerIDAt:])) }

// ProducerEpoch is the epoch of ProducerID.
func (b Batch) ProducerEpoch() int16 { return int16(binary.BigEndian.Uint16(b[producerEpochAt:])) }

// BaseSequence is the sequence number of the first record, or NoSequence.
func (b Batch) BaseSequence() int32 { return int32(binary.BigEndian.Uint32(b[baseSequenceAt:])) }

// LastSequence is the sequence number of the last record, or NoSequence.
func (b Batch) LastSequence() int32 {
	base := b.BaseSequence()
	if base == NoSequence {
		return NoSequence
	}
	return AddSequence(base, b.LastOffsetDelta())
}

// Count is how many records the batch holds: after compaction fewer than its offsets.
func (b Batch) Count() int32 { return int32(binary.BigEndian.Uint32(b[countAt:])) }

// payload is the records, compressed or not.
func (b Batch) payload() []byte { return b[HeaderBytes:] }

// AddSequence returns the sequence number n records after sequence. After the largest int32 comes 0.
func AddSequence(sequence, n int32) int32 {
	return int32((int64(sequence) + int64(n)) & math.MaxInt32)
}

// Assign sets base offset and leader epoch. The checksum stays valid: it covers only the bytes from the
// attributes on.
func (b Batch) Assign(base int64, leaderEpoch int32) {
	binary.BigEndian.PutUint64(b[baseOffsetAt:], uint64(base))
	binary.BigEndian.PutUint32(b[leaderEpochAt:], uint32(leaderEpoch))
}

// SetLogAppendTime makes the batch one of LogAppendTime with the given time (ms) and renews the checksum.
func (b Batch) SetLogAppendTime(ms int64) { b.setTimestamps(LogAppendTime, ms) }

// SetMaxTimestamp sets the largest timestamp (ms) and renews the checksum. The batch becomes one of CreateTime.
func (b Batch) SetMaxTimestamp(ms int64) { b.setTimestamps(CreateTime, ms) }

func (b Batch) setTimestamps(t TimestampType, maxMs int64) {
	if b.TimestampType() == t && b.MaxTimestamp() == maxMs {
		return // the usual case: what the producer sent is right, and the checksum need not be computed again
	}
	b[attributesAt+1] &^= logAppendTimeFlag
	if t == LogAppendTime {
		b[attributesAt+1] |= logAppendTimeFlag
	}
	binary.BigEndian.PutUint64(b[maxTimestampAt:], uint64(maxMs))
	b.updateCRC()
}

// SetProducer sets what an idempotent producer says of the batch and renews the checksum. Producers know their
// sequence only when a batch is sent, and both change when an epoch is bumped before a retry.
func (b Batch) SetProducer(id int64, epoch int16, baseSequence int32, transactional bool) {
	b.putProducer(id, epoch, baseSequence, transactional)
	b.updateCRC()
}

func (b Batch) putProducer(id int64, epoch int16, baseSequence int32, transactional bool) {
	binary.BigEndian.PutUint64(b[producerIDAt:], uint64(id))
	binary.BigEndian.PutUint16(b[producerEpochAt:], uint16(epoch))
	binary.BigEndian.PutUint32(b[baseSequenceAt:], uint32(baseSequence))
	b[attributesAt+1] &^= transactionalFlag
	if transactional {
		b[attributesAt+1] |= transactionalFlag
	}
}
