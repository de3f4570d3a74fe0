// Package disk is the seam to the file system. It decides what a file, a flush, a rename and a
// lock promise, and keeps that promise twice: OS is the operating system's file system, Mem is one
// in memory that loses, tears, refuses and forgets what a real disk may, the same for the same
// seed. Everything that stores bytes goes through an FS that it was given; nobody else opens files.
// The package refuses to know what is in a file: no logs, no formats, no policy about failures.
//
// What callers may build on, and nothing more:
//
//   - What WriteAt, Truncate and Preallocate did is durable after a SyncData (or a SyncFS) that
//     began after they returned and that succeeded.
//   - A name that was made, renamed or removed is durable after a SyncDir of its directory, and a
//     new directory's own name after a SyncDir of its parent.
//   - Until then a crash may keep any part of it. Unsynced writes survive in any order, by sectors
//     or torn at any byte; a file may have grown by zeros; and a Truncate may be lost although a
//     later WriteAt survived, so cut, flush, and only then write on. A Rename is atomic: after a
//     crash it has happened or not, never half.
//   - After a flush that failed nothing is known, and a later success means nothing: the system
//     marks the pages clean although they never reached the disk, and reads go on showing them.
//     A file whose flush failed must not be used again, nor flushed again.
package disk

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"syscall"
	"time"
)

// File is an open file without a position: whoever appends knows where. All methods are safe for
// concurrent use, ReadAt beside WriteAt and SyncData beside both. After Close they fail with
// fs.ErrClosed; what is running when Close is called still ends on this file and no other.
type File interface {
	// ReadAt follows io.ReaderAt: fewer bytes than asked only with an error, io.EOF at the end.
	io.ReaderAt
	// WriteAt writes all of p or says why not; on a full disk the n bytes that fitted stay in the
	// file. Past the end it makes a hole that reads as zeros.
	io.WriterAt
	io.Closer
	// Size is the file's length in bytes, unflushed writes included.
	Size() (int64, error)
	// Truncate cuts the file to size bytes, or grows it by a hole, and releases what was
	// preallocated beyond.
	Truncate(size int64) error
	// Preallocate reserves space for n bytes from off, so that writing there cannot fail for want
	// of space. The size stays as it is. Where the file system cannot, nothing is reserved and
	// nil returned: it is a precaution, not a promise. A disk too full answers IsNoSpace.
	Preallocate(off, n int64) error
	// SyncData returns when all that was written before the call is durable, the file's size
	// included (but not its name: see FS.SyncDir). After an error the file must not be used again.
	SyncData() error
	// Descriptor lends the file descriptor for the length of the call, for sendfile or fadvise;
	// it cannot be closed and given to another file meanwhile. False, without calling, where
	// there is none (memory, a closed file): use ReadAt.
	Descriptor(use func(fd int)) bool
}

// Mode is how Open treats a file that exists, or does not.
type Mode uint8

const (
	Read   Mode = iota // to read; must exist
	Write              // to read and write; must exist
	Create             // to read and write; made if missing, never cut
	New                // to read and write; must not exist
)

// Entry is what a directory knows about one name.
type Entry struct {
	Name    string // last element of the path
	Dir     bool
	Size    int64 // bytes; 0 for a directory
	ModTime time.Time
}

// FS is a file system. Names are joined with "/". Errors wrap fs.ErrNotExist and fs.ErrExist
// where they apply. Safe for concurrent use.
type FS interface {
	// Open opens a file, never a directory. A file made here is durable after SyncDir.
	Open(name string, m Mode) (File, error)
	// MkdirAll makes a directory and its missing parents; MkdirAllSync makes them durable too.
	MkdirAll(name string) error
	// List returns what a directory holds, sorted by name.
	List(dir string) ([]Entry, error)
	Stat(name string) (Entry, error)
	// Rename moves a file or a directory within the file system, also between directories. A
	// file takes the place of a file; a directory takes nobody's (fs.ErrExist).
	Rename(from, to string) error
	// Exchange lets two files of one directory change names, as one step: after a crash it has
	// happened or not. It takes no space, on a full disk either. errors.ErrUnsupported, with
	// nothing done, where platform or file system cannot.
	Exchange(a, b string) error
	// Remove removes a file, or a directory and all below it, not as one step: a crash or a
	// failure may leave a part. A missing name is not an error.
	Remove(name string) error
	// SyncDir makes the names in dir durable as they are. After an error its state is unknown.
	SyncDir(dir string) error
	// Free tells how many bytes of the file system that holds dir are left for us, and how many
	// it has in all.
	Free(dir string) (avail, total uint64, err error)
	// Lock takes the exclusive lock named by a file, made if missing, and writes holder into it;
	// *LockedError when somebody has it, in this process or another. The lock ends with Close or
	// with the process, the file stays.
	Lock(name, holder string) (io.Closer, error)
	// Volume holds on to the file system of dir. To be called once, before anything is written:
	// it reports the failures that happen from then on.
	Volume(dir string) (Volume, error)
}

