package batch

import (
	"fmt"
	"io"
	"math"
)

// scratch is what reading one batch needs, to be used again for the next of the same codec.
type scratch struct {
	codec    Codec
	inflater inflater // nil: None
	window   window
	record   Record // Records' own
}

func (s *scratch) begin(b Batch, limit int64, tee io.Writer) error {
	return s.window.begin(b.payload(), s.inflater, limit, tee)
}

// borrow returns a scratch for the codec; giveBack it.
func (c *Checker) borrow(codec Codec) (*scratch, error) {
	if !codec.Known() {
		return nil, fmt.Errorf("%w: %s", ErrUnsupportedCodec, codec)
	}
	if s, _ := c.scratches[codec].Get().(*scratch); s != nil {
		return s, nil
	}
	return &scratch{codec: codec, inflater: newInflater(codec)}, nil
}

func (c *Checker) giveBack(s *scratch) {
	s.window.end()
	clear(s.record.Headers[:cap(s.record.Headers)])
	s.record = Record{Headers: s.record.Headers[:0]}
	c.scratches[s.codec].Put(s)
}

// maxRecordErrors bounds how many records a refusal names. A batch can hold more, but the answer to a
// hostile one should not be larger than the batch.
const maxRecordErrors = 1000

// walk is the pass over an incoming batch's records: what it wants of them, and what it finds.
type walk struct {
	baseTimestamp int64
	now           int64
	maxBefore     int64 // bounds of now minus CreateTime and of its opposite, both allowed
	maxAfter      int64
	checkTimes    bool // the topic has CreateTime
	refuseUntimed bool // nothing in the batch may lack a CreateTime, see timeFault
	requireKeys   bool

	maxTimestamp int64
	maxDelta     int32 // of the first record with maxTimestamp

	faults     []RecordError
	faultCount int
	timeFaults bool
}

func newWalk(b Batch, r *Rules) walk {
	k := walk{
		baseTimestamp: b.BaseTimestamp(),
		now:           r.NowMs,
		maxBefore:     r.MaxBeforeMs,
		maxAfter:      r.MaxAfterMs,
		checkTimes:    r.TimestampType == CreateTime,
		refuseUntimed: b.TimestampType() == LogAppendTime,
		requireKeys:   r.RequireKeys,
		maxTimestamp:  NoTimestamp,
		maxDelta:      -1,
	}
	if !k.checkTimes {
		k.maxBefore, k.maxAfter = math.MaxInt64, math.MaxInt64
	}
	return k
}

// outOfTime compares a timestamp with the bounds as Kafka does, overflow included.
func (k *walk) outOfTime(timestamp int64) bool {
	age := k.now - timestamp
	return age > k.maxBefore || -age > k.maxAfter
}

// run passes over count records and makes sure that nothing follows them.
func (k *walk) run(w *window, count int32) error {
	for i := range count {
		g, size := scan(w.buf[w.at:])
		if size > 0 {
			w.at += size
		} else {
			var err error
			if g, err = k.slowScan(w, size); err != nil {
				return err
			}
		}
		timestamp := k.baseTimestamp + g.timestampDelta
		if g.offsetDelta != i || !g.hasKey && k.requireKeys || k.outOfTime(timestamp) || k.refuseUntimed {
			k.judge(i, g, timestamp)
		}
		if timestamp > k.maxTimestamp {
			k.maxTimestamp, k.maxDelta = timestamp, i
		}
	}
	if done, err := w.atEnd(); err != nil {
		return err
	} else if !done {
		return errTrailing
	}
	return nil
}

// slowScan is for a record that the window does not hold whole.
func (k *walk) slowScan(w *window, size int) (glance, error) {
	for size == 0 {
		if len(w.buf)-w.at >= pieceBytes {
			return scanPassing(w)
		}
		if err := w.more(); err != nil {
			return glance{}, err
		}
		var g glance
		if g, size = scan(w.buf[w.at:]); size > 0 {
			w.at += size
			return g, nil
		}
	}
	return glance{}, errMalformed
}

// scanPassing is scan for a large record in compressed data: its bytes pass by and are never held together,
// so that the memory needed does not depend on what a few compressed bytes expand to.
func scanPassing(w *window) (g glance, err error) {
	body, err := w.varint32()
	if err != nil {
		return g, err
	}
	end := w.consumed() + int64(body)
	if err := w.discard(1); err != nil {
		return g, err
	}
	if g.timestampDelta, err = w.varint(); err != nil {
		return g, err
	}
	if g.offsetDelta, err = w.varint32(); err != nil {
		return g, err
	}
	if g.hasKey, err = w.discardNullable(end); err != nil {
		return g, err
	}
	if _, err = w.discardNullable(end); err != nil {
		return g, err
	}
	headers, err := w.varint32()
	if err != nil {
		return g, err
	}
	for range headers {
		if hasKey, err := w.discardNullable(end); err != nil || !hasKey {
			return g, orMalformed(err)
		}
		if _, err := w.discardNullable(end); err != nil {
			return g, err
		}
	}
	if headers < 0 || w.consumed() != end {
		return g, errMalformed
	}
	return g, nil
}

func orMalformed(err error) error {
	if err == nil {
		return errMalformed
	}
	return err
}

// discardNullable passes over a field of a record that ends at the given place, and says whether it is not null.
func (w *window) discardNullable(end int64) (bool, error) {
	n, err := w.varint32()
	if err != nil {
		return false, err
	}
	if n < -1 || int64(n) > end-w.consumed() {
		return false, errMalformed
	}
	if n == -1 {
		return false, nil
	}
	return true, w.discard(int64(n))
}

// judge decides what is wrong with a record, if anything. A key that is missing comes before a bad timestamp.
func (k *walk) judge(i int32, g glance, timestamp int64) {
	switch {
	case g.offsetDelta != i:
		k.fault(i, "offset delta is %d, expected %d", g.offsetDelta, i)
	case !g.hasKey && k.requireKeys:
		k.fault(i, "a compacted topic takes no record without a key")
	case k.checkTimes && timestamp != NoTimestamp:
		if k.outOfTime(timestamp) {
			k.timeFaults = true
			k.fault(i, "timestamp %d is out of range: allowed are %d ms before %d to %d ms after", timestamp, k.maxBefore, k.now, k.maxAfter)
		}
	case k.refuseUntimed:
		k.timeFaults = true
		k.fault(i, "producers cannot set the timestamp type LogAppendTime")
	}
}

func (k *walk) fault(i int32, format string, args ...any) {
	k.faultCount++
	if len(k.faults) < maxRecordErrors {
		k.faults = append(k.faults, RecordError{Index: i, Message: fmt.Sprintf(format, args...)})
	}
}

// verdict returns the refusal that the faults add up to, or nil.
func (k *walk) verdict() error {
	if k.faultCount == 0 {
		return nil
	}
	reason := "one or more records have an invalid timestamp"
	if !k.timeFaults {
		reason = fmt.Sprintf("%d records are not allowed", k.faultCount)
	}
	return &InvalidRecordsError{Reason: reason, Records: k.faults, Timestamp: k.timeFaults}
}
