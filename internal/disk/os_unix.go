//go:build linux || darwin

package disk

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// uninterrupted runs a system call again when a signal interrupted it: a goroutine of ours is
// preempted by signals, so EINTR says nothing about the disk.
func uninterrupted(call func() error) error {
	for {
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// held runs a system call while the descriptor cannot be closed and given to another file: an
// fdatasync of the wrong file would acknowledge what is not on disk.
func (f *osFile) held(op string, call func(fd int) error) error {
	var err error
	if f.raw.Control(func(fd uintptr) { err = uninterrupted(func() error { return call(int(fd)) }) }) != nil {
		err = os.ErrClosed // the only reason for which a descriptor is not lent
	}
	if err != nil {
		return &fs.PathError{Op: op, Path: f.Name(), Err: err}
	}
	return nil
}

func (osFS) SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// sameDirectory refuses what Exchange does not promise, on every system alike.
func sameDirectory(a, b string) error {
	one, err := os.Lstat(a)
	if err != nil {
		return err
	}
	other, err := os.Lstat(b)
	switch {
	case err != nil:
		return err
	case one.IsDir() || other.IsDir():
		return unix.EISDIR
	case filepath.Dir(a) != filepath.Dir(b):
		return unix.EXDEV
	}
	return nil
}

// lockFile takes flock's lock, which ends when this open file is closed and not, as fcntl's,
// when any descriptor of the same file is.
func lockFile(f *os.File) (held bool, err error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return false, err
	}
	if e := raw.Control(func(fd uintptr) {
		err = uninterrupted(func() error { return unix.Flock(int(fd), unix.LOCK_EX|unix.LOCK_NB) })
	}); e != nil {
		return false, e
	}
	if errors.Is(err, unix.EWOULDBLOCK) {
		return false, nil
	}
	return err == nil, err
}

func statfs(dir string) (unix.Statfs_t, error) {
	var s unix.Statfs_t
	if err := uninterrupted(func() error { return unix.Statfs(dir, &s) }); err != nil {
		return s, &fs.PathError{Op: "statfs", Path: dir, Err: err}
	}
	return s, nil
}

func isNoSpace(err error) bool { return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) }