// Volume flushes many files at the price of one.
type Volume interface {
	// SyncFS makes durable what was written below the Volume's directory before the call, data
	// and names (the system may do more than that). errors.ErrUnsupported, always or never, where
	// platform or file system cannot report a failure: flush file by file then. Any other error
	// condemns every file below the directory, since nobody knows which were meant.
	SyncFS() error
	Close() error
}

// LockedError is Lock's answer when somebody else has the lock.
type LockedError struct {
	Path   string
	Holder string // what the other wrote into the file; empty if it has not done so yet
}

func (e *LockedError) Error() string {
	if e.Holder == "" {
		return fmt.Sprintf("%s is locked by another process", e.Path)
	}
	return fmt.Sprintf("%s is locked by %s", e.Path, e.Holder)
}

// ErrTooLarge is ReadFile's answer for a file over its limit.
var ErrTooLarge = errors.New("file is larger than allowed")

// IsExhausted reports whether err means that the process, or the system, has no file descriptors
// left. It comes from opening a file alone, never from flushing one, and says nothing of the disk.
func IsExhausted(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE)
}

// IsNoSpace tells whether err says that a disk or a quota is full: what was refused can be tried
// again when there is space. No other error of a write is that harmless.
func IsNoSpace(err error) bool { return isNoSpace(err) }

// tempSuffix marks a file that WriteFileAtomic has not finished. One left behind by a crash holds
// nothing of value; the next WriteFileAtomic of the same name replaces it.
const tempSuffix = ".tmp"

// WriteFileAtomic makes data the content of name: after a crash, even one during the call, the
// file has its old content (or is still missing) or all of the new. When it returns nil the new
// content is durable. It writes a temporary file name.tmp, flushes it, renames it and flushes the
// directory; on error the old content is still there unless it was this last flush that failed,
// after which it may be either. One caller at a time for each name.
func WriteFileAtomic(fsys FS, name string, data []byte) error {
	temp := name + tempSuffix
	if err := fsys.Remove(temp); err != nil {
		return fmt.Errorf("write %s: remove what an earlier attempt left: %w", name, err)
	}
	if err := writeNew(fsys, temp, data); err != nil {
		return fmt.Errorf("write %s: %w", name, errors.Join(err, fsys.Remove(temp)))
	}
	if err := fsys.Rename(temp, name); err != nil {
		return fmt.Errorf("write %s: %w", name, errors.Join(err, fsys.Remove(temp)))
	}
	if err := fsys.SyncDir(path.Dir(name)); err != nil {
		return fmt.Errorf("write %s: flush its directory: %w", name, err)
	}
	return nil
}

// writeNew leaves a durable file whose name is not yet.
func writeNew(fsys FS, name string, data []byte) error {
	f, err := fsys.Open(name, New)
	if err != nil {
		return err
	}
	if _, err := f.WriteAt(data, 0); err != nil {
		return errors.Join(err, f.Close())
	}
	// Before the rename: the new name must never lead to a file that is empty or torn.
	if err := f.SyncData(); err != nil {
		return errors.Join(err, f.Close())
	}
	return f.Close()
}

// spareSuffix marks the file that keeps the space for the next WriteFileReserved of a name. Its
// content is of no value.
const spareSuffix = ".spare"

// reservedFileBytes is what a file may hold, at least, that WriteFileReserved can replace on a full disk.
const reservedFileBytes = 4 << 10

