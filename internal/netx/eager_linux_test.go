package netx

import (
	"net"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestEagerConnections: the system has taken what it was asked for; either end of a connection can be made so, and a
// connection that is none of the system's is left as it is.
func TestEagerConnections(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { require.NoError(t, l.Close()) }()
	near, err := net.Dial("tcp", l.Addr().String())
	require.NoError(t, err)
	far, err := l.Accept()
	require.NoError(t, err)
	for _, c := range []net.Conn{near, far} {
		Eager(c)
		raw, err := c.(syscall.Conn).SyscallConn()
		require.NoError(t, err)
		require.NoError(t, raw.Control(func(fd uintptr) {
			thin, err := syscall.GetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpThinLinearTimeouts)
			require.NoError(t, err)
			require.Equal(t, 1, thin)
			if longest, err := syscall.GetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpRTOMaxMs); err == nil { // where it is known
				require.Equal(t, longestRetryMs, longest)
			}
		}))
		require.NoError(t, c.Close())
	}
	Eager(&memConn{})
}
