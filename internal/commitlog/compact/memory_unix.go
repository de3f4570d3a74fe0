//go:build unix

package compact

import (
	"syscall"
	"unsafe"
)

// allocate takes zeroed memory from the system, and gives it back with free.
func allocate(words int) (memory []uint64, free func(), err error) {
	bytes, err := syscall.Mmap(-1, 0, words*8, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		return nil, nil, err
	}
	// Pages are aligned far beyond a word.
	memory = unsafe.Slice((*uint64)(unsafe.Pointer(unsafe.SliceData(bytes))), words)
	return memory, func() { _ = syscall.Munmap(bytes) }, nil
}
