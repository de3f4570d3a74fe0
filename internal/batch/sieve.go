package batch

import (
	"encoding/binary"
	"fmt"
	"math"
)

// Sieve takes records out of stored batches, as compaction does. What stays keeps its offset, timestamp, bytes and codec, and the
// batch keeps its first and last offset, its producer and its sequence numbers. It holds no more of a compressed batch than its
// largest record and what it compresses to. One goroutine at a time.
type Sieve struct {
	checker *Checker
	b       Batch
	kept    []bool // by record, of b
	sifted  Sifted
}

// NewSieve borrows its codecs from c.
func NewSieve(c *Checker) *Sieve { return &Sieve{checker: c} }

// Glimpse is what compaction looks at in a record. The key's memory is valid until the next record.
type Glimpse struct {
	OffsetDelta int32
	Key         []byte // nil is null
	HasValue    bool   // otherwise a tombstone, if it has a key

	timestampDelta int64
	raw            []byte // the record with its length
	body           int    // where in raw it begins after its length
	rest           int    // where in raw what follows the timestamp delta begins
}

// Sifted is what became of a batch's records.
type Sifted struct {
	Kept       int32
	All        bool // no record was taken out
	Tombstones bool // among those kept
	// MaxTimestamp of those kept; with LogAppendTime the batch's.
	MaxTimestamp int64
}

// Each calls visit for every record. It does not check the CRC. ErrCorrupt for what is no batch, as with Checker.Records;
// otherwise visit's own error, which ends it.
func (s *Sieve) Each(b Batch, visit func(g *Glimpse) error) error {
	k, err := s.checker.borrow(b.Codec())
	if err != nil {
		return err
	}
	defer s.checker.giveBack(k)
	if err := k.begin(b, DefaultMaxDecompressedBytes, nil); err != nil {
		return unreadable(b, 0, err)
	}
	var g Glimpse
	last := b.LastOffsetDelta()
	for i := range b.Count() {
		if err := k.glimpse(&g); err != nil {
			return unreadable(b, i, err)
		}
		if g.OffsetDelta < 0 || g.OffsetDelta > last {
			return fmt.Errorf("%w at offset %d: record %d has offset delta %d of %d", ErrCorrupt, b.BaseOffset(), i, g.OffsetDelta, last)
		}
		if err := visit(&g); err != nil {
			return err
		}
	}
	if done, err := k.window.atEnd(); err != nil || !done {
		return unreadable(b, b.Count(), err)
	}
	return nil
}

// glimpse reads the next record.
func (s *scratch) glimpse(g *Glimpse) error {
	w := &s.window
	for {
		p := w.buf[w.at:]
		size, body := varint32(p, 0)
		if body <= len(p) && size > 0 && int(size) <= len(p)-body {
			end := body + int(size)
			w.at += end
			return g.parse(p[:end:end], body)
		}
		if (body <= len(p) && size <= 0) || (body > len(p) && len(p) >= maxVarint32Bytes) {
			return errMalformed
		}
		if err := w.more(); err != nil {
			return err
		}
	}
}

// parse reads a record whose length ends at body.
func (g *Glimpse) parse(raw []byte, body int) error {
	g.raw, g.body = raw, body
	at := body + 1 // past the attributes, which mean nothing
	g.timestampDelta, at = varint(raw, at)
	g.rest = at
	g.OffsetDelta, at = varint32(raw, at)
	g.Key, at = nullable(raw, at)
	value, at := varint32(raw, at)
	g.HasValue = value >= 0
	if at > len(raw) || value < -1 || int(max(value, 0)) > len(raw)-at {
		return errMalformed
	}
	return nil
}

// Sift decides about the records of b, of which every one that keep refuses is to go. b must stay as it is until Append. It
// does not check the CRC. Errors as with Each.
func (s *Sieve) Sift(b Batch, keep func(g *Glimpse) bool) (Sifted, error) {
	s.b, s.kept = b, s.kept[:0]
	r := Sifted{All: true, MaxTimestamp: NoTimestamp}
	base := b.BaseTimestamp()
	err := s.Each(b, func(g *Glimpse) error {
		stays := keep(g)
		s.kept = append(s.kept, stays)
		if !stays {
			r.All = false
			return nil
		}
		r.Kept++
		r.MaxTimestamp = max(r.MaxTimestamp, base+g.timestampDelta)
		r.Tombstones = r.Tombstones || (g.Key != nil && !g.HasValue)
		return nil
	})
	if b.TimestampType() == LogAppendTime {
		r.MaxTimestamp = b.MaxTimestamp()
	}
	s.sifted = r
	return r, err
}

