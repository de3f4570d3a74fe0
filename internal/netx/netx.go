// Package netx is the seam to the network. It decides how connections are made, which failures a
// connection may show, and how bytes of a file reach a connection. TCP is the real network; Mem is
// one in memory, for whole nodes in a testing/synctest bubble, with latencies, cuts, resets and
// dying hosts, the same for the same seed. Whoever listens or dials does it through a Network that
// it was given. The package refuses to know what is sent: no frames, no TLS, no retries.
package netx

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// Network makes connections. Safe for concurrent use.
type Network interface {
	// Listen listens on "host:port"; port 0 takes a free one (see the listener's Addr), an empty
	// host all addresses. The context bounds the call, not the listener.
	Listen(ctx context.Context, addr string) (net.Listener, error)
	// Dial connects to "host:port". The context bounds the call, not the connection; without a
	// deadline the network's own patience does, some two minutes.
	Dial(ctx context.Context, addr string) (net.Conn, error)
}

// A silent peer is given up about two minutes after its last sign of life: keepAliveIdle, and
// then keepAliveCount probes. Sooner than Linux's two hours, since each dead connection costs
// memory and a slot among the allowed ones.
const (
	keepAliveIdle     = 60 * time.Second
	keepAliveInterval = 15 * time.Second
	keepAliveCount    = 4
)

var keepAlive = net.KeepAliveConfig{
	Enable:   true,
	Idle:     keepAliveIdle,
	Interval: keepAliveInterval,
	Count:    keepAliveCount,
}

// TCP is the operating system's network, with TCP_NODELAY (Go's default) and keep-alive probes.
var TCP Network = tcp{}

type tcp struct{}

func (tcp) Listen(ctx context.Context, addr string) (net.Listener, error) {
	l := net.ListenConfig{KeepAliveConfig: keepAlive}
	// Go listens for Multipath TCP where there is some; we promise, and measure, plain TCP.
	l.SetMultipathTCP(false)
	return l.Listen(ctx, "tcp", addr)
}

func (tcp) Dial(ctx context.Context, addr string) (net.Conn, error) {
	d := net.Dialer{KeepAliveConfig: keepAlive}
	return d.DialContext(ctx, "tcp", addr)
}

// FileReader is what SendFile needs of a file; disk.File is one.
type FileReader interface {
	io.ReaderAt
	// Descriptor lends the file descriptor for the length of the call; false, without calling,
	// where there is none.
	Descriptor(use func(fd int)) bool
}

// FileError says that it was the file, not the connection, that failed in SendFile: it could not
// be read, or (io.ErrUnexpectedEOF) it ended early.
type FileError struct {
	Off int64 // where in the file
	Err error
}

func (e *FileError) Error() string { return fmt.Sprintf("read file at %d: %v", e.Off, e.Err) }
func (e *FileError) Unwrap() error { return e.Err }

// SendFile sends n bytes of f from off on c and returns how many it sent: n, unless there is an
// error. A *FileError is the file's, any other the connection's; after either, c is in the middle
// of something and can only be closed. The file has no position that would move, so any number
// of calls may send one file at the same time. Where file and connection both have descriptors
// the bytes never enter this process (sendfile(2), Linux), and then what is written to the range
// while it is being sent may be sent either way.
func SendFile(c net.Conn, f FileReader, off, n int64) (int64, error) {
	if n <= 0 {
		return 0, nil
	}
	sent, done, err := sendFile(c, f, off, n)
	if done {
		return sent, err
	}
	rest, err := copyFile(c, f, off+sent, n-sent)
	return sent + rest, err
}

// copyBytes is the size of the buffers of copyFile: large enough that a system call is cheap
// beside the copying.
const copyBytes = 64 << 10

var copyBuffers = sync.Pool{New: func() any { return new([copyBytes]byte) }}

func copyFile(c net.Conn, f FileReader, off, n int64) (sent int64, err error) {
	buf := copyBuffers.Get().(*[copyBytes]byte)
	defer copyBuffers.Put(buf)
	for sent < n {
		want := min(n-sent, copyBytes)
		got, readErr := f.ReadAt(buf[:want], off+sent)
		if got > 0 {
			wrote, err := c.Write(buf[:got])
			sent += int64(wrote)
			if err != nil {
				return sent, fmt.Errorf("send file: %w", err)
			}
		}
		if int64(got) == want {
			continue // io.EOF may come with the last byte
		}
		if readErr == nil || errors.Is(readErr, io.EOF) {
			readErr = io.ErrUnexpectedEOF
		}
		return sent, &FileError{Off: off + sent, Err: readErr}
	}
	return sent, nil
}
