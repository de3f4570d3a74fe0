//go:build !linux && !darwin && !windows

package disk

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

// lockFile refuses: without a lock two brokers could write one directory.
func lockFile(*os.File) (held bool, err error) {
	return false, fmt.Errorf("file locks on this platform: %w", errors.ErrUnsupported)
}

func (osFS) Free(dir string) (avail, total uint64, err error) {
	return 0, 0, fmt.Errorf("free space of %s on this platform: %w", dir, errors.ErrUnsupported)
}

func isNoSpace(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}