// NoHorizon as a delete horizon leaves the batch with the one that it has, if any.
const NoHorizon int64 = -1

// Append appends the batch that Sift saw last, without the records that are to go; at least one stays. With a horizon
// (ms) the batch gets that as its delete horizon (KIP-534): it takes the place of the base timestamp, and the records' timestamps
// count from it.
func (s *Sieve) Append(dst []byte, horizonMs int64) ([]byte, error) {
	b := s.b
	at := len(dst)
	dst = append(dst, b[:HeaderBytes]...)
	shift := int64(0)
	if horizonMs != NoHorizon {
		shift = b.BaseTimestamp() - horizonMs
	}
	var err error
	if b.Codec() == None {
		dst, err = s.appendRecords(dst, horizonMs != NoHorizon, shift)
	} else {
		dst, err = s.appendCompressed(dst, horizonMs != NoHorizon, shift)
	}
	if err != nil {
		return dst[:at], err
	}
	made := Batch(dst[at:])
	if len(made) > math.MaxInt32 {
		return dst[:at], fmt.Errorf("%w: %d bytes after compaction", ErrTooLarge, len(made))
	}
	binary.BigEndian.PutUint32(made[lengthAt:], uint32(len(made)-lengthOverhead))
	binary.BigEndian.PutUint32(made[countAt:], uint32(s.sifted.Kept))
	binary.BigEndian.PutUint64(made[maxTimestampAt:], uint64(s.sifted.MaxTimestamp))
	if horizonMs != NoHorizon {
		made[attributesAt+1] |= deleteHorizonFlag
		binary.BigEndian.PutUint64(made[baseTimestampAt:], uint64(horizonMs))
	}
	made.updateCRC()
	return dst, nil
}

// appendRecords copies the records of a batch that is not compressed, runs of them at a time.
func (s *Sieve) appendRecords(dst []byte, shifted bool, shift int64) ([]byte, error) {
	if shifted {
		i := 0
		err := s.Each(s.b, func(g *Glimpse) error {
			if s.kept[i] {
				dst = g.appendShifted(dst, shift)
			}
			i++
			return nil
		})
		return dst, err
	}
	payload, at, from := s.b.payload(), 0, 0
	for _, stays := range s.kept {
		size, body := varint32(payload, at)
		end := body + int(size)
		if !stays {
			dst = append(dst, payload[from:at]...)
			from = end
		}
		at = end
	}
	return append(dst, payload[from:at]...), nil
}

func (s *Sieve) appendCompressed(dst []byte, shifted bool, shift int64) ([]byte, error) {
	out, err := s.checker.borrowCompressor(s.b.Codec(), Levels{})
	if err != nil {
		return dst, err
	}
	defer s.checker.giveBackCompressor(out)
	out.begin(math.MaxInt32 - HeaderBytes)
	i := 0
	var moved []byte
	err = s.Each(s.b, func(g *Glimpse) error {
		stays, record := s.kept[i], g.raw
		i++
		if !stays {
			return nil
		}
		if shifted {
			moved = g.appendShifted(moved[:0], shift)
			record = moved
		}
		_, err := out.Write(record)
		return err
	})
	if err != nil {
		return dst, err
	}
	payload, err := out.finish()
	return append(dst, payload...), err
}

// appendShifted appends the record with another timestamp delta.
func (g *Glimpse) appendShifted(dst []byte, shift int64) []byte {
	delta := g.timestampDelta + shift
	dst = binary.AppendVarint(dst, int64(1+varintBytes(delta)+len(g.raw)-g.rest))
	dst = append(dst, g.raw[g.body])
	dst = binary.AppendVarint(dst, delta)
	return append(dst, g.raw[g.rest:]...)
}

// AppendEmpty appends b without its records: what remains says which offsets and sequence numbers have been used, by whom.
func AppendEmpty(dst []byte, b Batch) []byte {
	at := len(dst)
	dst = append(dst, b[:HeaderBytes]...)
	made := Batch(dst[at:])
	binary.BigEndian.PutUint32(made[lengthAt:], HeaderBytes-lengthOverhead)
	binary.BigEndian.PutUint32(made[countAt:], 0)
	noTimestamp := NoTimestamp
	binary.BigEndian.PutUint64(made[baseTimestampAt:], uint64(noTimestamp))
	made[attributesAt+1] &^= codecMask | deleteHorizonFlag
	made.updateCRC()
	return dst
}
