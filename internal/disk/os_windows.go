package disk

import (
	"errors"
	"os"
	"syscall"

	"golang.org/x/sys/windows"
)

// lockAt is the byte that is locked, far past the holder's name: a lock here keeps others from
// reading what it covers.
const lockAt = 1 << 30

func lockFile(f *os.File) (held bool, err error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return false, err
	}
	if e := raw.Control(func(fd uintptr) {
		err = windows.LockFileEx(windows.Handle(fd), windows.LOCKFILE_EXCLUSIVE_LOCK|windows.LOCKFILE_FAIL_IMMEDIATELY,
			0, 1, 0, &windows.Overlapped{Offset: lockAt})
	}); e != nil {
		return false, e
	}
	if errors.Is(err, windows.ERROR_LOCK_VIOLATION) {
		return false, nil
	}
	return err == nil, err
}

func (osFS) Free(dir string) (avail, total uint64, err error) {
	name, err := windows.UTF16PtrFromString(dir)
	if err != nil {
		return 0, 0, err
	}
	if err := windows.GetDiskFreeSpaceEx(name, &avail, &total, nil); err != nil {
		return 0, 0, &os.PathError{Op: "free space", Path: dir, Err: err}
	}
	return avail, total, nil
}

func isNoSpace(err error) bool {
	for _, full := range []error{
		windows.ERROR_DISK_FULL, windows.ERROR_HANDLE_DISK_FULL, windows.ERROR_DISK_QUOTA_EXCEEDED,
		syscall.ENOSPC, syscall.EDQUOT, // never the system's own here, but a Mem's or a Fault's
	} {
		if errors.Is(err, full) {
			return true
		}
	}
	return false
}
