package netx

import (
	"errors"
	"fmt"
	"io"
	"net"

	"golang.org/x/sys/unix"
)

// maxSendBytes bounds one sendfile call (the kernel's own bound is 2 GiB): cold pages are read
// from the disk inside it, on a thread that can do nothing else.
const maxSendBytes = 4 << 20

// sendFile returns done = false when the rest has to be copied.
func sendFile(c net.Conn, f FileReader, off, n int64) (sent int64, done bool, err error) {
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		return 0, false, nil
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return 0, true, fmt.Errorf("send file: %w", err)
	}
	s := sender{at: off, left: n}
	lent := f.Descriptor(func(fd int) {
		s.from = fd
		err = raw.Write(s.step) // waits by the poller for room in the socket, as Write does
	})
	sent = n - s.left
	switch {
	case !lent || s.unable:
		return sent, false, nil
	case s.err != nil:
		return sent, true, s.err
	case err != nil:
		return sent, true, fmt.Errorf("send file: %w", err)
	}
	return sent, true, nil
}

type sender struct {
	from     int
	at, left int64
	unable   bool  // the file system has no sendfile
	err      error // with the blame already laid
}

// step sends what the socket takes; false: wait until it takes more.
func (s *sender) step(socket uintptr) bool {
	for s.left > 0 {
		// The explicit offset leaves the descriptor's position alone, which all readers share.
		n, err := unix.Sendfile(int(socket), s.from, &s.at, int(min(s.left, maxSendBytes)))
		if n > 0 {
			s.left -= int64(n)
		}
		switch {
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EAGAIN):
			return false
		case errors.Is(err, unix.EINVAL), errors.Is(err, errors.ErrUnsupported):
			s.unable = true
			return true
		case errors.Is(err, unix.EIO), errors.Is(err, unix.EBADF), errors.Is(err, unix.EISDIR):
			s.err = &FileError{Off: s.at, Err: err}
			return true
		case err != nil:
			s.err = fmt.Errorf("send file: %w", err)
			return true
		case n == 0:
			s.err = &FileError{Off: s.at, Err: io.ErrUnexpectedEOF}
			return true
		}
	}
	return true
}