// WriteFileReserved is WriteFileAtomic for a small file that must be replaced on a full disk too:
// it keeps a second file, name.spare, whose space is taken already, writes there and exchanges the
// two. The space is never given back in between, so nobody else can take it. Where the disk was
// full from the beginning, or for content that has grown beyond 4 KiB, it needs space like
// WriteFileAtomic, and on platforms and file systems that cannot exchange names it is that.
func WriteFileReserved(fsys FS, name string, data []byte) error {
	spare := name + spareSuffix
	switch _, err := fsys.Stat(name); {
	case errors.Is(err, fs.ErrNotExist):
		if err := WriteFileAtomic(fsys, name, data); err != nil {
			return err
		}
		// The first of the two is there; without room for the second, the next call tries again.
		if err := fillSpare(fsys, spare, nil); err != nil && !IsNoSpace(err) {
			return fmt.Errorf("write %s: %w", name, err)
		}
		return nil
	case err != nil:
		return fmt.Errorf("write %s: %w", name, err)
	}
	if err := fillSpare(fsys, spare, data); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	switch err := fsys.Exchange(spare, name); {
	case errors.Is(err, errors.ErrUnsupported):
		return WriteFileAtomic(fsys, name, data)
	case err != nil:
		return fmt.Errorf("write %s: %w", name, err)
	}
	if err := fsys.SyncDir(path.Dir(name)); err != nil {
		return fmt.Errorf("write %s: flush its directory: %w", name, err)
	}
	return nil
}

// fillSpare leaves a durable file with data and the space of the next one.
func fillSpare(fsys FS, name string, data []byte) error {
	f, err := fsys.Open(name, Create)
	if err != nil {
		return err
	}
	space := max(reservedFileBytes, int64(len(data)))
	if err = f.Preallocate(0, space); err == nil {
		_, err = f.WriteAt(data, 0)
	}
	if err == nil && len(data) > 0 { // what it held before may have been longer
		err = f.Truncate(int64(len(data)))
	}
	if err == nil {
		err = f.SyncData()
	}
	return errors.Join(err, f.Close())
}

// ReadFile returns the content of a file of at most limit bytes, ErrTooLarge for a larger one.
func ReadFile(fsys FS, name string, limit int64) ([]byte, error) {
	f, err := fsys.Open(name, Read)
	if err != nil {
		return nil, err
	}
	data, err := readAll(f, limit)
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	return data, nil
}

func readAll(f File, limit int64) ([]byte, error) {
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	if size > limit {
		return nil, fmt.Errorf("%w: %d bytes, limit %d", ErrTooLarge, size, limit)
	}
	data := make([]byte, size)
	n, err := f.ReadAt(data, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return data[:n], nil
}

// MkdirAllSync makes a directory and its missing parents, all durable when it returns nil. It goes
// from the top, and flushes the name of each before it makes the next: so a directory that is
// found was made durably but for, perhaps, its own name, which is flushed again.
func MkdirAllSync(fsys FS, name string) error {
	name = path.Clean(name)
	parent := path.Dir(name)
	if parent == name {
		return nil
	}
	found, err := fsys.Stat(name)
	switch {
	case err == nil && !found.Dir:
		return fmt.Errorf("make directory %s: it is a file: %w", name, fs.ErrExist)
	case errors.Is(err, fs.ErrNotExist):
		if err := MkdirAllSync(fsys, parent); err != nil {
			return err
		}
		if err := fsys.MkdirAll(name); err != nil {
			return fmt.Errorf("make directory %s: %w", name, err)
		}
	case err != nil:
		return fmt.Errorf("make directory %s: %w", name, err)
	}
	// Who may not read the parent has not made a name in it either.
	if err := fsys.SyncDir(parent); err != nil && !errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("make directory %s: flush %s: %w", name, parent, err)
	}
	return nil
}

// RenameSync renames, durably when it returns nil. After an error the names may be either way.
func RenameSync(fsys FS, from, to string) error {
	if err := fsys.Rename(from, to); err != nil {
		return err
	}
	if err := fsys.SyncDir(path.Dir(to)); err != nil {
		return fmt.Errorf("rename %s to %s: flush the new directory: %w", from, to, err)
	}
	if path.Dir(from) == path.Dir(to) {
		return nil
	}
	if err := fsys.SyncDir(path.Dir(from)); err != nil {
		return fmt.Errorf("rename %s to %s: flush the old directory: %w", from, to, err)
	}
	return nil
}
