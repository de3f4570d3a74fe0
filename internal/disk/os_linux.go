package disk

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

func (f *osFile) SyncData() error { return f.held("fdatasync", unix.Fdatasync) }

func (f *osFile) Preallocate(off, n int64) error {
	if n <= 0 {
		return nil
	}
	err := f.held("fallocate", func(fd int) error {
		return unix.Fallocate(fd, unix.FALLOC_FL_KEEP_SIZE, off, n)
	})
	if errors.Is(err, errors.ErrUnsupported) {
		return nil
	}
	return err
}

func (osFS) Exchange(a, b string) error {
	err := sameDirectory(a, b)
	if err == nil {
		err = uninterrupted(func() error {
			return unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE)
		})
	}
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) { // the file system, or the kernel, does not know it
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
	unit := uint64(s.Frsize)
	if unit == 0 {
		unit = uint64(s.Bsize)
	}
	return s.Bavail * unit, s.Blocks * unit, nil
}

// osVolume keeps a descriptor of the directory: the kernel remembers for each open file which
// write-back errors of the file system it has reported, so a descriptor that is opened only for
// the flush would miss those that came before.
type osVolume struct {
	f       osFile
	reports bool // a failed write-back fails syncfs too
}

func (osFS) Volume(dir string) (Volume, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	raw, err := d.SyscallConn()
	if err != nil {
		return nil, errors.Join(err, d.Close())
	}
	v := &osVolume{f: osFile{d, raw}}
	if v.reports, err = syncfsReports(dir); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return v, nil
}

func (v *osVolume) SyncFS() error {
	if !v.reports {
		return fmt.Errorf("syncfs %s: %w", v.f.Name(), errors.ErrUnsupported)
	}
	return v.f.held("syncfs", unix.Syncfs)
}

func (v *osVolume) Close() error { return v.f.Close() }

// syncfsReports tells whether a success of syncfs means what a success of fdatasync means. Linux
// reports write-back errors there since 5.8 (syncfs(2)), and only for file systems that write
// back through their own superblock: an overlay's does not see its upper layer's errors, and
// FUSE does not pass the flush on. So only the ones that are known to are trusted.
func syncfsReports(dir string) (bool, error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return false, fmt.Errorf("uname: %w", err)
	}
	if !atLeastRelease(unix.ByteSliceToString(u.Release[:]), 5, 8) {
		return false, nil
	}
	s, err := statfs(dir)
	if err != nil {
		return false, err
	}
	switch int64(s.Type) { //nolint:unconvert // 32 bits wide on some platforms
	case unix.EXT4_SUPER_MAGIC, unix.XFS_SUPER_MAGIC, unix.BTRFS_SUPER_MAGIC, unix.F2FS_SUPER_MAGIC, unix.TMPFS_MAGIC:
		return true, nil
	}
	return false, nil
}

// atLeastRelease reads the first two numbers of a kernel's release ("6.8.0-40-generic"); one
// that it cannot read is taken for old.
func atLeastRelease(release string, major, minor int) bool {
	var a, b int
	if n, _ := fmt.Sscanf(release, "%d.%d", &a, &b); n != 2 {
		return false
	}
	return a > major || a == major && b >= minor
}
