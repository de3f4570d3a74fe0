package share

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/client"
	"barnabas/client/internal/sharesession"
	"barnabas/internal/batch"
)

type (
	acquired = kmsg.ShareFetchResponseTopicPartitionAcquiredRecord
	catch    = sharesession.Catch[Record]
	run      = sharesession.Run
)

// decoder makes records of what a broker has acquired of a partition. The offsets in between are
// told apart: where a batch, or the space between two, has no record at an offset there is none to be
// delivered, while what cannot be read may be readable for others, or in another answer.
type decoder struct {
	checker   *batch.Checker
	checkCRCs bool
	topic     string
	partition int32
	until     time.Time

	ranges []acquired // ascending, apart from each other
	bad    []run      // offsets of batches that cannot be read, ascending
	end    int64      // behind the last batch
	out    catch
}

// decode takes the batches apart.
func (d *decoder) decode(raw []byte, ranges []acquired) catch {
	d.ranges = tidy(ranges)
	for len(raw) > 0 && len(d.ranges) > 0 {
		b, rest, err := batch.Next(raw)
		if err != nil {
			d.damaged(fmt.Errorf("batch behind offset %d: %w: %w", d.end-1, client.ErrCorruptMessage, err))
			break
		}
		raw = rest
		if b.BaseOffset() < d.end || b.LastOffset() < b.BaseOffset() {
			continue // not in its place
		}
		d.end = b.NextOffset()
		if err := d.decodeBatch(b); err != nil {
			d.bad = append(d.bad, run{First: b.BaseOffset(), Last: b.LastOffset()})
			d.damaged(fmt.Errorf("batch at offset %d: %w", b.BaseOffset(), err))
		}
	}
	d.account()
	return d.out
}

func (d *decoder) damaged(err error) {
	if d.out.Err == nil {
		d.out.Err = err
	}
}

// tidy sorts what was acquired, and leaves out what is no range or is named twice.
func tidy(ranges []acquired) []acquired {
	sorted := slices.SortedFunc(slices.Values(ranges), func(a, b acquired) int { return cmp.Compare(a.FirstOffset, b.FirstOffset) })
	out := sorted[:0]
	next := int64(0)
	for _, r := range sorted {
		if r.FirstOffset < next || r.LastOffset < r.FirstOffset || r.LastOffset+1 < 0 {
			continue
		}
		out = append(out, r)
		next = r.LastOffset + 1
	}
	return out
}

// delivery gives the delivery count of an offset; false where it was not acquired.
func (d *decoder) delivery(offset int64) (count int16, ok bool) {
	at, found := slices.BinarySearchFunc(d.ranges, offset, func(r acquired, o int64) int { return cmp.Compare(r.FirstOffset, o) })
	if !found {
		at--
	}
	if at < 0 || offset > d.ranges[at].LastOffset {
		return 0, false
	}
	return max(d.ranges[at].DeliveryCount, 1), true
}

// decodeBatch adds a batch's records, or none where one of them cannot be read.
func (d *decoder) decodeBatch(b batch.Batch) error {
	if d.checkCRCs {
		if err := b.CheckCRC(); err != nil {
			return fmt.Errorf("%w: %w", client.ErrCorruptMessage, err)
		}
	}
	if b.IsControl() {
		return nil
	}
	keep := slices.Clip[[]byte] // who appends to one must not write into the next
	if b.Codec() != batch.None {
		keep = slices.Clone[[]byte] // the checker's memory is used again
	}
	had := len(d.out.Records)
	epoch, kind := b.LeaderEpoch(), client.TimestampType(b.TimestampType())
	next := b.BaseOffset()
	for in, err := range d.checker.Records(b) {
		if err != nil {
			d.out.Records, d.out.Offsets = d.out.Records[:had], d.out.Offsets[:had]
			if errors.Is(err, batch.ErrUnsupportedCodec) {
				return fmt.Errorf("%w: %w", client.ErrUnsupportedCompressionType, err)
			}
			return fmt.Errorf("%w: %w", client.ErrCorruptMessage, err)
		}
		offset := b.OffsetOf(&in)
		if offset < next || offset > b.LastOffset() {
			continue // not in its place
		}
		next = offset + 1
		count, ok := d.delivery(offset)
		if !ok {
			continue
		}
		r := Record{DeliveryCount: count, LockedUntil: d.until, Record: client.Record{
			Topic: d.topic, Partition: d.partition, LeaderEpoch: epoch, Offset: offset,
			Timestamp: time.UnixMilli(b.TimestampOf(&in)), TimestampType: kind,
			Key: keep(in.Key), Value: keep(in.Value),
		}}
		for _, h := range in.Headers {
			r.Headers = append(r.Headers, client.Header{Key: string(h.Key), Value: keep(h.Value)})
		}
		d.out.Records = append(d.out.Records, r)
		d.out.Offsets = append(d.out.Offsets, offset)
	}
	return nil
}

// account says what becomes of the offsets that were acquired and are no record.
func (d *decoder) account() {
	offsets := d.out.Offsets
	for _, r := range d.ranges {
		next := r.FirstOffset
		for len(offsets) > 0 && offsets[0] <= r.LastOffset {
			d.without(next, offsets[0]-1)
			next = offsets[0] + 1
			offsets = offsets[1:]
		}
		d.without(next, r.LastOffset)
	}
}

// without accounts for offsets between two records: gaps, but for what cannot be read or was not sent.
func (d *decoder) without(first, last int64) {
	add := func(first, last int64, kind sharesession.Kind) {
		if first <= last {
			d.out.Runs = append(d.out.Runs, run{First: first, Last: last, Kind: kind})
		}
	}
	for _, bad := range d.bad {
		if bad.Last < first || bad.First > last {
			continue
		}
		add(first, bad.First-1, sharesession.Gap)
		add(max(first, bad.First), min(last, bad.Last), sharesession.Release)
		first = bad.Last + 1
	}
	add(first, min(last, d.end-1), sharesession.Gap)
	add(max(first, d.end), last, sharesession.Release)
}
