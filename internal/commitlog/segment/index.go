package segment

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"

	"barnabas/internal/disk"
)

// The indexes of a segment in Kafka's formats. The first two are sparse: an entry for about every index.interval.bytes of batches.
//
//   - .index: last offset of a batch relative to the segment's base int32, position of that batch int32.
//   - .timeindex: largest timestamp so far int64, relative last offset of the batch that had it int32.
//   - .txnindex: aborted transactions whose markers are in the segment, see abortedEntry. Made with its first entry.
//
// Entries of the sparse ones are hints: where one leads, the batch's own header must agree (see Segment.Locate), and all three can be
// made again from the segment. So they need no flush of their own before a record is acknowledged.
const (
	offsetEntryBytes = 8
	timeEntryBytes   = 12
	maxEntryBytes    = abortedBytes
	// tailBytes is how much of an index waits in memory before it is written: one small write for megabytes of log.
	tailBytes = 4096
)

// indexEntry is large enough for every kind.
type indexEntry [maxEntryBytes]byte

func offsetEntry(relative, position int32) (e indexEntry) {
	binary.BigEndian.PutUint32(e[:], uint32(relative))
	binary.BigEndian.PutUint32(e[4:], uint32(position))
	return e
}

func timeEntry(ms int64, relative int32) (e indexEntry) {
	binary.BigEndian.PutUint64(e[:], uint64(ms))
	binary.BigEndian.PutUint32(e[8:], uint32(relative))
	return e
}

// Keys that an index ascends by.
func entryOffset(e []byte) int64     { return int64(int32(binary.BigEndian.Uint32(e))) }
func entryPosition(e []byte) int64   { return int64(int32(binary.BigEndian.Uint32(e[4:]))) }
func entryTime(e []byte) int64       { return int64(binary.BigEndian.Uint64(e)) }
func entryTimeOffset(e []byte) int64 { return int64(int32(binary.BigEndian.Uint32(e[8:]))) }

// index is a file of entries of equal width that only grows at its end. It is changed under the append slot and
// searched by anybody.
type index struct {
	File
	width int64

	lock   sync.Mutex // short: guards what follows, never held during I/O
	stored int64      // entries in the file
	tail   []byte     // entries after those
	exists bool
	ragged bool // the file ends inside an entry
	cuts   int  // how often entries were taken away: whoever read meanwhile reads again
}

func (x *index) count() int64 {
	x.lock.Lock()
	defer x.lock.Unlock()
	return x.stored + int64(len(x.tail))/x.width
}

// add appends an entry. It does not fail: what cannot be written waits in memory and is written later.
func (x *index) add(e indexEntry) {
	x.lock.Lock()
	x.tail = append(x.tail, e[:x.width]...)
	full := len(x.tail) >= tailBytes
	x.lock.Unlock()
	x.seg.IndexUnsynced.Store(true)
	if full {
		if err := x.store(); err != nil {
			x.seg.Host.Tolerate(err)
		}
	}
}

// store writes the entries that wait, and makes the file if it does not exist.
func (x *index) store() error {
	x.lock.Lock()
	stored, tail, exists := x.stored, x.tail, x.exists
	x.lock.Unlock()
	if len(tail) == 0 && exists {
		return nil
	}
	h, err := x.Acquire(disk.Create)
	if err != nil {
		return err
	}
	if !exists {
		x.seg.Host.NamesChanged()
	}
	// The tail only grows under the append slot, which the caller holds.
	if len(tail) > 0 {
		_, err = h.WriteAt(tail, stored*x.width)
	}
	if err = errors.Join(err, h.Release()); err != nil {
		return fmt.Errorf("write %s: %w", x.Path(), err)
	}
	x.lock.Lock()
	x.stored += int64(len(tail)) / x.width
	x.tail, x.exists = x.tail[:0], true
	x.lock.Unlock()
	return nil
}

// storeSome is store, but makes no file for nothing.
func (x *index) storeSome() error {
	x.lock.Lock()
	idle := len(x.tail) == 0
	x.lock.Unlock()
	if idle {
		return nil
	}
	return x.store()
}

// onDisk tells whether the file exists.
func (x *index) onDisk() bool {
	x.lock.Lock()
	defer x.lock.Unlock()
	return x.exists
}

// waiting tells whether entries wait to be written.
func (x *index) waiting() bool {
	x.lock.Lock()
	defer x.lock.Unlock()
	return len(x.tail) > 0
}

// forget drops the buffer of entries that have been written.
func (x *index) forget() {
	x.lock.Lock()
	defer x.lock.Unlock()
	if len(x.tail) == 0 {
		x.tail = nil
	}
}

func (x *index) buffered() bool {
	x.lock.Lock()
	defer x.lock.Unlock()
	return x.tail != nil
}

// cut keeps the first n entries.
func (x *index) cut(n int64) error {
	x.lock.Lock()
	stored, exists := x.stored, x.exists
	if n >= stored && !x.ragged {
		x.tail = x.tail[:min(int64(len(x.tail)), (n-stored)*x.width)]
		x.lock.Unlock()
		return nil
	}
	n = min(n, stored)
	x.stored, x.tail, x.ragged = n, nil, false
	x.cuts++
	x.lock.Unlock()
	if !exists {
		return nil
	}
	return x.truncate(n)
}

