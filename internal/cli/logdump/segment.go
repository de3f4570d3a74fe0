package logdump

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"barnabas/internal/batch"
)

// Batch is a record batch's header.
type Batch struct {
	Kind          string `json:"kind"` // "batch"
	Position      int64  `json:"position"`
	Bytes         int64  `json:"bytes"`
	First         int64  `json:"base_offset"`
	Last          int64  `json:"last_offset"`
	Records       int32  `json:"records"`
	LeaderEpoch   int32  `json:"leader_epoch"`
	Codec         string `json:"codec"`
	TimestampType string `json:"timestamp_type"`
	BaseTimestamp string `json:"base_timestamp"`
	MaxTimestamp  string `json:"max_timestamp"`
	ProducerID    int64  `json:"producer_id"` // -1: none
	ProducerEpoch int16  `json:"producer_epoch"`
	BaseSequence  int32  `json:"base_sequence"`
	Transactional bool   `json:"transactional,omitempty"`
	Control       bool   `json:"control,omitempty"`
	CRC           string `json:"crc"`
	CRCValid      bool   `json:"crc_valid"`
}

// Text gives the header in a line.
func (b Batch) Text() string {
	text := fmt.Sprintf("batch offsets=%d..%d position=%d bytes=%d records=%d epoch=%d codec=%s time=%s..%s (%s)",
		b.First, b.Last, b.Position, b.Bytes, b.Records, b.LeaderEpoch, b.Codec, b.BaseTimestamp, b.MaxTimestamp, b.TimestampType)
	if b.ProducerID >= 0 {
		text += fmt.Sprintf(" producer=%d epoch=%d sequence=%d", b.ProducerID, b.ProducerEpoch, b.BaseSequence)
	}
	if b.Transactional {
		text += " transactional"
	}
	if b.Control {
		text += " control"
	}
	return text + " crc=" + b.CRC
}

// Record is a record of a batch.
type Record struct {
	Kind      string   `json:"kind"` // "record"
	Offset    int64    `json:"offset"`
	Timestamp string   `json:"timestamp"`
	Key       *string  `json:"key"`   // null, text, or "base64:" and the bytes
	Value     *string  `json:"value"` // likewise
	Headers   []Header `json:"headers,omitempty"`
	Control   string   `json:"control,omitempty"` // COMMIT, ABORT
}

// Header is one of a record's headers.
type Header struct {
	Key   string  `json:"key"`
	Value *string `json:"value"`
}

// Text gives the record in a line.
func (r Record) Text() string {
	text := fmt.Sprintf("  record offset=%d time=%s", r.Offset, r.Timestamp)
	if r.Control != "" {
		return text + " marker=" + r.Control
	}
	text += " key=" + shown(r.Key) + " value=" + shown(r.Value)
	for _, h := range r.Headers {
		text += fmt.Sprintf(" header %s=%s", h.Key, shown(h.Value))
	}
	return text
}

func shown(s *string) string {
	if s == nil {
		return "null"
	}
	if strings.IndexFunc(*s, func(r rune) bool { return !unicode.IsPrint(r) }) >= 0 {
		return strconv.Quote(*s)
	}
	return *s
}

// readable makes text of bytes, or "base64:..." where they are none. Null stays null.
func readable(b []byte) *string {
	if b == nil {
		return nil
	}
	text := string(b)
	if !utf8.Valid(b) {
		text = "base64:" + base64.StdEncoding.EncodeToString(b)
	}
	return &text
}

func timeText(ms int64) string {
	if ms < 0 {
		return strconv.FormatInt(ms, 10)
	}
	return time.UnixMilli(ms).UTC().Format("2006-01-02T15:04:05.000Z")
}

// maxBatchBytes bounds what is read as one batch: a length that damage has made huge costs no
// memory. No broker takes a larger request.
const maxBatchBytes = 256 << 20

// segment walks the batches of a .log file.
func (d *dumper) segment() error {
	checker := batch.NewChecker()
	metadata := isMetadata(d.file)
	next := baseOffset(d.file) // the least offset that the next batch may have
	return d.walk(func(at int64, b batch.Batch) error {
		crcErr := b.CheckCRC()
		if err := d.show(describe(at, b, crcErr == nil)); err != nil {
			return err
		}
		if crcErr != nil {
			return d.damage(at, "%v", crcErr)
		}
		if b.BaseOffset() < next {
			if err := d.damage(at, "the batch begins at offset %d, and offset %d was to come", b.BaseOffset(), next); err != nil {
				return err
			}
		}
		if d.sum.First == nil {
			first := b.BaseOffset()
			d.sum.First = &first
		}
		next = max(next, b.NextOffset())
		end := next
		d.sum.Next = &end
		d.sum.Batches++
		d.sum.Records += int64(b.Count())
		if metadata {
			return d.metadataEntry(checker, at, b)
		}
		return d.records(checker, at, b)
	})
}

func describe(at int64, b batch.Batch, valid bool) Batch {
	return Batch{
		Kind: "batch", Position: at, Bytes: b.Size(), First: b.BaseOffset(), Last: b.LastOffset(), Records: b.Count(),
		LeaderEpoch: b.LeaderEpoch(), Codec: b.Codec().String(), TimestampType: b.TimestampType().String(),
		BaseTimestamp: timeText(b.BaseTimestamp()), MaxTimestamp: timeText(b.MaxTimestamp()),
		ProducerID: b.ProducerID(), ProducerEpoch: b.ProducerEpoch(), BaseSequence: b.BaseSequence(),
		Transactional: b.IsTransactional(), Control: b.IsControl(), CRC: fmt.Sprintf("%08x", b.CRC()), CRCValid: valid,
	}
}

