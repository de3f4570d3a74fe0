package compact

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"

	"barnabas/internal/batch"
	"barnabas/internal/commitlog/segment"
)

// Sizes bound the segments that are made.
type Sizes struct {
	SegmentBytes, IndexBytes int64
}

// Groups says which neighbours become one segment: as many as fit, by size, by the size of their indexes, and by the offsets
// that an index can name. What lies at upTo or beyond is left alone.
func Groups(segments []*segment.Segment, upTo int64, most Sizes) [][]*segment.Segment {
	var groups [][]*segment.Segment
	var size, offsets, times int64
	for _, s := range segments {
		if s.Base >= upTo {
			break
		}
		o, t := s.IndexBytes()
		last := len(groups) - 1
		if last >= 0 && size+s.Size.Load() <= most.SegmentBytes && offsets+o <= most.IndexBytes && times+t <= most.IndexBytes &&
			s.Next.Load()-1-groups[last][0].Base <= math.MaxInt32 {
			groups[last] = append(groups[last], s)
			size, offsets, times = size+s.Size.Load(), offsets+o, times+t
			continue
		}
		groups = append(groups, []*segment.Segment{s})
		size, offsets, times = s.Size.Load(), o, t
	}
	return groups
}

// cleaning is the group at hand.
type cleaning struct {
	into *segment.Segment
	left int64 // bytes of the group that are still to come
}

// Clean writes what stays of a group's records into a segment that was made for it (segment.CreateReplacement), and flushes
// that. The group's last batch always stays, without its records if need be: so the new segment says itself which
// offsets it stands for.
//
// Errors: *Damage, segment.ErrFlush, the context's, and those of the disk. The new segment is then worth nothing.
func (p *Pass) Clean(ctx context.Context, group []*segment.Segment, into *segment.Segment) error {
	p.now = &cleaning{into: into}
	for _, s := range group {
		p.now.left += s.Size.Load()
	}
	for _, s := range group {
		if err := p.expect(s); err != nil {
			return err
		}
		if err := p.cleanSegment(ctx, s); err != nil {
			return err
		}
	}
	if err := p.flush(ctx); err != nil {
		return err
	}
	last := group[len(group)-1]
	into.Next.Store(last.Next.Load())
	into.ModifiedMs.Store(last.ModifiedMs.Load())
	return into.Sync()
}

func (p *Pass) cleanSegment(ctx context.Context, s *segment.Segment) error {
	return p.batches(ctx, s, 0, func(b batch.Batch, _ int64) error {
		p.now.left -= int64(len(b))
		p.Stats.BytesRead += int64(len(b))
		p.Stats.RecordsRead += int64(b.Count())
		if err := p.cleanBatch(b); err != nil {
			return err
		}
		if len(p.write) < p.room {
			return nil
		}
		return p.flush(ctx)
	})
}

// flush writes what has been gathered.
func (p *Pass) flush(ctx context.Context) error {
	if len(p.write) == 0 {
		return nil
	}
	n := int64(len(p.write))
	if err := p.now.into.Write(p.write); err != nil {
		return err
	}
	p.write = p.write[:0]
	p.Stats.BytesWritten += n
	return p.count(ctx, n)
}

// cleanBatch decides about one batch.
func (p *Pass) cleanBatch(b batch.Batch) error {
	if b.IsControl() {
		return p.cleanControl(b)
	}
	aborted := p.txns.inAborted(b)
	switch {
	case b.BaseOffset() >= p.covered:
		p.keep(b)
		return nil
	case aborted:
		p.keepEmpty(b)
		return nil
	}
	horizon, dated := b.DeleteHorizon()
	base := b.BaseOffset()
	sifted, err := p.sieve.Sift(b, func(g *batch.Glimpse) bool {
		offset := base + int64(g.OffsetDelta)
		if offset >= p.covered {
			return true
		}
		if g.Key == nil { // from before the topic was compacted: nothing could ever supersede it
			p.Stats.Keyless++
			return false
		}
		if last, found := p.keys.Get(g.Key); found && last > offset {
			return false
		}
		return g.HasValue || !dated || p.NowMs < horizon || offset >= p.Passed
	})
	if err != nil {
		return p.unreadable(b, err)
	}
	if sifted.Kept == 0 {
		p.keepEmpty(b)
		return nil
	}
	// Tombstones that have not been compacted yet get no date: whoever has read what they delete must have the whole time.
	date := sifted.Tombstones && !dated && b.LastOffset() < p.covered
	if sifted.All && !date {
		p.keep(b)
		return nil
	}
	return p.rewrite(b, sifted.Kept, date)
}

