//go:build !linux && !darwin

package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"syscall"
)

// SyncData flushes the file's metadata as well: there is no cheaper call here.
func (f *osFile) SyncData() error { return f.Sync() }

// Preallocate reserves nothing here.
func (f *osFile) Preallocate(int64, int64) error { return nil }

// SyncDir only looks whether dir is one: these systems have no call to flush names (NTFS logs
// them in order by itself).
func (osFS) SyncDir(dir string) error {
	e, err := OS.Stat(dir)
	if err == nil && !e.Dir {
		err = &fs.PathError{Op: "syncdir", Path: dir, Err: syscall.ENOTDIR}
	}
	return err
}

// Exchange cannot be had here.
func (osFS) Exchange(a, b string) error {
	return fmt.Errorf("exchange %s and %s: %w", a, b, errors.ErrUnsupported)
}

type osVolume struct{ dir string }

func (osFS) Volume(dir string) (Volume, error) {
	if _, err := OS.Stat(dir); err != nil {
		return nil, err
	}
	return osVolume{dir}, nil
}

// SyncFS cannot be had here.
func (v osVolume) SyncFS() error {
	return fmt.Errorf("flush the file system of %s: %w", v.dir, errors.ErrUnsupported)
}

func (osVolume) Close() error { return nil }