// records reads the records of a batch whose checksum is right, and shows them where that is wanted.
func (d *dumper) records(c *batch.Checker, at int64, b batch.Batch) error {
	if !d.options.Records {
		return nil
	}
	marker := ""
	if b.IsControl() {
		control, err := c.ParseControl(b)
		if err != nil {
			return d.damage(at, "%v", err)
		}
		marker = map[batch.ControlType]string{batch.CommitMarker: "COMMIT", batch.AbortMarker: "ABORT"}[control.Type]
	}
	for r, err := range c.Records(b) {
		if err != nil {
			return d.damage(at, "%v", err)
		}
		item := Record{
			Kind: "record", Offset: b.OffsetOf(&r), Timestamp: timeText(b.TimestampOf(&r)),
			Key: readable(r.Key), Value: readable(r.Value), Control: marker,
		}
		for _, h := range r.Headers {
			item.Headers = append(item.Headers, Header{string(h.Key), readable(h.Value)})
		}
		if err := d.show(item); err != nil {
			return err
		}
	}
	return nil
}

// walk visits every stretch of bytes that is framed as a batch. What is not is damage, and the walk
// goes on with the next whole batch whose checksum is right.
func (d *dumper) walk(visit func(at int64, b batch.Batch) error) error {
	var buf []byte
	for at := int64(0); at < d.size; {
		size, err := d.frame(at)
		if err == nil {
			buf = grow(buf, int(size))
			if _, err := d.f.ReadAt(buf, at); err != nil {
				return fmt.Errorf("batch at byte %d: %w", at, err)
			}
			if err := visit(at, batch.Batch(buf)); err != nil {
				return err
			}
			end := at + size
			if batch.Batch(buf).CheckCRC() != nil {
				// Its length may be what is wrong: the next batch may lie inside it.
				next, err := d.resync(at + 1)
				if err != nil {
					return err
				}
				end = min(end, next)
			}
			at = end
			continue
		}
		var reading *readError
		if errors.As(err, &reading) {
			return err
		}
		next, err2 := d.resync(at + 1)
		if err2 != nil {
			return err2
		}
		if err := d.gap(at, next, err); err != nil {
			return err
		}
		at = next
	}
	return nil
}

func grow(buf []byte, n int) []byte {
	if cap(buf) < n {
		return make([]byte, n)
	}
	return buf[:n]
}

// gap reports the bytes between at and next, which are no batch.
func (d *dumper) gap(at, next int64, why error) error {
	zeros, err := d.allZero(at, next)
	if err != nil {
		return err
	}
	switch {
	case zeros && next == d.size && next-at >= batch.HeaderBytes:
		return d.damage(at, "%d zero bytes up to the end: space that was reserved, or never reached the disk", next-at)
	case next == d.size:
		return d.damage(at, "%v; no whole batch follows in the remaining %d bytes", why, next-at)
	}
	return d.damage(at, "%v; the next whole batch begins %d bytes later, at %d", why, next-at, next)
}

// readError is a file that cannot be read, unlike one that reads as nonsense.
type readError struct{ err error }

func (e *readError) Error() string { return e.err.Error() }
func (e *readError) Unwrap() error { return e.err }

// frame gives the size of the batch at a position.
func (d *dumper) frame(at int64) (int64, error) {
	head := make([]byte, batch.PrefixBytes)
	n, err := d.f.ReadAt(head, at)
	if err != nil && !errors.Is(err, io.EOF) {
		return 0, &readError{err}
	}
	size, err := batch.FrameBytes(head[:n])
	switch {
	case errors.Is(err, batch.ErrIncomplete):
		return 0, fmt.Errorf("the file ends after %d bytes of a batch's header", d.size-at)
	case err != nil:
		return 0, err
	case size > d.size-at:
		return 0, fmt.Errorf("the file ends after %d bytes of a batch of %d", d.size-at, size)
	case size > maxBatchBytes:
		return 0, fmt.Errorf("a batch of %d bytes is more than there can be", size)
	}
	return size, nil
}

const (
	// searchWindow is read at once in search of the next batch.
	searchWindow = 1 << 20
	// searchBytes bounds that search: beyond it the rest counts as lost to this tool.
	searchBytes = 64 << 20
)

// resync finds the first position from at on where a batch with a right checksum begins, or the
// file's end.
func (d *dumper) resync(at int64) (int64, error) {
	buf := make([]byte, searchWindow+batch.PrefixBytes)
	for end := min(d.size, at+searchBytes); at < end; at += searchWindow {
		n, err := d.f.ReadAt(buf, at)
		if err != nil && !errors.Is(err, io.EOF) {
			return 0, &readError{err}
		}
		for i := 0; i+batch.PrefixBytes <= n && i < searchWindow; i++ {
			size, err := batch.FrameBytes(buf[i:])
			if err != nil || size > d.size-at-int64(i) || size > maxBatchBytes {
				continue
			}
			whole := make([]byte, size)
			if _, err := d.f.ReadAt(whole, at+int64(i)); err != nil {
				return 0, &readError{err}
			}
			if batch.Batch(whole).CheckCRC() == nil {
				return at + int64(i), nil
			}
		}
	}
	return d.size, nil
}

func (d *dumper) allZero(from, to int64) (bool, error) {
	buf := make([]byte, 64<<10)
	for from < to {
		n, err := d.f.ReadAt(buf[:min(int64(len(buf)), to-from)], from)
		if err != nil && !errors.Is(err, io.EOF) {
			return false, &readError{err}
		}
		for _, c := range buf[:n] {
			if c != 0 {
				return false, nil
			}
		}
		if from += int64(n); n == 0 {
			break
		}
	}
	return true, nil
}
