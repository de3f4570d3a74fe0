package client

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"barnabas/client/internal/aborted"
	"barnabas/internal/batch"
)

// decode makes records of fetched batches: it verifies checksums, decompresses, and leaves out
// what lies before the offset that was asked for, control batches, and, reading committed,
// batches of aborted transactions. With an error come the records before it.
func (k *Consumer) decode(a *fetched) ([]Record, error) {
	most := 0
	for _, b := range a.Batches {
		// What a header claims is not to be believed beyond what so many bytes usually hold.
		most += min(max(int(b.Count()), 0), len(b)/leastRecordBytes+compressedRecords)
	}
	records := make([]Record, 0, most)
	transactions := aborted.New(a.Aborted, k.cfg.isolation == ReadCommitted)
	for _, b := range a.Batches {
		if k.cfg.checkCRCs {
			if err := b.CheckCRC(); err != nil {
				return records, fmt.Errorf("batch at offset %d: %w: %w", b.BaseOffset(), ErrCorruptMessage, err)
			}
		}
		skip, err := transactions.Skips(k.checker, b)
		if err != nil {
			return records, fmt.Errorf("batch at offset %d: %w: %w", b.BaseOffset(), ErrCorruptMessage, err)
		}
		if skip || b.IsControl() {
			continue
		}
		if records, err = k.appendRecords(records, a, b); err != nil {
			return records, fmt.Errorf("batch at offset %d: %w", b.BaseOffset(), err)
		}
	}
	return records, nil
}

// For how many records memory is made before any of them has been decoded: uncompressed records
// take leastRecordBytes or more; a compressed batch may hold more of them than its size tells.
const (
	leastRecordBytes  = 7
	compressedRecords = 1000
)

// appendRecords decodes one batch. Its records alias the batch where it is not compressed, and
// otherwise memory of their own.
func (k *Consumer) appendRecords(dst []Record, a *fetched, b batch.Batch) ([]Record, error) {
	var copies arena
	keep := slices.Clip[[]byte] // who appends to one must not write into the next
	if b.Codec() != batch.None {
		keep = copies.copy
	}
	epoch, kind := b.LeaderEpoch(), TimestampType(b.TimestampType())
	for in, err := range k.checker.Records(b) {
		if err != nil {
			if errors.Is(err, batch.ErrUnsupportedCodec) {
				return dst, fmt.Errorf("%w: %w", ErrUnsupportedCompressionType, err)
			}
			return dst, fmt.Errorf("%w: %w", ErrCorruptMessage, err)
		}
		offset := b.OffsetOf(&in)
		if offset < a.From {
			continue
		}
		r := Record{
			Topic: a.Topic, Partition: a.Partition, LeaderEpoch: epoch, Offset: offset,
			Timestamp: time.UnixMilli(b.TimestampOf(&in)), TimestampType: kind,
			Key: keep(in.Key), Value: keep(in.Value),
		}
		if len(in.Headers) > 0 {
			r.Headers = make([]Header, len(in.Headers))
			for i, h := range in.Headers {
				r.Headers[i] = Header{Key: string(h.Key), Value: keep(h.Value)}
			}
		}
		dst = append(dst, r)
	}
	return dst, nil
}

// arena gives out copies that share blocks of memory.
type arena struct{ free []byte }

const arenaBlock = 32 << 10

func (a *arena) copy(p []byte) []byte {
	if p == nil {
		return nil
	}
	if len(p) > arenaBlock/4 {
		return append(make([]byte, 0, len(p)), p...)
	}
	if len(p) > len(a.free) {
		a.free = make([]byte, arenaBlock)
	}
	c := a.free[:len(p):len(p)]
	a.free = a.free[len(p):]
	copy(c, p)
	return c
}
