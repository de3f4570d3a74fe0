package commitlog

import (
	"errors"
	"slices"

	"barnabas/internal/batch"
	"barnabas/internal/commitlog/producer"
	"barnabas/internal/commitlog/segment"
)

// recallBytes bounds how far back of a producer's oldest known batch it is looked for those before. Beyond it a batch that is
// sent again is out of order, as every one but the last is with Kafka after a restart.
const recallBytes = 32 << 20

// recallWindow is looked at first, and four times as much each further time.
const recallWindow = 64 << 10

// errRecalled ends a walk: what was looked for has been found.
var errRecalled = errors.New("found")

// recall looks up the batches of a producer that its snapshot has not kept: Kafka's format has room for the last one only.
// It is done once for each, when something comes that is not the next batch, so a start costs nothing. The slot is held.
func (l *Log) recall(p *producer.State) error {
	want, before := p.Unknown()
	left := int64(recallBytes)
	var found []producer.Written // the newest first
	for _, s := range slices.Backward(*l.segments.Load()) {
		if s.Base >= before {
			continue
		}
		if len(found) == want || left <= 0 {
			break
		}
		older, err := l.recallIn(s, p, before, want-len(found), &left)
		if err != nil {
			return err
		}
		found = append(found, older...)
	}
	p.Recall(found)
	return nil
}

// recallIn looks in one segment, from the end backwards in windows that grow, and returns up to want batches that lie before
// an offset.
func (l *Log) recallIn(s *segment.Segment, p *producer.State, before int64, want int, left *int64) (found []producer.Written, err error) {
	size := s.Size.Load()
	end, err := s.Locate(before, size)
	if err != nil {
		return nil, err
	}
	buf := make([]byte, scanBytes)
	span := int64(0)
	for window := int64(recallWindow); len(found) < want && span < min(end.At, *left); window *= 4 {
		span = min(window, end.At, *left)
		start, err := s.Boundary(end.At-span, size)
		if err != nil {
			return nil, err
		}
		found = found[:0]
		err = s.Headers(start.At, buf, func(h batch.Batch, at int64) error {
			if at >= end.At {
				return errRecalled
			}
			if p.Wrote(h) {
				found = append(found, producer.WrittenIn(h))
			}
			return nil
		})
		if err != nil && !errors.Is(err, errRecalled) {
			return nil, err
		}
	}
	*left -= span
	slices.Reverse(found)
	return found[:min(want, len(found))], nil
}
