//go:build unix

package server

import (
	"errors"
	"io"
	"net"
	"syscall"
)

// rawConn gives the socket of a plain TCP connection, from which bytes can be taken without
// holding memory while there are none.
func rawConn(conn net.Conn) syscall.RawConn {
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return nil
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return nil // closed already; reading says so
	}
	return raw
}

// pull takes what the socket has. False: nothing, call again when there is something.
func (c *connection) pull(fd uintptr) bool {
	into := c.chunk()
	have := copy(into.b[:], c.in.head[:c.in.inHead])
	n, err := syscall.Read(int(fd), into.b[have:])
	for errors.Is(err, syscall.EINTR) {
		n, err = syscall.Read(int(fd), into.b[have:])
	}
	if err == nil && n > 0 {
		c.in.hold(into, have+n)
		c.in.pulled = n
		return true
	}
	c.s.chunks.Put(into)
	switch {
	case err == nil:
		c.in.pullErr = io.EOF
	case errors.Is(err, syscall.EAGAIN):
		return false
	default:
		c.in.pullErr = &net.OpError{
			Op: "read", Net: "tcp", Source: c.peer.Local, Addr: c.peer.Remote, Err: err,
		}
	}
	return true
}
