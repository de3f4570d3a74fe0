package disk

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"syscall"
)

// OS is the operating system's file system. Names with "/" work on every system.
var OS FS = osFS{}

type osFS struct{}

type osFile struct {
	*os.File
	raw syscall.RawConn
}

func (osFS) Open(name string, m Mode) (File, error) {
	flags := [...]int{
		Read:   os.O_RDONLY,
		Write:  os.O_RDWR,
		Create: os.O_RDWR | os.O_CREATE,
		New:    os.O_RDWR | os.O_CREATE | os.O_EXCL,
	}
	f, err := os.OpenFile(name, flags[m], 0o644)
	if err != nil {
		return nil, err
	}
	if m == Read { // the system itself refuses a directory in the other modes
		info, err := f.Stat()
		if err == nil && info.IsDir() {
			err = &fs.PathError{Op: "open", Path: name, Err: syscall.EISDIR}
		}
		if err != nil {
			return nil, errors.Join(err, f.Close())
		}
	}
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &osFile{f, raw}, nil
}

func (f *osFile) Size() (int64, error) {
	st, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return st.Size(), nil
}

func (f *osFile) Descriptor(use func(fd int)) bool {
	return f.raw.Control(func(fd uintptr) { use(int(fd)) }) == nil
}

func (osFS) MkdirAll(name string) error   { return os.MkdirAll(name, 0o755) }
func (osFS) Rename(from, to string) error { return os.Rename(from, to) }
func (osFS) Remove(name string) error     { return os.RemoveAll(name) }

func (osFS) List(dir string) ([]Entry, error) {
	found, err := os.ReadDir(dir) // sorted
	if err != nil {
		return nil, err
	}
	entries := make([]Entry, 0, len(found))
	for _, e := range found {
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed since the directory was read
		}
		if err != nil {
			return nil, err
		}
		if info.Mode()&fs.ModeSymlink != 0 {
			// What Stat and Open would see; a link that leads nowhere stays listed as itself.
			if target, err := os.Stat(dir + "/" + e.Name()); err == nil {
				info = target
			}
		}
		entries = append(entries, entryOf(e.Name(), info))
	}
	return entries, nil
}

func (osFS) Stat(name string) (Entry, error) {
	info, err := os.Stat(name)
	if err != nil {
		return Entry{}, err
	}
	return entryOf(info.Name(), info), nil
}

func entryOf(name string, info fs.FileInfo) Entry {
	e := Entry{Name: name, Dir: info.IsDir(), ModTime: info.ModTime()}
	if !e.Dir {
		e.Size = info.Size()
	}
	return e
}

// maxHolderBytes bounds what is read of a lock file that another process wrote.
const maxHolderBytes = 1024

func (osFS) Lock(name, holder string) (io.Closer, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	held, err := lockFile(f)
	if err != nil {
		return nil, errors.Join(&fs.PathError{Op: "lock", Path: name, Err: err}, f.Close())
	}
	if !held {
		// Between its lock and its writing the other shows an empty name or its predecessor's.
		buf := make([]byte, maxHolderBytes)
		n, _ := f.ReadAt(buf, 0)
		_ = f.Close() // read only
		return nil, &LockedError{Path: name, Holder: string(buf[:n])}
	}
	err = f.Truncate(0)
	if err == nil {
		_, err = f.WriteAt([]byte(holder), 0)
	}
	if err != nil && !IsNoSpace(err) { // on a full disk the lock is good, it only has no name
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}
