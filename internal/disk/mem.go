package disk

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// errNoSpace is what a full Mem answers, on every platform.
const errNoSpace = syscall.ENOSPC

// What handles of a Mem answer after its Crash or its Kill.
var (
	ErrPowerLost = errors.New("power lost")
	ErrKilled    = errors.New("process killed")
)

// Kind names what an Op is about to do.
type Kind string

// The kinds of Op. Close and Descriptor cannot fail here and are not seen.
const (
	OpOpen        Kind = "open"
	OpRead        Kind = "read"
	OpWrite       Kind = "write"
	OpTruncate    Kind = "truncate"
	OpPreallocate Kind = "preallocate"
	OpSync        Kind = "sync"
	OpSize        Kind = "size"
	OpMkdir       Kind = "mkdir"
	OpList        Kind = "list"
	OpStat        Kind = "stat"
	OpRename      Kind = "rename"
	OpExchange    Kind = "exchange"
	OpRemove      Kind = "remove" // once for each name below a directory, and for the directory
	OpSyncDir     Kind = "syncdir"
	OpSyncFS      Kind = "syncfs"
	OpFree        Kind = "free"
	OpLock        Kind = "lock"
	OpVolume      Kind = "volume"
)

// Op is what a Fault sees before it happens.
type Op struct {
	Kind Kind
	Path string // as the caller named it, cleaned; of a file, as it was when it was opened
	To   string // of a rename or an exchange
	Off  int64  // of a read, write, preallocation; the new size of a truncation
	Len  int64  // of a read, write, preallocation
}

// Fault is asked before each Op, with no lock held: it may sleep (a slow disk, in fake time), and
// what it returns is the Op's error, wrapped in the caller's path. A failed OpSync, OpSyncDir or
// OpSyncFS also drops what it should have flushed. Short and Garbled do more than fail. Called
// from many goroutines at once.
type Fault func(Op) error

// Short lets the first N bytes of a read or write through before Err.
type Short struct {
	N   int
	Err error
}

func (s Short) Error() string { return fmt.Sprintf("after %d bytes: %v", s.N, s.Err) }
func (s Short) Unwrap() error { return s.Err }

// Garbled lets a read succeed with one bit flipped in what it returns, and only there: a bad
// cable. FlipBit is for a bad platter.
type Garbled struct {
	Off int64 // within what is read
	Bit uint8 // 0 to 7
}

func (g Garbled) Error() string { return fmt.Sprintf("bit %d of byte %d flipped", g.Bit, g.Off) }

// Mem is a file system in memory that keeps what the package promises and not a bit more. It knows
// the content as it is read and the content as it is on the platter, and what has not been flushed
// from the one to the other; Crash decides, by its seed, what of that survives. It works inside a
// testing/synctest bubble and outside, but a Fault that sleeps must be where the callers are.
type Mem struct {
	fault atomic.Pointer[Fault]

	mu       sync.Mutex // held for copying only, never while waiting
	root     *node
	dirty    map[*node]bool    // has unflushed changes
	locks    map[string]string // holder by path
	capacity int64             // pages; 0: no limit
	used     int64             // pages
	dead     error
}

// NewMem returns an empty disk without faults or limit.
func NewMem() *Mem {
	return &Mem{root: newDirectory(nil, "/"), dirty: map[*node]bool{}, locks: map[string]string{}}
}

// SetFault puts f before every Op from now on, nil nothing. What Crash and Kill return has it too.
func (m *Mem) SetFault(f Fault) {
	if f == nil {
		m.fault.Store(nil)
		return
	}
	m.fault.Store(&f)
}

// SetCapacity limits the disk to so many bytes, in pages of 4 KiB that files take as they are
// written or preallocated; 0 takes the limit away. It may be less than what is in use. A removed
// file keeps its pages until it is closed. Names take no space.
func (m *Mem) SetCapacity(bytes int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.capacity = (bytes + pageBytes - 1) / pageBytes
}

