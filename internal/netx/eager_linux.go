package netx

import (
	"net"
	"syscall"
)

// Options of TCP's that package syscall has no names for on every architecture.
const (
	tcpThinLinearTimeouts = 16 // since Linux 2.6.34
	tcpRTOMaxMs           = 44 // since Linux 6.15
)

// longestRetryMs is how long TCP waits at most before it sends again what was not acknowledged; the least that Linux takes.
const longestRetryMs = 1000

// Eager has a connection send again soon what was lost. By itself TCP waits twice as long each time, so that of a line that was
// cut for some seconds nothing is heard for as long again when it is whole. Where the system knows no such thing, nothing
// happens.
func Eager(c net.Conn) {
	s, ok := c.(syscall.Conn)
	if !ok {
		return
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpThinLinearTimeouts, 1)
		_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpRTOMaxMs, longestRetryMs)
	})
}
