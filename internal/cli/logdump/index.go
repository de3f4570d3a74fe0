package logdump

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"barnabas/internal/batch"
)

// IndexEntry is an entry of an offset index: the batch at Position ends with Offset.
type IndexEntry struct {
	Kind     string `json:"kind"` // "index"
	Offset   int64  `json:"offset"`
	Position int64  `json:"position"`
}

// Text gives the entry in a line.
func (e IndexEntry) Text() string { return fmt.Sprintf("offset=%d position=%d", e.Offset, e.Position) }

// TimeEntry is an entry of a time index: no record up to Offset is later than Timestamp.
type TimeEntry struct {
	Kind      string `json:"kind"` // "timeindex"
	Timestamp string `json:"timestamp"`
	Ms        int64  `json:"timestamp_ms"`
	Offset    int64  `json:"offset"`
}

// Text gives the entry in a line.
func (e TimeEntry) Text() string { return fmt.Sprintf("time=%s offset=%d", e.Timestamp, e.Offset) }

// Aborted is an entry of a transaction index.
type Aborted struct {
	Kind       string `json:"kind"` // "aborted"
	ProducerID int64  `json:"producer_id"`
	First      int64  `json:"first_offset"`
	Last       int64  `json:"last_offset"`
	LastStable int64  `json:"last_stable_offset"`
}

// Text gives the entry in a line.
func (a Aborted) Text() string {
	return fmt.Sprintf("aborted producer=%d offsets=%d..%d last stable=%d", a.ProducerID, a.First, a.Last, a.LastStable)
}

const (
	offsetEntryBytes  = 8
	timeEntryBytes    = 12
	abortedEntryBytes = 34
)

// headers are the batches of the segment beside an index, by their last offset.
type headers map[int64]header

type header struct {
	position, maxTimestamp int64
}

// beside reads the segment that an index belongs to; nil where there is none.
func (d *dumper) beside() (headers, error) {
	stem, _, _ := strings.Cut(d.file, suffixOf(d.file))
	f, err := os.Open(stem + ".log")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	segment := &dumper{file: stem + ".log", f: f, size: info.Size(), emit: func(Item) error { return nil }}
	found := headers{}
	err = segment.walk(func(at int64, b batch.Batch) error {
		found[b.LastOffset()] = header{at, b.MaxTimestamp()}
		return nil
	})
	return found, err
}

func suffixOf(path string) string {
	for _, s := range []string{".timeindex", ".txnindex", ".index"} {
		if strings.Contains(path, s) {
			return s
		}
	}
	return ".log"
}

// offsetIndex checks that entries ascend and that each leads to a batch that ends where it says.
func (d *dumper) offsetIndex() error {
	segment, err := d.beside()
	if err != nil {
		return err
	}
	base := baseOffset(d.file)
	last := IndexEntry{Offset: base - 1, Position: -1}
	return d.entries(offsetEntryBytes, func(at int64, raw []byte) error {
		e := IndexEntry{
			"index", base + int64(int32(binary.BigEndian.Uint32(raw))), int64(int32(binary.BigEndian.Uint32(raw[4:]))),
		}
		if err := d.show(e); err != nil {
			return err
		}
		before := last
		last = e
		if e.Offset <= before.Offset || e.Position <= before.Position {
			return d.damage(at, "offset %d at %d does not ascend from offset %d at %d", e.Offset, e.Position, before.Offset, before.Position)
		}
		if segment == nil {
			return nil
		}
		if h, ok := segment[e.Offset]; !ok || h.position != e.Position {
			return d.damage(at, "the segment has no batch at %d that ends with offset %d", e.Position, e.Offset)
		}
		return nil
	})
}

// timeIndex checks that entries ascend and that each names a batch that has that timestamp.
func (d *dumper) timeIndex() error {
	segment, err := d.beside()
	if err != nil {
		return err
	}
	base := baseOffset(d.file)
	last := TimeEntry{Ms: -1, Offset: base - 1}
	return d.entries(timeEntryBytes, func(at int64, raw []byte) error {
		ms := int64(binary.BigEndian.Uint64(raw))
		e := TimeEntry{"timeindex", timeText(ms), ms, base + int64(int32(binary.BigEndian.Uint32(raw[8:])))}
		if err := d.show(e); err != nil {
			return err
		}
		before := last
		last = e
		if e.Ms < before.Ms || e.Offset < before.Offset {
			return d.damage(at, "%s at offset %d does not ascend from %s at offset %d", e.Timestamp, e.Offset, before.Timestamp, before.Offset)
		}
		if segment == nil {
			return nil
		}
		if h, ok := segment[e.Offset]; !ok || h.maxTimestamp != e.Ms {
			return d.damage(at, "the segment has no batch of %s that ends with offset %d", e.Timestamp, e.Offset)
		}
		return nil
	})
}

func (d *dumper) transactionIndex() error {
	last := int64(-1)
	return d.entries(abortedEntryBytes, func(at int64, raw []byte) error {
		if v := binary.BigEndian.Uint16(raw); v != 0 {
			return d.damage(at, "version %d of an entry is unknown", v)
		}
		field := func(i int) int64 { return int64(binary.BigEndian.Uint64(raw[2+8*i:])) }
		a := Aborted{"aborted", field(0), field(1), field(2), field(3)}
		if err := d.show(a); err != nil {
			return err
		}
		before := last
		last = a.Last
		if a.First > a.Last || a.Last <= before {
			return d.damage(at, "the transaction %d..%d does not come after offset %d", a.First, a.Last, before)
		}
		return nil
	})
}
