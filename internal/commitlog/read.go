package commitlog

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"sync/atomic"

	"barnabas/internal/batch"
	"barnabas/internal/commitlog/segment"
	"barnabas/internal/disk"
	"barnabas/internal/netx"
)

// Range is a stretch of one segment's file: whole batches, undecoded. The zero Range is empty and valid. It keeps the file
// open, whatever happens to the segment, until Close. It fits wire.FileRange.
type Range struct {
	First int64 // offset of the first record, at most the one asked for, or the next there is; with an empty range the one asked for
	Next  int64 // the offset to read from afterwards
	part  *part
}

// part is a pointer so that copies of a Range close it once.
type part struct {
	log    *Log
	file   *segment.Handle
	at, n  int64
	closed atomic.Bool
}

// Len is the number of bytes.
func (r Range) Len() int64 {
	if r.part == nil {
		return 0
	}
	return r.part.n
}

// SendTo sends the bytes on c, by sendfile where that is possible: they are not looked at.
func (r Range) SendTo(c net.Conn) (int64, error) {
	if r.part == nil {
		return 0, nil
	}
	return netx.SendFile(c, r.part.file, r.part.at, r.part.n)
}

// AppendTo appends the bytes to dst and checks every batch on the way: ErrCorrupt for the first that is not what was
// written, from which on the log serves nothing any more.
func (r Range) AppendTo(dst []byte) ([]byte, error) {
	if r.part == nil {
		return dst, nil
	}
	old := len(dst)
	dst = slices.Grow(dst, int(r.part.n))[:old+int(r.part.n)]
	if err := segment.ReadFull(r.part.file, dst[old:], r.part.at); err != nil {
		return dst[:old], fmt.Errorf("read %s: %w", r.part.log.id, err)
	}
	expected := r.First
	for rest := dst[old:]; len(rest) > 0; {
		b, after, err := batch.Next(rest)
		if err == nil {
			err = b.CheckCRC()
		}
		if err == nil && (b.BaseOffset() < expected || b.NextOffset() > r.Next || (b.BaseOffset() > expected && !r.part.log.gaps())) {
			err = fmt.Errorf("%w: offset %d, %d expected", segment.ErrFrame, b.BaseOffset(), expected)
		}
		if err != nil {
			r.part.log.damaged(expected, err)
			return dst[:old], fmt.Errorf("read %s at offset %d: %w: %w", r.part.log.id, expected, ErrCorrupt, err)
		}
		expected, rest = b.NextOffset(), after
	}
	return dst, nil
}

// Close lets go of the file. Further calls, also on copies, do nothing.
func (r Range) Close() error {
	if r.part == nil || r.part.closed.Swap(true) {
		return nil
	}
	return r.part.file.Release()
}

// Read returns batches from the one that holds offset from (all of it, if from lies inside), up to about maxBytes and to
// upTo, a batch beyond which is left out. At least one batch, however large, with atLeastOne; otherwise perhaps
// none. At the end, and at upTo, the range is empty, and where compaction has left nothing before upTo. It does not wait for appends.
// What begins later than from is what compaction has left.
//
// Errors: ErrOutOfRange before the start or past the end, ErrCorrupt at a damaged place, ErrOffline, ErrClosed.
func (l *Log) Read(from int64, maxBytes int, upTo int64, atLeastOne bool) (Range, error) {
	for attempt := 0; ; attempt++ {
		v, err := l.lookUp(from, upTo)
		if err == nil && from >= v.upTo {
			return Range{First: from, Next: from}, nil
		}
		var r Range
		if err == nil {
			r, err = l.readAt(v, maxBytes, atLeastOne)
		}
		if errors.Is(err, segment.ErrGone) { // compaction, retention or truncation came between
			if attempt < mostLooks {
				l.forgetHints() // one that was left behind by a reader of before would lead there for ever
				continue
			}
			err = ErrOutOfRange
		}
		if err != nil {
			return Range{}, fmt.Errorf("read %s from %d: %w", l.id, from, err)
		}
		return r, nil
	}
}

// mostLooks is how often a read looks again because the segment that it had found went away meanwhile.
const mostLooks = 10

// view is what one look under the mutex tells about a read.
type view struct {
	from, upTo int64
	start      spot // where from's batch begins; seg is nil when that has to be searched
	limit      spot // where the bytes below upTo end; the same
	end        spot // where the log ends
}

