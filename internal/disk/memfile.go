package disk

import (
	"errors"
	"io"
	"io/fs"
	"sync/atomic"
	"syscall"
)

type memFile struct {
	m        *Mem
	node     *node
	name     string
	readOnly bool
	closed   atomic.Bool
}

// do asks about op and runs f with the lock held, unless file or disk are gone. A Short or a
// Garbled comes back as f's argument.
func (f *memFile) do(op Op, run func(fault error) error) error {
	op.Path = f.name
	if f.closed.Load() {
		return inPath(op, fs.ErrClosed)
	}
	fault := f.m.ask(op)
	if fault != nil && !partly(op.Kind, fault) {
		return inPath(op, f.m.locked(func() error { return fault }))
	}
	err := f.m.locked(func() error {
		if f.closed.Load() {
			return fs.ErrClosed
		}
		if f.readOnly && op.Kind != OpRead && op.Kind != OpSize {
			return syscall.EBADF
		}
		if op.Off < 0 || op.Len < 0 {
			return syscall.EINVAL
		}
		return run(fault)
	})
	return inPath(op, err)
}

// partly tells whether an Op happens although a Fault has answered it.
func partly(k Kind, fault error) bool {
	var short Short
	var garbled Garbled
	return (k == OpRead || k == OpWrite) && errors.As(fault, &short) || k == OpRead && errors.As(fault, &garbled)
}

// shortened is how many of n bytes a fault lets through, and what it answers then.
func shortened(fault error, n int) (int, error) {
	var short Short
	if !errors.As(fault, &short) {
		return n, nil
	}
	if short.Err == nil {
		fault = io.ErrUnexpectedEOF
	}
	return min(n, max(0, short.N)), fault
}

func (f *memFile) ReadAt(p []byte, off int64) (n int, err error) {
	err = f.do(Op{Kind: OpRead, Off: off, Len: int64(len(p))}, func(fault error) error {
		allowed, err := shortened(fault, len(p))
		n = f.node.live.readAt(p[:allowed], off)
		var g Garbled
		if errors.As(fault, &g) && g.Off >= 0 && g.Off < int64(n) {
			p[g.Off] ^= 1 << (g.Bit & 7)
		}
		if err == nil && n < len(p) {
			err = io.EOF
		}
		return err
	})
	return n, err
}

func (f *memFile) WriteAt(p []byte, off int64) (n int, err error) {
	err = f.do(Op{Kind: OpWrite, Off: off, Len: int64(len(p))}, func(fault error) error {
		allowed, fault := shortened(fault, len(p))
		if off > maxFileBytes-int64(allowed) {
			return syscall.EFBIG
		}
		if n = f.m.write(f.node, p[:allowed], off); n < allowed {
			return errNoSpace
		}
		return fault
	})
	return n, err
}

func (f *memFile) Truncate(size int64) error {
	return f.do(Op{Kind: OpTruncate, Off: size}, func(error) error {
		if size > maxFileBytes {
			return syscall.EFBIG
		}
		f.m.truncate(f.node, size)
		return nil
	})
}

func (f *memFile) Preallocate(off, n int64) error {
	return f.do(Op{Kind: OpPreallocate, Off: off, Len: n}, func(error) error {
		if off > maxFileBytes-n {
			return syscall.EFBIG
		}
		if f.node.live.fits(off, n, f.m.free()) < n {
			return errNoSpace // all or nothing
		}
		f.m.used += int64(f.node.live.reserve(off, n))
		f.m.changeFile(f.node, fileChange{kind: OpPreallocate, off: off, n: n})
		return nil
	})
}

func (f *memFile) SyncData() error {
	return f.m.flush(Op{Kind: OpSync, Path: f.name}, func() ([]*node, error) {
		if f.closed.Load() {
			return nil, fs.ErrClosed
		}
		return []*node{f.node}, nil
	})
}

func (f *memFile) Size() (size int64, err error) {
	err = f.do(Op{Kind: OpSize}, func(error) error {
		size = f.node.live.size
		return nil
	})
	return size, err
}

func (f *memFile) Descriptor(func(fd int)) bool { return false }

func (f *memFile) Close() error {
	if f.closed.Swap(true) {
		return &fs.PathError{Op: "close", Path: f.name, Err: fs.ErrClosed}
	}
	m := f.m
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.dead != nil {
		return nil
	}
	if f.node.handles--; f.node.handles == 0 && f.node.parent == nil {
		m.used -= int64(f.node.live.taken()) // the last reader of a removed file
	}
	return nil
}
