package batch

import (
	"bytes"
	"errors"
	"fmt"
	"iter"
	"math"
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
	Key   []byte // never null
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
// with an error is the last one: ErrCorrupt, ErrUnsupportedCodec, ErrInflates past DefaultMaxDecompressedBytes.
// A record of a compressed batch is valid until the next step; one of an uncompressed batch is a view on b, and lasts as long as
// b's bytes do. Records of a control batch come too (see ParseControl).
func (c *Checker) Records(b Batch) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		s, err := c.borrow(b.Codec())
		if err != nil {
			yield(Record{}, err)
			return
		}
		defer c.giveBack(s)
		if err := s.begin(b, DefaultMaxDecompressedBytes, nil); err != nil {
			yield(Record{}, err)
			return
		}
		for i := range b.Count() {
			if err := s.next(); err != nil {
				yield(Record{}, unreadable(b, i, err))
				return
			}
			if !yield(s.record, nil) {
				return
			}
		}
		if done, err := s.window.atEnd(); err != nil || !done {
			yield(Record{}, unreadable(b, b.Count(), err))
		}
	}
}

// unreadable tells where reading a stored batch failed. Whatever is wrong with one, it is corrupt.
func unreadable(b Batch, i int32, err error) error {
	switch {
	case err == nil:
		return fmt.Errorf("%w at offset %d: bytes follow the last record", ErrCorrupt, b.BaseOffset())
	case errors.Is(err, ErrCorrupt), errors.Is(err, ErrInflates):
		return fmt.Errorf("batch at offset %d, record %d: %w", b.BaseOffset(), i, err)
	}
	return fmt.Errorf("%w at offset %d: record %d: %w", ErrCorrupt, b.BaseOffset(), i, err)
}

// next reads the next record into s.record, which stays valid until the next call.
func (s *scratch) next() error {
	w := &s.window
	for {
		size, at := varint32(w.buf, w.at)
		if at > len(w.buf) && len(w.buf)-w.at >= maxVarint32Bytes {
			return errMalformed
		}
		if at <= len(w.buf) {
			if size < 0 {
				return errMalformed
			}
			if int(size) <= len(w.buf)-at {
				w.at = at + int(size)
				return s.record.parse(w.buf[at:w.at:w.at])
			}
		}
		if err := w.more(); err != nil {
			return err
		}
	}
}

// parse reads what follows a record's length.
func (r *Record) parse(p []byte) error {
	if len(p) == 0 {
		return errMalformed
	}
	r.Attributes = int8(p[0])
	at := 1
	r.TimestampDelta, at = varint(p, at)
	r.OffsetDelta, at = varint32(p, at)
	r.Key, at = nullable(p, at)
	r.Value, at = nullable(p, at)
	headers, at := varint32(p, at)
	r.Headers = r.Headers[:0]
	for range headers {
		if at > len(p) { // also keeps a count out of thin air from costing more than the bytes that are there
			return errMalformed
		}
		var h Header
		if h.Key, at = nullable(p, at); h.Key == nil {
			return errMalformed
		}
		h.Value, at = nullable(p, at)
		r.Headers = append(r.Headers, h)
	}
	if at != len(p) || headers < 0 {
		return errMalformed
	}
	return nil
}

// nullable reads a length and that many bytes, which for an empty field are not nil. Where they are not there it
// returns a place past the end.
func nullable(p []byte, at int) ([]byte, int) {
	n, at := varint32(p, at)
	switch {
	case at > len(p) || n < -1 || int(n) > len(p)-at:
		return nil, len(p) + 1
	case n == -1:
		return nil, at
	}
	end := at + int(n)
	return p[at:end:end], end
}

// glance is what Check wants to know of a record.
type glance struct {
	timestampDelta int64
	offsetDelta    int32
	hasKey         bool
}