// Kill returns the disk as the next process finds it after this one died: nothing is lost, and
// nothing is more durable than it was. Handles and locks of m are gone (ErrKilled).
func (m *Mem) Kill() *Mem {
	m.mu.Lock()
	defer m.mu.Unlock()
	next := &Mem{root: m.root, dirty: m.dirty, locks: map[string]string{}, capacity: m.capacity}
	next.fault.Store(m.fault.Load())
	next.used = next.root.closeAll()
	m.die(ErrKilled)
	return next
}

// die leaves nothing behind that handles of m could change. The lock is held.
func (m *Mem) die(cause error) {
	if m.dead == nil {
		m.dead = cause
	}
	m.root, m.dirty = newDirectory(nil, "/"), map[*node]bool{}
}

// FlipBit flips one bit (0 to 7) of the byte at off: the platter has rotten, and every read sees it.
func (m *Mem) FlipBit(name string, off int64, bit uint8) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	n, err := m.find(name)
	if err == nil && (n.dir != nil || off < 0 || off >= n.live.size) {
		err = fs.ErrInvalid
	}
	if err != nil {
		return &fs.PathError{Op: "flip bit", Path: name, Err: err}
	}
	m.used += int64(n.flip(off, 1<<(bit&7)))
	return nil
}

// ask lets the Fault see op. The lock is not held: it may sleep.
func (m *Mem) ask(op Op) error {
	if f := m.fault.Load(); f != nil {
		return (*f)(op)
	}
	return nil
}

// do asks about op and then runs f with the lock held, unless the disk is gone.
func (m *Mem) do(op Op, f func() error) error {
	err := m.ask(op)
	if err == nil {
		err = m.locked(f)
	}
	return inPath(op, err)
}

func (m *Mem) locked(f func() error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.dead != nil {
		return m.dead
	}
	return f()
}

// inPath says of an error what was being done to what.
func inPath(op Op, err error) error {
	if err == nil || errors.Is(err, io.EOF) {
		return err
	}
	if op.Kind == OpRename || op.Kind == OpExchange {
		return &os.LinkError{Op: string(op.Kind), Old: op.Path, New: op.To, Err: err}
	}
	return &fs.PathError{Op: string(op.Kind), Path: op.Path, Err: err}
}

func absolute(name string) string { return path.Clean("/" + name) }

// find returns the node of a name. The lock is held.
func (m *Mem) find(name string) (*node, error) {
	n := m.root
	for p := range strings.SplitSeq(absolute(name), "/") {
		if p == "" {
			continue
		}
		if n.dir == nil {
			return nil, syscall.ENOTDIR
		}
		if n = n.dir.live[p]; n == nil {
			return nil, fs.ErrNotExist
		}
	}
	return n, nil
}

func (m *Mem) findDir(name string) (*node, error) {
	n, err := m.find(name)
	if err == nil && n.dir == nil {
		err = syscall.ENOTDIR
	}
	return n, err
}

// findParent returns the directory that holds a name, whether or not there is such a name yet.
func (m *Mem) findParent(name string) (parent *node, base string, err error) {
	abs := absolute(name)
	if abs == "/" {
		return nil, "", fs.ErrInvalid
	}
	parent, err = m.findDir(path.Dir(abs))
	return parent, path.Base(abs), err
}

// Open implements FS.
func (m *Mem) Open(name string, mode Mode) (File, error) {
	f := &memFile{m: m, name: path.Clean(name), readOnly: mode == Read}
	err := m.do(Op{Kind: OpOpen, Path: f.name}, func() error {
		parent, base, err := m.findParent(name)
		if err != nil {
			return err
		}
		n := parent.dir.live[base]
		switch {
		case n == nil && (mode == Read || mode == Write):
			return fs.ErrNotExist
		case n != nil && mode == New:
			return fs.ErrExist
		case n == nil:
			n = m.create(parent, base, absolute(name))
		case n.dir != nil:
			return syscall.EISDIR
		}
		n.handles++
		f.node = n
		return nil
	})
	if err != nil {
		return nil, err
	}
	return f, nil
}

func (m *Mem) create(parent *node, base, born string) *node {
	n := &node{born: born, modTime: time.Now()}
	m.change(edit{dir: parent, name: base, to: n})
	return n
}

