package compact

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"barnabas/internal/batch"
	"barnabas/internal/commitlog/segment"
	"barnabas/internal/disk"
)

// Stretch is what of a log is to be compacted, and what has to be known for that.
type Stretch struct {
	// Segments from the log's first up to before the first that must not be touched, ascending. Nobody changes them.
	Segments []*segment.Segment
	Dirty    int64 // everything below was compacted before

	NowMs             int64
	DeleteRetentionMs int64 // how long a tombstone stays once older records of its key are gone
	// Passed: every replica has all below. Tombstones and markers from there on stay, or a replica that was away would never
	// hear of what they delete.
	Passed        int64
	IndexInterval int64 // bytes between two index entries, about
	MostBytes     int64 // how large a segment can be

	// LastBatches are the last offsets of the batches that hold a producer's last sequence number, ascending; LastMarkers the
	// epochs of producers that have written nothing but markers. Their batches stay, empty if need be.
	LastBatches []int64
	LastMarkers map[int64]int16
	// Unsure are producers whose last batch may yet be lost, with the end of the log. What is left of theirs then says where
	// they stand, so their newest batch among those that are compacted stays too.
	Unsure map[int64]bool
	// Aborted lists the aborted transactions with records or a marker from one offset up to another.
	Aborted func(from, upTo int64) ([]segment.AbortedEntry, error)
}

// Stats count what a compaction did.
type Stats struct {
	IndexedRecords, IndexedBytes int64
	RecordsRead, RecordsKept     int64
	BytesRead, BytesWritten      int64
	Keyless                      int64 // records dropped for want of a key
	MapUsed                      float64
}

// Damage is the error for stored bytes that are not what was written. Nothing has been dropped on their account.
type Damage struct {
	Offset int64 // everything below is good
	Cause  error
}

func (d *Damage) Error() string { return fmt.Sprintf("damaged at offset %d: %v", d.Offset, d.Cause) }

// Unwrap returns the cause.
func (d *Damage) Unwrap() error { return d.Cause }

// Pass compacts one stretch. Index comes first, then Clean for every group. One goroutine at a time.
type Pass struct {
	*Stretch
	Stats Stats

	keys     *Map
	sieve    *batch.Sieve
	checker  *batch.Checker
	throttle *Throttle
	read     []byte
	large    []byte // a batch that does not fit into read
	write    []byte
	room     int // of write
	passed   int // bytes that the throttle does not know of yet
	covered  int64
	newest   map[int64]int64 // by unsure producer: the last offset of its newest batch in the dirty part
	txns     transactions
	now      *cleaning
}

// Tools are what passes use, one after the other.
type Tools struct {
	Checker  *batch.Checker
	Throttle *Throttle
	Keys     *Map
	// BufferBytes is the size of the buffer that is read into and of that which is written from, each. A batch that is larger
	// makes its buffer grow.
	BufferBytes int
}

// minBufferBytes is the least that is read at a time.
const minBufferBytes = 4096

// NewPass begins a pass.
func NewPass(t Tools, s *Stretch) *Pass {
	room := max(t.BufferBytes, minBufferBytes)
	return &Pass{
		Stretch: s, keys: t.Keys, sieve: batch.NewSieve(t.Checker), checker: t.Checker, throttle: t.Throttle,
		read: make([]byte, room), write: make([]byte, 0, room), room: room,
	}
}

// throttleBytes are let pass at a time.
const throttleBytes = 64 << 10

// count has the throttle wait for bytes that were read or written.
func (p *Pass) count(ctx context.Context, n int64) error {
	p.passed += int(n)
	if p.passed < throttleBytes {
		return nil
	}
	n, p.passed = int64(p.passed), 0
	return p.throttle.Wait(ctx, int(n))
}

// batches reads a segment from a position on, and checks every batch before visit gets it, with its end's position.
func (p *Pass) batches(ctx context.Context, s *segment.Segment, from int64, visit func(b batch.Batch, end int64) error) error {
	f, err := s.Data.Acquire(disk.Write)
	if err != nil {
		return err
	}
	defer f.Release()
	good := s.Base
	for w := segment.Walk(f, from, s.Size.Load(), p.read); ; {
		h, at, err := w.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil && (h.BaseOffset() < good || h.NextOffset() > s.Next.Load()) {
			err = fmt.Errorf("%w: offsets %d to %d, expected from %d to below %d", segment.ErrFrame, h.BaseOffset(), h.LastOffset(), good, s.Next.Load())
		}
		var b batch.Batch
		if err == nil {
			b, err = p.whole(&w, f, at, h.Size())
		}
		if errors.Is(err, segment.ErrFrame) || errors.Is(err, batch.ErrCorrupt) {
			return &Damage{good, err}
		}
		if err != nil {
			return fmt.Errorf("read %s at %d: %w", s.Path(segment.DataSuffix), at, err)
		}
		good = b.NextOffset()
		if err := visit(b, at+int64(len(b))); err != nil {
			return err
		}
		if err := p.count(ctx, int64(len(b))); err != nil {
			return err
		}
	}
}