// cleanControl decides about a control batch. A marker stays until nothing of its transaction is left, and after that as long
// as a tombstone.
func (p *Pass) cleanControl(b batch.Batch) error {
	c, err := p.control(b)
	if err != nil {
		return err
	}
	idle, still := p.txns.marker(b, c)
	if still != nil {
		p.now.into.AddAborted(still.AbortedTransaction, still.LastStable)
	}
	horizon, dated := b.DeleteHorizon()
	switch {
	case b.LastOffset() >= p.covered:
		p.keep(b)
	case b.Count() == 0 || (idle && dated && horizon <= p.NowMs && b.LastOffset() < p.Passed):
		p.keepEmpty(b)
	case idle && !dated:
		if _, err := p.sieve.Sift(b, func(*batch.Glimpse) bool { return true }); err != nil {
			return p.unreadable(b, err)
		}
		return p.rewrite(b, b.Count(), true)
	default:
		p.keep(b)
	}
	return nil
}

// keep takes a batch over as it is.
func (p *Pass) keep(b batch.Batch) {
	p.Stats.RecordsKept += int64(b.Count())
	at := len(p.write)
	p.write = append(p.write, b...)
	p.note(at)
}

// keepEmpty takes a batch over without its records, if it is to stay at all.
func (p *Pass) keepEmpty(b batch.Batch) {
	if p.now.left > 0 && !p.lastOfProducer(b) {
		return
	}
	at := len(p.write)
	p.write = batch.AppendEmpty(p.write, b)
	p.note(at)
}

// lastOfProducer tells whether the batch says which sequence number, or epoch, of its producer was the last.
func (p *Pass) lastOfProducer(b batch.Batch) bool {
	if b.ProducerID() < 0 {
		return false
	}
	if _, found := slices.BinarySearch(p.LastBatches, b.LastOffset()); found {
		return true
	}
	if p.Unsure[b.ProducerID()] && isSequenced(b) {
		// Of one without a batch in the dirty part it is not known which is its newest, so each stays, until another time.
		newest, found := p.newest[b.ProducerID()]
		return !found || b.LastOffset() >= newest
	}
	epoch, found := p.LastMarkers[b.ProducerID()]
	return found && b.IsControl() && b.ProducerEpoch() == epoch
}

// isSequenced tells batches that say how far a producer's sequence numbers have come.
func isSequenced(b batch.Batch) bool { return !b.IsControl() && b.BaseSequence() >= 0 }

// errGrown: what is left of a group is larger than a segment can be, since batches that lost records compress worse. They
// cannot stay as they are: their superseded records would be taken for compacted, and outlive the tombstones that delete them.
var errGrown = errors.New("compacted records are larger than a segment")

// rewrite takes over what Sift left of a batch.
func (p *Pass) rewrite(b batch.Batch, kept int32, date bool) error {
	horizon := batch.NoHorizon
	if date {
		horizon = p.NowMs + min(p.DeleteRetentionMs, math.MaxInt64-p.NowMs)
	}
	at := len(p.write)
	out, err := p.sieve.Append(p.write, horizon)
	if err != nil {
		return fmt.Errorf("rewrite the batch at offset %d: %w", b.BaseOffset(), err)
	}
	p.write = out
	if p.now.into.Size.Load()+int64(len(out))+p.now.left > p.MostBytes {
		return fmt.Errorf("at offset %d: %w", b.BaseOffset(), errGrown)
	}
	p.Stats.RecordsKept += int64(kept)
	p.note(at)
	return nil
}

// note tells the new segment of the batch that has been gathered from at on.
func (p *Pass) note(at int) {
	p.now.into.Note(batch.Batch(p.write[at:]), p.now.into.Size.Load()+int64(at), p.IndexInterval)
}