// scan checks the structure of the record at the beginning of p. It returns the record's bytes, or 0 where p
// does not hold all of it, or -1 where the record is malformed. This is the broker's innermost loop: it reads
// the usual record, no field of which needs more than two bytes of varint and which has no headers, and leaves
// all others, malformed ones among them, to scanAny.
func scan(p []byte) (g glance, size int) {
	if len(p) < shortHeadBytes {
		return scanAny(p)
	}
	body, at := short(p, 0)
	end := at + int(body>>1)
	timestamp, at := short(p, at+1) // past the attributes, which mean nothing
	offset, at := short(p, at)
	key, at := short(p, at)
	if key != shortNull {
		at += int(key >> 1)
	}
	if at+1 >= len(p) {
		return scanAny(p)
	}
	value, at := short(p, at)
	if value != shortNull {
		at += int(value >> 1)
	}
	// A varint of more than two bytes shows in bit 14, a negative length in bit 0.
	if (body|timestamp|offset|key|value)>>14 != 0 || body&1 != 0 || key&1 != 0 && key != shortNull ||
		value&1 != 0 && value != shortNull || at+1 != end || at >= len(p) || p[at] != 0 {
		return scanAny(p)
	}
	return glance{int64(unzig(timestamp)), int32(unzig(offset)), key != shortNull}, end
}

const (
	// shortHeadBytes is how far scan may look before it knows a length: five fields and the attributes.
	shortHeadBytes = 9
	shortNull      = 1 // the length -1
)

// short reads a varint of one or two bytes. Of a longer one it leaves bit 14 set.
func short(p []byte, at int) (uint, int) {
	v := uint(p[at])
	if v < 0x80 {
		return v, at + 1
	}
	return v&0x7f | uint(p[at+1])<<7, at + 2
}

func unzig(u uint) int { return int(u>>1) ^ -int(u&1) }

// scanAny is scan for any record.
func scanAny(p []byte) (g glance, size int) {
	body, at := varint32(p, 0)
	if at > len(p) {
		if len(p) >= maxVarint32Bytes {
			return g, -1
		}
		return g, 0
	}
	if body < 1 {
		return g, -1
	}
	if int(body) > len(p)-at {
		return g, 0
	}
	p = p[:at+int(body)]
	g.timestampDelta, at = varint(p, at+1)
	g.offsetDelta, at = varint32(p, at)
	g.hasKey, at = skipNullable(p, at)
	_, at = skipNullable(p, at)
	headers, at := varint32(p, at)
	if at = skipHeaders(p, at, headers); at != len(p) {
		return g, -1
	}
	return g, at
}

func skipNullable(p []byte, at int) (notNull bool, next int) {
	field, next := nullable(p, at)
	return field != nil, next
}

// skipHeaders returns the place after n headers, or one past the end of p where they are malformed.
func skipHeaders(p []byte, at int, n int32) int {
	if n < 0 {
		return len(p) + 1
	}
	for range n {
		if at >= len(p) {
			return len(p) + 1
		}
		var hasKey bool
		if hasKey, at = skipNullable(p, at); !hasKey {
			return len(p) + 1
		}
		_, at = skipNullable(p, at)
	}
	return at
}

const (
	maxVarintBytes   = 10
	maxVarint32Bytes = 5
)

// varint reads a zigzag varint of up to 64 bits at p[at:] and returns the place after it, which is past the end
// of p where p ends inside it, where it is too long, and where at is past the end already. That lets a caller read
// a row of fields and look at the place once.
func varint(p []byte, at int) (int64, int) {
	if at < len(p) && p[at] < 0x80 {
		return int64(p[at]>>1) ^ -int64(p[at]&1), at + 1
	}
	return longVarint(p, at)
}

func longVarint(p []byte, at int) (int64, int) {
	if at > len(p) {
		return 0, len(p) + 1
	}
	p, end := p[at:], len(p)+1
	var u uint64
	for i, c := range p[:min(len(p), maxVarintBytes)] {
		if c < 0x80 {
			if i == maxVarintBytes-1 && c > 1 {
				break
			}
			u |= uint64(c) << (7 * i)
			return int64(u>>1) ^ -int64(u&1), at + i + 1
		}
		u |= uint64(c&0x7f) << (7 * i)
	}
	return 0, end
}

// varint32 is varint for 32 bits.
func varint32(p []byte, at int) (int32, int) {
	if at < len(p) && p[at] < 0x80 {
		return int32(p[at]>>1) ^ -int32(p[at]&1), at + 1
	}
	return longVarint32(p, at)
}

func longVarint32(p []byte, at int) (int32, int) {
	if at+1 < len(p) && p[at+1] < 0x80 { // nearly always two bytes
		u := uint32(p[at]&0x7f) | uint32(p[at+1])<<7
		return int32(u>>1) ^ -int32(u&1), at + 2
	}
	v, next := longVarint(p, at)
	if next-at > maxVarint32Bytes || v < math.MinInt32 || v > math.MaxInt32 {
		return 0, len(p) + 1
	}
	return int32(v), next
}