// whole returns a batch with all its bytes, after checking them: a length made large by damage costs no memory.
func (p *Pass) whole(w *segment.Walker, f io.ReaderAt, at, size int64) (batch.Batch, error) {
	b, err := w.Verify(at, size)
	if err != nil || int64(len(b)) == size {
		return b, err
	}
	p.large = slices.Grow(p.large[:0], int(size))[:size]
	return p.large, segment.ReadFull(f, p.large, at)
}

// errFull: the map takes no more keys.
var errFull = errors.New("map of keys is full")

// Index puts the last offset of every key of the dirty part into the map, as far as there is room, and returns the offset up to
// which it got. Clean then drops what that supersedes.
func (p *Pass) Index(ctx context.Context) (covered int64, err error) {
	p.keys.Reset(p.Dirty)
	p.covered = p.Dirty
	p.newest = map[int64]int64{}
	p.txns = transactions{}
	for _, s := range p.Segments {
		if s.Next.Load() <= p.Dirty {
			continue
		}
		if err = p.indexSegment(ctx, s); err != nil {
			break
		}
		p.covered = s.Next.Load() // offsets may be missing at its end
	}
	p.Stats.MapUsed = p.keys.Used()
	p.txns = transactions{}
	if errors.Is(err, errFull) {
		err = nil
	}
	return p.covered, err
}

func (p *Pass) indexSegment(ctx context.Context, s *segment.Segment) error {
	if err := p.expect(s); err != nil {
		return err
	}
	at := int64(0)
	if p.Dirty > s.Base {
		place, err := s.Locate(p.Dirty, s.Size.Load())
		if err != nil {
			if errors.Is(err, segment.ErrFrame) {
				return &Damage{place.Base, err}
			}
			return err
		}
		at = place.At
	}
	return p.batches(ctx, s, at, func(b batch.Batch, _ int64) error { return p.indexBatch(b) })
}

// expect makes the transactions known that a segment has to do with.
func (p *Pass) expect(s *segment.Segment) error {
	found, err := p.Aborted(s.Base, s.Next.Load())
	p.txns.expect(found)
	return err
}

func (p *Pass) indexBatch(b batch.Batch) error {
	p.Stats.IndexedBytes += int64(len(b))
	p.Stats.IndexedRecords += int64(b.Count())
	if p.Unsure[b.ProducerID()] && isSequenced(b) {
		p.newest[b.ProducerID()] = b.LastOffset()
	}
	if b.IsControl() {
		c, err := p.control(b)
		p.txns.marker(b, c)
		return err
	}
	if p.txns.inAborted(b) {
		p.covered = b.NextOffset()
		return nil
	}
	base := b.BaseOffset()
	err := p.sieve.Each(b, func(g *batch.Glimpse) error {
		offset := base + int64(g.OffsetDelta)
		if g.Key == nil || offset < p.Dirty || p.keys.Put(g.Key, offset) {
			return nil
		}
		if p.covered == p.Dirty { // the first batch alone is too much: go as far as it goes
			p.covered = offset
		}
		return errFull
	})
	if err != nil {
		return p.unreadable(b, err)
	}
	p.covered = b.NextOffset()
	return nil
}

// unreadable turns records that cannot be read, although their checksum is right, into damage.
func (p *Pass) unreadable(b batch.Batch, err error) error {
	if errors.Is(err, batch.ErrCorrupt) || errors.Is(err, batch.ErrInflates) || errors.Is(err, batch.ErrUnsupportedCodec) {
		return &Damage{b.BaseOffset(), err}
	}
	return err
}

// control reads a control batch; nil for one that was emptied.
func (p *Pass) control(b batch.Batch) (*batch.Control, error) {
	if b.Count() == 0 {
		return nil, nil
	}
	c, err := p.checker.ParseControl(b)
	if err != nil {
		return nil, p.unreadable(b, err)
	}
	return &c, nil
}

// Add adds what another pass did; of the table of keys the fullest counts.
func (s *Stats) Add(o *Stats) {
	s.IndexedRecords += o.IndexedRecords
	s.IndexedBytes += o.IndexedBytes
	s.RecordsRead += o.RecordsRead
	s.RecordsKept += o.RecordsKept
	s.BytesRead += o.BytesRead
	s.BytesWritten += o.BytesWritten
	s.Keyless += o.Keyless
	s.MapUsed = max(s.MapUsed, o.MapUsed)
}
