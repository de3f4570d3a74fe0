//go:build !linux

package netx

import "net"

// Eager has a connection send again soon what was lost; only on Linux.
func Eager(net.Conn) {}