// keep cuts the index before the first entry that good refuses.
func (x *index) keep(good func(e []byte) bool) error {
	if err := x.storeSome(); err != nil {
		return err
	}
	if x.stored == 0 {
		return x.cut(0)
	}
	data := make([]byte, x.stored*x.width)
	h, err := x.Acquire(disk.Write)
	if err == nil {
		err = errors.Join(ReadFull(h, data, 0), h.Release())
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", x.Path(), err)
	}
	n := int64(0)
	for n < x.stored && good(data[n*x.width:(n+1)*x.width]) {
		n++
	}
	return x.cut(n)
}

// clear drops all entries, also of a file that makes no sense.
func (x *index) clear() error {
	x.lock.Lock()
	empty := (x.stored == 0 && !x.ragged) || !x.exists
	x.stored, x.tail, x.ragged = 0, nil, false
	x.cuts++
	x.lock.Unlock()
	if empty {
		return nil
	}
	return x.truncate(0)
}

func (x *index) truncate(n int64) error {
	h, err := x.Acquire(disk.Write)
	if err != nil {
		return err
	}
	x.seg.IndexUnsynced.Store(true)
	if err := errors.Join(h.Truncate(n*x.width), h.Release()); err != nil {
		return fmt.Errorf("cut %s: %w", x.Path(), err)
	}
	return nil
}

// floor finds the last entry whose key is at most target, and its number; -1 when there is none.
func (x *index) floor(key func([]byte) int64, target int64) (number int64, e indexEntry, err error) {
	err = x.uncut(func() error {
		number, e, err = x.floorNow(key, target)
		return err
	})
	return number, e, err
}

// uncut reads the file again as long as entries are taken away under the reading: made again, or the log cut. That does
// not happen to the same index twice in a row for long.
func (x *index) uncut(read func() error) error {
	for {
		before := x.cutsNow()
		if err := read(); x.cutsNow() == before {
			return err
		}
	}
}

func (x *index) cutsNow() int {
	x.lock.Lock()
	defer x.lock.Unlock()
	return x.cuts
}

func (x *index) floorNow(key func([]byte) int64, target int64) (number int64, e indexEntry, err error) {
	x.lock.Lock()
	stored := x.stored
	if n := int64(len(x.tail)); n > 0 && key(x.tail) <= target {
		i := floorIn(x.tail, x.width, key, target)
		copy(e[:], x.tail[i*x.width:(i+1)*x.width])
		x.lock.Unlock()
		return stored + i, e, nil
	}
	x.lock.Unlock()
	return x.floorStored(stored, key, target)
}

// floorIn needs the first entry's key to be at most target.
func floorIn(entries []byte, width int64, key func([]byte) int64, target int64) int64 {
	lo, hi := int64(0), int64(len(entries))/width
	for hi-lo > 1 {
		if mid := (lo + hi) / 2; key(entries[mid*width:]) <= target {
			lo = mid
		} else {
			hi = mid
		}
	}
	return lo
}

func (x *index) floorStored(stored int64, key func([]byte) int64, target int64) (number int64, e indexEntry, err error) {
	if stored == 0 {
		return -1, e, nil
	}
	h, err := x.Acquire(disk.Write)
	if err != nil {
		return -1, e, err
	}
	buf := TakeBlock()
	defer PutBlock(buf)
	number, err = x.searchFile(h, buf[:], stored, key, target)
	if number >= 0 {
		copy(e[:], buf[:x.width])
	}
	return number, e, errors.Join(err, h.Release())
}

// searchFile leaves the found entry at the beginning of buf.
func (x *index) searchFile(r io.ReaderAt, buf []byte, stored int64, key func([]byte) int64, target int64) (int64, error) {
	lo, hi := int64(0), stored // the answer is below hi, and at lo or later if there is one
	for perBlock := int64(len(buf)) / x.width; hi-lo > perBlock; {
		mid := (lo + hi) / 2
		if err := ReadFull(r, buf[:x.width], mid*x.width); err != nil {
			return -1, fmt.Errorf("read %s: %w", x.Path(), err)
		}
		if key(buf) <= target {
			lo = mid
		} else {
			hi = mid
		}
	}
	entries := buf[:(hi-lo)*x.width]
	if err := ReadFull(r, entries, lo*x.width); err != nil {
		return -1, fmt.Errorf("read %s: %w", x.Path(), err)
	}
	if key(entries) > target {
		return -1, nil
	}
	i := floorIn(entries, x.width, key, target)
	copy(buf, entries[i*x.width:(i+1)*x.width])
	return lo + i, nil
}

// last returns the last entry, number -1 when the index is empty.
func (x *index) last() (number int64, e indexEntry, err error) {
	err = x.uncut(func() error {
		number, e, err = x.lastNow()
		return err
	})
	return number, e, err
}

func (x *index) lastNow() (number int64, e indexEntry, err error) {
	x.lock.Lock()
	stored, n := x.stored, int64(len(x.tail))
	if n > 0 {
		copy(e[:], x.tail[n-x.width:])
	}
	x.lock.Unlock()
	if n > 0 || stored == 0 {
		return stored + n/x.width - 1, e, nil
	}
	h, err := x.Acquire(disk.Write)
	if err != nil {
		return -1, e, err
	}
	err = ReadFull(h, e[:x.width], (stored-1)*x.width)
	if err = errors.Join(err, h.Release()); err != nil {
		return -1, e, fmt.Errorf("read %s: %w", x.Path(), err)
	}
	return stored - 1, e, nil
}

// ReadFull reads all of p; a file that ends before is shorter than it was.
func ReadFull(r io.ReaderAt, p []byte, off int64) error {
	n, err := r.ReadAt(p, off)
	if n == len(p) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		return fmt.Errorf("%d of %d bytes at %d: %w", n, len(p), off, io.ErrUnexpectedEOF)
	}
	return err
}
