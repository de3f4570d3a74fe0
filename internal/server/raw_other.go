//go:build !unix

package server

import (
	"net"
	"syscall"
)

// rawConn gives nothing: here sockets are read through net.Conn only.
func rawConn(net.Conn) syscall.RawConn { return nil }

func (c *connection) pull(uintptr) bool { return true }
