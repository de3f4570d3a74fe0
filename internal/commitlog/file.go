package commitlog

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"barnabas/internal/disk"
)

// errGone: the file has been given up (retention, truncation, removal) while somebody was on the way to it.
var errGone = errors.New("segment is gone")

// handle is an open file that several hold. It is closed when the last one lets go, so that a range on its way to a
// consumer outlives retention, and an idle file does not stay open.
type handle struct {
	disk.File
	dir  *Dir
	refs atomic.Int32
}

func (h *handle) release() error {
	if h.refs.Add(-1) > 0 {
		return nil
	}
	h.dir.openCount.Add(-1)
	return h.Close()
}

// file is one of a segment's files: opened when it is needed, closed by housekeeping when nobody has used it for a while.
type file struct {
	seg    *segment
	suffix string

	used atomic.Int64 // the sweep of the housekeeping at the last use
	mu   sync.Mutex   // short: never held while opening or closing
	open *handle      // holds one reference of its own
	gone bool
}

func (f *file) path() string { return f.seg.path(f.suffix) }

// acquire opens the file if need be. The caller releases the handle.
func (f *file) acquire(m disk.Mode) (*handle, error) {
	d := f.seg.log.dir
	f.used.Store(d.sweep.Load())
	if h, err := f.retain(); h != nil || err != nil {
		return h, err
	}
	opened, err := d.fs.Open(f.path(), m)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", f.path(), err)
	}
	f.mu.Lock()
	if f.gone {
		f.mu.Unlock()
		return nil, errors.Join(errGone, opened.Close())
	}
	if h := f.open; h != nil { // somebody was faster
		h.refs.Add(1)
		f.mu.Unlock()
		return h, opened.Close()
	}
	h := &handle{File: opened, dir: d}
	h.refs.Store(2)
	f.open = h
	f.mu.Unlock()
	d.opened(f)
	return h, nil
}

// retain returns the open handle with a reference for the caller, nil when the file is closed.
func (f *file) retain() (*handle, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.gone {
		return nil, errGone
	}
	if f.open != nil {
		f.open.refs.Add(1)
	}
	return f.open, nil
}

// shut lets go of the open file; who uses it meanwhile keeps it open. With give it cannot be opened again.
func (f *file) shut(give bool) error {
	f.mu.Lock()
	h := f.open
	f.open = nil
	f.gone = f.gone || give
	f.mu.Unlock()
	if h == nil {
		return nil
	}
	f.seg.log.dir.shut(f)
	return h.release()
}

// isOpen tells whether the file is open here.
func (f *file) isOpen() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.open != nil
}
