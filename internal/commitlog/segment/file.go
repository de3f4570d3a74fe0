package segment

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"
	"sync/atomic"

	"barnabas/internal/disk"
)

// ErrGone: the file has been given up (retention, truncation, removal) while somebody was on the way to it.
var ErrGone = errors.New("segment is gone")

// Handle is an open file that several hold. It is closed when the last one lets go, so that a range on its way to a
// consumer outlives retention, and an idle file does not stay open.
type Handle struct {
	disk.File
	files *Files
	refs  atomic.Int32
}

// Release lets go of the file.
func (h *Handle) Release() error {
	if h.refs.Add(-1) > 0 {
		return nil
	}
	h.files.count.Add(-1)
	return h.Close()
}

// File is one of a segment's files: opened when it is needed, closed by housekeeping when nobody has used it for a while.
type File struct {
	seg    *Segment
	suffix string

	used atomic.Int64 // the sweep at the last use
	mu   sync.Mutex   // short: never held while opening or closing
	open *Handle      // holds one reference of its own
	gone bool
}

// Path of the file.
func (f *File) Path() string { return f.seg.Path(f.suffix) }

func (f *File) isGone() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.gone
}

// Acquire opens the file if need be. The caller releases the handle.
func (f *File) Acquire(m disk.Mode) (*Handle, error) {
	d := f.seg.files
	f.used.Store(d.sweep.Load())
	if h, err := f.retain(); h != nil || err != nil {
		return h, err
	}
	path := f.Path()
	opened, err := d.fs.Open(path, m)
	if errors.Is(err, fs.ErrNotExist) && path != f.Path() { // it has got its last name meanwhile
		path = f.Path()
		opened, err = d.fs.Open(path, m)
	}
	if errors.Is(err, fs.ErrNotExist) && f.isGone() {
		return nil, ErrGone // given up since it was looked for
	}
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	f.mu.Lock()
	if f.gone {
		f.mu.Unlock()
		return nil, errors.Join(ErrGone, opened.Close())
	}
	if h := f.open; h != nil { // somebody was faster
		h.refs.Add(1)
		f.mu.Unlock()
		return h, opened.Close()
	}
	h := &Handle{File: opened, files: d}
	h.refs.Store(2)
	f.open = h
	f.mu.Unlock()
	d.opened(f)
	return h, nil
}

// retain returns the open handle with a reference for the caller, nil when the file is closed.
func (f *File) retain() (*Handle, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.gone {
		return nil, ErrGone
	}
	if f.open != nil {
		f.open.refs.Add(1)
	}
	return f.open, nil
}

// Shut lets go of the open file; who uses it meanwhile keeps it open. With give it cannot be opened again.
func (f *File) Shut(give bool) error {
	f.mu.Lock()
	h := f.open
	f.open = nil
	f.gone = f.gone || give
	f.mu.Unlock()
	if h == nil {
		return nil
	}
	f.seg.files.shut(f)
	return h.Release()
}

// Segment is whose file it is.
func (f *File) Segment() *Segment { return f.seg }

// IsOpen tells whether the file is open here.
func (f *File) IsOpen() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.open != nil
}

// Files are the open segment files of a data directory. It opens them, counts them, and knows which have not been used for long.
type Files struct {
	fs      disk.FS
	limit   int64
	crowded func() // called when more than limit are open
	count   atomic.Int64
	sweep   atomic.Int64 // number of the last look for idle files

	mu   sync.Mutex // short
	open map[*File]struct{}
}

// NewFiles calls crowded, which must not block, whenever a file is opened past the limit.
func NewFiles(fsys disk.FS, limit int, crowded func()) *Files {
	return &Files{fs: fsys, limit: int64(limit), crowded: crowded, open: map[*File]struct{}{}}
}

// Count is how many files are open, those included that only a range still holds.
func (d *Files) Count() int64 { return d.count.Load() }

// Crowded tells whether more files are open than the limit.
func (d *Files) Crowded() bool { return d.count.Load() > d.limit }

func (d *Files) opened(f *File) {
	d.mu.Lock()
	d.open[f] = struct{}{}
	d.mu.Unlock()
	if d.count.Add(1) > d.limit {
		d.crowded()
	}
}

func (d *Files) shut(f *File) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.open, f)
}

// Idle returns the files that nobody has used since the call before the last one.
func (d *Files) Idle() []*File {
	sweep := d.sweep.Add(1)
	return d.where(func(f *File) bool { return sweep-f.used.Load() > 2 })
}

// Surplus returns the files longest unused that have to be closed for a tenth of the limit to be free.
func (d *Files) Surplus() []*File {
	files := d.Open()
	surplus := len(files) - int(d.limit)*9/10
	if surplus <= 0 {
		return nil
	}
	d.sweep.Add(1) // so that those opened from now on are younger
	slices.SortFunc(files, func(a, b *File) int { return int(a.used.Load() - b.used.Load()) })
	return files[:surplus]
}

// Open returns all that can still be closed.
func (d *Files) Open() []*File { return d.where(func(*File) bool { return true }) }

func (d *Files) where(pick func(*File) bool) []*File {
	d.mu.Lock()
	defer d.mu.Unlock()
	var files []*File
	for f := range d.open {
		if pick(f) {
			files = append(files, f)
		}
	}
	return files
}
