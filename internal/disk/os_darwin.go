package disk

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// SyncData uses F_FULLFSYNC, as os.File does here: fsync alone leaves the data in the drive's
// cache.
func (f *osFile) SyncData() error { return f.Sync() }

func (f *osFile) Preallocate(off, n int64) error {
	if n <= 0 {
		return nil
	}
	err := f.held("preallocate", func(fd int) error {
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			return err
		}
		missing := off + n - st.Blocks*512
		if missing <= 0 {
			return nil
		}
		return unix.FcntlFstore(uintptr(fd), unix.F_PREALLOCATE, &unix.Fstore_t{
			Flags: unix.F_ALLOCATEALL, Posmode: unix.F_PEOFPOSMODE, Length: missing,
		})
	})
	if errors.Is(err, errors.ErrUnsupported) {
		return nil
	}
	return err
}

func (osFS) Exchange(a, b string) error {
	err := sameDirectory(a, b)
	if err == nil {
		err = uninterrupted(func() error { return unix.RenamexNp(a, b, unix.RENAME_SWAP) })
	}
	if errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.EINVAL) {
		err = errors.ErrUnsupported
	}
	if err != nil {
		return &os.LinkError{Op: "exchange", Old: a, New: b, Err: err}
	}
	return nil
}

func (osFS) Free(dir string) (avail, total uint64, err error) {
	s, err := statfs(dir)
	if err != nil {
		return 0, 0, err
	}
	return s.Bavail * uint64(s.Bsize), s.Blocks * uint64(s.Bsize), nil
}

type osVolume struct{ dir string }

func (osFS) Volume(dir string) (Volume, error) {
	if _, err := OS.Stat(dir); err != nil {
		return nil, err
	}
	return osVolume{dir}, nil
}

// SyncFS cannot be had: sync(2) is asynchronous here and reports nothing.
func (v osVolume) SyncFS() error {
	return fmt.Errorf("flush the file system of %s: %w", v.dir, errors.ErrUnsupported)
}

func (osVolume) Close() error { return nil }