// MkdirAll implements FS.
func (m *Mem) MkdirAll(name string) error {
	return m.do(Op{Kind: OpMkdir, Path: path.Clean(name)}, func() error {
		at, born := m.root, ""
		for p := range strings.SplitSeq(absolute(name), "/") {
			if p == "" {
				continue
			}
			born += "/" + p
			next := at.dir.live[p]
			if next == nil {
				next = newDirectory(at, born)
				m.change(edit{dir: at, name: p, to: next})
			}
			if next.dir == nil {
				return syscall.ENOTDIR
			}
			at = next
		}
		return nil
	})
}

// List implements FS.
func (m *Mem) List(dir string) (entries []Entry, err error) {
	err = m.do(Op{Kind: OpList, Path: path.Clean(dir)}, func() error {
		d, err := m.findDir(dir)
		if err != nil {
			return err
		}
		entries = make([]Entry, 0, len(d.dir.live))
		for _, name := range slices.Sorted(maps.Keys(d.dir.live)) {
			entries = append(entries, d.dir.live[name].entry(name))
		}
		return nil
	})
	return entries, err
}

// Stat implements FS.
func (m *Mem) Stat(name string) (e Entry, err error) {
	err = m.do(Op{Kind: OpStat, Path: path.Clean(name)}, func() error {
		n, err := m.find(name)
		if err == nil {
			e = n.entry(path.Base(path.Clean(name)))
		}
		return err
	})
	return e, err
}

// Rename implements FS.
func (m *Mem) Rename(from, to string) error {
	return m.do(Op{Kind: OpRename, Path: path.Clean(from), To: path.Clean(to)}, func() error {
		fromDir, fromBase, err := m.findParent(from)
		if err != nil {
			return err
		}
		toDir, toBase, err := m.findParent(to)
		if err != nil {
			return err
		}
		moved, replaced := fromDir.dir.live[fromBase], toDir.dir.live[toBase]
		switch {
		case moved == nil:
			return fs.ErrNotExist
		case moved == replaced && moved.dir == nil:
			return nil
		case replaced != nil && replaced.dir != nil:
			return syscall.EEXIST
		case moved.dir != nil && toDir.isWithin(moved):
			return syscall.EINVAL
		case replaced != nil && moved.dir != nil:
			return syscall.ENOTDIR
		}
		m.change(edit{dir: fromDir, name: fromBase}, edit{dir: toDir, name: toBase, to: moved})
		return nil
	})
}

// Exchange implements FS.
func (m *Mem) Exchange(a, b string) error {
	return m.do(Op{Kind: OpExchange, Path: path.Clean(a), To: path.Clean(b)}, func() error {
		one, err := m.find(a)
		if err != nil {
			return err
		}
		other, err := m.find(b)
		switch {
		case err != nil:
			return err
		case one.dir != nil || other.dir != nil:
			return syscall.EISDIR
		case one.parent != other.parent:
			return syscall.EXDEV
		case one == other:
			return nil
		}
		d := one.parent
		m.change(edit{dir: d, name: path.Base(absolute(a)), to: other}, edit{dir: d, name: path.Base(absolute(b)), to: one})
		return nil
	})
}

// Remove implements FS.
func (m *Mem) Remove(name string) error {
	op := Op{Kind: OpRemove, Path: path.Clean(name)}
	var below []string
	err := m.locked(func() error {
		n, err := m.find(name)
		if err == nil && n.dir != nil {
			below = n.dir.inNoOrder()
		}
		return err
	})
	if errors.Is(err, fs.ErrNotExist) {
		return inPath(op, m.ask(op)) // the Fault sees the attempt all the same
	}
	if err != nil {
		return inPath(op, err)
	}
	for _, child := range below {
		if err := m.Remove(path.Join(op.Path, child)); err != nil {
			return err
		}
	}
	return m.do(op, func() error {
		parent, base, err := m.findParent(name)
		if err != nil {
			return err
		}
		n := parent.dir.live[base]
		switch {
		case n == nil:
			return nil
		case n.dir != nil && len(n.dir.live) > 0:
			return syscall.ENOTEMPTY // somebody made a file meanwhile
		}
		m.change(edit{dir: parent, name: base})
		return nil
	})
}