func (l *Log) lookUp(from, upTo int64) (view, error) {
	if err := l.usable(); err != nil {
		return view{}, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	p := &l.mu.progress
	if from < p.Start || from > p.End {
		return view{}, fmt.Errorf("log has %d to %d: %w", p.Start, p.End, ErrOutOfRange)
	}
	upTo = min(upTo, p.End)
	if d := l.mu.damage; d >= 0 && upTo > d {
		if upTo = d; from >= d {
			return view{}, fmt.Errorf("from offset %d: %w", d, ErrCorrupt)
		}
	}
	v := view{from: from, upTo: upTo, end: l.mu.end}
	switch upTo {
	case p.End:
		v.limit = l.mu.end
	case l.mu.committed.offset:
		v.limit = l.mu.committed
	case l.mu.flushed.offset:
		v.limit = l.mu.flushed
	}
	if w := l.mu.warm; w != nil {
		var found bool
		if v.start, found = w.floor(from); !found {
			v.start, _ = w.hint(from)
		}
		if v.limit.seg == nil {
			v.limit, _ = w.floor(upTo) // the batch that holds upTo is left out, so its beginning is the limit
		}
	}
	return v, nil
}

// readAt finds what the look under the mutex did not know, and opens the range.
func (l *Log) readAt(v view, maxBytes int, atLeastOne bool) (Range, error) {
	s, start, err := l.findStart(&v)
	if err != nil || s == nil {
		return Range{First: v.from, Next: v.from}, err
	}
	limit, next, err := l.findLimit(s, &v)
	if err != nil {
		return Range{}, err
	}
	if limit-start.At > int64(maxBytes) {
		if limit, next, err = l.cutAt(s, start, int64(maxBytes), limit, atLeastOne); err != nil {
			return Range{}, err
		}
	}
	if limit <= start.At {
		return Range{First: v.from, Next: v.from}, nil
	}
	f, err := s.Data.Acquire(disk.Write)
	if err != nil {
		return Range{}, err
	}
	if next < v.end.offset {
		l.remember(spot{next, s, limit})
	}
	return Range{start.Base, next, &part{log: l, file: f, at: start.At, n: limit - start.At}}, nil
}

// remember keeps where a reader stopped that has not reached the end.
func (l *Log) remember(s spot) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mu.warm == nil {
		l.mu.warm = &warm{}
	}
	w := l.mu.warm
	w.hints[w.oldHint] = s
	w.oldHint = (w.oldHint + 1) % maxHints
}

// forgetHints drops where readers stopped that were not at the end.
func (l *Log) forgetHints() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if w := l.mu.warm; w != nil {
		w.hints = [maxHints]spot{}
	}
}

// findStart returns the segment and the place of the batch that holds v.from, or of the first after it; nil when
// there is none.
func (l *Log) findStart(v *view) (*segment.Segment, segment.Place, error) {
	if s := v.start.seg; s != nil && v.start.at < s.Size.Load() {
		return s, segment.Place{At: v.start.at, Base: v.start.offset}, nil
	}
	for _, s := range l.segmentsFrom(v.from) {
		limit := v.readable(s)
		p, err := s.Locate(v.from, limit)
		if errors.Is(err, segment.ErrFrame) {
			l.damaged(p.Base, err)
			return nil, segment.Place{}, fmt.Errorf("%w: %w", ErrCorrupt, err)
		}
		if err != nil || p.At < limit {
			return s, p, err
		}
		if v.from < s.Next.Load() && s != v.end.seg && !l.gaps() {
			l.damaged(v.from, errMissing) // the file has lost its end since
			return nil, segment.Place{}, fmt.Errorf("%w: %w", ErrCorrupt, errMissing)
		}
	}
	return nil, segment.Place{}, nil
}

// segmentsFrom returns the segments from the one on that may hold offset.
func (l *Log) segmentsFrom(offset int64) []*segment.Segment {
	segments := *l.segments.Load()
	i, found := slices.BinarySearchFunc(segments, offset, func(s *segment.Segment, offset int64) int {
		switch {
		case s.Base < offset:
			return -1
		case s.Base > offset:
			return 1
		}
		return 0
	})
	if !found && i > 0 {
		i--
	}
	return segments[i:]
}

// readable is how many bytes of the segment the look under the mutex saw.
func (v *view) readable(s *segment.Segment) int64 {
	if s == v.end.seg {
		return v.end.at
	}
	return s.Size.Load()
}

// findLimit returns where the bytes below v.upTo end in this segment, and the offset there.
func (l *Log) findLimit(s *segment.Segment, v *view) (limit, next int64, err error) {
	if v.limit.seg == s {
		return v.limit.at, v.limit.offset, nil
	}
	size := v.readable(s)
	end := s.Next.Load()
	if s == v.end.seg {
		end = v.end.offset
	}
	if v.upTo >= end {
		return size, end, nil
	}
	p, err := s.Locate(v.upTo, size)
	switch {
	case errors.Is(err, segment.ErrFrame): // what lies before the damage may still be read
		l.damaged(p.Base, err)
	case err != nil:
		return 0, 0, err
	case p.Base < 0:
		return size, v.upTo, nil
	}
	return p.At, min(p.Base, v.upTo), nil
}

// cutAt shortens a range that begins at start to the last batch that ends within maxBytes, or to its first batch.
func (l *Log) cutAt(s *segment.Segment, start segment.Place, maxBytes, limit int64, atLeastOne bool) (end, next int64, err error) {
	p, err := s.Boundary(start.At+maxBytes, limit)
	if errors.Is(err, segment.ErrFrame) {
		l.damaged(p.Base, err)
		return p.At, p.Base, nil
	}
	if err != nil || p.At > start.At || !atLeastOne {
		return p.At, p.Base, err
	}
	// Not even the first one fits.
	f, err := s.Data.Acquire(disk.Write)
	if err != nil {
		return 0, 0, err
	}
	defer f.Release()
	buf := segment.TakeBlock()
	defer segment.PutBlock(buf)
	w := segment.Walk(f, start.At, limit, buf[:])
	h, _, err := w.Next()
	if err != nil {
		l.damaged(start.Base, err)
		return 0, 0, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return w.At, h.NextOffset(), nil
}