// SyncDir implements FS.
func (m *Mem) SyncDir(dir string) error {
	op := Op{Kind: OpSyncDir, Path: path.Clean(dir)}
	return m.flush(op, func() ([]*node, error) {
		d, err := m.findDir(dir)
		return []*node{d}, err
	})
}

// flush makes durable what the nodes that choose picks had changed before the call; what is
// changed while the Fault sleeps is left for the next. A failure drops it instead: the system
// takes it for written, and will never try again.
func (m *Mem) flush(op Op, choose func() ([]*node, error)) error {
	var nodes []*node
	var upTo []int
	err := m.locked(func() (err error) {
		if nodes, err = choose(); err == nil {
			upTo = make([]int, len(nodes))
			for i, n := range nodes {
				upTo[i] = n.changes()
			}
		}
		return err
	})
	if err != nil {
		return inPath(op, err)
	}
	failed := m.ask(op)
	err = m.locked(func() error {
		for i, n := range nodes {
			if failed != nil {
				m.drop(n, upTo[i])
			} else {
				m.settle(n, upTo[i])
			}
		}
		return failed
	})
	return inPath(op, err)
}

// Free implements FS. Without a limit the disk pretends to have a tebibyte.
func (m *Mem) Free(dir string) (avail, total uint64, err error) {
	err = m.do(Op{Kind: OpFree, Path: path.Clean(dir)}, func() error {
		if _, err := m.findDir(dir); err != nil {
			return err
		}
		pages := m.capacity
		if pages == 0 {
			pages = 1 << 40 / pageBytes
		}
		avail, total = uint64(max(0, pages-m.used)*pageBytes), uint64(pages*pageBytes)
		return nil
	})
	return avail, total, err
}

// free is how many pages can be taken. The lock is held.
func (m *Mem) free() int64 {
	if m.capacity == 0 {
		return 1 << 62
	}
	return max(0, m.capacity-m.used)
}

type memLock struct {
	m    *Mem
	name string
	done atomic.Bool
}

// Lock implements FS.
func (m *Mem) Lock(name, holder string) (io.Closer, error) {
	l := &memLock{m: m, name: absolute(name)}
	err := m.do(Op{Kind: OpLock, Path: path.Clean(name)}, func() error {
		if other, taken := m.locks[l.name]; taken {
			return &LockedError{Path: name, Holder: other}
		}
		parent, base, err := m.findParent(name)
		if err != nil {
			return err
		}
		n := parent.dir.live[base]
		if n == nil {
			n = m.create(parent, base, l.name)
		}
		if n.dir != nil {
			return syscall.EISDIR
		}
		m.truncate(n, 0)
		m.write(n, []byte(holder), 0) // as much as fits: the lock is good without a name
		m.locks[l.name] = holder
		return nil
	})
	if err != nil {
		return nil, err
	}
	return l, nil
}

func (l *memLock) Close() error {
	if l.done.Swap(true) {
		return fs.ErrClosed
	}
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	delete(l.m.locks, l.name)
	return nil
}

type memVolume struct {
	m      *Mem
	dir    *node
	name   string
	closed atomic.Bool
}

// Volume implements FS. Directories count as file systems of their own: what is not below dir is
// neither flushed by SyncFS nor dropped when it fails.
func (m *Mem) Volume(dir string) (Volume, error) {
	v := &memVolume{m: m, name: path.Clean(dir)}
	err := m.do(Op{Kind: OpVolume, Path: v.name}, func() (err error) {
		v.dir, err = m.findDir(dir)
		return err
	})
	if err != nil {
		return nil, err
	}
	return v, nil
}

func (v *memVolume) SyncFS() error {
	op := Op{Kind: OpSyncFS, Path: v.name}
	return v.m.flush(op, func() (below []*node, err error) {
		if v.closed.Load() {
			return nil, fs.ErrClosed
		}
		for n := range v.m.dirty { // in no order: flushing one does not change the other
			if n.isWithin(v.dir) {
				below = append(below, n)
			}
		}
		return below, nil
	})
}

func (v *memVolume) Close() error {
	if v.closed.Swap(true) {
		return fs.ErrClosed
	}
	return nil
}
